"""Depth edges, and how far each pixel is from the nearest one."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ncbench.jit import jit

RELATIVE_JUMP = 0.05
"""A twentieth of the depth: the jump at which DSINE's plane fit, too, takes two pixels for different surfaces."""


def depth_edges(depth: NDArray[np.float32], relative_jump: float = RELATIVE_JUMP) -> NDArray[np.bool_]:
    """Mark the pixels on both sides of a depth discontinuity.

    Two neighbours (left and right, or above and below) are on different surfaces where their depths differ by more than
    ``relative_jump`` of the nearer one and the slope on neither side explains it: 1 / z of a plane is linear in the
    pixel, so that the slope of 1 / z one pixel away, on either side, is taken off first. A grazing floor is no edge.

    Args:
        depth: (H, W) float32 z-depth in metres, unknown where 0, negative or not finite. Pairs with an unknown pixel
            are no edge.
        relative_jump: Share of the nearer depth.

    Returns:
        (H, W) bool.
    """
    values = np.ascontiguousarray(depth, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where((values > 0) & np.isfinite(values), 1 / values, 0.0)
    edges = np.zeros(inverse.shape, np.bool_)
    _mark(inverse, relative_jump, edges)
    return edges


def edge_distance(depth: NDArray[np.float32], relative_jump: float = RELATIVE_JUMP) -> NDArray[np.float32]:
    """Measure the Euclidean distance to the nearest depth edge.

    Args:
        depth: As for ``depth_edges``.
        relative_jump: As for ``depth_edges``.

    Returns:
        (H, W) float32 pixels, 0 on an edge, inf where the frame has none.
    """
    edges = depth_edges(depth, relative_jump)
    if not edges.any():
        return np.full(edges.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


@jit(inline=True)
def _apart(before: float, here: float, there: float, after: float, relative_jump: float) -> bool:
    """Compare two neighbours by 1 / z, with the pixels beyond them; 0 is unknown."""
    if here == 0 or there == 0:
        return False
    jump = there - here
    # |z1 - z0| > t min(z0, z1) is |q1 - q0| > t min(q0, q1) for q = 1 / z
    least = relative_jump * min(here, there)
    apart = abs(jump) > least
    if before > 0:
        apart = apart and abs(jump - (here - before)) > least
    if after > 0:
        apart = apart and abs(jump - (after - there)) > least
    return apart


@jit()
def _mark(inverse: NDArray[np.float64], relative_jump: float, edges: NDArray[np.bool_]) -> None:
    height, width = inverse.shape
    for row in range(height):
        for column in range(width):
            here = inverse[row, column]
            if column + 1 < width:
                before = inverse[row, column - 1] if column > 0 else 0.0
                after = inverse[row, column + 2] if column + 2 < width else 0.0
                if _apart(before, here, inverse[row, column + 1], after, relative_jump):
                    edges[row, column] = edges[row, column + 1] = True
            if row + 1 < height:
                before = inverse[row - 1, column] if row > 0 else 0.0
                after = inverse[row + 2, column] if row + 2 < height else 0.0
                if _apart(before, here, inverse[row + 1, column], after, relative_jump):
                    edges[row, column] = edges[row + 1, column] = True
