"""Which pixels the frame before did not show, from that frame's flow."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from ncbench.evaluators.slices.base import NOT_APPLICABLE, LabelMap
from ncbench.jit import jit

SEEN, NEW = 0, 1
REACH = 0.75
"""Pixels, in x and in y, around a landing place that count as seen: above 0.5, so that a picture that grows by less
than half from frame to frame leaves no gaps, and little above it, so that a narrow uncovered strip stays open."""


def seen_before(flow: NDArray[np.float32], occluded: NDArray[np.bool_] | None) -> LabelMap:
    """Tell old pixels from newly visible ones by carrying the earlier frame's pixels forward.

    A pixel was seen where a visible pixel of the earlier frame lands within ``REACH`` of it. All else is new: uncovered
    or come into the picture. Nothing is said of a pixel that an earlier pixel of unknown motion could have reached,
    moving no farther than the fastest known one.

    Args:
        flow: (H, W, 2) float32 pixels, from the earlier frame to this one; NaN where unknown.
        occluded: (H, W) bool, the earlier frame's pixels that this one does not show; None where unknown, and then
            what a hidden pixel lands on counts as seen.

    Returns:
        (H, W) int8: 0 seen, 1 new, -1 cannot be told.
    """
    known = np.asarray(np.isfinite(flow).all(axis=-1))
    covered = np.zeros(known.shape, np.bool_)
    visible: NDArray[np.bool_] = known if occluded is None else known & ~occluded
    _splat(np.ascontiguousarray(flow, np.float32), visible, covered)
    labels = np.where(covered, SEEN, NEW).astype(np.int8)
    if not known.any():
        labels[:] = NOT_APPLICABLE
    elif not known.all():
        u, v = flow[known].astype(np.float64).T
        blank: NDArray[np.uint8] = known.astype(np.uint8)
        away = cv2.distanceTransform(blank, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        labels[~covered & (away <= np.hypot(u, v).max() + REACH)] = NOT_APPLICABLE
    return labels


@jit()
def _splat(flow: NDArray[np.float32], visible: NDArray[np.bool_], covered: NDArray[np.bool_]) -> None:
    height, width = visible.shape
    for row in range(height):
        for column in range(width):
            x, y = column + flow[row, column, 0], row + flow[row, column, 1]
            if not visible[row, column] or not (-REACH <= x < width and -REACH <= y < height):
                continue
            for line in range(max(math.ceil(y - REACH), 0), min(math.floor(y + REACH), height - 1) + 1):
                for place in range(max(math.ceil(x - REACH), 0), min(math.floor(x + REACH), width - 1) + 1):
                    covered[line, place] = True
