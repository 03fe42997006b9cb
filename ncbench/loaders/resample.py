"""Resample normals to another size, for training: shrink by area, enlarge by interpolation, never across surfaces.

Where both sides shrink, pixels are weighed as in `ncbench.geometry.resize.resize_normals`: by their part inside the
footprint of the target pixel. Where a side grows, the four nearest source pixels are interpolated. Either way only
valid pixels count, and of these only the ones on the surface at the footprint's centre: at about its depth, and facing
within ``SAME_DIRECTION`` of it, because the mean of two walls of a corner is a surface that is not there. Weights are
computed once a row and column rather than once a pixel, for speed; a test holds the two against each other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ncbench.geometry.resize import SAME_SURFACE
from ncbench.jit import jit

BoolMap = NDArray[np.bool_]
FloatMap = NDArray[np.float32]
Taps = tuple[NDArray[np.int64], FloatMap, NDArray[np.int64]]

SAME_DIRECTION = math.cos(math.radians(30))
"""Cosine of the angle up to which two normals of a footprint may belong to one surface."""

_SHORTEST = np.float32(1e-3)  # a mean of unit normals that is shorter has no direction: they cancel
_HALF = np.float32(0.5 - 1e-6)  # half of the weight, whatever the rounding of its sum


def resample_normals(
    normal: FloatMap, valid: BoolMap, depth: FloatMap | None, size: tuple[int, int]
) -> tuple[FloatMap, BoolMap]:
    """Resample unit normals to a size.

    Args:
        normal: (H, W, 3) float32 unit normals.
        valid: (H, W) bool.
        depth: (H, W) float32 z-depth in metres, 0 where unknown; None where there is none.
        size: New height and width, at least 1.

    Returns:
        (height, width, 3) float32 unit normals, zero where invalid; (height, width) bool, true where at least half of
        the weight is valid, at least one valid pixel lies on the centre's surface, and the normals do not cancel.

    Raises:
        ValueError: Shapes disagree, or a side is below 1.
    """
    if normal.shape != (*valid.shape, 3) or (depth is not None and depth.shape != valid.shape) or min(size) < 1:
        shown = None if depth is None else depth.shape
        raise ValueError(
            f"expected normals (H, W, 3), valid (H, W), depth (H, W) and sides of at least 1 pixel, got "
            f"{normal.shape}, {valid.shape}, {shown} and a new size of {size}"
        )
    taps = area_taps if size[0] <= valid.shape[0] and size[1] <= valid.shape[1] else linear_taps
    rows, columns = (taps(source, target) for source, target in zip(valid.shape, size, strict=True))
    resampled = np.zeros((*size, 3), np.float32)
    kept = np.zeros(size, np.bool_)
    known = np.ascontiguousarray(depth) if depth is not None else np.zeros((1, 1), np.float32)
    _gather(
        np.ascontiguousarray(normal), np.ascontiguousarray(valid), known, *rows, *columns, resampled.reshape(-1), kept
    )
    return resampled, kept


def area_taps(source: int, target: int) -> Taps:
    """Weigh source pixels by the part of them inside each target pixel's footprint, along one axis.

    Args:
        source: Pixels of the old side.
        target: Pixels of the new side, at most ``source``.

    Returns:
        First source pixel (target,), weights of it and the following ones (target, taps), source pixel at the
        footprint's centre (target,). A weight is 0 where there is no such source pixel.
    """
    index = np.arange(target, dtype=np.int64)
    first = index * source // target
    taps = int((-(-(index + 1) * source // target) - first).max())
    place = first[:, None] + np.arange(taps)
    low, high = index[:, None] * source / target, (index[:, None] + 1) * source / target
    overlap = np.clip(np.minimum(place + 1, high) - np.maximum(place, low), 0, None)
    return first, overlap.astype(np.float32), _centres(source, target)


def linear_taps(source: int, target: int) -> Taps:
    """Weigh the two source pixels beside each target pixel's centre, along one axis; arguments as ``area_taps``."""
    index = np.arange(target, dtype=np.int64)
    place = np.clip((index + 0.5) * source / target - 0.5, 0, source - 1)
    first = np.floor(place).astype(np.int64)
    rest = place - first
    return first, np.stack([1 - rest, rest], axis=1).astype(np.float32), _centres(source, target)


def _centres(source: int, target: int) -> NDArray[np.int64]:
    """Source pixel at the centre of each target pixel's footprint; in integers, so that ties fall alike everywhere."""
    return (2 * np.arange(target, dtype=np.int64) + 1) * source // (2 * target)


@jit()
def _gather(
    normal: FloatMap,
    valid: BoolMap,
    depth: FloatMap,
    first_rows: NDArray[np.int64],
    row_weights: FloatMap,
    rows: NDArray[np.int64],
    first_columns: NDArray[np.int64],
    column_weights: FloatMap,
    columns: NDArray[np.int64],
    resampled: FloatMap,
    kept: BoolMap,
) -> None:
    """Fill the flat ``resampled`` and ``kept``; a depth map of another size than ``valid`` tells nothing."""
    height, width = kept.shape
    apart = depth.shape == valid.shape
    zero = np.float32(0)
    for row in range(height):
        for column in range(width):
            x, y, z, used, known, whole = zero, zero, zero, zero, zero, zero
            mid_row, mid_column = rows[row], columns[column]
            centre = depth[mid_row, mid_column] if apart else zero
            near = np.float32(SAME_SURFACE) * centre if centre > zero else np.float32(np.inf)
            p, q, r = normal[mid_row, mid_column, 0], normal[mid_row, mid_column, 1], normal[mid_row, mid_column, 2]
            least = np.float32(SAME_DIRECTION) if valid[mid_row, mid_column] else np.float32(-2)
            for a in range(row_weights.shape[1]):
                tall = row_weights[row, a]
                if tall <= zero:
                    continue
                i = first_rows[row] + a
                for b in range(column_weights.shape[1]):
                    weight = tall * column_weights[column, b]
                    if weight <= zero:
                        continue
                    j = first_columns[column] + b
                    whole += weight
                    weight = weight if valid[i, j] else zero
                    known += weight
                    if apart:
                        own = depth[i, j]
                        weight = weight if (own <= zero) | (abs(own - centre) < near) else zero
                    u, v, w = normal[i, j, 0], normal[i, j, 1], normal[i, j, 2]
                    weight = weight if p * u + q * v + r * w >= least else zero
                    used += weight
                    x += weight * u
                    y += weight * v
                    z += weight * w
            length = np.sqrt(x * x + y * y + z * z)
            if known >= _HALF * whole and used > zero and length > _SHORTEST * used:
                place = 3 * (row * width + column)
                resampled[place] = x / length
                resampled[place + 1] = y / length
                resampled[place + 2] = z / length
                kept[row, column] = True
