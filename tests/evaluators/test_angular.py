"""Angular errors and their statistics against float64 references that share no code with them."""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ncbench.errors import ScoreError
from ncbench.evaluators.angular import (
    THRESHOLDS,
    AngularState,
    angular_error,
    angular_metrics,
    metric_name,
)
from ncbench.evaluators.invariants import check_invariants


def rotated(degrees, rng, count):
    """Pairs of unit vectors at exactly known angles, by construction in float64."""
    a = rng.normal(size=(count, 3))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    side = np.cross(a, rng.normal(size=(count, 3)))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    angle = np.radians(degrees)[:, None]
    return a, np.cos(angle) * a + np.sin(angle) * side


def reference_angles(a, b):
    """Angles in degrees by way of unit vectors in extended precision; NaN where a vector has no direction."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        a, b = (v / np.abs(v).max(-1, keepdims=True) for v in (a.astype(np.longdouble), b.astype(np.longdouble)))
        cross = np.cross(a, b)
        angles = np.degrees(np.arctan2(np.sqrt((cross**2).sum(-1)), (a * b).sum(-1)))
    return angles.astype(np.float64)


def reference_metrics(errors, thresholds=THRESHOLDS):
    values = {"mean": np.mean(errors), "median": np.median(errors), "rmse": math.sqrt(np.mean(errors**2))}
    return values | {metric_name(t): 100 * np.mean(errors < t) for t in thresholds}


def assert_close(metrics, expected):
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = {"mean": 1e-6, "rmse": 1e-6, "median": 0.00051}.get(name, 1e-9)
        assert metrics[name] == pytest.approx(value, abs=tolerance), name


def fields(state):
    return (*vars(state).values(),)[2:], state.histogram.tobytes()


# ---- angles


def test_known_angles_from_nano_degrees_to_180():
    rng = np.random.default_rng(0)
    degrees = np.concatenate([[0.0, 1e-9, 1e-6, 1e-3, 90.0, 179.999999, 180.0], rng.uniform(0, 180, 1000)])
    a, b = rotated(degrees, rng, len(degrees))
    np.testing.assert_allclose(angular_error(a, b), degrees, atol=1e-9)


@given(
    hnp.arrays(np.float32, (17, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    hnp.arrays(np.float32, (17, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32)),
)
def test_any_finite_vectors_agree_with_numpy(a, b):
    got, expected = angular_error(a, b), reference_angles(a, b)
    np.testing.assert_array_equal(np.isnan(got), ~(np.any(a != 0, 1) & np.any(b != 0, 1)))
    np.testing.assert_allclose(got, expected, atol=1e-9)


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e-160, 1e160, 1e307])
def test_float64_vectors_of_any_length_have_an_angle(scale):
    a, b = np.array([[0.0, 3.0, 4.0]]) * scale, np.array([[0.0, 4.0, 3.0]])
    expected = math.degrees(math.acos(24 / 25))
    for pair in ((a, b), (b, a)):
        assert angular_error(*pair).item() == pytest.approx(expected, abs=1e-9)
        assert angular_metrics(*pair)["mean"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("bad", [[0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 1], [0, -np.inf, np.nan]])
def test_vectors_of_no_direction_give_nan(bad):
    good = np.array([[0.0, 0.0, -1.0]])
    assert np.isnan(angular_error(np.array([bad], float), good)).all()
    assert np.isnan(angular_error(good, np.array([bad], float))).all()


@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((4, 2), (4, 2)), ((), ())])
def test_wrong_shapes_are_refused(shapes):
    for function in (angular_error, angular_metrics):
        with pytest.raises(ScoreError, match="equal shape"):
            function(np.zeros(shapes[0]), np.zeros(shapes[1]))


# ---- scoring maps of vectors


@st.composite
def maps(draw):
    """Predictions, truth and mask with noise of any size, lengths far from one, and bad predictions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from([(1,), (7,), (5, 9), (47, 53), (2, 33, 40)]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    target = rng.normal(size=(*shape, 3))
    preds = target + draw(st.sampled_from([0, 1e-4, 0.3, 30])) * rng.normal(size=(*shape, 3))
    preds *= 10.0 ** rng.uniform(-15, 15, (*shape, 1))
    target *= 10.0 ** rng.uniform(-15, 15, (*shape, 1))
    for bad in (0.0, np.nan, np.inf):
        preds[rng.random(shape) < draw(st.sampled_from([0, 0.1]))] = bad
    mask = rng.random(shape) < draw(st.sampled_from([0, 0.02, 0.7, 1]))
    target[~mask & (rng.random(shape) < 0.5)] = draw(st.sampled_from([0, np.nan, np.inf]))
    return preds.astype(dtype), target.astype(dtype), mask


@given(maps(), st.sampled_from([90.0, 0.0, 180.0, 7.5]))
@settings(max_examples=80, deadline=None)
def test_scores_agree_with_numpy(given_maps, invalid_error):
    preds, target, mask = given_maps
    state = AngularState.score(preds, target, mask, THRESHOLDS, invalid_error)
    errors = reference_angles(preds[mask], target[mask])
    bad = np.isnan(errors)
    assert (state.count, state.invalid) == (mask.sum(), bad.sum())
    assert state.histogram.sum() == state.count
    metrics = state.metrics()
    assert metrics == angular_metrics(preds, target, mask, THRESHOLDS, invalid_error)
    assert_close(metrics, reference_metrics(np.where(bad, invalid_error, errors)) if mask.any() else {})
    if metrics:
        check_invariants(metrics, "here")


@given(st.floats(0, 180), st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_a_pixel_is_right_to_a_millionth_of_a_degree(degrees, seed):
    a, b = (v.astype(np.float32) for v in rotated([degrees], np.random.default_rng(seed), 1))
    assert angular_metrics(a, b)["mean"] == pytest.approx(reference_angles(a, b).item(), abs=1e-6)


def test_pixels_of_every_block_count():
    """More than one block of the kernel, with an error in the last pixel of each size."""
    for count in (2047, 2048, 2049, 4096, 5000):
        target = np.tile(np.float32([0, 0, -1]), (count, 1))
        preds = target.copy()
        preds[-1] = (0, -1, 0)
        state = AngularState.score(preds, target)
        assert (state.count, state.histogram[0], state.histogram[90_000]) == (count, count - 1, 1)
        assert state.metrics()["mean"] == 90 / count


def test_truth_of_no_direction_inside_the_mask_is_refused():
    good, mask = np.ones((2, 3)), np.array([True, False])
    for bad in (0, np.nan, np.inf):
        target = np.array([[1.0, 1, 1], [bad] * 3])
        assert angular_metrics(good, target, mask)["mean"] == 0
        with pytest.raises(ScoreError, match="at 1 pixels inside the mask"):
            angular_metrics(good, target)
        with pytest.raises(ScoreError, match="at 1 pixels inside the mask"):
            angular_metrics(target, target)


def test_any_memory_layout_gives_the_same_state():
    rng = np.random.default_rng(1)
    preds, target = rng.normal(size=(2, 3, 20, 30)).astype(np.float32)
    mask = rng.random((30, 20)).T < 0.5
    views = [np.moveaxis(array, 0, -1) for array in (preds, target)]
    expected = fields(AngularState.score(*(np.array(view, order="C") for view in views), np.array(mask, order="C")))
    assert fields(AngularState.score(*views, mask)) == expected
    assert fields(AngularState.score(*(view.astype(">f4") for view in views), mask)) == expected
    assert fields(AngularState.score(views[0].astype(np.float64), views[1], mask)) == expected
    for array in views:
        array.flags.writeable = False
    assert fields(AngularState.score(*views, mask)) == expected
    halves = [view.astype(np.float16) for view in views]
    assert fields(AngularState.score(*halves)) == fields(AngularState.score(*(h.astype(np.float64) for h in halves)))


@pytest.mark.parametrize("mask", [np.ones((4, 4), bool), np.ones((4, 5), np.uint8)])
def test_masks_of_another_shape_or_kind_are_refused(mask):
    with pytest.raises(ScoreError, match="mask of shape"):
        angular_metrics(np.ones((4, 5, 3)), np.ones((4, 5, 3)), mask)


@pytest.mark.parametrize("thresholds", [(0.0,), (181.0,), (30.0, 5.0), (5.0, 5.0), (5.00001,), (math.nan,)])
def test_thresholds_that_cannot_be_exact_are_refused(thresholds):
    with pytest.raises(ScoreError, match="ascending whole multiples"):
        AngularState.empty(thresholds)


@pytest.mark.parametrize("charge", [-1, 181, math.nan])
def test_a_charge_that_is_no_angle_is_refused(charge):
    with pytest.raises(ScoreError, match=r"\[0, 180\]"):
        angular_metrics(np.ones((1, 3)), np.ones((1, 3)), invalid_error=charge)


# ---- exactness at thresholds


def nearly(edge, steps):
    """Slopes y and angles of (1, y, 0) to the x axis, a few units in the last place around an edge."""
    centre = math.tan(math.radians(edge))
    slopes = centre + np.spacing(centre) * np.arange(-steps, steps + 1)
    return slopes, np.array([math.degrees(math.atan2(y, 1.0)) for y in slopes])


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_the_last_bit_decides_at_a_threshold(threshold):
    slopes, errors = nearly(threshold, 40)
    assert 0 < (errors < threshold).sum() < len(errors)
    preds = np.stack([np.ones_like(slopes), slopes, np.zeros_like(slopes)], axis=-1)
    target = np.broadcast_to([1.0, 0, 0], preds.shape)
    below = angular_metrics(preds, target, thresholds=[threshold])[metric_name(threshold)]
    assert below == 100 * (errors < threshold).sum() / len(errors)


def test_every_bin_begins_exactly_at_its_edge():
    edges = np.random.default_rng(3).choice(np.arange(1, 89_999), 400, replace=False) / 1000
    slopes, errors = (np.concatenate(parts) for parts in zip(*(nearly(edge, 3) for edge in edges), strict=True))
    preds = np.stack([np.ones_like(slopes), slopes, np.zeros_like(slopes)], axis=-1)
    found = AngularState.score(preds, np.broadcast_to([1.0, 0, 0], preds.shape)).histogram
    bins = np.searchsorted(np.arange(180_001) / 1000, errors, side="right") - 1
    np.testing.assert_array_equal(found, np.bincount(bins, minlength=180_001))


@pytest.mark.parametrize(("pred", "degrees"), [((1, 0, 1), 45), ((1, 0, 0), 90), ((-1, 0, -1), 135)])
def test_an_error_of_exactly_the_threshold_is_not_below(pred, degrees):
    truth = np.float32([[0, 0, 2]])
    metrics = angular_metrics(np.float32([pred]), truth, thresholds=[degrees, degrees + 0.001])
    assert list(metrics.values())[-2:] == [0.0, 100.0]


def test_a_charge_of_exactly_the_threshold_is_not_below():
    zero, truth = np.zeros((1, 3)), np.ones((1, 3))
    assert angular_metrics(zero, truth, thresholds=[11.25], invalid_error=11.25)["within_11_25"] == 0
    just_below = math.nextafter(11.25, 0)
    assert angular_metrics(zero, truth, thresholds=[11.25], invalid_error=just_below)["within_11_25"] == 100


# ---- merging


@given(maps(), st.lists(st.integers(0, 5000), max_size=4), st.randoms())
@settings(max_examples=40, deadline=None)
def test_any_split_merged_in_any_order_is_the_whole(given_maps, cuts, random):
    preds, target, mask = (given_maps[0].reshape(-1, 3), given_maps[1].reshape(-1, 3), given_maps[2].reshape(-1))
    whole = AngularState.score(preds, target, mask)
    parts = [np.split(array, sorted(min(cut, len(mask)) for cut in cuts)) for array in (preds, target, mask)]
    states = [AngularState.score(*part) for part in zip(*parts, strict=True)]
    random.shuffle(states)
    merged = reduce(add, states, AngularState.empty())
    assert fields(merged) == fields(whole)
    assert merged.metrics() == whole.metrics()


def test_sums_of_the_largest_errors_do_not_overflow():
    target = np.tile(np.float32([0, 0, -1]), (300_000, 1))
    state = AngularState.score(-target, target)
    state = reduce(add, [state] * 200)
    assert (state.metrics()["mean"], state.metrics()["rmse"]) == (180.0, 180.0)


def test_threads_score_side_by_side():
    rng = np.random.default_rng(5)
    frames = [rng.normal(size=(2, 60, 80, 3)).astype(np.float32) for _ in range(6)]
    one_by_one = [AngularState.score(*frame) for frame in frames]
    with ThreadPoolExecutor(2) as threads:
        states = list(threads.map(lambda frame: AngularState.score(*frame), frames))
    assert [fields(state) for state in states] == [fields(state) for state in one_by_one]


def test_states_of_other_thresholds_do_not_add():
    with pytest.raises(ScoreError, match="do not add"):
        AngularState.empty((5.0,)) + AngularState.empty((6.0,))


# ---- errors known already

errors_strategy = hnp.arrays(np.float64, st.integers(1, 300), elements=st.floats(0, 180) | st.just(np.nan))


@given(errors_strategy)
@settings(max_examples=60, deadline=None)
def test_statistics_of_known_errors_agree_with_numpy(errors):
    state = AngularState.of(errors, THRESHOLDS, 90.0)
    assert_close(state.metrics(), reference_metrics(np.where(np.isnan(errors), 90.0, errors)))
    assert (state.count, state.invalid) == (len(errors), np.isnan(errors).sum())
    check_invariants(state.metrics(), "here")


@given(maps())
@settings(max_examples=20, deadline=None)
def test_the_kernel_counts_as_the_errors_themselves_would(given_maps):
    preds, target, mask = given_maps
    fused = AngularState.score(preds, target, mask)
    apart = AngularState.of(angular_error(preds[mask], target[mask]), THRESHOLDS, 90.0)
    np.testing.assert_array_equal(fused.histogram, apart.histogram)
    assert abs(fused.total - apart.total) <= fused.count


def test_known_errors_must_be_angles():
    for bad in (-1.0, 180.1, math.inf):
        with pytest.raises(ScoreError, match=r"\[0, 180\]"):
            AngularState.of(np.array([bad]), THRESHOLDS, 90.0)


def test_no_pixel_gives_no_number():
    assert AngularState.empty(THRESHOLDS).metrics() == {}
    assert AngularState.of(np.empty(0), THRESHOLDS, 90.0).metrics() == {}
    assert angular_metrics(np.ones((4, 5, 3)), np.zeros((4, 5, 3)), np.zeros((4, 5), bool)) == {}
    assert angular_metrics(np.ones((0, 3)), np.ones((0, 3))) == {}


GOOD = {"mean": 10.0, "median": 8.0, "rmse": 12.0, "within_5": 20.0, "within_11_25": 60.0}


@pytest.mark.parametrize(
    "change", [{"mean": 181.0}, {"mean": math.nan}, {"rmse": 9.0}, {"within_5": 61.0}, {"within_11_25": 101.0}]
)
def test_contradicting_numbers_are_refused(change):
    check_invariants(GOOD, "here")
    with pytest.raises(ScoreError, match="here"):
        check_invariants(GOOD | change, "here")
