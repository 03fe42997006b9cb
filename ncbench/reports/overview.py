"""All models over all protocols: the headline metric of each, and the average rank."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from ncbench.cards import ReportCard
from ncbench.evaluators.statistics.ranks import OVERALL, average_rank
from ncbench.reports.columns import RANK, decimals, label, printed
from ncbench.reports.layout import Cell, Column, Row, Table, rank_column, with_places
from ncbench.reports.results import Result


def build_overview(tables: Sequence[Table], card: ReportCard) -> Table | None:
    """Put the protocols' tables side by side.

    Args:
        tables: Of protocols.
        card: Its ``sort_by`` is what each protocol shows, its ``rank_by`` what models are ranked over.

    Returns:
        The table, best overall rank first, then by title; None for fewer than two protocols.
    """
    if len(tables) < 2:
        return None
    found = {(table.name, one.model): one for table in tables for one in table.results}
    models = sorted({model for _, model in found})
    ranks = _ranks(found, card)
    columns: list[Column] = []
    for table in tables:
        columns.append(Column(f"{table.name}/{card.sort_by}", label(card.sort_by), card.sort_by, group=table.name))
        columns.append(rank_column(table.name, f"{table.name}/"))
    columns.append(Column(OVERALL, "overall rank", RANK, "rank"))
    rows = [_row(model, [table.name for table in tables], found, ranks, card.sort_by) for model in models]
    rows.sort(key=lambda row: (not math.isfinite(row.cells[-1].value), row.cells[-1].value, row.label, row.key))
    title = f"All protocols: {label(card.sort_by)} and average rank"
    rule = (
        f"Ranks: the average over {', '.join(label(name) for name in card.rank_by)}, among the models of each "
        "protocol; the overall rank is over all of them, among the models that are complete in every protocol."
    )
    marked = with_places(rows, columns, [True] * len(rows))
    return Table("overview", title, "overview", tuple(columns), tuple(marked), (rule,))


def _ranks(found: dict[tuple[str, str], Result], card: ReportCard) -> pd.DataFrame:
    rows = [
        (name, model, metric, one.values.metrics.get(metric, math.nan))
        for (name, model), one in found.items()
        for metric in card.rank_by
    ]
    frame = pd.DataFrame(rows, columns=["protocol", "model", "metric", "value"])
    # a metric that no model of a protocol has is not asked for there
    has_any = frame.groupby(["protocol", "metric"])["value"].transform(lambda values: values.notna().any())
    kept = frame[has_any]
    return average_rank(kept, decimals=2) if len(kept) else pd.DataFrame()


def _row(
    model: str, names: Sequence[str], found: dict[tuple[str, str], Result], ranks: pd.DataFrame, metric: str
) -> Row:
    cells = []
    for name in names:
        result = found.get((name, model))
        link = result.link if result else ""
        value = result.values.metrics.get(metric, math.nan) if result else math.nan
        cells += [Cell(value, printed(value, decimals(metric)), link=link), _rank_cell(ranks, model, name, link)]
    cells.append(_rank_cell(ranks, model, OVERALL, ""))
    missing = [name for name in names if (name, model) not in found]
    partial = [name for name in names if (name, model) in found and not found[name, model].values.metrics]
    notes = [f"not run on {', '.join(missing)}"] if missing else []
    notes += [f"no numbers on {', '.join(partial)}"] if partial else []
    title = next(one.values.model.title for (_, key), one in found.items() if key == model)
    return Row(model, title, "result", tuple(cells), "; ".join(notes))


def _rank_cell(ranks: pd.DataFrame, model: str, name: str, link: str) -> Cell:
    known = model in ranks.index and name in ranks.columns
    value = float(ranks.loc[model, name]) if known else math.nan  # type: ignore[arg-type]  # pandas types cells loosely
    return Cell(value, printed(value, decimals(RANK)), link=link)
