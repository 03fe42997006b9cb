"""A paper's table in its own layout: its rows as published, this project's results below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from ncbench.cards import ReportCard
from ncbench.errors import CardError
from ncbench.evaluators.statistics.ranks import average_rank
from ncbench.report_card import PaperGroup, PaperRow, PaperTable
from ncbench.reports.columns import RANK, label, printed
from ncbench.reports.layout import Cell, Column, Row, Table, rank_column, with_places
from ncbench.reports.notes import listed, row_note
from ncbench.reports.published import Number
from ncbench.reports.results import Result
from ncbench.reports.table import published_cell
from ncbench.settings import suggest

_Values = dict[str, list[dict[str, float]]]
"""Row -> one mapping a group: metric -> value."""


def build_paper(card: ReportCard, results: Sequence[Result], numbers: Sequence[Number]) -> Table:
    """Build a paper's table; it stands without any result of ours.

    Args:
        card: With a ``paper`` block.
        results: All results; those of the block's protocols become rows below the published ones.
        numbers: All published numbers.

    Returns:
        The table. Places are marked among the published rows alone, as the paper does.

    Raises:
        CardError: The block names a method or split that has no number in that source.
    """
    paper = card.paper
    if paper is None:
        raise CardError(f"report '{card.name}' has no block 'paper'")
    columns = _columns(paper)
    published = [_numbers_of(row, paper, numbers, card.name) for row in paper.rows]
    labels = [row.label or row.method for row in paper.rows]
    ranks = _ranks({name: [_plain(group) for group in row] for name, row in zip(labels, published, strict=True)}, paper)
    rows = [
        _published_row(row, name, found, paper, ranks[name])
        for row, name, found in zip(paper.rows, labels, published, strict=True)
    ]
    rows = with_places(rows, columns, [True] * len(rows))
    others = {name: [_plain(group) for group in row] for name, row in zip(labels, published, strict=True)}
    rows += _own_rows(card, paper, results, published, others)
    return Table(card.name, card.title, "paper", tuple(columns), tuple(rows), tuple(_notes(paper, results)))


def _columns(paper: PaperTable) -> list[Column]:
    columns = []
    for index, group in enumerate(paper.groups):
        columns += [Column(f"{index}/{name}", label(name), name, group=group.title) for name in paper.metrics]
        columns += [rank_column(group.title, f"{index}/")] if paper.rank else []
    return columns


def _numbers_of(row: PaperRow, paper: PaperTable, numbers: Sequence[Number], where: str) -> list[dict[str, Number]]:
    """One mapping a group: metric -> number."""
    table = row.table or paper.table
    there = [one for one in numbers if (one.source, one.table) == (paper.source, table)]
    known = {one.method for one in there}
    if row.method not in known:
        raise CardError(
            f"report '{where}': {paper.source}, {table} has no method '{row.method}'. {suggest(row.method, known)}"
        )
    splits = {one.split for one in there}
    for group in paper.groups:
        if group.split not in splits:
            raise CardError(
                f"report '{where}': {paper.source}, {table} has no split '{group.split}'. "
                f"{suggest(group.split, splits)}"
            )
    mine = [one for one in there if one.method == row.method]
    return [{one.metric: one for one in mine if one.split == group.split} for group in paper.groups]


def _plain(group: dict[str, Number]) -> dict[str, float]:
    return {name: one.value for name, one in group.items()}


def _published_row(
    row: PaperRow, name: str, groups: list[dict[str, Number]], paper: PaperTable, ranks: list[float]
) -> Row:
    cells = []
    for group, rank in zip(groups, ranks, strict=True):
        cells += [published_cell(group.get(metric)) for metric in paper.metrics]
        cells += [Cell(rank, printed(rank, 1))] if paper.rank else []
    notes = dict.fromkeys(one.note for group in groups for one in group.values() if one.note)
    return Row(row.method, name, "published", tuple(cells), "; ".join(notes))


def _ranks(rows: _Values, paper: PaperTable) -> dict[str, list[float]]:
    """Average rank within each group, among the rows that have all its metrics."""
    found: dict[str, list[float]] = {name: [] for name in rows}
    for index in range(len(paper.groups)):
        entries = [
            (name, metric, groups[index].get(metric, math.nan))
            for name, groups in rows.items()
            for metric in paper.metrics
        ]
        frame = pd.DataFrame(entries, columns=["model", "metric", "value"]).assign(protocol="here")
        ranks = average_rank(frame, paper.decimals)["here"]
        for name in rows:
            found[name].append(float(ranks[name]))
    return found


def _own_rows(
    card: ReportCard,
    paper: PaperTable,
    results: Sequence[Result],
    published: list[list[dict[str, Number]]],
    others: _Values,
) -> list[Row]:
    """One row for each model; none where nothing of ours is there."""
    by_model: dict[str, dict[str, Result]] = {}
    wanted = {group.protocol for group in paper.groups if group.protocol}
    for one in results:
        if one.protocol in wanted:
            by_model.setdefault(one.model, {})[one.protocol] = one
    rows = []
    for model, mine in sorted(by_model.items()):
        quoted = _quoted(card, paper, model, published)
        name = f"{next(iter(mine.values())).values.model.title} (here)"
        # ranked as if it were added to the published rows alone
        own = [_ranked_values(group, mine) for group in paper.groups]
        ranks = _ranks(others | {name: own}, paper)[name]
        cells: list[Cell] = []
        for index, (group, rank) in enumerate(zip(paper.groups, ranks, strict=True)):
            result = mine.get(group.protocol)
            compared = quoted[index] if quoted and group.comparable else {}
            cells += [_own_cell(result, metric, compared.get(metric), paper.decimals) for metric in paper.metrics]
            cells += [Cell(rank, printed(rank, 1), link=result.link if result else "")] if paper.rank else []
        notes = [f"{group.title}: {note}" for group in paper.groups for note in _own_notes(group, mine)]
        rows.append(Row(model, name, "result", tuple(cells), "; ".join(dict.fromkeys(notes))))
    return rows


def _ranked_values(group: PaperGroup, mine: dict[str, Result]) -> dict[str, float]:
    """Our values in a group; none where they answer another question than the paper's."""
    result = mine.get(group.protocol)
    return dict(result.values.metrics) if result and group.comparable else {}


