"""The numbers of a comparison: every (protocol, model) of two folders of results, metric by metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ncbench.errors import ScoreError
from ncbench.evaluators.statistics.paired import compare
from ncbench.evaluators.statistics.ranks import lower_is_better
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.reports.results import Result, load_results

State = Literal["same", "changed", "new", "removed", "not comparable"]
Verdict = Literal["same", "better", "worse", "within noise", "unknown"]


@dataclass(frozen=True)
class Change:
    """One metric of one model under one protocol, in both folders.

    Attributes:
        metric: Its name.
        base: The value before; None where there is none.
        head: The value now; None where there is none.
        interval: Ends of the bootstrap interval of head - base; None where none can be drawn.
        verdict: ``better`` and ``worse`` lie beyond noise, that is the interval leaves zero out; ``unknown`` is a
            difference without an interval.
    """

    metric: str
    base: float | None
    head: float | None
    interval: tuple[float, float] | None
    verdict: Verdict

    @property
    def delta(self) -> float | None:
        """Head minus base; None where one is missing."""
        return None if self.base is None or self.head is None else self.head - self.base

    @property
    def worsening(self) -> float | None:
        """How much worse head is, in the metric's unit; negative where it is better."""
        if self.delta is None:
            return None
        return self.delta if lower_is_better(self.metric) else -self.delta


@dataclass(frozen=True)
class Row:
    """One model under one protocol.

    Attributes:
        protocol: Name of the protocol.
        model: Name of the model.
        title: The model, as a reader sees it.
        state: Whether and how the two sides differ.
        reason: Why they cannot be subtracted, or what is wrong with one side; empty where nothing is.
        changes: The metrics; empty where nothing can be subtracted.
    """

    protocol: str
    model: str
    title: str
    state: State
    reason: str = ""
    changes: list[Change] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Two folders of results.

    Attributes:
        rows: Sorted by protocol and model.
        base: The code that made the first folder's results: commits, with ``-dirty`` where files had been changed.
        head: The same of the second.
        interval: How intervals were drawn, in words; empty where there is none.
    """

    rows: list[Row]
    base: list[str]
    head: list[str]
    interval: str


def compare_results(base: Path, head: Path, metrics: Sequence[str] | None = None) -> Comparison:
    """Compare two folders of results; the same inputs give the same numbers.

    Args:
        base: Results before a change.
        head: Results after it.
        metrics: Which metrics; None takes all that either side has.

    Returns:
        The comparison.

    Raises:
        ScoreError: A folder holds no results, or results that contradict themselves.
    """
    before, after = ({(one.protocol, one.model): one for one in load_results(folder)} for folder in (base, head))
    rows = []
    drawn = ""
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old and new:
            row, how = _both(old, new, metrics)
            drawn = drawn or how
        else:
            row = _one_sided(old, new)
        rows.append(row)
    return Comparison(rows, _commits(before.values()), _commits(after.values()), drawn)


def _one_sided(old: Result | None, new: Result | None) -> Row:
    result = new or old
    assert result is not None  # noqa: S101 - the key comes from one of the two
    changes = [
        Change(name, None if new else value, value if new else None, None, "unknown")
        for name, value in result.values.metrics.items()
    ]
    return Row(
        result.protocol, result.model, result.values.model.title, "new" if new else "removed", _flaw(result), changes
    )


def _both(old: Result, new: Result, metrics: Sequence[str] | None) -> tuple[Row, str]:
    title = new.values.model.title
    reason = _why_not(old, new)
    if reason:
        return Row(new.protocol, new.model, title, "not comparable", reason), ""
    intervals, how = _intervals(old, new)
    known = list(dict.fromkeys([*old.values.metrics, *new.values.metrics]))
    changes = [
        _change(name, old.values.metrics.get(name), new.values.metrics.get(name), intervals.get(name))
        for name in (known if metrics is None else [name for name in known if name in metrics])
    ]
    flaw = _flaw(new) or ("" if not _flaw(old) else f"before: {_flaw(old)}")
    state: State = "same" if all(change.verdict == "same" for change in changes) and not flaw else "changed"
    return Row(new.protocol, new.model, title, state, flaw, changes), how


def _why_not(old: Result, new: Result) -> str:
    """Say which of the things that numbers depend on differs; empty where none does."""
    names = ("protocol", "protocol", "data", "flow source")
    for name, before, after in zip(names, old.table_key(), new.table_key(), strict=True):
        if before != after:
            return f"{name} changed: {before[:12] or 'none'} → {after[:12] or 'none'}"
    return ""


def _flaw(result: Result) -> str:
    values = result.values
    if values.status == "partial":
        return f"{values.counts.failed} of {values.counts.frames} frames failed"
    return "no valid pixel to score" if values.status == "empty" else ""


def _change(metric: str, base: float | None, head: float | None, interval: tuple[float, float] | None) -> Change:
    if base is None or head is None:
        return Change(metric, base, head, None, "unknown")
    if base == head:
        return Change(metric, base, head, interval, "same")
    if interval is None:
        return Change(metric, base, head, None, "unknown")
    if interval[0] <= 0 <= interval[1]:
        return Change(metric, base, head, interval, "within noise")
    better = (head < base) == lower_is_better(metric)
    return Change(metric, base, head, interval, "better" if better else "worse")


def _intervals(old: Result, new: Result) -> tuple[Mapping[str, tuple[float, float]], str]:
    """Intervals of head - base by metric, paired over the protocol's own units; and how they were drawn."""
    if old.values.metrics == new.values.metrics:
        return {}, ""
    sides = [_units(result) for result in (new, old)]
    protocol = new.values.protocol
    rules = protocol.intervals
    if sides[0] is None or sides[1] is None or rules.resamples == 0:
        return {}, ""
    try:
        table = compare(
            sides[0],
            sides[1],
            protocol.pooling,
            names=("head", "base"),
            unit=rules.unit,
            clips=protocol.clips,
            decimals=protocol.decimals,
            confidence=rules.confidence,
            resamples=rules.resamples,
            permutations=1,  # the interval decides here; p-values are not asked for
            seed=rules.seed,
        )
    except ScoreError:  # other frames or pixels: the values may differ for that alone, so nothing is known of noise
        return {}, ""
    columns = (table[name].tolist() for name in ("metric", "low", "high"))
    ends = {str(name): (low, high) for name, low, high in zip(*columns, strict=True) if not math.isnan(low)}
    how = (
        f"{rules.confidence:g} % intervals of the paired difference, {rules.resamples} draws of whole {rules.unit}, "
        f"seed {rules.seed}"
    )
    return ends, how


def _units(result: Result) -> UnitStatistics | None:
    try:
        return result.units()
    except ScoreError:
        return None


def _commits(results: Iterable[Result]) -> list[str]:
    return sorted({str(result.values.provenance.code) for result in results} - {""})
