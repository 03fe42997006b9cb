"""One neutral table: columns, rows and cells; renderers only style it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import pandas as pd

from ncbench.evaluators.statistics.ranks import lower_is_better
from ncbench.reports.columns import MISSING, RANK
from ncbench.reports.results import Result

Role = Literal["metric", "rank", "interval", "cost"]
PLACES = 3
"""How many places of a column are marked: best, second, third."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: Its name within the table, unlike all others.
        label: What a reader sees, below the group's head.
        metric: What its numbers are; or the name of another kind of column.
        role: What kind it is. Only metrics and ranks have a direction.
        group: Common head of neighbouring columns; empty for none.
    """

    key: str
    label: str
    metric: str
    role: Role = "metric"
    group: str = ""

    @property
    def lower(self) -> bool | None:
        """Whether lower is better; None for columns that are not ranked."""
        if self.role == "metric":
            return lower_is_better(self.metric)
        return True if self.role == "rank" else None


@dataclass(frozen=True)
class Cell:
    """One number and what belongs to it.

    Attributes:
        value: At full precision; NaN where there is none.
        text: As it is printed; a dash where there is no number.
        place: 1, 2 or 3 for the best three of a column by printed value (equal ones share a place); 0 for all others.
        tied: Not significantly different from the column's best.
        low: Lower end of the confidence interval; NaN where there is none.
        high: Upper end.
        difference: Result minus this published number; NaN where nothing is to be compared.
        note: What a reader may want to know besides.
        link: URL of the result's JSON within the report's folder; empty for published numbers.
    """

    value: float = math.nan
    text: str = MISSING
    place: int = 0
    tied: bool = False
    low: float = math.nan
    high: float = math.nan
    difference: float = math.nan
    note: str = ""
    link: str = ""


@dataclass(frozen=True)
class Row:
    """One model, or one published method.

    Attributes:
        key: Name of the model or method.
        label: What a reader sees.
        kind: Whether its numbers were computed here or are quoted.
        cells: One a column.
        note: What a reader must know.
        link: As of a cell, where all cells come from one result; else empty.
    """

    key: str
    label: str
    kind: Literal["result", "published"]
    cells: tuple[Cell, ...]
    note: str = ""
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table, ready to be styled.

    Attributes:
        name: Identifier, fit for a file name.
        title: What a reader sees.
        kind: ``protocol``: all results of one protocol on one version of its data. ``overview``: models over protocols.
            ``paper``: a paper's table with this project's results below.
        columns: From left to right.
        rows: From top to bottom.
        notes: Everything that the numbers depend on, a line each.
        results: Of a protocol's table: what its result rows were made from, in their order.
    """

    name: str
    title: str
    kind: Literal["protocol", "overview", "paper"]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    results: tuple[Result, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """Keys of the metric columns, in order."""
        return [column.key for column in self.columns if column.role == "metric"]

    @property
    def footer(self) -> str:
        """All notes as one line."""
        return " ".join(self.notes)

    @cached_property
    def values(self) -> pd.DataFrame:
        """Result rows as numbers: index ``model`` (labels), metric columns, and a text column ``note``."""
        return self._frame([[cell.value for cell in row.cells] for row in self._own_rows]).astype(
            dict.fromkeys(self.metrics, float)
        )

    def text(self) -> pd.DataFrame:
        """Result rows as they are printed, with the index and columns of ``values``."""
        return self._frame([[cell.text for cell in row.cells] for row in self._own_rows])

    def best(self) -> pd.DataFrame:
        """Whether each metric cell of the result rows is the best of its column."""
        return self._frame([[cell.place == 1 for cell in row.cells] for row in self._own_rows])[self.metrics]

    @property
    def _own_rows(self) -> list[Row]:
        return [row for row in self.rows if row.kind == "result"]

    def _frame(self, cells: Sequence[Sequence[object]]) -> pd.DataFrame:
        index = pd.Index([row.label for row in self._own_rows], name="model")
        frame = pd.DataFrame(cells, index=index, columns=[column.key for column in self.columns])[self.metrics]
        frame["note"] = [row.note for row in self._own_rows]
        return frame


def with_places(rows: Sequence[Row], columns: Sequence[Column], ranked: Sequence[bool]) -> list[Row]:
    """Mark the best three of every column that has a direction, by printed value.

    Args:
        rows: All rows.
        columns: Of their cells.
        ranked: Which rows take part.

    Returns:
        The rows with ``place`` set: equal values share a place and leave a gap behind (1, 1, 3).
    """
    cells = [list(row.cells) for row in rows]
    for index, column in enumerate(columns):
        if column.lower is None:
            continue
        known = [row for row, taken in zip(cells, ranked, strict=True) if taken and row[index].text != MISSING]
        values = pd.Series([float(row[index].text) for row in known], dtype=float)
        for row, place in zip(known, values.rank(method="min", ascending=column.lower), strict=True):
            row[index] = replace(row[index], place=int(place) if place <= PLACES else 0)
    return [replace(row, cells=tuple(marked)) for row, marked in zip(rows, cells, strict=True)]


def rank_column(group: str = "", prefix: str = "") -> Column:
    """Make the column of an average rank."""
    return Column(f"{prefix}{RANK}", "avg. rank", RANK, "rank", group)
