"""Normals from the depth of a pixel's four neighbours: quick, local, and exact on a plane.

For noisy depth use ``plane_fit``; this one is for clean depth and for checks of a map's axes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncbench.jit import jit

FloatMap = NDArray[np.float32]
DoubleMap = NDArray[np.float64]
BoolMap = NDArray[np.bool_]


def normals_by_cross_product(depth: ArrayLike, rays: DoubleMap) -> tuple[FloatMap, BoolMap]:
    """Take the cross product of the central differences of the points, along the row and along the column.

    Central differences of points, unlike those of depth, are exact on a plane of any slant and for any rays.

    Args:
        depth: (H, W) z-depth in metres, any floating type; unknown where 0, negative or not finite.
        rays: (H, W, 3) rays with z = 1 (``pinhole_rays`` or ``hypersim_rays``).

    Returns:
        Normals (H, W, 3) float32 in OpenCV axes, unit length, facing the camera, zero where invalid; and valid (H, W)
        bool. A pixel is invalid at the picture's border, where its depth or that of one of its four neighbours is
        unknown, and where the plane passes through the camera.

    Raises:
        ValueError: Sizes disagree.
    """
    values = np.asarray(depth, dtype=np.float64)
    if values.ndim != 2 or rays.shape != (*values.shape, 3):
        raise ValueError(f"expected depth (H, W) and rays (H, W, 3), got {values.shape} and {rays.shape}")
    normals = np.zeros(rays.shape, dtype=np.float32)
    valid = np.zeros(values.shape, dtype=np.bool_)
    _cross_image(np.ascontiguousarray(values), np.ascontiguousarray(rays, dtype=np.float64), normals, valid)
    return normals, valid


@jit()
def _cross_image(depth: DoubleMap, rays: DoubleMap, normals: FloatMap, valid: BoolMap) -> None:
    height, width = depth.shape
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            known = (
                _is_known(depth[row, column])
                and _is_known(depth[row, column - 1])
                and _is_known(depth[row, column + 1])
                and _is_known(depth[row - 1, column])
                and _is_known(depth[row + 1, column])
            )
            if not known:
                continue
            ax, ay, az = _difference(depth, rays, row, column - 1, row, column + 1)
            bx, by, bz = _difference(depth, rays, row - 1, column, row + 1, column)
            x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
            ray = rays[row, column]
            facing = x * ray[0] + y * ray[1] + z * ray[2]
            if facing == 0:
                continue
            factor = -math.copysign(1.0, facing) / math.sqrt(x * x + y * y + z * z)
            normals[row, column, 0] = x * factor
            normals[row, column, 1] = y * factor
            normals[row, column, 2] = z * factor
            valid[row, column] = True


@jit(inline=True)
def _is_known(depth: float) -> bool:
    return 0 < depth < np.inf


@jit(inline=True)
def _difference(
    depth: DoubleMap, rays: DoubleMap, row_a: int, column_a: int, row_b: int, column_b: int
) -> tuple[float, float, float]:
    """Point b minus point a."""
    a, b = depth[row_a, column_a], depth[row_b, column_b]
    ray_a, ray_b = rays[row_a, column_a], rays[row_b, column_b]
    return b * ray_b[0] - a * ray_a[0], b * ray_b[1] - a * ray_a[1], b * ray_b[2] - a * ray_a[2]
