"""Results of one protocol as a table: models over metrics, with published numbers beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from ncbench.cards import ReportCard
from ncbench.errors import CardError
from ncbench.evaluators.statistics.ranks import average_rank, lower_is_better
from ncbench.evaluators.temporal.options import METRIC_NAMES
from ncbench.reports.columns import EXTRAS, INTERVAL, MEMORY, MISSING, RANK, SPEED, decimals, label, printed
from ncbench.reports.layout import Cell, Column, Role, Row, Table, with_places
from ncbench.reports.notes import row_note, table_notes
from ncbench.reports.published import Number, of_result
from ncbench.reports.results import Result
from ncbench.reports.significance import compare_with_best
from ncbench.settings import suggest

__all__ = ["Table", "build_tables", "label"]

_NO_NAME = re.compile(r"[^\w.-]+")
"""What a file's name shall not hold: tables give theirs to files."""
_METRICS = ("mean", "median", "rmse", *METRIC_NAMES, "abs_rel", "delta1", "tae", "unanswered")
_ROLES: dict[str, Role] = {INTERVAL: "interval", RANK: "rank", SPEED: "cost", MEMORY: "cost"}


def build_tables(results: Sequence[Result], card: ReportCard, numbers: Sequence[Number] = ()) -> list[Table]:
    """Group results into tables; different protocol hashes, data digests or flow sources never share one.

    Args:
        results: What was loaded.
        card: Which columns, and in which order the rows.
        numbers: Published numbers to put beside results.

    Returns:
        Tables sorted by protocol.

    Raises:
        CardError: The report asks for a column that is no metric.
    """
    _check_columns(results, card)
    groups: dict[tuple[str, str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault(result.table_key(), []).append(result)
    names = [key[0] for key in groups]
    tables = []
    for key, members in sorted(groups.items(), key=lambda item: item[0]):
        # one protocol name with two meanings, versions of the data or sources of flow: keep both, tell them apart
        parts = (key[1][:8], key[2][:8], _NO_NAME.sub("-", key[3])) if names.count(key[0]) > 1 else ()
        suffix = "".join(f"-{part}" for part in parts if part)
        relatives = [one for one in results if one.protocol == key[0] and one.table_key() != key]
        tables.append(_build(members, relatives, card, numbers, suffix))
    return tables


def _build(
    members: list[Result], relatives: list[Result], card: ReportCard, numbers: Sequence[Number], suffix: str
) -> Table:
    columns = _columns(members, card)
    ranks = _ranks(members, card)
    ordered = _ordered(members, card.sort_by, columns)
    verdicts = compare_with_best(members, card.significance)
    rows = [_row(result, columns, card.sort_by, ranks) for result in ordered]
    rows = with_places(rows, columns, [True] * len(rows))
    rows = [_with_ties(row, columns, verdicts.tied) for row in rows]
    together: list[Row] = []
    for row, result in zip(rows, ordered, strict=True):
        together += [row, *_published_rows(result, columns, of_result(numbers, card.published, *_names(result)))]
    first = members[0].values
    notes = [*table_notes(members, relatives), *([verdicts.note] if verdicts.note else []), *_rank_note(columns, card)]
    return Table(
        first.protocol.name + suffix,
        first.protocol.title,
        "protocol",
        tuple(columns),
        tuple(together),
        tuple(notes),
        tuple(ordered),
    )


def _names(result: Result) -> tuple[str, str]:
    return result.protocol, result.model


def _columns(members: Sequence[Result], card: ReportCard) -> list[Column]:
    """The card's columns that any result has a value for: a column of dashes says nothing."""
    known = {metric for one in members for metric in one.values.metrics}
    there = known | {RANK} if len([one for one in members if one.values.metrics]) > 1 else set(known)
    if any(card.sort_by in one.values.intervals.metrics for one in members):
        there.add(INTERVAL)
    there |= {name for name in (SPEED, MEMORY) for one in members if math.isfinite(_cost(one, name))}
    metrics = [name for name in card.columns if name in known or (not known and name not in EXTRAS)]
    if not metrics:  # none of the card's own: a protocol of depth, say
        return [Column(name, label(name), name) for name in sorted(known)]
    names = [name for name in card.columns if name in metrics or name in there]
    confidence = next((one.values.intervals.confidence for one in members if one.values.intervals.metrics), None)
    heads = {INTERVAL: f"{confidence or 95:g} % interval"}
    return [Column(name, heads.get(name, label(name)), name, _ROLES.get(name, "metric")) for name in names]


def _ordered(members: Sequence[Result], sort_by: str, columns: Sequence[Column]) -> list[Result]:
    """Best first by the card's metric; results without it last; else by name."""
    keys = [column.metric for column in columns if column.role == "metric"]
    by = sort_by if sort_by in keys else keys[0]
    sign = 1 if lower_is_better(by) else -1
    values = pd.Series([one.values.metrics.get(by, math.nan) * sign for one in members], dtype=float)
    return [members[index] for index in values.sort_values(kind="stable", na_position="last").index]


def _ranks(members: Sequence[Result], card: ReportCard) -> dict[str, float]:
    """Average rank of each model that has all metrics of ``rank_by`` that any has."""
    known = [name for name in card.rank_by if any(name in one.values.metrics for one in members)]
    rows = [(one.model, name, one.values.metrics.get(name, math.nan)) for one in members for name in known]
    if not rows:
        return {}
    frame = pd.DataFrame(rows, columns=["model", "metric", "value"]).assign(protocol="here")
    return {str(model): float(rank) for model, rank in average_rank(frame, decimals=2)["here"].items()}


def _row(result: Result, columns: Sequence[Column], sort_by: str, ranks: dict[str, float]) -> Row:
    cells = tuple(_cell(result, column, sort_by, ranks) for column in columns)
    return Row(result.model, result.values.model.title, "result", cells, row_note(result), result.link)


def _cell(result: Result, column: Column, sort_by: str, ranks: dict[str, float]) -> Cell:
    drawn, link = result.values.intervals, result.link
    if column.role == "interval":
        low, high = drawn.metrics.get(sort_by, (math.nan, math.nan))
        places = decimals(sort_by)
        text = f"{printed(low, places)} to {printed(high, places)}" if math.isfinite(low) else MISSING
        return Cell(text=text, low=low, high=high, note=drawn.note, link=link)
    if column.role == "rank":
        rank = ranks.get(result.model, math.nan)
        return Cell(rank, printed(rank, decimals(RANK)), link=link)
    if column.role == "cost":
        cost = _cost(result, column.metric)
        return Cell(cost, printed(cost, decimals(column.metric)), note=result.values.predictions.device, link=link)
    value = result.values.metrics.get(column.metric, math.nan)
    low, high = drawn.metrics.get(column.metric, (math.nan, math.nan))
    note = result.values.temporal.missing.get(column.metric, "")
    return Cell(value, printed(value, decimals(column.metric)), low=low, high=high, note=note, link=link)


def _cost(result: Result, name: str) -> float:
    run = result.values.predictions
    if name == SPEED:
        return math.nan if run.frames_per_second is None else run.frames_per_second
    return math.nan if run.peak_memory_bytes is None else run.peak_memory_bytes / 2**30


def _with_ties(row: Row, columns: Sequence[Column], tied: frozenset[tuple[str, str]]) -> Row:
    cells = [
        replace(cell, tied=column.role == "metric" and (row.key, column.metric) in tied)
        for column, cell in zip(columns, row.cells, strict=True)
    ]
    return replace(row, cells=tuple(cells))


def _published_rows(result: Result, columns: Sequence[Column], numbers: Sequence[Number]) -> list[Row]:
    """One row for each place that published numbers of this model under this protocol."""
    rows = []
    for place, method in dict.fromkeys((one.place, one.method) for one in numbers):
        mine = {one.metric: one for one in numbers if (one.place, one.method) == (place, method)}
        cells = tuple(published_cell(mine.get(column.metric), result) for column in columns)
        note = "; ".join(dict.fromkeys(["published", *(one.note for one in mine.values() if one.note)]))
        rows.append(Row(method, f"{method} ({place})", "published", cells, note))
    return rows


def published_cell(number: Number | None, result: Result | None = None) -> Cell:
    """Make the cell of a published number, printed as its source prints it.

    Args:
        number: The number; None for an empty cell.
        result: What it is compared with: ``difference`` is that result minus the number.

    Returns:
        The cell.
    """
    if number is None:
        return Cell()
    found = math.nan if result is None else result.values.metrics.get(number.metric, math.nan)
    return Cell(number.value, number.text, difference=found - number.value, note=number.note)


def _rank_note(columns: Sequence[Column], card: ReportCard) -> list[str]:
    if all(column.role != "rank" for column in columns):
        return []
    names = ", ".join(label(name) for name in card.rank_by)
    return [f"Average rank over {names}, by printed values, equal ones sharing the better place; costs are not ranked."]


def _check_columns(results: Sequence[Result], card: ReportCard) -> None:
    known = {*_METRICS, *EXTRAS} | {metric for result in results for metric in result.values.metrics}
    for column in (*card.columns, card.sort_by, *card.rank_by, *card.significance.metrics):
        if column not in known and not column.startswith(("within_", "rc@")):
            raise CardError(f"report '{card.name}': there is no metric '{column}'. {suggest(column, known)}")
    if card.sort_by not in card.columns:
        raise CardError(f"report '{card.name}': 'sort_by' is '{card.sort_by}', which is not among its columns")
