"""A comparison as Markdown in GitHub's dialect, short where nothing happened."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from ncbench.evaluators.statistics.ranks import lower_is_better
from ncbench.reports.columns import MISSING, decimals, label, printed, signed
from ncbench.reports.compare.changes import Change, Comparison, Row
from ncbench.reports.markdown import escape

MARKER = "<!-- ncbench-compare -->"
"""First line of every comparison, by which CI finds its own comment again."""
_NAMED = 4  # changed metrics without a column
_FOLD = 12  # rows of a table that are shown without unfolding
_HEADLINES = ("mean", "median", "within_11_25", "within_30", "bfd_bias", "bfd_flicker", "tge_deg", "abs_rel", "delta1")
_SIGNS = {"better": "🟢", "worse": "🔴", "within noise": "", "unknown": "", "same": ""}


def to_markdown(comparison: Comparison, broken: Sequence[str] = (), metrics: Sequence[str] | None = None) -> str:
    """Write a comparison.

    Args:
        comparison: The numbers.
        broken: Rules that are violated, a line each.
        metrics: Columns; None takes the headline metrics that are there.

    Returns:
        Text that ends with a line break; the same for the same numbers.
    """
    lines = [MARKER, "## ncbench: " + _verdict(comparison, broken), ""]
    if broken:
        lines += ["**Not allowed:**", "", *(f"- {escape(line)}" for line in broken), ""]
    for protocol, rows in groupby(comparison.rows, key=lambda row: row.protocol):
        lines += _section(protocol, list(rows), metrics)
    return "\n".join([*lines, *_footer(comparison)]) + "\n"


def _verdict(comparison: Comparison, broken: Sequence[str]) -> str:
    if all(row.state == "same" for row in comparison.rows):
        return f"no change in {len(comparison.rows)} results"
    changes = [change for row in comparison.rows for change in row.changes if row.state == "changed"]
    counts = {name: sum(change.verdict == name for change in changes) for name in ("worse", "better")}
    states = {name: sum(row.state == name for row in comparison.rows) for name in ("new", "removed", "not comparable")}
    states["incomplete"] = sum(row.state == "changed" and bool(row.reason) for row in comparison.rows)
    parts = [f"{count} metric{'s' * (count != 1)} {name} beyond noise" for name, count in counts.items() if count]
    parts += [f"{count} {name}" for name, count in states.items() if count]
    text = ", ".join(parts) or "nothing beyond noise"
    return f"{text}; {len(broken)} rule{'s' * (len(broken) != 1)} broken" if broken else text


def _section(protocol: str, rows: list[Row], metrics: Sequence[str] | None) -> list[str]:
    same = [row for row in rows if row.state == "same"]
    shown = [row for row in rows if row.state != "same"]
    if not shown:
        return [f"**{escape(protocol)}**: no change in {len(same)} models.", ""]
    known = {change.metric for row in shown for change in row.changes}
    columns = [name for name in (_HEADLINES if metrics is None else metrics) if name in known]
    heads = [f"{escape(label(name))} {'↓' if lower_is_better(name) else '↑'}" for name in columns]
    table = ["| model | " + " | ".join([*heads, "note"]) + " |", "|---" + "|---:" * len(columns) + "|---|"]
    table += [_line(row, columns) for row in shown]
    title = f"**{escape(protocol)}**" + (f" ({len(same)} more without change)" if same else "")
    if len(shown) > _FOLD:
        summary = f"<details><summary>{len(shown)} models changed</summary>"
        return [title, "", summary, "", *table, "", "</details>", ""]
    return [title, "", *table, ""]


def _line(row: Row, columns: Sequence[str]) -> str:
    changes = {change.metric: change for change in row.changes}
    cells = [_cell(changes.get(name)) for name in columns]
    note = row.reason or _elsewhere(row, columns)
    if row.state != "changed":
        note = f"{row.state}{': ' + row.reason if row.reason else ''}"
    return "| " + " | ".join([escape(row.title), *cells, escape(note)]) + " |"


def _elsewhere(row: Row, columns: Sequence[str]) -> str:
    """Name what changed where no column shows it."""
    changed = [change.metric for change in row.changes if change.verdict != "same"]
    if not changed or any(name in columns for name in changed):
        return ""
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return f"changed: {', '.join(label(name) for name in changed[:_NAMED])}{more}"


def _cell(change: Change | None) -> str:
    if change is None:
        return MISSING
    places = decimals(change.metric)
    if change.head is None:
        return MISSING if change.base is None else f"{printed(change.base, places)} → {MISSING}"
    if change.base is None or change.verdict == "same":
        return printed(change.head, places)
    sign = _SIGNS[change.verdict]
    word = {"better": " better", "worse": " worse", "within noise": " ≈", "unknown": ""}[change.verdict]
    difference = signed(change.head - change.base, places)
    return f"{printed(change.head, places)} ({difference}{word}){' ' + sign if sign else ''}"


def _footer(comparison: Comparison) -> list[str]:
    interval = ""
    if comparison.interval:
        interval = f"{comparison.interval}; ≈ is within noise: the interval holds 0. "
        interval += "A difference without a word has no interval. "
    elif any(row.state != "same" for row in comparison.rows):
        interval = "No intervals: nothing is known of noise. "
    sides = " → ".join(
        ", ".join(f"`{name}`" for name in names) or "unknown" for names in (comparison.base, comparison.head)
    )
    return [
        f"<sub>Code {sides}. {interval}Errors in degrees, accuracies in percent; ↓ lower is better, ↑ higher.</sub>"
    ]
