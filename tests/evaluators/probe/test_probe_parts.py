"""The parts of the probe against plain numpy."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.evaluators.probe import choose_frames
from ncbench.evaluators.probe.colours import certain_coding, decode, offset, solutions
from ncbench.evaluators.probe.frame_offset import fit_offset, window
from ncbench.evaluators.probe.grid import LAYOUTS, UNDO, laid_out
from ncbench.evaluators.probe.pool import Gain, Moments, certainty, gain
from ncbench.evaluators.probe.precision import rounding
from ncbench.evaluators.probe.readings import AS_DECLARED, READINGS, complexity, file_axes, named_readings
from ncbench.evaluators.probe.sample import Thinned, angles, sample_frame
from ncbench.evaluators.probe.sequences import find_swaps, thumbnail
from ncbench.evaluators.probe.shift import fit_shift, move_errors
from ncbench.evaluators.view import View
from ncbench.geometry.axes import AXES, convert_axes
from ncbench.geometry.octahedral import decode_octahedral, encode_octahedral


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def facing(rng, *shape):
    """Normals that face the camera, in OpenCV axes."""
    return unit(rng.normal(size=(*shape, 3)) * [0.7, 0.7, 0.4] - [0, 0.2, 0.8])


def patches(seed, height=64, width=80, cell=9):
    """A picture of flat patches: edges all over."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, 1, (height * width // cell**2, 2)) * [height, width]
    own = facing(rng, len(seeds))
    rows, columns = np.mgrid[:height, :width]
    nearest = np.argmin((rows[..., None] - seeds[:, 0]) ** 2 + (columns[..., None] - seeds[:, 1]) ** 2, axis=-1)
    return own[nearest].astype(np.float32)


def view(normal, frame=0, sequence="a", valid=None):
    return View(sequence, frame, normal, np.ones(normal.shape[:2], bool) if valid is None else valid)


def test_readings_are_all_signed_permutations():
    assert len({matrix.tobytes() for matrix in READINGS + 0.0}) == 48
    np.testing.assert_array_equal(READINGS @ READINGS.swapaxes(1, 2), np.broadcast_to(np.eye(3), (48, 3, 3)))
    np.testing.assert_array_equal(READINGS[AS_DECLARED], np.eye(3))


@pytest.mark.parametrize(("true", "declared"), list(itertools.product(AXES, AXES)))
def test_named_readings_mend_files_of_another_convention(true, declared):
    n = facing(np.random.default_rng(0), 50)
    as_read = convert_axes(convert_axes(n, "opencv", true), declared, "opencv")
    reading = named_readings(declared)[true]
    np.testing.assert_allclose(as_read @ READINGS[reading].T, n)
    assert file_axes(reading, declared).name == true
    assert complexity(reading, declared) == (0 if true == declared else 1)


@pytest.mark.parametrize("declared", AXES)
def test_the_code_that_is_shown_brings_any_files_into_the_declared_axes(declared):
    truth = facing(np.random.default_rng(1), 20)
    for reading, matrix in enumerate(READINGS):
        canonical = truth @ matrix  # what is read: the reading undoes it
        n = convert_axes(canonical, "opencv", declared)
        mended = eval(file_axes(reading, declared).code, {"n": n})  # noqa: S307 - the text that users are shown
        np.testing.assert_allclose(convert_axes(mended, declared, "opencv"), truth, atol=1e-15)


def test_bgr_is_named():
    for name in AXES:
        n = facing(np.random.default_rng(2), 20)
        as_read = convert_axes(convert_axes(n, "opencv", name)[..., ::-1], name, "opencv")
        reading = next(k for k, matrix in enumerate(READINGS) if np.allclose(as_read @ matrix.T, n))
        assert (file_axes(reading, name).name, file_axes(reading, name).bgr) == (name, True)


@pytest.mark.parametrize(("height", "width"), [(5, 5), (4, 7)])
def test_layouts_look_up_what_the_shown_code_gives(height, width):
    n = facing(np.random.default_rng(3), height, width).astype(np.float32)
    for k, code in enumerate(UNDO):
        undone = eval(code, {"n": n, "np": np})  # noqa: S307 - the text that users are shown
        rows, columns = np.mgrid[: undone.shape[0], : undone.shape[1]].reshape(2, -1)
        found = laid_out(n, undone.shape[:2], rows, columns)[k].reshape(undone.shape)
        np.testing.assert_allclose(found, undone, atol=1e-7, err_msg=LAYOUTS[k])


