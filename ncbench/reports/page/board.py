"""A table as heads, rows and cells of the page's leaderboard."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ncbench.reports.columns import INTERVAL, MEMORY
from ncbench.reports.layout import Cell, Column, Row, Table
from ncbench.reports.render.spelling import PLACE_NAMES, TIED, detail, difference_text

PLACES = tuple(PLACE_NAMES.values())


@dataclass(frozen=True)
class BoardHead:
    """The head of a column.

    Attributes:
        label: As a reader sees it.
        better: ``lower`` or ``higher``; empty where neither is.
        first: What a first click sorts by: ``ascending`` or ``descending``.
    """

    label: str
    better: str
    first: str


@dataclass(frozen=True)
class BoardCell:
    """One number.

    Attributes:
        text: As it is printed.
        more: What is printed smaller behind it.
        value: What it is sorted by, at full precision; empty where there is none.
        place: ``best``, ``second``, ``third`` or nothing.
        detail: What a reader may want to know besides.
        link: Its result file below the page's folder; empty for a published number.
    """

    text: str
    more: str
    value: str
    place: str
    detail: str
    link: str


@dataclass(frozen=True)
class BoardRow:
    """One model.

    Attributes:
        index: Its place among the table's results; None for published numbers.
        label: As a reader sees it.
        search: What the filter looks at.
        cells: One a column.
        notes: What a reader must know of it.
    """

    index: int | None
    label: str
    search: str
    cells: list[BoardCell]
    notes: list[str]


def board_heads(table: Table) -> list[BoardHead]:
    """Name the columns of a table."""
    return [_head(column) for column in table.columns]


def board_rows(table: Table) -> list[BoardRow]:
    """Turn a table into rows.

    Args:
        table: Best model first.

    Returns:
        Rows in its order, published ones beside the results that they belong to.
    """
    own = iter(range(len(table.results)))
    return [_row(row, next(own) if row.kind == "result" else None, table.columns) for row in table.rows]


def _head(column: Column) -> BoardHead:
    better = "" if column.lower is None else "lower" if column.lower else "higher"
    rising = column.lower is True or column.metric in (INTERVAL, MEMORY)
    return BoardHead(column.label, better, "ascending" if rising else "descending")


def _row(row: Row, index: int | None, columns: tuple[Column, ...]) -> BoardRow:
    cells = [_cell(cell, column) for cell, column in zip(row.cells, columns, strict=True)]
    notes = [note for note in row.note.split("; ") if note]
    return BoardRow(index, row.label, " ".join([row.label, row.key, *notes]), cells, notes)


def _cell(cell: Cell, column: Column) -> BoardCell:
    value = cell.value if math.isfinite(cell.value) else cell.low  # an interval has no value but its ends
    change = difference_text(cell)
    more = (TIED if cell.tied else "") + (f" ({change})" if change else "")
    spelled = repr(float(value)) if math.isfinite(value) else ""
    return BoardCell(cell.text, more, spelled, PLACE_NAMES.get(cell.place, ""), detail(cell, column), cell.link)
