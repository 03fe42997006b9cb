"""What the plots of a protocol show, as plain numbers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ncbench.errors import NcbenchError, ScoreError
from ncbench.evaluators.run import MEASURES_FILE, RESULT_FILE, SLICES_FILE
from ncbench.evaluators.slices.hardest import Hardest, hardest
from ncbench.evaluators.slices.scorer import ALL
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.reports.columns import label
from ncbench.reports.layout import Table
from ncbench.reports.results import Result

AREA_LIMIT = 30.0
"""Degrees up to which the area under a curve is taken."""
_CURVE = np.arange(0, 45.01, 0.25)
_BINS = np.arange(0, 91, 1.0)
_FLICKER = ("bfd_flicker", "tge_deg", "rc_deg", "opw")
_HARDEST = 10


@dataclass(frozen=True)
class Frames:
    """The rows of one result.

    Attributes:
        table: ``sequence``, ``frame``, ``status``, ``error``, ``pixels`` and the metric; None where they are missing.
        worst: Its sequences and frames, hardest first.
        problem: Why there is no table.
    """

    table: pd.DataFrame | None
    worst: Hardest | None
    problem: str = ""


def primary_metric(table: Table) -> str:
    """Name the metric that sequences and frames are told apart by: the mean angle, or depth's first column."""
    return "mean" if table.results[0].values.protocol.task == "normals" else table.metrics[0]


def read_frames(result: Result, metric: str) -> Frames:
    """Read the rows of a result with one metric; for depth, from its measures.

    Args:
        result: The result.
        metric: The metric.

    Returns:
        The rows, or the reason why there are none.
    """
    try:
        table = result.frames()
        if metric not in table:
            measures = pd.read_parquet(result.own_file(MEASURES_FILE))
            found = measures.loc[measures["metric"] == metric, ["sequence", "frame", "value"]]
            means = found.groupby(["sequence", "frame"], sort=False)["value"].mean().rename(metric).reset_index()
            table = table.merge(means, on=["sequence", "frame"], how="left")
        return Frames(table, hardest(table, len(table) or 1, metric))
    except (NcbenchError, OSError) as error:
        return Frames(None, None, str(error))


def plot_data(table: Table, rows: list[Frames]) -> dict[str, Any]:
    """Gather what all plots of a protocol show.

    Args:
        table: The protocol's table.
        rows: The rows of each of its results.

    Returns:
        Plain values; a model's entry is null where its result does not hold what a plot needs.
    """
    metric = primary_metric(table)
    flicker = next((name for name in _FLICKER if any(name in r.values.metrics for r in table.results)), None)
    return {
        "name": table.name,
        "metric": {"name": metric, "label": label(metric), "degrees": metric in ("mean", "median", "rmse")},
        "flicker": None if flicker is None else {"name": flicker, "label": label(flicker), "degrees": flicker != "opw"},
        "areaLimit": AREA_LIMIT,
        "curve": [number(value, 2) for value in _CURVE],
        # the statistics of one model at a time: those of 200 would not fit in memory
        "models": [
            _model(result, title, _units(result), metric, flicker)
            for result, title in zip(table.results, table.values.index, strict=True)
        ],
        "sequences": _sequences(rows, metric),
        "slices": _slices(table),
        "hardest": [_hardest(one, metric) for one in rows],
    }


def number(value: Any, digits: int = 6) -> float | None:  # noqa: ANN401 - any scalar
    """Make a number that JSON can hold: rounded to significant digits, null where there is none."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}") if digits > 2 else round(float(value), digits)


def _model(
    result: Result, title: object, units: UnitStatistics | None, metric: str, flicker: str | None
) -> dict[str, Any]:
    raw = json.loads((result.folder / RESULT_FILE).read_text(encoding="utf-8"))
    run = raw.get("predictions") or {}
    metrics = result.values.metrics
    errors = None if units is None or not metrics else units.histogram.sum(axis=0, dtype=np.int64)
    return {
        "name": result.model,
        "title": str(title),
        "control": result.values.model.kind == "control",
        "value": number(metrics.get(metric)),
        "flicker": number(metrics.get(flicker)) if flicker else None,
        "fps": number(run.get("frames_per_second")),
        "device": str(run.get("device", "")),
        "curve": None if units is None or errors is None else _shares(errors, units.bin_width, _CURVE),
        "area": None if units is None or errors is None else _area(errors, units.bin_width),
        "histogram": None if units is None or errors is None else _per_degree(errors, units.bin_width),
    }


def _units(result: Result) -> UnitStatistics | None:
    """Statistics of a result's frames; None where it has none (depth) or they are not those it was made with."""
    try:
        return result.units()
    except ScoreError:
        return None


def _below(errors: np.ndarray[Any, Any], width: float, edges: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Share of errors strictly below each edge, where edges are whole numbers of bins."""
    total = np.concatenate([[0], np.cumsum(errors)])
    return np.asarray(total[np.minimum(np.rint(edges / width).astype(int), len(errors))] / max(total[-1], 1))


def _shares(errors: np.ndarray[Any, Any], width: float, edges: np.ndarray[Any, Any]) -> list[float | None]:
    return [number(100 * share, 2) for share in _below(errors, width, edges)]


def _per_degree(errors: np.ndarray[Any, Any], width: float) -> list[float | None]:
    """Percent of pixels by degree; the last bin takes everything from 89 degrees up."""
    below = _below(errors, width, _BINS)
    below[-1] = 1.0
    return [number(100 * share, 4) for share in np.diff(below)]


def _area(errors: np.ndarray[Any, Any], width: float) -> float | None:
    """Area under the accuracy curve from 0 to ``AREA_LIMIT``, in percent of a perfect model's."""
    middles = (np.arange(len(errors)) + 0.5) * width
    return number(100 * np.average(np.clip(1 - middles / AREA_LIMIT, 0, None), weights=errors), 2)


def _sequences(rows: list[Frames], metric: str) -> dict[str, Any]:
    tables = [None if one.worst is None else one.worst.sequences.set_index("sequence")[metric] for one in rows]
    names: dict[str, None] = {}
    for one in rows:
        if one.table is not None:
            names |= dict.fromkeys(str(name) for name in one.table["sequence"].unique())
    values = [None if t is None else [number(t.get(name)) for name in names] for t in tables]
    return {"names": list(names), "values": values}


def _slices(table: Table) -> dict[str, Any] | None:
    columns: dict[tuple[str, str], float] = {}
    values: list[dict[tuple[str, str], float]] = []
    for result in table.results:
        found: dict[tuple[str, str], float] = {}
        try:
            rows = pd.read_parquet(result.own_file(SLICES_FILE))
        except ScoreError:
            rows = pd.DataFrame()
        for row in rows.to_dict("records") if result.values.metrics else []:
            if row["slice"] != ALL and row["pixels"] > 0:
                key = (str(row["slice"]), str(row["bin"]))
                columns.setdefault(key, row["share"])
                found[key] = row["mean"]
        values.append(found)
    if not columns:
        return None
    return {
        "columns": [[*key, number(100 * share, 2)] for key, share in columns.items()],
        "values": [[number(found.get(key), 3) for key in columns] for found in values],
    }


def _hardest(rows: Frames, metric: str) -> list[list[Any]] | None:
    if rows.worst is None:
        return None
    top = rows.worst.frames.head(_HARDEST)
    return [
        [str(row["sequence"]), int(row["frame"]), number(row[metric]), int(row["pixels"])]
        for row in top.to_dict("records")
    ]
