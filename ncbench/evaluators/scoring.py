"""Score one piece of a protocol: a sequence, or some still pictures. Pure, so that any process may do it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ncbench.errors import NcbenchError
from ncbench.evaluators.angular import AngularState
from ncbench.evaluators.examiner import Examiner, Piece
from ncbench.evaluators.flow.base import FlowSource
from ncbench.evaluators.framing import frame_view
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.evaluators.view import View
from ncbench.geometry.encoding import ColourMap
from ncbench.protocol_card import ProtocolCard

if TYPE_CHECKING:  # most protocols need none of these, and importing them takes as long as dozens of pictures
    from ncbench.evaluators.depth.scorer import DepthScorer
    from ncbench.evaluators.slices.scorer import SliceScorer
    from ncbench.evaluators.temporal.scorer import TemporalScorer

Preds = TypeVar("Preds")
_FAILED = "{} frames could not be read, and nothing is averaged over a part"


@dataclass(frozen=True)
class Measures:
    """Temporal or depth metrics of one sequence.

    Attributes:
        flow: Name of the flow source; empty where none was used.
        rows: Tidy values: sequence, frame, other, metric, value, coverage, pixels.
        summary: Mean over the sequence, by metric.
        coverage: Mean share of the picture (or of tracks) that counted, by metric.
        missing: Metrics without a value -> the reason.
        warnings: What a reader should know.
    """

    flow: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, float] = field(default_factory=dict)
    coverage: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PieceScores:
    """What scoring a piece gives.

    Attributes:
        rows: One a frame: sequence, frame, status, error, pixels, invalid, then the frame's metrics.
        state: Errors of all its pixels.
        clips: One row a window (or the whole sequence), for pooling over sequences: clip, frames, pixels and metrics.
        units: Statistics of each frame, for intervals; None where none was scored.
        slices: Sums by slice, as ``SliceScorer.to_arrays`` gives them; None where the protocol has no slices.
        measures: Temporal or depth metrics; None where the protocol has none.
    """

    rows: list[dict[str, Any]]
    state: AngularState
    clips: list[dict[str, Any]]
    units: UnitStatistics | None
    slices: dict[str, NDArray[Any]] | None
    measures: Measures | None


def score_piece(examiner: Examiner, piece: Piece) -> PieceScores:
    """Score a piece; a frame that cannot be scored is a row with its error.

    Args:
        examiner: Protocol, truth and predictions.
        piece: The frames.

    Returns:
        Its scores.

    Raises:
        NcbenchError: The protocol asks for what the data or this machine cannot give (a flow source without its
            weights), or contradicts the model.
    """
    return _score_depth(examiner, piece) if examiner.protocol.task == "depth" else _score_normals(examiner, piece)


def _score_normals(examiner: Examiner, piece: Piece) -> PieceScores:
    protocol = examiner.protocol
    slices = slice_scorer(protocol)
    temporal = _temporal_scorer(examiner, piece)
    windows = [AngularState.empty(protocol.thresholds) for _ in piece.windows]
    total, rows, units = AngularState.empty(protocol.thresholds), [], []
    whole = bool(slices or temporal)
    read = examiner.preds if whole else examiner.preds_for_angles
    for position, frame, answer in _answers(examiner, piece, read, whole=whole):
        row: dict[str, Any] = {"sequence": piece.sequence, "frame": frame, "status": "scored", "error": ""}
        if isinstance(answer, str):
            rows.append(row | {"status": "failed", "error": answer, "pixels": 0, "invalid": 0})
            continue
        preds, view = answer
        compared = view.normal, view.valid, protocol.thresholds, protocol.invalid_prediction
        if isinstance(preds, ColourMap):
            state = AngularState.score_colours(preds, *compared)
        else:
            state = AngularState.score(preds, *compared)
            if slices:
                slices.add(preds, view)
            if temporal:
                temporal[1].add(preds, view)
        rows.append(row | {"pixels": state.count, "invalid": state.invalid} | state.metrics())
        units.append(UnitStatistics.of(piece.sequence, frame, state))
        total += state
        for number, window in enumerate(piece.windows):
            if position in window:
                windows[number] += state
    failed = sum(row["status"] != "scored" for row in rows)
    return PieceScores(
        rows=rows,
        state=total,
        clips=[_clip_row(piece, window, state) for window, state in zip(piece.windows, windows, strict=True)],
        units=UnitStatistics.concatenate(units) if units else None,
        slices=slices.to_arrays() if slices else None,
        measures=_temporal_measures(temporal, failed) if temporal else None,
    )


def _score_depth(examiner: Examiner, piece: Piece) -> PieceScores:
    from ncbench.evaluators.depth.options import DepthOptions
    from ncbench.evaluators.depth.scorer import DepthScorer

    protocol = examiner.protocol
    options = DepthOptions.parse(protocol.depth or {}, f"protocol '{protocol.name}', depth")
    options = options.of_model(examiner.source.card.depth, examiner.source.card.name)
    flow = examiner.flow_source(piece) if "opw" in options.metrics else None
    scorer, rows = DepthScorer(options, flow), []
    for _, frame, answer in _answers(examiner, piece, examiner.preds, whole=True):
        row: dict[str, Any] = {"sequence": piece.sequence, "frame": frame, "status": "scored", "error": ""}
        if isinstance(answer, str):
            rows.append(row | {"status": "failed", "error": answer, "pixels": 0, "invalid": 0})
            continue
        scorer.fit(*answer)
        rows.append(row | {"pixels": int(answer[1].valid.sum()), "invalid": 0})
    failed = sum(row["status"] != "scored" for row in rows)
    measures = Measures(missing=dict.fromkeys(options.metrics, _FAILED.format(failed)))
    if not failed:
        for _, _, answer in _answers(examiner, piece, examiner.preds, whole=True):
            assert not isinstance(answer, str)  # noqa: S101 - the first pass read the same frames
            scorer.add(*answer)
        measures = _depth_measures(scorer, flow)
    return PieceScores(rows, AngularState.empty(protocol.thresholds), [], None, None, measures)


def _answers(
    examiner: Examiner, piece: Piece, read: Callable[[View, View], Preds], *, whole: bool
) -> Iterator[tuple[int, int, tuple[Preds, View] | str]]:
    """Position, frame, and the prediction with its truth on the scored pixels; or what went wrong, in words."""
    first: View | None = None
    for position, frame in enumerate(piece.frames):
        try:
            view = examiner.view(piece.sequence, frame, whole=whole)
            first = first or view
            yield position, frame, (read(view, first), frame_view(view, examiner.protocol))
        except NcbenchError as error:
            yield position, frame, str(error)


def slice_scorer(protocol: ProtocolCard) -> SliceScorer | None:
    """Make an empty scorer of the protocol's slices; None where it has none.

    Raises:
        ScoreError: A slice has no such name.
    """
    if not protocol.slices:
        return None
    from ncbench.evaluators.slices.scorer import SliceScorer
    from ncbench.evaluators.slices.standard import named_slices

    return SliceScorer(named_slices(protocol.slices), protocol.thresholds, protocol.invalid_prediction)


def _temporal_scorer(examiner: Examiner, piece: Piece) -> tuple[FlowSource, TemporalScorer] | None:
    temporal = examiner.protocol.temporal
    if temporal is None:
        return None
    from ncbench.evaluators.flow.rigid import RigidFlow
    from ncbench.evaluators.temporal.options import TemporalOptions
    from ncbench.evaluators.temporal.scorer import TemporalScorer

    options = TemporalOptions.parse(temporal.options, f"protocol '{examiner.protocol.name}', temporal options")
    flow = examiner.flow_source(piece)
    return flow, TemporalScorer(options, flow, RigidFlow())


def _temporal_measures(temporal: tuple[FlowSource, TemporalScorer], failed: int) -> Measures:
    flow, scorer = temporal
    if failed:
        names = scorer.summary() | scorer.missing()
        return Measures(flow=flow.name, missing=dict.fromkeys(names, _FAILED.format(failed)))
    return Measures(flow.name, scorer.rows(), scorer.summary(), scorer.coverage(), scorer.missing(), scorer.warnings())


def _depth_measures(scorer: DepthScorer, flow: FlowSource | None) -> Measures:
    from ncbench.evaluators.depth.scorer import COLUMNS

    reasons: dict[str, str] = {}
    for lack in scorer.missing():
        reasons.setdefault(lack["metric"], f"frame {lack['frame']}: {lack['reason']}")
    rows = scorer.rows()
    values = {name: value for name, value in scorer.summary().items() if not math.isnan(value)}
    return Measures(
        flow="" if flow is None else flow.name,
        rows=[dict(zip(COLUMNS, map(_plain, row), strict=True)) for row in rows.itertuples(index=False)],
        summary={name: value for name, value in values.items() if name not in reasons},
        coverage={str(name): float(value) for name, value in rows.groupby("metric")["coverage"].mean().items()},
        missing=reasons,
        warnings=scorer.warnings(),
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 - a cell of a table
    return None if value is pd.NA else value.item() if isinstance(value, np.generic) else value


def _clip_row(piece: Piece, window: range, state: AngularState) -> dict[str, Any]:
    first, last = piece.frames[window[0]], piece.frames[window[-1]]
    row = {"sequence": piece.sequence, "first": first, "last": last, "frames": len(window), "pixels": state.count}
    return row | state.metrics()
