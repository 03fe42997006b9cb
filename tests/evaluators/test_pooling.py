"""Three ways to pool against plain numpy, and the same bits from one job and from many."""

import math
import random

import numpy as np
import pytest

from ncbench.errors import ScoreError
from ncbench.evaluators.angular import THRESHOLDS, AngularState
from ncbench.evaluators.invariants import check_invariants
from ncbench.evaluators.pooling import Pool, mean_of, pool

HOW = ["pixels", "frames", "sequences"]


def values(errors):
    """Mean, median, rmse and accuracies of plain errors."""
    return np.array(
        [
            errors.mean(),
            np.median(errors),
            math.sqrt((errors**2).mean()),
            *(100 * (errors < t).mean() for t in THRESHOLDS),
        ]
    )


@pytest.fixture(scope="module")
def errors():
    """Frames that differ in noise and size, as real ones do; one without a valid pixel, one sequence of only such."""
    rng = np.random.default_rng(0)
    frames = {
        name: [np.abs(rng.normal(0, rng.uniform(2, 40), rng.integers(5, 900))) for _ in range(4)] for name in "abc"
    }
    frames["b"].append(np.empty(0))
    frames["d"] = [np.empty(0)]
    return frames


@pytest.fixture(scope="module")
def states(errors):
    return {name: [AngularState.of(e, THRESHOLDS, 90.0) for e in frames] for name, frames in errors.items()}


def test_every_pooling_agrees_with_numpy(errors, states):
    frames = [e for sequence in errors.values() for e in sequence if e.size]
    sequences = [np.concatenate(errors[name]) for name in "abc"]
    expected = {
        "pixels": values(np.concatenate(frames)),
        "frames": np.mean([values(e) for e in frames], axis=0),
        "sequences": np.mean([values(e) for e in sequences], axis=0),
    }
    found = {how: pool(states, how) for how in HOW}
    for how in HOW:
        got = list(found[how].values())
        np.testing.assert_allclose(got[:1] + got[2:], np.delete(expected[how], 1), atol=1e-6)
        assert got[1] == pytest.approx(expected[how][1], abs=0.001)
        check_invariants(found[how], how)
    assert len({metrics["mean"] for metrics in found.values()}) == 3


def test_a_small_bad_frame_weighs_more_over_frames_than_over_pixels():
    good, bad = (AngularState.of(np.full(n, e), (11.25,), 90.0) for n, e in ((90, 10.0), (10, 50.0)))
    frames = {"one": [good, good], "two": [bad]}
    means = [pool(frames, how)["mean"] for how in HOW]
    assert means == [pytest.approx(230 / 19), pytest.approx(70 / 3), 30.0]
    within = [pool(frames, how)["within_11_25"] for how in HOW]
    assert within == [pytest.approx(100 * 180 / 190), pytest.approx(200 / 3), 50.0]


def test_decimals_round_each_frame_before_the_mean():
    frames = [AngularState.of(np.array([e]), (5.0,), 90.0) for e in (1.26, 2.26, 3.26)]
    assert pool({"s": frames}, "frames", 1)["mean"] == pytest.approx((1.3 + 2.3 + 3.3) / 3, abs=1e-12)
    assert pool({"s": frames}, "frames")["mean"] == pytest.approx(2.26, abs=1e-6)
    with pytest.raises(ScoreError, match="go with pooling over frames"):
        Pool("pixels", 4)


@pytest.mark.parametrize(("how", "left_out"), [("pixels", 0), ("frames", 2), ("sequences", 1)])
def test_frames_and_sequences_without_a_valid_pixel_are_left_out_and_counted(states, how, left_out):
    pooled = Pool(how)
    for name, frames in states.items():
        for state in frames:
            pooled.add(name, state)
    assert pooled.left_out == left_out
    for name in states:
        pooled.close(name)
    assert pooled.left_out == left_out
    assert pooled.metrics() == pool(states, how)


@pytest.mark.parametrize("how", HOW)
def test_one_job_and_many_give_the_same_bits(states, how):
    tasks = [(name, state) for name, frames in states.items() for state in frames]
    rng = random.Random(0)
    for jobs in (1, 2, 5):
        rng.shuffle(tasks)
        pools = [Pool(how) for _ in range(jobs)]
        for place, task in enumerate(tasks):
            pools[place % jobs].add(*task)
        rng.shuffle(pools)
        merged = Pool(how)
        for part in pools:
            merged.merge(part)
        assert merged.metrics() == pool(states, how)
        assert merged.left_out == {"pixels": 0, "frames": 2, "sequences": 1}[how]


def test_jobs_that_close_their_own_sequences_merge(states):
    pools = []
    for name, frames in states.items():
        part = Pool("sequences")
        for state in frames:
            part.add(name, state)
        part.close(name)
        pools.append(part)
    merged = Pool("sequences")
    for part in reversed(pools):
        merged.merge(part)
    assert merged.metrics() == pool(states, "sequences")
    assert merged.left_out == 1


def test_closed_sequences_take_no_more_frames(states):
    closed, late = Pool("sequences"), Pool("sequences")
    closed.add("a", states["a"][0])
    closed.close("a")
    late.add("a", states["a"][1])
    with pytest.raises(ScoreError, match="'a' was closed"):
        closed.add("a", states["a"][1])
    for one, other in ((closed, late), (late, closed), (closed, closed)):
        with pytest.raises(ScoreError, match="'a' was closed"):
            one.merge(other)


def test_what_does_not_belong_together_is_refused(states):
    pooled, other = Pool("frames"), Pool("frames")
    pooled.add("a", states["a"][0])
    with pytest.raises(ScoreError, match="different thresholds"):
        pooled.add("a", AngularState.empty((1.0,)))
    other.add("a", AngularState.empty((1.0,)))
    with pytest.raises(ScoreError, match="different thresholds"):
        pooled.merge(other)
    for kind in (Pool("pixels"), Pool("frames", 4)):
        with pytest.raises(ScoreError, match="different kinds"):
            pooled.merge(kind)


def test_means_of_rows_do_not_depend_on_their_order():
    rows = [{"mean": value} for value in (1e16, 1.0, -1e16, 0.1)]
    assert {mean_of(rows[i:] + rows[:i])["mean"] for i in range(4)} == {math.fsum([1.0, 0.1]) / 4}


@pytest.mark.parametrize("how", HOW)
def test_nothing_gives_no_number(how):
    assert pool({}, how) == {}
    assert pool({"a": [AngularState.empty()]}, how) == {}
