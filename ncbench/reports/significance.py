"""Which models are not significantly different from the best: paired tests on the same frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ncbench.errors import ScoreError
from ncbench.evaluators.statistics.paired import EXACT_UNITS, compare, holm
from ncbench.evaluators.statistics.pooling import pool_units
from ncbench.evaluators.statistics.ranks import lower_is_better
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.report_card import Significance
from ncbench.reports.results import Result

_NEED_HISTOGRAMS = "median"


@dataclass(frozen=True)
class Verdicts:
    """What the tests of one table say.

    Attributes:
        tied: (model, metric) of models that are not significantly different from the metric's best.
        note: The rule, or why there are no marks; empty where nothing was asked.
    """

    tied: frozenset[tuple[str, str]] = frozenset()
    note: str = ""


def compare_with_best(results: Sequence[Result], settings: Significance) -> Verdicts:
    """Test every model against the best one, in each metric that the card names.

    Differences are tested by swapping the two models' answers sequence by sequence (``evaluators.statistics.paired``);
    p-values are corrected over all questions of the table (Holm).

    Args:
        results: Of one table.
        settings: Which metrics, and when a difference is significant.

    Returns:
        The verdicts. Results that are partial, or whose statistics of frames are missing, are not asked about.
    """
    complete = [one for one in results if one.values.metrics]
    metrics = [name for name in settings.metrics if any(name in one.values.metrics for one in complete)]
    if len(complete) < 2 or not metrics or complete[0].values.protocol.task != "normals":
        return Verdicts()
    statistics, lacking = _statistics(complete, keep_histograms=_NEED_HISTOGRAMS in metrics)
    pairs = [(metric, one.model, best) for metric in metrics for one, best in _pairs(complete, metric, statistics)]
    if not pairs:
        why = f"No significance tests: the statistics of frames of {', '.join(lacking)} are missing."
        return Verdicts(note=why if lacking else "")
    protocol = complete[0].values.protocol
    units, kind = _unit_count(statistics[pairs[0][1]], complete[0])
    least = 2.0 ** (1 - units) if units <= EXACT_UNITS else 1 / (settings.permutations + 1)
    alpha = settings.alpha / 100
    if units < 2 or least * len(pairs) >= alpha:
        found = f"{units} {kind if units != 1 else kind.removesuffix('s')}"
        asked = f"{len(pairs)} comparison{'s' * (len(pairs) != 1)}"
        return Verdicts(note=f"No significance marks: with {found} and {asked}, no difference can reach p < {alpha:g}.")
    p = []
    for metric, model, best in pairs:
        row = compare(
            statistics[model],
            statistics[best],
            protocol.pooling,
            metrics=[metric],
            unit=protocol.intervals.unit,
            clips=protocol.clips,
            decimals=protocol.decimals,
            resamples=100,  # of an interval that is not asked for
            method="percentile",
            permutations=settings.permutations,
            seed=settings.seed,
        )
        p.append(float(row["p"].iloc[0]))
    corrected = holm(np.array(p))
    tied = {(model, metric) for (metric, model, _), value in zip(pairs, corrected, strict=True) if not value < alpha}
    left_out = f" Not tested, for want of statistics of frames: {', '.join(lacking)}." if lacking else ""
    rule = (
        f"Marked as not significantly different from the best in {', '.join(metrics)}: p >= {alpha:g} in a paired "
        f"permutation test over {units} {kind}, corrected for {len(pairs)} comparisons (Holm).{left_out}"
    )
    return Verdicts(frozenset(tied), rule)


def _statistics(
    results: Sequence[Result], *, keep_histograms: bool
) -> tuple[dict[str, UnitStatistics], tuple[str, ...]]:
    """Statistics of frames by model, and the models without."""
    found: dict[str, UnitStatistics] = {}
    lacking = []
    for one in results:
        try:
            units = one.units()
        except ScoreError:
            lacking.append(one.model)
            continue
        found[one.model] = units if keep_histograms else _without_histograms(units)
    return found, tuple(lacking)


def _without_histograms(units: UnitStatistics) -> UnitStatistics:
    """Put all errors in one bin: only medians look at bins, and 200 models' would not fit in memory."""
    whole = units.histogram.sum(axis=1, keepdims=True, dtype=np.uint32)
    return dataclasses.replace(units, histogram=whole, bin_width=units.bin_width * units.histogram.shape[1])


def _pairs(results: Sequence[Result], metric: str, statistics: dict[str, UnitStatistics]) -> list[tuple[Result, str]]:
    """(model, best) for every model that can be tested in a metric."""
    ranked = sorted(
        (one for one in results if metric in one.values.metrics),
        key=lambda one: one.values.metrics[metric] * (1 if lower_is_better(metric) else -1),
    )
    if not ranked or ranked[0].model not in statistics:
        return []
    testable = [one for one in ranked[1:] if one.model in statistics and metric in statistics[one.model].metrics]
    return [(one, ranked[0].model) for one in testable]


def _unit_count(statistics: UnitStatistics, result: Result) -> tuple[int, str]:
    protocol = result.values.protocol
    units = pool_units(
        statistics,
        protocol.pooling,
        protocol.intervals.unit,
        clips=protocol.clips,
        decimals=protocol.decimals,
    )
    return len(units.names), units.unit