def _quoted(
    card: ReportCard, paper: PaperTable, model: str, published: list[list[dict[str, Number]]]
) -> list[dict[str, Number]] | None:
    """The published row of a model of ours; None where there is none."""
    for row, groups in zip(paper.rows, published, strict=True):
        if model in card.published.methods.get(row.method, ()):
            return groups
    return None


def _own_cell(result: Result | None, metric: str, quoted: Number | None, decimals: int) -> Cell:
    if result is None:
        return Cell()
    value = result.values.metrics.get(metric, math.nan)
    low, high = result.values.intervals.metrics.get(metric, (math.nan, math.nan))
    cell = Cell(value, printed(value, decimals), low=low, high=high, link=result.link)
    return cell if quoted is None else replace(cell, difference=value - quoted.value)


def _own_notes(group: PaperGroup, mine: dict[str, Result]) -> list[str]:
    result = mine.get(group.protocol)
    if result is None:
        return []
    return [note for note in (row_note(result), "" if group.comparable else "other frames") if note]


def _notes(paper: PaperTable, results: Sequence[Result]) -> list[str]:
    place = paper.source if paper.table in paper.source else f"{paper.source}, {paper.table}"
    quoted = [f"'{row.label or row.method}' in {row.table}" for row in paper.rows if row.table]
    notes = [f"Numbers as published: {place}{f' ({listed(quoted)})' if quoted else ''}."]
    rank = f" '{label(RANK)}' ranks such a row as if it alone joined the published ones." if paper.rank else ""
    notes.append(
        "Rows marked (here) are results of this project; in brackets their difference from the published row of the "
        f"same method.{rank}"
    )
    notes += [f"{group.title}: {group.note}" for group in paper.groups if group.note]
    for group in paper.groups:
        keys = {one.table_key() for one in results if one.protocol == group.protocol}
        notes += [
            f"{group.title}: results of protocol {name} ({sha[:12]}) on data of digest {data[:12]}"
            + (f", flow {flow}" if flow else "")
            + (": different versions; never compare them." if len(keys) > 1 else ".")
            for name, sha, data, flow in sorted(keys)
        ]
    return notes
