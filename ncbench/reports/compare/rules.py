"""What may not get worse: ``--fail-if "mean:+0.5"``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ncbench.errors import ScoreError
from ncbench.reports.compare.changes import Change, Comparison, Row
from ncbench.settings import suggest

_FORM = re.compile(r"^(?P<path>[^:]+):\+(?P<limit>\d+(\.\d+)?)(?P<percent>%?)$")


@dataclass(frozen=True)
class Rule:
    """A limit on how much worse a metric may get.

    Attributes:
        text: As it was written.
        protocol: Only here; None is everywhere.
        model: Only this one; None is all.
        metric: Of which metric.
        limit: In the metric's own unit, or in percent of the value before.
        percent: Whether ``limit`` is in percent.
    """

    text: str
    protocol: str | None
    model: str | None
    metric: str
    limit: float
    percent: bool


def parse_rule(text: str) -> Rule:
    """Read a rule.

    Args:
        text: ``metric:+LIMIT``, ``protocol/metric:+LIMIT`` or ``protocol/model/metric:+LIMIT``; a ``%`` may follow.

    Returns:
        The rule.

    Raises:
        ScoreError: It has another form.

    Examples:
        >>> parse_rule("rooms/mean:+2%").limit
        2.0
    """
    found = _FORM.match(text.strip())
    parts = found["path"].split("/") if found else []
    if found is None or not 1 <= len(parts) <= 3 or not all(parts):  # protocol, model, metric
        raise ScoreError(
            f"--fail-if '{text}': expected metric:+LIMIT, protocol/metric:+LIMIT or protocol/model/metric:+LIMIT, with "
            "a limit such as 0.5 or 2%: --fail-if 'mean:+0.5'"
        )
    protocol = parts[0] if len(parts) > 1 else None
    model = parts[1] if len(parts) > 2 else None
    return Rule(text, protocol, model, parts[-1], float(found["limit"]), bool(found["percent"]))


def violations(comparison: Comparison, rules: Sequence[Rule], *, strict: bool = False) -> list[str]:
    """List what breaks the rules.

    A rule is broken where head is worse by more than its limit and beyond noise; where no interval can be drawn, the
    difference counts as it stands. It is broken, too, where a row that it speaks of is gone, has failed frames or
    cannot be compared, or where the metric has no value any more.

    Args:
        comparison: Of all metrics that the rules name.
        rules: The rules.
        strict: Whether differences within noise count, too.

    Returns:
        One line for each.

    Raises:
        ScoreError: A rule names a protocol, model or metric that neither side has.
    """
    found = []
    for rule in rules:
        _require_known(rule, comparison)
        for row in comparison.rows:
            if rule.protocol in (None, row.protocol) and rule.model in (None, row.model):
                problem = _problem(rule, row, strict)
                if problem:
                    found.append(f"{rule.text}: {row.protocol}/{row.model}: {problem}")
    return found


def require_metrics(metrics: Sequence[str], comparison: Comparison) -> None:
    """Refuse a column that neither side has a number for, so that a typo does not pass as 'no change'.

    Args:
        metrics: Names of metrics.
        comparison: Of all metrics.

    Raises:
        ScoreError: Naming the first unknown one, with a near one.
    """
    known = {change.metric for row in comparison.rows for change in row.changes}
    for name in metrics:
        if known and name not in known:
            raise ScoreError(f"--metric '{name}': no such metric. {suggest(name, known)}")


def _problem(rule: Rule, row: Row, strict: bool) -> str:
    if row.state == "new":
        return ""
    if row.state in ("removed", "not comparable"):
        return f"{row.state}{': ' + row.reason if row.reason else ''}"
    if row.reason and not row.reason.startswith("before"):
        return row.reason
    change = next((one for one in row.changes if one.metric == rule.metric), None)
    if change is None or change.base is None:
        return ""
    if change.head is None:
        return f"{rule.metric} has no value any more"
    return _worse(rule, change, strict)


def _worse(rule: Rule, change: Change, strict: bool) -> str:
    worsening = change.worsening
    assert worsening is not None  # noqa: S101 - both values are there
    assert change.base is not None  # noqa: S101
    limit = rule.limit * abs(change.base) / 100 if rule.percent else rule.limit
    if worsening <= limit or (change.verdict == "within noise" and not strict):
        return ""
    noise = "" if change.interval is None else f", interval {change.interval[0]:+.3g} to {change.interval[1]:+.3g}"
    return f"{change.base:.4g} → {change.head:.4g}{noise}"


def _require_known(rule: Rule, comparison: Comparison) -> None:
    rows = comparison.rows
    metrics = {change.metric for row in rows for change in row.changes}
    checks = (
        ("protocol", rule.protocol, {row.protocol for row in rows}),
        ("model", rule.model, {row.model for row in rows}),
        ("metric", rule.metric, metrics),
    )
    for kind, name, known in checks:
        if name is not None and known and name not in known:
            raise ScoreError(f"--fail-if '{rule.text}': no {kind} '{name}'. {suggest(name, known)}")
