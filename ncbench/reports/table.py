"""One neutral table; renderers only style it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ncbench.cards import ReportCard
from ncbench.errors import CardError
from ncbench.evaluators.statistics.ranks import lower_is_better
from ncbench.evaluators.temporal.options import METRIC_NAMES
from ncbench.reports.results import Result
from ncbench.settings import suggest

_DECIMALS = 2
_LABELS = {"bfd_rmse": "track rmse", "bfd_bias": "bias", "bfd_flicker": "flicker", "bfd_fast": "fast flicker"}
_LABELS |= {"opw": "OPW", "opw_truth": "OPW of truth", "opw_excess": "OPW excess", "rc_deg": "rc", "tge_deg": "tge"}
_METRICS = ("mean", "median", "rmse", *METRIC_NAMES, "abs_rel", "delta1", "tae", "unanswered")


@dataclass(frozen=True)
class Table:
    """Results that may be compared: one protocol, one data digest.

    Attributes:
        name: Identifier, fit for a file name.
        title: What a reader sees.
        values: One row a model, indexed by its title; the report's columns in degrees or percent, NaN where the
        result is
            partial, and a column ``note``.
        results: What the rows were made from, in row order.
        footer: Everything that the numbers depend on, as one line of text.
    """

    name: str
    title: str
    values: pd.DataFrame
    results: tuple[Result, ...]
    footer: str

    @property
    def metrics(self) -> list[str]:
        """The metric columns, in order."""
        return [column for column in self.values.columns if column != "note"]

    def text(self) -> pd.DataFrame:
        """Return the table as it is printed: two decimals, a dash where there is no number."""
        shown = self.values[self.metrics].map(lambda value: "-" if pd.isna(value) else f"{value:.{_DECIMALS}f}")
        shown["note"] = self.values["note"]
        return shown

    def best(self) -> pd.DataFrame:
        """Mark the best value of each column; values that print alike win together."""
        rounded = self.values[self.metrics].round(_DECIMALS)
        best = {name: rounded[name].min() if lower_is_better(name) else rounded[name].max() for name in self.metrics}
        return rounded.eq(pd.Series(best), axis="columns")


def label(metric: str) -> str:
    """Spell a metric as a table head.

    Examples:
        >>> label("within_11_25")
        '<11.25°'
    """
    if metric.startswith("within_"):
        return f"<{metric.removeprefix('within_').replace('_', '.')}°"
    return _LABELS.get(metric, metric)


def build_tables(results: Sequence[Result], card: ReportCard) -> list[Table]:
    """Group results into tables; different protocol hashes or data digests never share one.

    Args:
        results: What was loaded.
        card: Which columns, and in which order the rows.

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
        parts = (key[1][:8], key[2][:8], key[3]) if names.count(key[0]) > 1 else ()
        suffix = "".join(f"-{part}" for part in parts if part)
        tables.append(_build(members, card, suffix))
    return tables


def _build(members: list[Result], card: ReportCard, suffix: str) -> Table:
    # a column that no result of this protocol has (temporal metrics of stills) would be a column of dashes
    known = {metric for result in members for metric in result.values.metrics}
    columns = [column for column in card.columns if column in known or not known] or sorted(known)
    rows = {result.model: {column: result.values.metrics.get(column) for column in columns} for result in members}
    values = pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype(float)
    by_name = {result.model: result for result in members}
    by = card.sort_by if card.sort_by in columns else columns[0]
    order = values.sort_values(by, ascending=lower_is_better(by), kind="stable", na_position="last")
    models = tuple(str(name) for name in order.index)
    order.index = pd.Index([by_name[name].values.model.title for name in models], name="model")
    order["note"] = [_note(by_name[name]) for name in models]
    first = members[0].values
    return Table(
        name=first.protocol.name + suffix,
        title=first.protocol.title,
        values=order,
        results=tuple(by_name[name] for name in models),
        footer=_footer(members),
    )


def _note(result: Result) -> str:
    values, counts = result.values, result.values.counts
    notes = []
    if values.status == "partial":
        notes.append(f"partial: {counts.failed} of {counts.frames} frames failed")
    if values.status == "empty":
        notes.append("no valid pixel to score")
    if counts.invalid_predictions:
        notes.append(f"{counts.invalid_predictions} pixels without an answer")
    if values.dataset.name in values.model.training_sets:
        notes.append("trained on this data set")
    if values.probe.fix:
        notes.append(f"probe: {values.probe.kind}")
    if values.model.kind == "control":
        notes.append("control")
    return "; ".join(notes)


def _footer(members: list[Result]) -> str:
    first = members[0].values
    protocol, data, counts = first.protocol, first.dataset, first.counts
    flow = f"; flow {first.temporal.flow}" if first.temporal.flow else ""
    return (
        f"Protocol {protocol.name} {protocol.version} (sha256 {protocol.sha256[:12]}) on {data.name} (digest "
        f"{data.digest[:12]}): {counts.frames} frames, {counts.pixels:,} pixels; resolution {protocol.resolution}, "
        f"mask {protocol.mask}, pooled over {protocol.pooling}, thresholds strict, a pixel without an answer counts as "
        f"{protocol.invalid_prediction:g}°{flow}; OpenCV axes inside. Errors in degrees, accuracies in percent."
    )


def _check_columns(results: Sequence[Result], card: ReportCard) -> None:
    known = set(_METRICS) | {metric for result in results for metric in result.values.metrics}
    for column in (*card.columns, card.sort_by):
        if column not in known and not column.startswith(("within_", "rc@")):
            raise CardError(f"report '{card.name}': there is no metric '{column}'. {suggest(column, known)}")
    if card.sort_by not in card.columns:
        raise CardError(f"report '{card.name}': 'sort_by' is '{card.sort_by}', which is not among its columns")
