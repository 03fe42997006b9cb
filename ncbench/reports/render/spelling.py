"""How a cell reads before any style is put on it; the same in every format."""

from __future__ import annotations

import math
from itertools import groupby

from ncbench.reports.columns import MISSING, signed
from ncbench.reports.layout import Cell, Column, Table

PLACE_NAMES = {1: "best", 2: "second", 3: "third"}
TIED = "†"


def difference_text(cell: Cell) -> str:
    """Spell a cell's difference with its sign and as many decimals as the number; empty where there is none.

    Examples:
        >>> difference_text(Cell(30.7, "30.7", difference=-0.04))
        '+0.0'
        >>> difference_text(Cell(30.7, "30.7", difference=-0.44))
        '-0.4'
    """
    if not math.isfinite(cell.difference) or cell.text == MISSING:
        return ""
    return signed(cell.difference, len(cell.text.partition(".")[2]))


def detail(cell: Cell, column: Column) -> str:
    """Say in plain text what a reader may want to know of a cell besides its number."""
    parts = [PLACE_NAMES.get(cell.place, "")]
    if cell.tied:
        parts.append("not significantly different from the best")
    if math.isfinite(cell.value):
        parts.append(repr(float(cell.value)))
    if column.role == "metric" and math.isfinite(cell.low):
        parts.append(f"interval {cell.low:.4g} to {cell.high:.4g}")
    if math.isfinite(cell.difference):
        parts.append(f"difference {cell.difference:+.4g}")
    return "; ".join(part for part in [*parts, cell.note] if part)


def groups(table: Table) -> list[tuple[str, int]]:
    """Name the groups of neighbouring columns and how many columns each spans; a nameless one where there is none."""
    return [(name, len(list(members))) for name, members in groupby(table.columns, key=lambda column: column.group)]


def has_notes(table: Table) -> bool:
    """Whether any row has something to say."""
    return any(row.note for row in table.rows)


def one_line(text: str) -> str:
    """Bring text to one line."""
    return " ".join(text.split())