def test_layouts_that_do_not_fit_the_size_and_pixels_without_a_direction_are_nan():
    n = np.zeros((4, 6, 3), np.float32)
    n[0, 0] = (0, 0, -2)
    found = laid_out(n, (4, 6), np.array([0, 1]), np.array([0, 1]))
    np.testing.assert_array_equal(found[0], [[0, 0, -1], [np.nan] * 3])
    assert np.isnan(found[4:]).all()


def test_angles_agree_with_their_construction():
    for degrees in (0, 1e-6, 1e-3, 30, 90, 179.9999, 180):
        a = np.array([1.0, 0, 0])
        b = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0])
        assert angles(a, b) == pytest.approx(degrees, abs=1e-9)


def test_moments_agree_with_plain_sums():
    rng = np.random.default_rng(4)
    p, t = facing(rng, 500), facing(rng, 500)
    found = Moments.of(p, t)
    for k in (0, 5, 17, 47):
        turned = p @ READINGS[k].T
        assert found.cosine[k] == pytest.approx((turned * t).sum(1).mean())
        a, b = turned - turned.mean(0), t - t.mean(0)
        assert found.correlation[k] == pytest.approx((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
    constant = Moments.of(np.tile([0.0, 0, -1], (500, 1)), t)
    np.testing.assert_allclose(constant.correlation, 0, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
@settings(max_examples=30, deadline=None)
def test_no_reading_follows_the_truth_better_than_honest_predictions(seed, share):
    """Noise without direction, a pull towards any fixed direction: the declared reading keeps the greatest trace."""
    rng = np.random.default_rng(seed)
    t = facing(rng, 4000)
    p = (1 - share) * t + share * unit(rng.normal(size=3))
    found = Moments.of(p, t)
    assert found.correlation[AS_DECLARED] >= found.correlation.max() - 1e-9


def test_gain_counts_groups_and_skips_what_is_unknown():
    before, after = np.full(80, 20.0), np.full(80, 10.0)
    before[0] = np.nan
    assert gain(before, after, np.arange(80) // 10) == Gain(20.0, 10.0, 1000.0)
    assert gain(before, after, np.zeros(80, int)).certainty == 0
    values = np.repeat([1.0, 2, 3, 4], 10)
    expected = 2.5 / (np.std([1, 2, 3, 4], ddof=1) / 2)
    assert certainty(values, np.repeat([0, 2, 3, 9], 10)) == pytest.approx(expected)
    assert not Gain(20.0, 16.5, 10.0).clear(0.2, 3.0, 3.0)
    assert Gain(20.0, 16.0, 10.0).clear(0.2, 3.0, 3.0)
    assert not Gain(5.0, 2.5, 10.0).clear(0.2, 3.0, 3.0)


@pytest.mark.parametrize("scale", [1, 255, 65535])
def test_colours_are_certain_from_their_lengths(scale):
    n = facing(np.random.default_rng(5), 300) * [1, -1, -1]
    colours = (n + 1) / 2 * scale
    assert certain_coding(colours) == "colours"
    np.testing.assert_allclose(unit(decode(colours, "colours")), n, atol=0.02)
    assert certain_coding(2 * n - 1) == "decoded_twice"
    np.testing.assert_allclose(decode(2 * n - 1, "decoded_twice"), n, atol=1e-12)
    for honest in (n, 0.9 * n, np.abs(n), n * np.linspace(0.3, 1.2, 300)[:, None]):
        assert certain_coding(honest) is None


def test_codings_are_undone_from_directions_alone():
    n = unit(np.random.default_rng(6).normal(size=(400, 3)))
    twice = solutions(unit(2 * n - 1), "decoded_twice")
    np.testing.assert_allclose(twice[0], n, atol=1e-9)
    both = solutions(unit((n + 1) / 2), "colours")
    assert np.min(np.linalg.norm(both - n, axis=-1), axis=0).max() < 1e-6


def test_the_offset_tells_codings_from_a_pull_towards_the_camera():
    rng = np.random.default_rng(7)
    n = facing(rng, 3000) * [1, -1, -1]
    assert offset(unit(n + 1), n, "colours").size == pytest.approx(1, abs=1e-6)
    assert offset(unit(2 * n - 1), n, "decoded_twice").holds
    for pull in (0.0, 0.5, 1.0, 2.0):
        shrunk = unit(n + pull * np.array([0, 0, 1.0]))
        assert not offset(shrunk, n, "colours").holds
        assert not offset(shrunk, n, "decoded_twice").holds


@pytest.mark.parametrize("kept", ["file", "unit vectors", "the store's coding"])
def test_truncation_shows_in_the_lengths(kept):
    n = unit(np.random.default_rng(8).normal(size=(64, 64, 3)))

    def stored(codes):
        file = codes / 255 * 2 - 1
        if kept == "file":
            return file.reshape(-1, 3)
        if kept == "unit vectors":
            return unit(file).astype(np.float32).reshape(-1, 3).astype(np.float64)
        return decode_octahedral(encode_octahedral(unit(file).astype(np.float32))).reshape(-1, 3).astype(np.float64)

    cut, rounded = rounding(stored(np.floor((n + 1) / 2 * 255))), rounding(stored(np.rint((n + 1) / 2 * 255)))
    assert cut is not None
    assert rounded is not None
    assert cut.truncated
    assert cut.slope == pytest.approx(1, abs=0.1)
    assert not rounded.truncated
    assert rounded.slope == pytest.approx(0, abs=0.1)


def test_other_precisions_are_not_taken_for_8_bits():
    n = unit(np.random.default_rng(9).normal(size=(2000, 3)))
    assert rounding(n) is None
    assert rounding(n.astype(np.float16).astype(np.float64)) is None
    assert rounding(np.floor((n + 1) / 2 * 65535) / 65535 * 2 - 1) is None
    assert (
        rounding(np.tile([0.0, 0, -1], (2000, 1))) is None or not rounding(np.tile([0.0, 0, -1], (2000, 1))).truncated
    )
    assert rounding(n[:50]) is None


def moving(count, step=2):
    """Frames cut out of one wide picture, ever farther to the right."""
    wide = patches(11, 48, 64 + step * count)
    return [np.ascontiguousarray(wide[:, step * k : step * k + 64]) for k in range(count)]


def offset_of(preds, truths):
    views = [view(truth, k) for k, truth in enumerate(truths)]
    frames = list(zip(preds, views, strict=True))
    return fit_offset([item for k in range(len(frames) - 2) if (item := window(frames[k : k + 3], 0)) is not None])


HOLDS = {"share": 0.3, "degrees": 3.0, "windows": 3, "agreeing": 0.75}


def test_late_and_early_predictions():
    truths = moving(9)
    late = offset_of([truths[0], *truths[:-1]], truths)
    early = offset_of([*truths[1:], truths[-1]], truths)
    assert (late.step, early.step) == (-1, 1)
    assert late.after == pytest.approx(0, abs=1e-6)
    assert late.holds(**HOLDS)
    assert early.holds(**HOLDS)


def test_honest_frozen_lagging_and_static_predictions_are_not_late():
    truths = moving(9)
    assert not offset_of(truths, truths).holds(**HOLDS)
    assert not offset_of([truths[0]] * 9, truths).holds(**HOLDS)
    for alpha in (0.2, 0.35, 0.5, 0.7):
        state, lagging = truths[0], []
        for truth in truths:
            state = alpha * truth + (1 - alpha) * state
            lagging.append(state)
        assert not offset_of(lagging, truths).holds(**HOLDS), alpha
    assert offset_of([truths[0]] * 9, [truths[0]] * 9) is None
    assert fit_offset([]) is None


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, -2), (-1, 0), (0, 2)])
def test_whole_pixel_shifts_are_measured(dx, dy):
    parts = []
    for seed in (12, 18, 19):
        wide = patches(seed, 112, 128)
        truth = np.ascontiguousarray(wide[8:-8, 8:-8])
        preds = np.ascontiguousarray(wide[8 - dy : 104 - dy, 8 - dx : 120 - dx])
        parts += move_errors(preds, view(truth), 0)
    found = fit_shift(parts)
    assert not fit_shift(parts[:4]).holds(0.15, 1.0, 5.0), "a single frame proves nothing"
    assert (round(found.dx), round(found.dy)) == (dx, dy)
    assert abs(found.dx - dx) < 0.25
    assert abs(found.dy - dy) < 0.25
    assert found.holds(0.15, 1.0, 5.0) == (dx != 0 or dy != 0)


def test_half_a_pixel_is_measured_from_finer_pictures():
    """Both maps are sampled from one picture of twice the resolution, a pixel of it apart."""
    parts = []
    for seed in (13, 16, 17):
        fine = patches(seed, 240, 240, cell=22)
        truth, preds = np.ascontiguousarray(fine[::2, 1::2]), np.ascontiguousarray(fine[::2, ::2])
        parts += move_errors(preds, view(truth), 0)
    found = fit_shift(parts)
    assert found.dx == pytest.approx(0.5, abs=0.2)
    assert found.dy == pytest.approx(0.0, abs=0.2)
    assert found.holds(0.15, 1.0, 5.0)


def test_predictions_that_are_wrong_at_edges_alone_are_not_shifted():
    truth = patches(14, 96, 112)
    preds = truth.copy()
    for axis in (0, 1):
        for step in (1, -1):
            preds[angles(truth, np.roll(truth, step, axis)) > 15] = (0, 0, -1)
    assert not fit_shift(move_errors(preds, view(truth), 0)).holds(0.15, 1.0, 5.0)
    assert fit_shift([]) is None
    assert move_errors(truth[:8, :8], view(truth[:8, :8]), 0) == []


def test_swaps_name_whose_truth_fits():
    truths = {name: [patches(hash_, 48, 64) for hash_ in seeds] for name, seeds in {"a": (1, 2), "b": (3, 4)}.items()}
    other = {"a": "b", "b": "a"}
    items = [
        thumbnail(truths[other[name]][k], view(truths[name][k], k, name)) for name in truths for k in range(2)
    ]  # fmt: skip
    swaps = find_swaps(items)
    assert {(swap.sequence, swap.other) for swap in swaps} == {("a", "b"), ("b", "a")}
    assert all(swap.gain.after < 0.01 and swap.correlation > 0.999 for swap in swaps)
    assert find_swaps(items[:2]) == []
    apart = [thumbnail(truths["a"][0], view(truths["a"][0], k, name)) for k, name in enumerate("ab")]
    assert find_swaps(apart) == []  # no frame index in common


def test_samples_are_seeded_valid_and_bounded():
    truth = patches(15)
    valid = np.zeros(truth.shape[:2], bool)
    valid[10:20] = True
    first, again = (sample_frame(truth, view(truth, valid=valid), truth, 100, 7) for _ in range(2))
    np.testing.assert_array_equal(first.target, again.target)
    assert len(first.target) == 100
    np.testing.assert_allclose(first.preds[0], first.target, atol=1e-6)
    np.testing.assert_allclose(first.raw, first.target, atol=1e-6)
    assert set(first.quadrant.tolist()) <= {0, 1}
    assert sample_frame(np.zeros_like(truth), view(truth), None, 100, 7) is None
    assert sample_frame(truth, view(truth, valid=np.zeros_like(valid)), None, 100, 7) is None


@given(st.integers(2, 9), st.integers(0, 200))
def test_thinning_keeps_an_even_share(limit, count):
    kept = Thinned(limit)
    for k in range(count):
        if kept.wants_next():
            kept.keep(k)
    assert len(kept.items) <= limit
    assert len(kept.items) >= min(count, limit // 2)
    assert len(set(np.diff(kept.items).tolist())) <= 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(3, 100))
def test_chosen_frames_are_frames_of_the_plan_in_order(lengths, budget):
    plan = {f"s{k:02d}": list(range(10, 10 + length)) for k, length in enumerate(lengths)}
    chosen = choose_frames(plan, budget)
    assert len(chosen) <= max(budget, 6)
    pairs = [(name, frame) for name, frame, _ in chosen]
    assert pairs == sorted(set(pairs))
    for (a, x, _), (b, y, follows) in itertools.pairwise(chosen):
        assert not follows or (a == b and y == x + 1)
    assert all(frame in plan[name] for name, frame in pairs)
    if sum(lengths) <= budget:
        assert len(chosen) == sum(lengths)
