"""Paired comparisons against scipy's permutation test, its t-test, and enumeration by hand."""

import itertools

import numpy as np
import pytest
import scipy.stats

from ncbench.errors import ScoreError
from ncbench.evaluators.angular import AngularState
from ncbench.evaluators.statistics.paired import compare, compare_all, holm
from ncbench.evaluators.statistics.units import UnitStatistics

THRESHOLDS = (5.0, 11.25, 30.0)


def statistics_of(errors, bin_width=0.01):
    states = {key: AngularState.of(np.asarray(values, float), THRESHOLDS, 90.0) for key, values in errors.items()}
    return UnitStatistics.concatenate([UnitStatistics.of(*key, state, bin_width) for key, state in states.items()])


def pair(rng, sequences, frames=2, pixels=60, shift=1.0):
    """Two models on the same frames; the second is worse by ``shift`` degrees on average."""
    a, b = {}, {}
    for s in range(sequences):
        hard = rng.gamma(3, 5)
        for f in range(frames):
            count = int(rng.integers(pixels // 2, pixels))
            a[f"s{s}", f] = np.clip(rng.normal(hard, 2, count), 0, 180)
            b[f"s{s}", f] = np.clip(rng.normal(hard + shift, 2, count), 0, 180)
    return a, b


def sequence_means(errors):
    names = sorted({sequence for sequence, _ in errors})
    return np.array([np.concatenate([v for (s, _), v in errors.items() if s == name]).mean() for name in names])


def test_exact_p_values_are_scipys_sign_flip_test():
    a, b = pair(np.random.default_rng(0), 9, shift=0.3)
    row = compare(statistics_of(a), statistics_of(b), "sequences").set_index("metric").loc["mean"]
    plain = scipy.stats.permutation_test(
        (sequence_means(a) - sequence_means(b),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert row["p"] == pytest.approx(plain.pvalue)
    assert row["exact"]
    assert row["difference"] == pytest.approx((sequence_means(a) - sequence_means(b)).mean())


def test_exact_p_values_of_pooled_pixels_by_hand():
    a, b = pair(np.random.default_rng(1), 5, shift=0.5)
    table = compare(statistics_of(a), statistics_of(b)).set_index("metric")
    names = [f"s{s}" for s in range(5)]

    def metric(errors, name):
        return np.sqrt(np.mean(errors**2)) if name == "rmse" else errors.mean()

    for name in ("mean", "rmse"):
        differences = []
        for swaps in itertools.product([False, True], repeat=5):
            swapped = {sequence for sequence, swap in zip(names, swaps, strict=True) if swap}
            one = np.concatenate([(b if key[0] in swapped else a)[key] for key in a])
            two = np.concatenate([(a if key[0] in swapped else b)[key] for key in a])
            differences.append(metric(one, name) - metric(two, name))
        expected = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)
        assert table.loc[name, "p"] == pytest.approx(expected)
        assert table.loc[name, "difference"] == pytest.approx(differences[0])


def test_random_p_values_agree_with_a_t_test_on_normal_differences():
    rng = np.random.default_rng(2)
    for shift in (0.1, 0.25):
        a = {(f"s{i:03}", 0): [value] for i, value in enumerate(rng.normal(20, 5, 80))}
        b = {key: [values[0] + rng.normal(shift, 1)] for key, values in a.items()}
        row = compare(statistics_of(a), statistics_of(b), "frames", metrics=["mean"]).iloc[0]
        expected = scipy.stats.ttest_rel([v[0] for v in a.values()], [v[0] for v in b.values()]).pvalue
        assert row["p"] == pytest.approx(expected, abs=0.02)
        assert not row["exact"]


def test_under_no_difference_p_values_are_uniform():
    rng = np.random.default_rng(3)
    p = []
    for _ in range(120):
        a = {(f"s{i}", 0): [value] for i, value in enumerate(rng.normal(20, 5, 10))}
        b = {(f"s{i}", 0): [value] for i, value in enumerate(rng.normal(20, 5, 10))}
        settings = {"metrics": ["mean"], "resamples": 100, "method": "percentile"}
        p.append(compare(statistics_of(a, 5.0), statistics_of(b, 5.0), "frames", **settings)["p"].iloc[0])
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


def test_the_interval_of_the_difference_is_scipys_and_far_narrower_than_two():
    a, b = pair(np.random.default_rng(4), 20)
    row = compare(statistics_of(a), statistics_of(b), "sequences", seed=5).set_index("metric").loc["mean"]
    plain = scipy.stats.bootstrap(
        (sequence_means(a) - sequence_means(b),), np.mean, n_resamples=2000, rng=np.random.default_rng(5)
    )
    assert (row["low"], row["high"]) == pytest.approx(tuple(plain.confidence_interval), abs=2e-6)
    assert row["high"] < 0
    assert row["better"] == "a"
    assert row["high"] - row["low"] < sequence_means(a).std() / 2


def test_better_follows_the_direction_of_the_metric():
    a, b = pair(np.random.default_rng(5), 12, shift=5.0)
    table = compare(statistics_of(a), statistics_of(b), names=("good", "bad"))
    assert table["better"].eq("good").all()
    same = compare(statistics_of(a), statistics_of(a))
    assert same["better"].eq("").all()
    assert same["p"].eq(1.0).all()
    assert (same[["low", "high"]] == 0).all(axis=None)


def test_holm_step_down():
    # Holm (1979) by its definition: reject the k-th smallest while p_(k) <= alpha / (n - k + 1)
    rng = np.random.default_rng(6)
    for _ in range(200):
        p = rng.random(int(rng.integers(1, 9))) ** 3
        corrected, alpha = holm(p), rng.uniform(0.01, 0.3)
        rejected = np.zeros(len(p), bool)
        for k, index in enumerate(np.argsort(p)):
            if p[index] > alpha / (len(p) - k):
                break
            rejected[index] = True
        np.testing.assert_array_equal(corrected <= alpha, rejected)
    np.testing.assert_array_equal(holm([np.nan, 0.02, 0.6]), [np.nan, 0.04, 0.6])
    assert holm([]).size == 0


def test_many_models_at_once():
    rng = np.random.default_rng(7)
    a, b = pair(rng, 12, shift=4.0)
    c = {key: values + rng.normal(0, 0.01) for key, values in a.items()}
    models = {"a": statistics_of(a), "b": statistics_of(b), "c": statistics_of(c)}
    table = compare_all(models, metrics=["mean", "within_30"])
    assert list(zip(table["a"], table["b"], strict=True))[::2] == [("a", "b"), ("a", "c"), ("b", "c")]
    np.testing.assert_array_equal(table["p_holm"], holm(table["p"]))
    assert (table["p_holm"] >= table["p"]).all()
    against = compare_all(models, baseline="b", metrics=["mean"])
    assert against["a"].tolist() == ["a", "c"]
    assert against["b"].eq("b").all()
    with pytest.raises(ScoreError, match="no model 'd'"):
        compare_all(models, baseline="d")
    with pytest.raises(ScoreError, match="at least two"):
        compare_all({"a": models["a"]})


def test_one_unit_gives_neither_interval_nor_p():
    a, b = pair(np.random.default_rng(8), 1)
    table = compare(statistics_of(a), statistics_of(b))
    assert table[["low", "high", "p"]].isna().all(axis=None)
    assert table["note"].str.startswith("no interval").all()


def test_unpaired_frames_are_refused_by_name():
    a, b = pair(np.random.default_rng(9), 4)
    less = {key: values for key, values in b.items() if key not in (("s2", 1), ("s3", 0))}
    with pytest.raises(ScoreError, match=r"sequence 's2', frame 1: 'x' was scored on it, 'y' was not"):
        compare(statistics_of(a), statistics_of(less), names=("x", "y"))
    with pytest.raises(ScoreError, match=r"sequence 's2', frame 1: 'y' was scored on it, 'x' was not"):
        compare(statistics_of(less), statistics_of(b), names=("x", "y"))
    other = b | {("s1", 0): b["s1", 0][:-1]}
    with pytest.raises(ScoreError, match=r"sequence 's1', frame 0: 'a' was scored on \d+ pixels"):
        compare(statistics_of(a), statistics_of(other))
    with pytest.raises(ScoreError, match="different thresholds or bins"):
        compare(statistics_of(a), statistics_of(b, 0.1))
    with pytest.raises(ScoreError, match="Did you mean 'mean'"):
        compare(statistics_of(a), statistics_of(b), metrics=["meen"])
