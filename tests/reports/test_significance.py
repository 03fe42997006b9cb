"""Marks of significance against tests computed here from the same errors."""

import itertools
import json

import numpy as np
import pytest

from ncbench.evaluators.angular import AngularState
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.files import file_sha256
from ncbench.report_card import Significance
from ncbench.reports.results import load_results
from ncbench.reports.significance import compare_with_best

THRESHOLDS = (5.0, 7.5, 11.25, 22.5, 30.0)


def write(write_result, model, means, sequences):
    """A result whose sequences have one frame of 50 pixels each, all pixels with the same error."""
    parts = [
        UnitStatistics.of(name, 0, AngularState.of(np.full(50, value), THRESHOLDS, 90.0))
        for name, value in zip(sequences, means, strict=True)
    ]
    path = write_result(model, mean=float(np.mean(means)), rmse=float(np.sqrt(np.mean(np.square(means)))))
    UnitStatistics.concatenate(parts).save(path.parent / "units.npz")
    values = json.loads(path.read_text()) | {"files": {"units.npz": file_sha256(path.parent / "units.npz")}}
    path.write_text(json.dumps(values))


def sign_flip_p(a, b):
    """Two-sided exact p-value over all 2^n swaps, brute force."""
    difference = np.asarray(a) - np.asarray(b)
    signs = np.array(list(itertools.product([1, -1], repeat=len(difference))))
    means = np.abs((signs * difference).mean(axis=1))
    return np.mean(means >= abs(difference.mean()) - 1e-9)


def test_marks_agree_with_a_brute_force_test_and_holm_by_hand(write_result, tmp_path):
    rng = np.random.default_rng(3)
    sequences = [f"s{index}" for index in range(10)]
    base = np.round(rng.uniform(10, 20, 10), 1)
    models = {"best": base, "far": base + 3, "near": base + np.round(rng.normal(0.2, 1.0, 10), 1)}
    models["between"] = base + np.array([1, 1, 1, 1, 1, 1, 1, -0.4, -0.6, 1])
    for name, means in models.items():
        write(write_result, name, means, sequences)
    p = {name: sign_flip_p(means, base) for name, means in models.items() if name != "best"}
    order = sorted(p, key=p.get)
    holm, worst = {}, 0.0
    for step, name in enumerate(order):
        worst = max(worst, min(1.0, p[name] * (len(order) - step)))
        holm[name] = worst
    found = compare_with_best(load_results(tmp_path), Significance())
    assert found.tied == {(name, "mean") for name, value in holm.items() if value >= 0.05}
    assert ("far", "mean") not in found.tied
    assert ("near", "mean") in found.tied
    assert "over 10 frames, corrected for 3 comparisons (Holm)" in found.note


def test_few_sequences_cannot_be_marked_and_that_is_said(write_result, tmp_path):
    for name, value in (("a", 10.0), ("b", 12.0)):
        write(write_result, name, [value] * 5, list("abcde"))
    found = compare_with_best(load_results(tmp_path), Significance())
    assert found.tied == frozenset()
    # 2 / 2^5 = 0.0625
    assert found.note == "No significance marks: with 5 frames and 1 comparison, no difference can reach p < 0.05."
    assert compare_with_best(load_results(tmp_path), Significance(alpha=10)).note.startswith("Marked as not")


def test_missing_statistics_are_said(write_result, tmp_path):
    write_result("a")
    write_result("b", mean=11.0)
    note = compare_with_best(load_results(tmp_path), Significance()).note
    assert note == "No significance tests: the statistics of frames of a, b are missing."


def test_one_without_statistics_is_left_out_and_named(write_result, tmp_path):
    names = [f"s{index}" for index in range(8)]
    write(write_result, "a", np.arange(8) + 1.0, names)
    write(write_result, "b", np.arange(8) + 1.5, names)
    write_result("c", mean=50.0, rmse=60.0)
    found = compare_with_best(load_results(tmp_path), Significance())
    assert "Not tested, for want of statistics of frames: c." in found.note
    assert found.tied == frozenset()


@pytest.mark.parametrize("metrics", [["median"], ["mean", "within_5"], ["opw"]])
def test_other_metrics_may_be_asked_about(write_result, tmp_path, metrics):
    names = [f"s{index}" for index in range(8)]
    write(write_result, "a", np.arange(8) + 1.0, names)
    write(write_result, "b", np.arange(8) + 1.5, names)
    found = compare_with_best(load_results(tmp_path), Significance(metrics=metrics))
    assert (not found.note) == (metrics == ["opw"])
