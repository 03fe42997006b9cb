"""Tables as tidy rows, one a number: CSV, Parquet, and the small files that DVC shows and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ncbench.files import write_json
from ncbench.reports.layout import Table
from ncbench.reports.render.spelling import PLACE_NAMES

_TEXTS = ("table", "kind", "model", "title", "group", "metric", "place", "note", "row_note", "result")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
METRICS_FILE, CURVES_FOLDER = "metrics.json", "plots"


def tidy(tables: Sequence[Table]) -> pd.DataFrame:
    """Lay tables out as one row a number, published ones included.

    Args:
        tables: In order.

    Returns:
        Columns ``table``, ``kind`` (``result`` or ``published``), ``model`` (its name, or the published method),
        ``title``, ``group``, ``metric``, ``value`` (full precision; NaN where there is none), ``low``, ``high``
        (interval), ``difference`` (result minus published number), ``place`` (best, second, third or empty), ``tied``,
        ``note``, ``row_note``, ``result`` (URL of its JSON within the report).
    """
    rows = [
        {
            "table": table.name,
            "kind": row.kind,
            "model": row.key,
            "title": row.label,
            "group": column.group,
            "metric": column.metric,
            "value": cell.value,
            "low": cell.low,
            "high": cell.high,
            "difference": cell.difference,
            "place": PLACE_NAMES.get(cell.place, ""),
            "tied": cell.tied,
            "note": cell.note,
            "row_note": row.note,
            "result": cell.link,
        }
        for table in tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
    ]
    return pd.DataFrame(rows)


def to_csv(frame: pd.DataFrame) -> str:
    """Write tidy rows as CSV.

    A text that a spreadsheet would run as a formula (it begins with ``= + - @`` or a tab) gets an apostrophe in front;
    the Parquet file holds it unchanged.
    """
    safe = frame.copy()
    for name in _TEXTS:
        safe[name] = [f"'{text}" if text.startswith(_FORMULA) else text for text in frame[name]]
    return safe.to_csv(index=False, lineterminator="\n")


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write tidy rows as Parquet."""
    frame.to_parquet(path, index=False)


def write_dvc_files(tables: Sequence[Table], folder: Path) -> None:
    """Write what ``dvc metrics show``, ``dvc metrics diff`` and ``dvc plots show`` read.

    Args:
        tables: Those of protocols are taken.
        folder: Of the report: gets ``metrics.json`` (table -> model -> metric -> number; a partial result has no
            metric, only ``failed``) and ``plots/<table>/<model>.csv`` (``threshold`` in degrees, ``accuracy``: percent
            of errors below it).
    """
    protocols = [table for table in tables if table.kind == "protocol"]
    values = {
        table.name: {
            one.model: dict(one.values.metrics) or {"failed": one.values.counts.failed} for one in table.results
        }
        for table in protocols
    }
    write_json(folder / METRICS_FILE, values)
    for table in protocols:
        curves = folder / CURVES_FOLDER / table.name
        for one in table.results:
            rows = [
                {"threshold": float(name.removeprefix("within_").replace("_", ".")), "accuracy": value}
                for name, value in one.values.metrics.items()
                if name.startswith("within_")
            ]
            if rows:
                curves.mkdir(parents=True, exist_ok=True)
                text = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
                (curves / f"{one.model}.csv").write_text(text, encoding="utf-8")
