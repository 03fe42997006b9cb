"""Tables in GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ncbench.reports.layout import Cell, Row, Table
from ncbench.reports.markdown import escape
from ncbench.reports.render.spelling import TIED, difference_text, has_notes

_STYLES = {0: "{}", 1: "**{}**", 2: "<ins>{}</ins>", 3: "*{}*"}
LEGEND = (
    f"**best**, <ins>second</ins>, *third* of a column; {TIED} not significantly different from the best; in brackets "
    "the difference, result minus published number."
)


def to_markdown(tables: Sequence[Table], title: str) -> str:
    """Write tables, each with its notes.

    Args:
        tables: In order.
        title: Of the whole.

    Returns:
        GitHub's dialect. A row of one result links to it by its name, other numbers link each.
    """
    lines = [f"# {_text(title)}", "", LEGEND, ""]
    for table in tables:
        lines += [f"## {_text(table.title)}", "", *_table(table), "", *(f"- {_text(note)}" for note in table.notes), ""]
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    notes = has_notes(table)
    heads = [
        f"{_text(column.group)}<br>{_text(column.label)}" if column.group else _text(column.label)
        for column in table.columns
    ]
    lines = ["| " + " | ".join(["model", *heads, *(["note"] if notes else [])]) + " |"]
    lines.append("|---" + "|---:" * len(heads) + ("|---|" if notes else "|"))
    return lines + [_row(row, notes) for row in table.rows]


def _row(row: Row, notes: bool) -> str:
    name = f"[{_text(row.label)}]({row.link})" if row.link else _text(row.label)
    cells = [_cell(cell, linked=not row.link) for cell in row.cells]
    return "| " + " | ".join([name, *cells, *([_text(row.note)] if notes else [])]) + " |"


def _cell(cell: Cell, *, linked: bool) -> str:
    text = _STYLES[cell.place].format(cell.text) + (TIED if cell.tied else "")
    if linked and cell.link:
        text = f"[{text}]({cell.link})"
    change = difference_text(cell)
    return f"{text} ({change})" if change else text


def _text(text: str) -> str:
    r"""Escape text; a dollar too, which GitHub reads as mathematics."""
    return escape(text).replace("$", r"\$")
