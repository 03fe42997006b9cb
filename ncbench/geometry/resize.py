"""Resize maps of a frame without inventing surfaces.

The picture's outer edges stay where they are: x' = (x + 0.5) * scale - 0.5 with the centre of the top-left pixel at
(0, 0). The footprint of a target pixel is the rectangle of the source that it covers; a source pixel's weight is the
part of it that lies inside. The footprint's centre belongs to the source pixel that it falls into; where it falls
between two (even reductions) to the lower right one, so that depth and flow are sampled half a source pixel away.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ncbench.jit import jit

FloatMap = NDArray[np.float32]
DoubleMap = NDArray[np.float64]
BoolMap = NDArray[np.bool_]
Indices = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)

SAME_SURFACE = 0.05
"""Relative difference of depths below which two pixels of a footprint lie on one surface."""

_SHORTEST = 1e-3  # a mean of unit normals that is shorter has no direction: they cancel
_HALF = 0.5 - 1e-9  # half of the weight, whatever the rounding of its sum


def fit_within(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Shrink a size until its longest side fits, in proportion; never enlarge.

    Args:
        size: Height and width in pixels.
        longest: Most pixels that a side may have, at least 1.

    Returns:
        Height and width, rounded to the nearest pixel, each at least 1.

    Raises:
        ValueError: A side is below 1.

    Examples:
        >>> fit_within((480, 640), 320)
        (240, 320)
    """
    if min(*size, longest) < 1:
        raise ValueError(f"expected sides of at least 1 pixel, got {size} and a longest side of {longest}")
    side = max(size)
    if side <= longest:
        return size
    height, width = (max(1, (2 * length * longest + side) // (2 * side)) for length in size)
    return height, width


def resize_nearest(values: NDArray[Scalar], size: tuple[int, int]) -> NDArray[Scalar]:
    """Take for each target pixel the source pixel at its footprint's centre; nothing is mixed.

    Args:
        values: (H, W) or (H, W, C), any type.
        size: New height and width.

    Returns:
        (height, width) or (height, width, C) of the same type; a copy.

    Raises:
        ValueError: A side is below 1.
    """
    height, width = _checked(values.shape[:2], size)
    rows, columns = _centres(values.shape[0], height), _centres(values.shape[1], width)
    return np.ascontiguousarray(values[rows[:, None], columns])


def resize_flow(flow: NDArray[Any], size: tuple[int, int]) -> FloatMap:
    """Resize flow between two frames that are resized alike.

    Args:
        flow: (H, W, 2) displacement (u, v) in pixels, NaN where unknown.
        size: New height and width.

    Returns:
        (height, width, 2) float32 in pixels of the new size: the value at the footprint's centre, u times width / W and
        v times height / H. NaN stays.

    Raises:
        ValueError: A side is below 1.
    """
    scale = np.array([size[1] / flow.shape[1], size[0] / flow.shape[0]])
    return np.asarray(resize_nearest(flow, size) * scale, dtype=np.float32)


def resize_normals(
    normal: NDArray[Any], valid: BoolMap, depth: NDArray[Any] | None, size: tuple[int, int]
) -> tuple[FloatMap, BoolMap]:
    """Average the unit normals of the surface that each target pixel shows.

    The weighted mean over the footprint takes valid pixels only, and of these only the ones on the surface at the
    footprint's centre: whose depth differs from the centre's by less than ``SAME_SURFACE`` of the latter. A pixel is
    not left out for its depth where its own or the centre's is unknown.

    Args:
        normal: (H, W, 3) unit normals.
        valid: (H, W) bool.
        depth: (H, W) z-depth, 0 where unknown; None where there is none.
        size: New height and width.

    Returns:
        (height, width, 3) float32 unit normals, zero where invalid; (height, width) bool, true where at least half of
        the footprint's weight is valid, at least one valid pixel lies on the centre's surface, and the normals do not
        cancel.

    Raises:
        ValueError: Shapes disagree, or a side is below 1.
    """
    if normal.shape != (*valid.shape, 3) or (depth is not None and depth.shape != valid.shape):
        shown = None if depth is None else depth.shape
        raise ValueError(
            f"expected normals (H, W, 3), valid (H, W), depth (H, W), got {normal.shape}, {valid.shape}, {shown}"
        )
    height, width = _checked(valid.shape, size)
    surface = np.zeros(valid.shape) if depth is None else depth
    resized = np.zeros((height, width, 3), dtype=np.float32)
    kept = np.zeros((height, width), dtype=np.bool_)
    _average(
        np.ascontiguousarray(normal, dtype=np.float64),
        np.ascontiguousarray(valid),
        np.ascontiguousarray(surface, dtype=np.float64),
        _centres(valid.shape[0], height),
        _centres(valid.shape[1], width),
        resized,
        kept,
    )
    return resized, kept


def _checked(source: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    if min(*source, *size) < 1:
        raise ValueError(f"expected sides of at least 1 pixel, got {source} to be resized to {size}")
    return size


def _centres(source: int, target: int) -> Indices:
    """Source pixel at the centre of each target pixel's footprint; in integers, so that ties fall alike everywhere."""
    return (2 * np.arange(target, dtype=np.int64) + 1) * source // (2 * target)


@jit(inline=True)
def _overlap(place: int, index: int, source: int, target: int) -> float:
    """Part of source pixel ``place`` inside the footprint of target pixel ``index``, along one axis."""
    return min(place + 1.0, (index + 1) * source / target) - max(float(place), index * source / target)


@jit()
def _average(
    normal: DoubleMap,
    valid: BoolMap,
    depth: DoubleMap,
    rows: Indices,
    columns: Indices,
    resized: FloatMap,
    kept: BoolMap,
) -> None:
    source_height, source_width = valid.shape
    height, width = kept.shape
    for row in range(height):
        top, bottom = row * source_height // height, -(-(row + 1) * source_height // height)
        for column in range(width):
            left, right = column * source_width // width, -(-(column + 1) * source_width // width)
            centre = depth[rows[row], columns[column]]
            x, y, z, used, known, whole = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(top, bottom):
                tall = _overlap(i, row, source_height, height)
                for j in range(left, right):
                    weight = tall * _overlap(j, column, source_width, width)
                    whole += weight
                    if not valid[i, j]:
                        continue
                    known += weight
                    own = depth[i, j]
                    if centre > 0 and own > 0 and not abs(own - centre) < SAME_SURFACE * centre:
                        continue
                    used += weight
                    x += weight * normal[i, j, 0]
                    y += weight * normal[i, j, 1]
                    z += weight * normal[i, j, 2]
            length = math.sqrt(x * x + y * y + z * z)
            if known >= _HALF * whole and used > 0 and length > _SHORTEST * used:
                resized[row, column, 0] = x / length
                resized[row, column, 1] = y / length
                resized[row, column, 2] = z / length
                kept[row, column] = True
