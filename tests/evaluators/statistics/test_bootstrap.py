"""Intervals against scipy on plain arrays, closed forms, and their own promise: coverage."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.errors import ScoreError
from ncbench.evaluators.angular import AngularState
from ncbench.evaluators.statistics import bootstrap
from ncbench.evaluators.statistics.bootstrap import intervals
from ncbench.evaluators.statistics.pooling import pool_units, weighted_median
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.protocol_card import ClipWindows

THRESHOLDS = (5.0, 11.25, 30.0)


def statistics_of(errors, bin_width=0.01):
    """``errors``: {(sequence, frame): degrees}."""
    states = {key: AngularState.of(np.asarray(values, float), THRESHOLDS, 90.0) for key, values in errors.items()}
    return UnitStatistics.concatenate([UnitStatistics.of(*key, state, bin_width) for key, state in states.items()])


def random_errors(rng, sequences=5, frames=4, pixels=300):
    return {
        (f"s{s}", f): np.clip(rng.gamma(2.0, rng.uniform(2, 10), rng.integers(pixels // 2, pixels)), 0, 180)
        for s in range(sequences)
        for f in range(frames)
    }


def metrics_of(errors):
    within = [100 * np.mean(errors < threshold) for threshold in THRESHOLDS]
    return np.array([errors.mean(), np.median(errors), math.sqrt(np.mean(errors**2)), *within])


def by_hand(errors, pooling, drawn):
    """The pooled metrics of a list of sequences (a sequence may come several times), from the errors themselves."""
    of_sequence = {}
    for (sequence, _), values in errors.items():
        of_sequence.setdefault(sequence, []).append(values)
    parts = [of_sequence[name] for name in drawn]
    if pooling == "pixels":
        return metrics_of(np.concatenate([values for part in parts for values in part]))
    if pooling == "frames":
        return np.mean([metrics_of(values) for part in parts for values in part], axis=0)
    return np.mean([metrics_of(np.concatenate(part)) for part in parts], axis=0)


@pytest.mark.parametrize("pooling", ["pixels", "frames", "sequences"])
def test_a_row_of_weights_is_the_metric_of_the_repeated_sequences(pooling):
    rng = np.random.default_rng(1)
    errors = random_errors(rng)
    units = pool_units(statistics_of(errors), pooling)
    assert (units.unit, units.names) == ("sequences", ("s0", "s1", "s2", "s3", "s4"))
    weights = rng.multinomial(5, [0.2] * 5, size=20)
    expected = [by_hand(errors, pooling, np.repeat(units.names, row)) for row in weights]
    got = units.values(weights)
    np.testing.assert_allclose(np.delete(got, 1, 1), np.delete(expected, 1, 1), atol=2e-6)
    np.testing.assert_allclose(got[:, 1], np.array(expected)[:, 1], atol=0.05)  # sparse data: the bins' neighbours


def test_a_pooled_median_of_dense_data_is_within_a_bin():
    rng = np.random.default_rng(2)
    errors = {("s", f): np.clip(rng.gamma(2, 8, 40_000), 0, 180) for f in range(3)}
    units = pool_units(statistics_of(errors), "pixels", "frames")
    assert units.values(np.ones((1, 3)))[0, 1] == pytest.approx(np.median(np.concatenate([*errors.values()])), abs=0.01)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_the_weighted_median_halves_the_repeated_histogram(seed, units, bins):
    rng = np.random.default_rng(seed)
    histogram = rng.integers(0, 5, (units, bins)) * (rng.random((units, bins)) < 0.5)
    weights = rng.integers(0, 3, (4, units)).astype(float)
    got = weighted_median(np.cumsum(histogram, axis=1).T.copy(), weights, 0.5)
    for row, value in zip(weights, got, strict=True):
        pooled = row @ histogram
        if pooled.sum() == 0:
            assert np.isnan(value)
            continue
        edges = np.concatenate([[0], np.cumsum(pooled)])
        position = value / 0.5
        assert np.interp(position, np.arange(bins + 1), edges) == pytest.approx(pooled.sum() / 2)


def test_the_interval_is_scipys_on_the_plain_numbers():
    # one frame a sequence and equal pixel counts: the pooled mean is the mean of the frames' means
    rng = np.random.default_rng(3)
    errors = {(f"s{i:02}", 0): np.full(50, rng.gamma(3, 5)) for i in range(25)}
    means = np.array([values[0] for values in errors.values()])
    for method in ("percentile", "BCa"):
        table = intervals(statistics_of(errors), resamples=3000, method=method, seed=7).set_index("metric")
        plain = scipy.stats.bootstrap((means,), np.mean, n_resamples=3000, method=method, rng=np.random.default_rng(7))
        assert table.loc["mean", "value"] == pytest.approx(means.mean())
        got = (table.loc["mean", "low"], table.loc["mean", "high"])
        assert got == pytest.approx(tuple(plain.confidence_interval), abs=2e-6)
    assert table["unit"].eq("frames").all()
    assert table["units"].eq(25).all()


@pytest.mark.parametrize("method", ["percentile", "BCa"])
@pytest.mark.parametrize("units", [2, 7, 40])
def test_intervals_of_any_metric_are_scipys_draw_for_draw(units, method, monkeypatch):
    monkeypatch.setattr(bootstrap, "_BATCH_NUMBERS", 1000)  # several batches, also of units left out
    # whole numbers: sums do not depend on their order, so that the same units drawn in another order are a tie for both
    values = np.ceil(np.random.default_rng(units).gamma(2, 50, size=(units, 2)))

    def pooled(weights):
        mean = weights @ values / weights.sum(axis=1, keepdims=True)
        return np.column_stack([mean[:, 0], mean[:, 1] ** 3, mean[:, 0] / mean[:, 1]])

    def plain(first, second, axis):
        one, two = first.mean(axis=axis), second.mean(axis=axis)
        return np.stack([one, two**3, one / two])

    low, high, used = bootstrap.bootstrap_interval(pooled, units, 90, 500, method, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy says that an interval of two units is not defined
        settings = {"paired": True, "vectorized": True, "confidence_level": 0.9, "n_resamples": 500, "method": method}
        found = scipy.stats.bootstrap(values.T, plain, rng=np.random.default_rng(5), **settings)
    defined = np.isfinite(found.confidence_interval.low)
    assert [method if good else "percentile" for good in defined] == used
    ends = np.array([low, high])
    np.testing.assert_allclose(ends[:, defined], np.array(found.confidence_interval)[:, defined], rtol=1e-12)


def single_pixels(sequences, degrees):
    """One pixel a frame, written down without the detour over a state of 180,001 bins."""
    count = np.ones(len(degrees), np.int64)
    below = (degrees[:, None] < np.array(THRESHOLDS)).astype(np.int64)
    histogram = np.eye(36, dtype=np.uint32)[(degrees / 5).astype(int)]
    frames = tuple(range(len(degrees)))
    return UnitStatistics(
        sequences, frames, THRESHOLDS, 5.0, count, degrees, degrees**2, below, degrees.copy(), histogram
    )


@pytest.mark.parametrize("method", ["percentile", "BCa"])
@pytest.mark.parametrize("pooling", ["pixels", "frames"])
def test_intervals_cover_the_true_mean_as_promised(pooling, method):
    # sequences of 8 alike frames: sequence means are normal with the known mean 20
    rng = np.random.default_rng(4)
    covered, narrow, rounds = 0, 0, 200
    for _ in range(rounds):
        means = rng.normal(20, 4, 30)
        degrees = np.repeat(means, 8) + rng.normal(0, 0.1, 240)
        frames = single_pixels(tuple(f"s{s}" for s in range(30) for _ in range(8)), degrees)
        row = intervals(frames, pooling, resamples=300, method=method).iloc[0]
        covered += row["low"] <= 20 <= row["high"]
        if method == "percentile" and pooling == "pixels":
            # the same frames drawn one by one are no independent evidence, and the promise breaks
            single = intervals(frames, pooling, unit="frames", resamples=300, method=method).iloc[0]
            narrow += single["low"] <= 20 <= single["high"]
            assert single["units"] == 240
    assert 0.90 <= covered / rounds <= 0.98
    assert narrow / rounds < 0.7


def test_the_width_is_the_closed_form_of_a_mean():
    rng = np.random.default_rng(5)
    means = rng.normal(30, 5, 400)
    errors = {(f"s{i}", 0): [mean] for i, mean in enumerate(means)}
    table = intervals(statistics_of(errors, 1.0), resamples=4000, confidence=90).set_index("metric")
    half = scipy.stats.norm.ppf(0.95) * means.std() / math.sqrt(400)
    assert table.loc["mean", "high"] - table.loc["mean", "low"] == pytest.approx(2 * half, rel=0.06)


def test_one_seed_one_interval_in_any_order():
    errors = random_errors(np.random.default_rng(6), sequences=12)
    backwards = dict(reversed(errors.items()))
    first = intervals(statistics_of(errors), seed=3)
    assert first.equals(intervals(statistics_of(backwards), seed=3))
    assert not first.equals(intervals(statistics_of(errors), seed=4))
    assert first["seed"].eq(3).all()


def test_few_units_are_said_to_be_few():
    rng = np.random.default_rng(8)
    one = intervals(statistics_of(random_errors(rng, sequences=1)))
    assert one[["low", "high"]].isna().all(axis=None)
    assert one["note"].eq("no interval: only 1 of sequences").all()
    assert one["value"].notna().all()
    few = intervals(statistics_of(random_errors(rng, sequences=4)))
    assert few["note"].eq("rough: only 4 sequences").all()
    assert few["low"].notna().all()
    assert intervals(statistics_of(random_errors(rng, sequences=10)))["note"].eq("").all()
    alone = intervals(statistics_of(random_errors(rng, sequences=1, frames=12)), unit="frames")
    assert alone["units"].eq(12).all()


def test_a_metric_that_never_varies_has_its_value_as_interval():
    errors = {(f"s{i}", 0): np.full(10, 1.0 + i / 10) for i in range(12)}
    row = intervals(statistics_of(errors)).set_index("metric").loc["within_5"]
    assert (row["low"], row["value"], row["high"], row["method"]) == (100.0, 100.0, 100.0, "percentile")


def test_clips_are_averaged_but_sequences_are_drawn():
    rng = np.random.default_rng(12)
    errors = random_errors(rng, sequences=3, frames=7, pixels=2000) | {("s0", 3): []}
    units = pool_units(statistics_of(errors), "sequences", clips=ClipWindows(length=3, overlap=1))
    windows = [(0, 1, 2), (2, 3, 4), (4, 5, 6)]
    of_clips = {
        name: [metrics_of(np.concatenate([errors[name, f] for f in window])) for window in windows]
        for name in units.names
    }
    weights = np.array([[1, 1, 1], [0, 2, 1]])
    got = units.values(weights)
    for row, found in zip(weights, got, strict=True):
        clips = [clip for name, times in zip(units.names, row, strict=True) for clip in of_clips[name] * times]
        np.testing.assert_allclose(found, np.mean(clips, axis=0), atol=0.02)
        np.testing.assert_allclose(np.delete(found, 1), np.delete(np.mean(clips, axis=0), 1), atol=2e-6)
    assert units.unit == "sequences"


def test_values_of_frames_are_rounded_before_their_mean():
    errors = {("s", 0): [0.16], ("s", 1): [0.14], ("s", 2): [0.16]}
    units = pool_units(statistics_of(errors), "frames", decimals=1)
    assert units.values(np.ones((1, 1)))[0, 0] == pytest.approx(0.5 / 3)


def test_frames_without_a_pixel_change_nothing():
    errors = random_errors(np.random.default_rng(9), sequences=10)
    with_empty = errors | {("s0", 99): [], ("nothing", 0): []}
    for pooling in ("pixels", "frames", "sequences"):
        assert intervals(statistics_of(errors), pooling).equals(intervals(statistics_of(with_empty), pooling))


def test_rows_survive_a_file_and_any_cut(tmp_path):
    frames = statistics_of(random_errors(np.random.default_rng(10)))
    frames.save(tmp_path / "units.npz")
    again = UnitStatistics.load(tmp_path / "units.npz")
    assert (again.keys, again.thresholds, again.bin_width) == (frames.keys, frames.thresholds, frames.bin_width)
    assert intervals(again).equals(intervals(frames))
    (tmp_path / "units.npz").write_bytes(b"PK nonsense")
    with pytest.raises(ScoreError, match="no frame statistics"):
        UnitStatistics.load(tmp_path / "units.npz")
    with pytest.raises(ScoreError, match="no frame statistics"):
        UnitStatistics.load(tmp_path / "absent.npz")


def test_what_makes_no_sense_is_refused():
    frames = statistics_of(random_errors(np.random.default_rng(11)))
    for bad in ({"confidence": 0.95}, {"confidence": 100}, {"resamples": 10}):
        with pytest.raises(ScoreError, match="expected"):
            intervals(frames, **bad)
    with pytest.raises(ScoreError, match="whole sequences"):
        intervals(frames, "sequences", unit="frames")
    with pytest.raises(ScoreError, match="nothing to resample"):
        intervals(statistics_of({("s", 0): []}))
    with pytest.raises(ScoreError, match="come twice"):
        UnitStatistics.concatenate([frames, frames])
    with pytest.raises(ScoreError, match="at least one frame"):
        UnitStatistics.concatenate([])
    with pytest.raises(ScoreError, match="do not join"):
        UnitStatistics.concatenate([frames, statistics_of({("t", 0): [1.0]}, bin_width=0.1)])
    with pytest.raises(ScoreError, match="multiple of 0.001"):
        statistics_of({("t", 0): [1.0]}, bin_width=0.0015)
