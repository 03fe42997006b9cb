"""Accuracy of a frame's depth, and its change along the motion; pure functions."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncbench.geometry.warp import backward_warp

BoolMap = NDArray[np.bool_]
DoubleMap = NDArray[np.float64]

DELTA = 1.25
"""Ratio of depths below which ``delta1`` counts a pixel as right."""


def abs_rel(preds: NDArray[np.floating[Any]], target: NDArray[np.floating[Any]], mask: BoolMap) -> float:
    """Mean of |d - d*| / d*.

    Args:
        preds: (H, W) depth in metres.
        target: (H, W) true depth in metres, positive in the mask.
        mask: (H, W) bool, pixels that count.

    Returns:
        The mean, a fraction; NaN for no pixel.
    """
    if not mask.any():
        return math.nan
    predicted, true = preds[mask].astype(np.float64), target[mask].astype(np.float64)
    return float((np.abs(predicted - true) / true).mean())


def delta1(preds: NDArray[np.floating[Any]], target: NDArray[np.floating[Any]], mask: BoolMap) -> float:
    """Share of pixels with max(d / d*, d* / d) < 1.25.

    Args:
        preds: (H, W) depth in metres, positive in the mask.
        target: (H, W) true depth in metres, positive in the mask.
        mask: (H, W) bool, pixels that count.

    Returns:
        A fraction; NaN for no pixel.
    """
    if not mask.any():
        return math.nan
    ratio = preds[mask].astype(np.float64) / target[mask].astype(np.float64)
    return float((np.maximum(ratio, 1 / ratio) < DELTA).mean())


def opw(
    reference: NDArray[np.floating[Any]],
    other: NDArray[np.floating[Any]],
    flow: NDArray[np.floating[Any]],
    mask: BoolMap,
    norm: Literal["mask", "area"] = "mask",
) -> tuple[float, int]:
    """Mean of |B_a - W(B_b)|: one direction of Buffer Anytime's optical-flow-based warping error.

    After Kuang et al., "Buffer Anytime", CVPR 2025, which takes it both ways and halves the sum. A constant scores 0,
    and perfect depth does not where the camera moves forward: compare with the same number for the truth.

    Args:
        reference: (H, W) depth or disparity of frame a.
        other: (H, W) the same of frame b; NaN where unknown.
        flow: (H, W, 2) displacement (u, v) in pixels from a to b.
        mask: (H, W) bool, pixels of a that count.
        norm: Divide by the number of pixels compared, or by the picture's area, which rewards small masks.

    Returns:
        The mean, NaN for no pixel; and the number of pixels compared: in the mask, inside b, and known in both.
    """
    warped, inside = backward_warp(np.asarray(other, np.float64), flow)
    change = np.abs(np.asarray(reference, np.float64) - warped)
    compared = mask & inside & np.isfinite(change)
    pixels = int(np.count_nonzero(compared))
    if pixels == 0:
        return math.nan, 0
    return float(change[compared].sum()) / (pixels if norm == "mask" else mask.size), pixels
