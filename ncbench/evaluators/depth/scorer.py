"""Depth metrics of a stream of frames, in two passes: one to fit, one to score."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.depth.align import Alignment, Moments, aligned_depth, predicted_disparity, solve
from ncbench.evaluators.depth.metrics import abs_rel, delta1
from ncbench.evaluators.depth.options import DepthOptions
from ncbench.evaluators.depth.pairs import AlignedFrame, score_opw
from ncbench.evaluators.depth.tae import tae
from ncbench.evaluators.flow.base import FlowSource
from ncbench.evaluators.view import BoolMap, View

COLUMNS = ("sequence", "frame", "other", "metric", "value", "coverage", "pixels")
"""Columns of ``DepthScorer.rows``."""


@dataclass(slots=True)
class _Clip:
    """What is known of a clip after the first pass.

    Attributes:
        moments: Of all its valid pixels.
        frames: Fitted, and not scored yet.
    """

    moments: Moments = field(default_factory=Moments)
    frames: set[int] = field(default_factory=set)


class DepthScorer:
    """Scores depth or disparity of video against true depth; holds two frames at a time.

    Call ``fit`` for every frame of every clip, then ``add`` for the same frames, each clip's in order. Neighbours are
    the frames that follow one another in these calls. Where the protocol aligns single frames or nothing, the first
    pass may be left out.

    Args:
        options: What to compute.
        flow: Where motion comes from; needed for ``opw``.

    Raises:
        ScoreError: ``opw`` is asked for without a flow source.
    """

    def __init__(self, options: DepthOptions, flow: FlowSource | None = None) -> None:
        if "opw" in options.metrics and flow is None:
            raise ScoreError("metric 'opw' needs a flow source; give one, or leave the metric out")
        self.options = options
        self.flow = flow
        self._clips: dict[str, _Clip] = {}
        self._alignments: dict[str, Alignment] = {}
        self._begun: set[str] = set()
        self._current: str | None = None
        self._latest = 0
        self._previous: AlignedFrame | None = None
        self._rows: list[dict[str, Any]] = []
        self._missing: list[dict[str, Any]] = []
        self._warnings: list[str] = []

    def fit(self, preds: NDArray[np.floating[Any]], view: View) -> None:
        """First pass: take a frame into its clip's fit.

        Args:
            preds: (H, W) prediction; see ``predicted_disparity`` for what counts as no answer.
            view: The truth, of the same size, with depth.

        Raises:
            ScoreError: Sizes differ, the truth has no depth, or the frame was fitted before.
        """
        if self.options.align in ("frame", "none"):
            return
        clip = self._clips.setdefault(view.sequence, _Clip())
        if view.frame in clip.frames or view.sequence in self._alignments:
            raise ScoreError(f"{_where(view)}: was fitted before, or its clip is being scored")
        clip.moments += self._moments(preds, view)
        clip.frames.add(view.frame)

    def add(self, preds: NDArray[np.floating[Any]], view: View) -> None:
        """Second pass: score a frame, and its pair with the frame before it in the clip.

        Args:
            preds: (H, W) prediction, the same as in the first pass.
            view: The truth, of the same size, with depth.

        Raises:
            ScoreError: Sizes differ, the truth has no depth, or the frame was not fitted, was scored before or comes
                out of order.
        """
        target = self._target(preds, view)
        previous = self._neighbour(view)
        disparity, answered = predicted_disparity(preds, self.options.prediction)
        alignment = self._alignment(preds, view)
        if alignment is None:
            for name in self.options.metrics:
                self._lack(view, None, name, "no valid truth to align the prediction to")
            self._previous = None
            return
        aligned = aligned_depth(disparity, answered, alignment, self.options.max_depth)
        frame = AlignedFrame(view, aligned, target)
        self._score_frame(frame, answered)
        if previous is not None:
            self._score_pair(previous, frame)
        self._previous = frame

    def rows(self) -> pd.DataFrame:
        """Give one row for each value: of a frame (``other`` is NA) or of a pair (``other`` is the later frame).

        Returns:
            Columns ``COLUMNS``: value as the metric has it, coverage as a share of the picture, pixels compared.
        """
        frame = pd.DataFrame(self._rows, columns=list(COLUMNS))
        return frame.astype(
            {"frame": "int64", "other": "Int64", "value": "float64", "coverage": "float64", "pixels": "int64"}
        )

    def summary(self) -> dict[str, float]:
        """Average frames and pairs over each clip, then clips over the data set, as DepthCrafter does.

        Returns:
            Values by metric: ``abs_rel`` and ``delta1`` as fractions, ``tae`` in percent, ``opw`` in metres (or 1 / m),
            ``unanswered`` as a share of the valid pixels. NaN where a clip has no value at all: never a mean of a part.

        Raises:
            ScoreError: Frames that were fitted were not scored.
        """
        left = {name: sorted(clip.frames) for name, clip in self._clips.items() if clip.frames}
        if left:
            name, frames = next(iter(left.items()))
            raise ScoreError(
                f"{len(left)} clips were fitted and not scored to the end; sequence '{name}' lacks {frames}"
            )
        rows, lacking = self.rows(), pd.DataFrame(self.missing(), columns=["sequence", "metric"])
        clips = pd.concat([rows["sequence"], lacking["sequence"]]).unique()
        names = pd.concat([rows["metric"], lacking["metric"]]).unique()
        means = rows.pivot_table(index="sequence", columns="metric", values="value", aggfunc="mean")
        full = means.reindex(index=clips, columns=names)
        return {str(name): float(full[name].mean(skipna=False)) for name in full}

    def missing(self) -> list[dict[str, Any]]:
        """List what could not be computed: sequence, frame, other (None for a frame), metric, reason."""
        return list(self._missing)

    def warnings(self) -> list[str]:
        """List what is doubtful about the flow, pair by pair."""
        return list(self._warnings)

    def alignments(self) -> dict[str, Alignment]:
        """Give the fit of each clip scored so far; a negative scale means that near and far are confused."""
        return dict(self._alignments)

    def _neighbour(self, view: View) -> AlignedFrame | None:
        """The frame before this one in its clip; None at the start."""
        if self._current != view.sequence:
            if view.sequence in self._begun:
                raise ScoreError(f"{_where(view)}: comes after frames of another sequence. Score clips one by one.")
            self._begun.add(view.sequence)
            self._current, self._latest, self._previous = view.sequence, view.frame, None
            return None
        if view.frame <= self._latest:
            raise ScoreError(f"{_where(view)}: comes after frame {self._latest}. Score the frames of a clip in order.")
        self._latest = view.frame
        return self._previous

    def _target(self, preds: NDArray[np.floating[Any]], view: View) -> NDArray[np.float64]:
        """True depth (H, W), NaN where it does not count."""
        if view.depth is None:
            raise ScoreError(f"{_where(view)}: depth is scored, and the truth has none")
        if preds.shape != view.depth.shape:
            raise ScoreError(
                f"{_where(view)}: expected a prediction of {view.depth.shape}, got {preds.shape}. Resize it first."
            )
        depth = view.depth.astype(np.float64)
        counts = (depth > self.options.min_depth) & (depth < self.options.max_depth)
        return np.where(counts, depth, np.nan)

    def _moments(self, preds: NDArray[np.floating[Any]], view: View) -> Moments:
        target = self._target(preds, view)
        disparity, answered = predicted_disparity(preds, self.options.prediction)
        used = answered & np.isfinite(target)
        return Moments.of(disparity[used], 1 / target[used])

    def _alignment(self, preds: NDArray[np.floating[Any]], view: View) -> Alignment | None:
        """The fit that applies to a frame; None where there is nothing to fit to."""
        if self.options.align == "none":
            return Alignment()
        if self.options.align == "frame":
            moments = self._moments(preds, view)
            return solve(moments, "affine") if moments.count else None
        clip = self._clips.get(view.sequence)
        if clip is None or view.frame not in clip.frames:
            raise ScoreError(f"{_where(view)}: was not fitted, or was scored before")
        clip.frames.remove(view.frame)
        if view.sequence not in self._alignments and clip.moments.count:
            kind: Literal["affine", "scale"] = "scale" if self.options.align == "scale" else "affine"
            self._alignments[view.sequence] = solve(clip.moments, kind)
        return self._alignments.get(view.sequence)

    def _score_frame(self, frame: AlignedFrame, answered: BoolMap) -> None:
        valid, view = frame.valid, frame.view
        pixels = int(np.count_nonzero(valid))
        values = {
            "unanswered": float((~answered[valid]).mean()) if pixels else math.nan,
            "abs_rel": abs_rel(frame.preds, frame.truth, valid) if "abs_rel" in self.options.metrics else None,
            "delta1": delta1(frame.preds, frame.truth, valid) if "delta1" in self.options.metrics else None,
        }
        for name, value in values.items():
            if value is not None:
                self._keep(view, None, name, value, pixels / valid.size, pixels, "no pixel has valid truth")

    def _score_pair(self, a: AlignedFrame, b: AlignedFrame) -> None:
        if "opw" in self.options.metrics and self.flow is not None:
            self._score_opw(a, b, self.flow)
        if "tae" in self.options.metrics:
            self._score_tae(a, b)

    def _score_opw(self, a: AlignedFrame, b: AlignedFrame, flow: FlowSource) -> None:
        try:
            scores = score_opw(a, b, flow, self.options)
        except ScoreError as error:
            self._lack(a.view, b.view, "opw", str(error))
            return
        if scores.warning:
            self._warnings.append(f"{_where(a.view)} to {b.view.frame}: {scores.warning}")
        values = {"opw": scores.preds, "opw_truth": scores.truth}
        if self.options.opw_mask == "truth":  # otherwise the two may cover different pixels
            values["opw_excess"] = scores.preds - scores.truth
        for name, value in values.items():
            self._keep(a.view, b.view, name, value, scores.coverage, scores.pixels, "no pixel is left to compare")

    def _score_tae(self, a: AlignedFrame, b: AlignedFrame) -> None:
        cameras, poses = (a.view.intrinsics, b.view.intrinsics), (a.view.cam_to_world, b.view.cam_to_world)
        if cameras[0] is None or cameras[1] is None or poses[0] is None or poses[1] is None:
            self._lack(a.view, b.view, "tae", "the data set has no intrinsics or no poses here")
            return
        masks = (a.valid, b.valid) if self.options.tae_mask == "valid" else None
        surface = self.options.tae_surface
        value, counts = tae(a.preds, b.preds, (cameras[0], cameras[1]), (poses[0], poses[1]), masks, surface)
        coverage = sum(counts) / (a.preds.size + b.preds.size)
        self._keep(a.view, b.view, "tae", value, coverage, sum(counts), "the frames do not overlap")

    def _keep(
        self, view: View, other: View | None, metric: str, value: float, coverage: float, pixels: int, otherwise: str
    ) -> None:
        if math.isnan(value):
            self._lack(view, other, metric, otherwise)
            return
        later = None if other is None else other.frame
        self._rows.append(
            dict(zip(COLUMNS, (view.sequence, view.frame, later, metric, value, coverage, pixels), strict=True))
        )

    def _lack(self, view: View, other: View | None, metric: str, reason: str) -> None:
        later = None if other is None else other.frame
        keys = {"sequence": view.sequence, "frame": view.frame, "other": later, "metric": metric, "reason": reason}
        self._missing.append(keys)


def _where(view: View) -> str:
    return f"sequence '{view.sequence}', frame {view.frame}"
