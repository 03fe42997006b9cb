"""From the scores of pieces to what a result states. Nothing is ever averaged over a part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ncbench.errors import ScoreError
from ncbench.evaluators.angular import AngularState, metric_name
from ncbench.evaluators.invariants import check_invariants
from ncbench.evaluators.pooling import mean_of
from ncbench.evaluators.scoring import Measures, PieceScores, slice_scorer
from ncbench.evaluators.statistics.bootstrap import intervals
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.protocol_card import ProtocolCard

if TYPE_CHECKING:
    from ncbench.evaluators.slices.scorer import SliceScorer

FRAME_COLUMNS = ("sequence", "frame", "status", "error", "pixels", "invalid")
MEASURE_COLUMNS = ("sequence", "frame", "other", "metric", "value", "coverage", "pixels")
_SQUARED = "bfd_"  # parts of one squared error: they split it only where squares are averaged


@dataclass(frozen=True)
class Scores:
    """All that scoring a protocol gives.

    Attributes:
        protocol: What was scored.
        frames: One row a frame: sequence, frame, status, error, pixels, invalid, then the metrics of that frame.
        state: Errors of all pixels of all scored frames.
        clips: One row a window, for pooling over sequences; else empty.
        units: Statistics of each scored frame, for intervals and comparisons; None where there is none.
        slices: Errors by slice; None where the protocol has no slices.
        measures: Temporal or depth metrics by sequence.
    """

    protocol: ProtocolCard
    frames: pd.DataFrame
    state: AngularState
    clips: pd.DataFrame
    units: UnitStatistics | None
    slices: SliceScorer | None
    measures: Mapping[str, Measures]

    @property
    def failed(self) -> int:
        """How many frames could not be scored."""
        return int((self.frames["status"] != "scored").sum())

    def measure_rows(self) -> pd.DataFrame:
        """Give the temporal or depth metrics of every frame or pair, tidy."""
        rows = [row for measures in self.measures.values() for row in measures.rows]
        return pd.DataFrame(rows, columns=list(MEASURE_COLUMNS)).astype({"other": "Int64"})


def gather(protocol: ProtocolCard, pieces: Sequence[PieceScores]) -> Scores:
    """Put the pieces of a protocol together.

    Args:
        protocol: What was scored.
        pieces: All of them, in the protocol's order.

    Returns:
        The scores.
    """
    state = AngularState.empty(protocol.thresholds)
    for piece in pieces:
        state += piece.state
    columns = [*FRAME_COLUMNS, *(_metric_names(protocol) if protocol.task == "normals" else [])]
    units = [piece.units for piece in pieces if piece.units]
    slices = slice_scorer(protocol)
    for piece in pieces:
        if slices and piece.slices:
            slices.add_arrays(piece.slices)
    return Scores(
        protocol=protocol,
        frames=pd.DataFrame([row for piece in pieces for row in piece.rows], columns=columns),
        state=state,
        clips=pd.DataFrame([row for piece in pieces for row in piece.clips]),
        units=UnitStatistics.concatenate(units) if units else None,
        slices=slices,
        measures={piece.rows[0]["sequence"]: piece.measures for piece in pieces if piece.measures},
    )


def summarize(scores: Scores, where: str) -> dict[str, Any]:
    """Reduce scores to what a result states; a partial set has counts but no averages.

    Args:
        scores: Of a whole protocol.
        where: Whose scores, for messages.

    Returns:
        ``status`` (``complete``, ``partial`` where a frame failed, ``empty`` where no pixel of the truth is valid),
        ``counts``; and, empty unless complete: ``metrics``, ``intervals`` (metric -> low and high, and how they were
        drawn) and ``temporal`` (flow source, coverage, reasons and warnings; under this name for depth too).

    Raises:
        ScoreError: The metrics contradict one another.
    """
    failed, state, protocol = scores.failed, scores.state, scores.protocol
    pixels = int(scores.frames["pixels"].sum())
    status = "partial" if failed else "complete" if pixels else "empty"
    counts = {"frames": len(scores.frames), "scored": len(scores.frames) - failed, "failed": failed}
    counts |= {"pixels": pixels, "invalid_predictions": state.invalid}
    if protocol.pooling == "frames":
        counts["frames_without_truth"] = int((scores.frames["pixels"] == 0).sum()) - failed
    result: dict[str, Any] = {"status": status, "counts": counts, "metrics": {}, "intervals": {}, "temporal": {}}
    if status != "complete":
        # the source of flow decides which table a row belongs to, also one without numbers
        flow = next((measures.flow for measures in scores.measures.values() if measures.flow), "")
        return result | ({"temporal": {"flow": flow}} if flow else {})
    metrics = pooled(scores) if protocol.task == "normals" else {}
    if metrics:
        check_invariants(metrics, where)
        result["intervals"] = _intervals(scores)
    if scores.measures:
        extra, result["temporal"] = over_sequences(scores.measures)
        metrics = metrics | extra
    return result | {"metrics": metrics}


def pooled(scores: Scores) -> dict[str, float]:
    """Pool angular errors as the protocol says.

    Args:
        scores: Of a whole protocol, with at least one valid pixel.

    Returns:
        Metric -> value.
    """
    protocol = scores.protocol
    if protocol.pooling == "pixels":
        return scores.state.metrics()
    names = _metric_names(protocol)
    table = scores.frames if protocol.pooling == "frames" else scores.clips
    return mean_of(table.loc[table["pixels"] > 0, names].to_dict("records"), protocol.decimals)


def over_sequences(measures: Mapping[str, Measures]) -> tuple[dict[str, float], dict[str, Any]]:
    """Average temporal or depth metrics over sequences, each sequence alike.

    Args:
        measures: By sequence.

    Returns:
        Metric -> mean over all sequences (of squares, for the parts of ``bfd``); and what a reader must know: ``flow``,
        ``coverage`` by metric, ``missing`` (metrics that a sequence lacks, so that they have no mean: the reason),
        ``warnings``.

    Raises:
        ScoreError: Sequences were scored with different flow sources.
    """
    flows = sorted({one.flow for one in measures.values()})
    if len(flows) > 1:
        raise ScoreError(
            f"flow sources {', '.join(flows)} in one data set: scores of different sources never mix. Name one in the "
            "protocol (temporal.flow)."
        )
    names = list(dict.fromkeys(name for one in measures.values() for name in (*one.summary, *one.missing)))
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name in names:
        lacking = [sequence for sequence, one in measures.items() if name not in one.summary]
        if lacking:
            reason = measures[lacking[0]].missing.get(name, "no value")
            missing[name] = f"{len(lacking)} of {len(measures)} sequences, first '{lacking[0]}': {reason}"
            continue
        found = [one.summary[name] for one in measures.values()]
        squared = name.startswith(_SQUARED)
        mean = math.fsum(value * value if squared else value for value in found) / len(found)
        values[name] = math.sqrt(mean) if squared else mean
    coverage = {name: math.fsum(one.coverage[name] for one in measures.values()) / len(measures) for name in values}
    warnings = [warning for one in measures.values() for warning in one.warnings]
    return values, {"flow": flows[0], "coverage": coverage, "missing": missing, "warnings": warnings}


def _metric_names(protocol: ProtocolCard) -> list[str]:
    return ["mean", "median", "rmse", *(metric_name(threshold) for threshold in protocol.thresholds)]


def _intervals(scores: Scores) -> dict[str, Any]:
    rules, protocol = scores.protocol.intervals, scores.protocol
    if scores.units is None or rules.resamples == 0:
        return {}
    table = intervals(
        scores.units,
        protocol.pooling,
        unit=rules.unit,
        clips=protocol.clips,
        decimals=protocol.decimals,
        confidence=rules.confidence,
        resamples=rules.resamples,
        seed=rules.seed,
    )
    first = table.iloc[0]
    drawn = {name: first[name] for name in ("confidence", "unit", "units", "resamples", "seed", "note")}
    ends = {row["metric"]: [row["low"], row["high"]] for _, row in table.iterrows() if not math.isnan(row["low"])}
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in drawn.items()}
    return plain | {"metrics": ends}
