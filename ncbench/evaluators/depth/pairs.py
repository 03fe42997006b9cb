"""``opw`` of two neighbouring frames: what is compared, over which pixels, by which flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.depth.metrics import opw
from ncbench.evaluators.depth.options import DepthOptions
from ncbench.evaluators.flow.base import Correspondence, FlowSource
from ncbench.evaluators.flow.checks import cycle_consistent, edge_distance_mask, motion_warning, warp_beats_zero
from ncbench.evaluators.view import BoolMap, View

DoubleMap = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AlignedFrame:
    """A frame that is ready to be compared with its neighbour.

    Attributes:
        view: The truth.
        preds: (H, W) float64 aligned depth in metres, everywhere positive.
        truth: (H, W) float64 true depth in metres; NaN where it does not count.
    """

    view: View
    preds: DoubleMap
    truth: DoubleMap

    @property
    def valid(self) -> BoolMap:
        """(H, W) bool, where the truth counts."""
        return np.asarray(np.isfinite(self.truth))


@dataclass(frozen=True, slots=True)
class OpwScores:
    """``opw`` of a pair, the mean of both directions; NaN where a direction has no pixel.

    Attributes:
        preds: Of the prediction.
        truth: Of the true depth, over those of the pixels where it is known: all of them with the mask ``truth``.
        pixels: Compared in both directions together.
        coverage: Their share of both pictures.
        warning: What is doubtful about the flow; empty if nothing.
    """

    preds: float
    truth: float
    pixels: int
    coverage: float
    warning: str


def score_opw(a: AlignedFrame, b: AlignedFrame, flow: FlowSource, options: DepthOptions) -> OpwScores:
    """Compare two frames along the motion between them.

    Args:
        a: The earlier frame.
        b: The later frame.
        flow: Where the motion comes from.
        options: Map, mask and norm.

    Returns:
        The scores.

    Raises:
        ScoreError: The flow is not to be had, or an estimated one explains the pictures no better than standing still.
    """
    there, back = flow.match(a.view, b.view), flow.match(b.view, a.view)
    warning = _check_estimate(a.view, b.view, there, flow) if flow.estimated else ""
    preds, truth, pixels = 0.0, 0.0, 0
    for one, two, motion, returning in ((a, b, there, back), (b, a, back, there)):
        mask = _mask(one, motion, returning, flow.estimated, options)
        if options.opw_mask == "truth":
            # the truth of the other frame must be known too, or prediction and truth see different pixels
            other = np.where(two.valid, _compared(two.preds, options), np.nan)
        else:
            other = _compared(two.preds, options)
        value, count = opw(_compared(one.preds, options), other, motion.flow, mask, options.opw_norm)
        control, _ = opw(
            _compared(one.truth, options), _compared(two.truth, options), motion.flow, mask, options.opw_norm
        )
        preds, truth, pixels = preds + value / 2, truth + control / 2, pixels + count
    return OpwScores(preds, truth, pixels, pixels / (a.preds.size + b.preds.size), warning)


def _compared(depth: DoubleMap, options: DepthOptions) -> DoubleMap:
    return depth if options.opw_map == "depth" else 1 / depth


def _mask(
    frame: AlignedFrame, motion: Correspondence, returning: Correspondence, estimated: bool, options: DepthOptions
) -> BoolMap:
    """Pixels of a frame that count, but for what the warp itself finds out."""
    if options.opw_mask == "none":
        return np.ones(frame.preds.shape, np.bool_)
    if motion.visible is None or estimated:
        mask = cycle_consistent(motion.flow, returning.flow, options.cycle_threshold)
        mask = mask if motion.visible is None else mask & motion.visible
    else:
        mask = motion.visible
    if options.opw_mask == "truth":
        mask = mask & frame.valid
    return mask & edge_distance_mask(
        _edge_picture(frame, options), options.edge_distance, options.canny_low, options.canny_high
    )


def _edge_picture(frame: AlignedFrame, options: DepthOptions) -> NDArray[np.uint8]:
    if options.opw_mask == "image":
        if frame.view.image is None:
            raise ScoreError(
                f"sequence '{frame.view.sequence}', frame {frame.view.frame}: opw_mask 'image' needs a picture. Use "
                "'truth'."
            )
        return frame.view.image
    return _levels(frame.truth if options.opw_mask == "truth" else frame.preds)


def _levels(depth: DoubleMap) -> NDArray[np.uint8]:
    """Spread a frame's disparity over the grey levels, 0 where it is unknown."""
    disparity = np.nan_to_num(1 / depth)
    known = disparity[disparity > 0]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    span = high - low if high > low else 1.0
    return np.clip((disparity - low) / span * 255, 0, 255).astype(np.uint8)


def _check_estimate(a: View, b: View, there: Correspondence, flow: FlowSource) -> str:
    if a.image is not None and b.image is not None:
        check = warp_beats_zero(a.image, b.image, there.flow)
        if not check.passed:
            raise ScoreError(
                f"flow source '{flow.name}' explains the pictures no better than standing still (mean difference "
                f"{check.warped:.2f} warped, {check.still:.2f} as they are, of 255)"
            )
    return motion_warning(there.flow, flow.name) or ""
