"""Angular errors and their statistics against float64 references."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ncbench.errors import ScoreError
from ncbench.evaluators.angular import AngularState, angular_error, check_invariants, metric_name

THRESHOLDS = (5.0, 7.5, 11.25, 22.5, 30.0)


def rotated(degrees, rng, count):
    """Pairs of unit vectors at exactly known angles, by construction in float64."""
    a = rng.normal(size=(count, 3))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    side = np.cross(a, rng.normal(size=(count, 3)))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    angle = np.radians(degrees)[:, None]
    return a, np.cos(angle) * a + np.sin(angle) * side


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
    got = angular_error(a, b)
    wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
    zero = ~(np.any(a != 0, 1) & np.any(b != 0, 1))
    scale_a = np.abs(wide_a).max(1, keepdims=True)
    scale_b = np.abs(wide_b).max(1, keepdims=True)
    ua = np.where(scale_a > 0, wide_a / np.where(scale_a > 0, scale_a, 1), 0)
    ub = np.where(scale_b > 0, wide_b / np.where(scale_b > 0, scale_b, 1), 0)
    cross = np.cross(ua, ub)
    expected = np.degrees(np.arctan2(np.sqrt((cross**2).sum(1)), (ua * ub).sum(1))).astype(np.float64)
    np.testing.assert_array_equal(np.isnan(got), zero)
    np.testing.assert_allclose(got[~zero], expected[~zero], atol=1e-9)


@pytest.mark.parametrize("bad", [[0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 1], [0, -np.inf, np.nan]])
def test_vectors_of_no_direction_give_nan(bad):
    good = np.array([[0.0, 0.0, -1.0]])
    assert np.isnan(angular_error(np.array([bad], float), good)).all()
    assert np.isnan(angular_error(good, np.array([bad], float))).all()


@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((4, 2), (4, 2)), ((), ())])
def test_wrong_shapes_are_refused(shapes):
    with pytest.raises(ScoreError, match="equal shape"):
        angular_error(np.zeros(shapes[0]), np.zeros(shapes[1]))


errors_strategy = hnp.arrays(np.float64, st.integers(1, 300), elements=st.floats(0, 180) | st.just(np.nan))


@given(errors_strategy)
@settings(max_examples=60, deadline=None)
def test_statistics_agree_with_numpy(errors):
    charged = np.where(np.isnan(errors), 90.0, errors)
    metrics = AngularState.of(errors, THRESHOLDS, 90.0).metrics()
    assert metrics["mean"] == pytest.approx(np.mean(charged), abs=1e-9)
    assert metrics["rmse"] == pytest.approx(math.sqrt(np.mean(charged**2)), abs=1e-9)
    assert metrics["median"] == pytest.approx(np.median(charged), abs=0.001)
    for threshold in THRESHOLDS:
        assert metrics[metric_name(threshold)] == pytest.approx(100 * np.mean(charged < threshold), abs=1e-9)
    check_invariants(metrics, "here")


@given(errors_strategy, st.integers(0, 300))
@settings(max_examples=40, deadline=None)
def test_any_split_merges_to_the_whole(errors, cut):
    whole = AngularState.of(errors, THRESHOLDS, 90.0)
    merged = AngularState.of(errors[:cut], THRESHOLDS, 90.0) + AngularState.of(errors[cut:], THRESHOLDS, 90.0)
    assert (merged.count, merged.invalid) == (whole.count, whole.invalid)
    np.testing.assert_array_equal(merged.histogram, whole.histogram)
    np.testing.assert_array_equal(merged.below, whole.below)
    assert merged.total == pytest.approx(whole.total, rel=1e-12)


def test_thresholds_are_strict():
    metrics = AngularState.of(np.array([5.0, np.nextafter(5.0, 0)]), (5.0,), 90.0).metrics()
    assert metrics["within_5"] == 50.0


def test_an_invalid_prediction_counts_as_stated_and_is_reported():
    state = AngularState.of(np.array([np.nan, 0.0]), THRESHOLDS, 90.0)
    assert (state.invalid, state.metrics()["mean"]) == (1, 45.0)


def test_no_pixel_gives_no_number():
    assert AngularState.empty(THRESHOLDS).metrics() == {}


def test_states_of_other_thresholds_do_not_add():
    with pytest.raises(ScoreError, match="do not add"):
        AngularState.empty((5.0,)) + AngularState.empty((6.0,))


GOOD = {"mean": 10.0, "median": 8.0, "rmse": 12.0, "within_5": 20.0, "within_11_25": 60.0}


@pytest.mark.parametrize(
    "change", [{"mean": 181.0}, {"mean": math.nan}, {"rmse": 9.0}, {"within_5": 61.0}, {"within_11_25": 101.0}]
)
def test_contradicting_numbers_are_refused(change):
    check_invariants(GOOD, "here")
    with pytest.raises(ScoreError, match="here"):
        check_invariants(GOOD | change, "here")
