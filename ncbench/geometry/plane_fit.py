"""Normals by fitting a plane to the points around each pixel, without losing digits.

The construction is that of DSINE's ground truth for Sintel and other sets (Bae and Davison, "Rethinking Inductive
Biases for Surface Normal Estimation", CVPR 2024): a square window, and a depth test against the centre that keeps the
plane from bridging an edge. DSINE minimizes an algebraic residual over homogeneous plane vectors in float32, costing
up to degrees on a perfect plane. Here the points are centred, all sums are float64, and the residual is orthogonal.

A fit needs the eigenvector of the least eigenvalue of a 3 x 3 covariance. Closed forms with arccos lose half the
digits where the two other eigenvalues meet, which is every wall seen head-on. Here Halley's iteration climbs from 0
to the least root of the characteristic cubic, where it is well separated, and the adjugate gives the eigenvector.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncbench.jit import jit

FloatMap = NDArray[np.float32]
DoubleMap = NDArray[np.float64]
BoolMap = NDArray[np.bool_]
AnyFloatMap = NDArray[Any]

_BLOCK = 64  # pixels per pass: ten running sums of 64 float64 stay in the first-level cache
_SUMS = 10  # count; x, y, z; xx, xy, xz, yy, yz, zz
_HALLEY_STEPS = 6  # cubic convergence; full precision unless the two least eigenvalues agree within a few percent
_MIN_FLATNESS = 1e-8  # second over first eigenvalue: below, the points lie on a line and leave the plane free to turn
_MIN_FACING = 1e-4  # |cosine| to the ray: below, all points share one line of pixels, or the plane is seen edge-on


@overload
def normals_by_plane_fit(
    depth: ArrayLike,
    rays: DoubleMap,
    window: int = ...,
    gamma: float | None = ...,
    min_neighbours: int = ...,
    *,
    row_step: int = ...,
    dtype: Literal["float64"],
) -> tuple[DoubleMap, BoolMap]: ...


@overload
def normals_by_plane_fit(
    depth: ArrayLike,
    rays: DoubleMap,
    window: int = ...,
    gamma: float | None = ...,
    min_neighbours: int = ...,
    *,
    row_step: int = ...,
    dtype: Literal["float32"] = ...,
) -> tuple[FloatMap, BoolMap]: ...


def normals_by_plane_fit(
    depth: ArrayLike,
    rays: DoubleMap,
    window: int = 5,
    gamma: float | None = 0.05,
    min_neighbours: int = 4,
    *,
    row_step: int = 1,
    dtype: Literal["float32", "float64"] = "float32",
) -> tuple[AnyFloatMap, BoolMap]:
    """Fit to each pixel the plane with the least squared orthogonal distances to the points around it.

    A point takes part where its z differs from the centre's by less than ``gamma`` times the centre's. Windows are
    cut at the picture's border.

    On a noise-free plane in float64 the normal is right to well under 1e-6 degrees at any slant. Depth stored in
    float32 carries an error of its own, half a unit in the last place (up to 6e-8 of the depth): at a focal length of
    550 pixels it turns a 5 x 5 fit by 0.0002 degrees on average and 0.0015 at worst. A float32 result is rounded by
    up to 4e-6 degrees.

    Args:
        depth: (H, W) z-depth in metres, any floating type; unknown where 0, negative or not finite.
        rays: (H, W, 3) rays with z = 1 (``pinhole_rays`` or ``hypersim_rays``).
        window: Side of the window in pixels, odd.
        gamma: Largest relative difference in z to the centre; None switches the test off.
        min_neighbours: Least number of points that take part, the centre included.
        row_step: Fit rows 0, ``row_step``, 2 ``row_step`` and so on alone; their windows hold all pixels still.
        dtype: Type of the normals; ``"float64"`` keeps every digit.

    Returns:
        Normals (H', W, 3) in OpenCV axes, unit length, facing the camera, zero where invalid; and valid (H', W) bool,
        where H' = ceil(H / ``row_step``). A
        pixel is invalid where its depth is unknown, where fewer than ``min_neighbours`` points take part, where the
        points lie on one line in space or on one line of pixels, or where the plane is seen edge-on.

    Raises:
        ValueError: Sizes disagree, the window is not odd and at least 3, ``gamma`` is not positive, ``min_neighbours``
            is below 3, or ``row_step`` is below 1.
    """
    values = np.asarray(depth)
    if values.ndim != 2 or rays.shape != (*values.shape, 3):
        raise ValueError(f"expected depth (H, W) and rays (H, W, 3), got {values.shape} and {rays.shape}")
    if window < 3 or window % 2 == 0:
        raise ValueError(f"expected an odd window of at least 3 pixels, got {window}")
    if gamma is not None and not gamma > 0:
        raise ValueError(f"expected a positive gamma, or None for no depth test, got {gamma}")
    if min_neighbours < 3:
        raise ValueError(f"expected min_neighbours of at least 3, since a plane needs as many, got {min_neighbours}")
    if row_step < 1:
        raise ValueError(f"expected row_step of at least 1, got {row_step}")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    radius = window // 2
    points = _padded_points(np.ascontiguousarray(values), np.ascontiguousarray(rays, dtype=np.float64), radius)
    height, width = -(-values.shape[0] // row_step), values.shape[1]
    normals: AnyFloatMap = np.empty((height, width, 3), dtype=dtype)
    valid = np.empty((height, width), dtype=np.bool_)
    limit = np.inf if gamma is None else float(gamma)
    _fit_rows(points, radius, row_step, limit, min_neighbours, normals, valid)
    return normals, valid


@jit()
def _padded_points(depth: AnyFloatMap, rays: DoubleMap, radius: int) -> DoubleMap:
    """Points as planes (3, H + 2 radius, W + 2 radius); unknown ones and the padding sit at z = inf.

    The depth test |z - z_centre| < gamma * z_centre is false for z = inf whatever gamma is, and also for a centre at
    inf, so the passes over the window need no other mask and no bounds check.
    """
    height, width = depth.shape
    points = np.zeros((3, height + 2 * radius, width + 2 * radius))
    points[2] = np.inf
    for row in range(height):
        for column in range(width):
            z = np.float64(depth[row, column])
            if 0 < z < np.inf:
                for axis in range(3):
                    points[axis, row + radius, column + radius] = z * rays[row, column, axis]
    return points


@jit()
def _fit_rows(
    points: DoubleMap,
    radius: int,
    row_step: int,
    gamma: float,
    min_neighbours: int,
    normals: AnyFloatMap,
    valid: BoolMap,
) -> None:
    """Fill ``normals`` and ``valid`` for every ``row_step``-th row, one block of a row at a time.

    For each offset of the window a pass runs over the block's pixels, so that every inner loop is over neighbouring
    memory without branches and becomes vector instructions.
    """
    height, width = valid.shape
    xs, ys, zs = points[0], points[1], points[2]
    sums = np.empty(_SUMS * _BLOCK)
    found = np.empty(3 * _BLOCK)
    for place in range(height):
        row = place * row_step
        for start in range(0, width, _BLOCK):
            count = min(_BLOCK, width - start)
            inner = slice(start + radius, start + radius + count)
            x, y, z = xs[row + radius, inner], ys[row + radius, inner], zs[row + radius, inner]
            gate = gamma * z
            sums[:] = 0
            for line in range(row, row + 2 * radius + 1):
                for first in range(start, start + 2 * radius + 1):
                    span = slice(first, first + count)
                    _add_offset(sums, xs[line, span], ys[line, span], zs[line, span], x, y, z, gate)
            _solve(sums, x, y, z, min_neighbours, found)
            for i in range(count):
                for axis in range(3):
                    normals[place, start + i, axis] = found[axis * _BLOCK + i]
                valid[place, start + i] = found[i] != 0 or found[_BLOCK + i] != 0 or found[2 * _BLOCK + i] != 0


@jit()
def _add_offset(
    sums: DoubleMap,
    xs: DoubleMap,
    ys: DoubleMap,
    zs: DoubleMap,
    x: DoubleMap,
    y: DoubleMap,
    z: DoubleMap,
    gate: DoubleMap,
) -> None:
    """Add one neighbour of each pixel of the block to the sums, relative to the pixel's own point."""
    for i in range(len(x)):
        dz = zs[i] - z[i]
        near = abs(dz) < gate[i]
        dx = xs[i] - x[i] if near else 0.0
        dy = ys[i] - y[i] if near else 0.0
        dz = dz if near else 0.0
        # one flat array: with ten arrays the compiler cannot rule out that they overlap, and gives up vectors
        sums[i] += 1.0 if near else 0.0
        sums[_BLOCK + i] += dx
        sums[2 * _BLOCK + i] += dy
        sums[3 * _BLOCK + i] += dz
        sums[4 * _BLOCK + i] += dx * dx
        sums[5 * _BLOCK + i] += dx * dy
        sums[6 * _BLOCK + i] += dx * dz
        sums[7 * _BLOCK + i] += dy * dy
        sums[8 * _BLOCK + i] += dy * dz
        sums[9 * _BLOCK + i] += dz * dz


@jit()
def _solve(sums: DoubleMap, x: DoubleMap, y: DoubleMap, z: DoubleMap, min_neighbours: int, found: DoubleMap) -> None:
    """Turn the sums of each pixel into a unit normal that faces the camera, or zero where there is none.

    A division by zero gives inf or NaN, and a NaN fails every comparison. Having no branches is what lets the loop
    become vector instructions.
    """
    for i in range(len(x)):
        count = sums[i]
        share = 1.0 / count
        sx, sy, sz = sums[_BLOCK + i], sums[2 * _BLOCK + i], sums[3 * _BLOCK + i]
        xx = sums[4 * _BLOCK + i] - sx * sx * share
        xy = sums[5 * _BLOCK + i] - sx * sy * share
        xz = sums[6 * _BLOCK + i] - sx * sz * share
        yy = sums[7 * _BLOCK + i] - sy * sy * share
        yz = sums[8 * _BLOCK + i] - sy * sz * share
        zz = sums[9 * _BLOCK + i] - sz * sz * share
        u, v, w, flatness = _least_direction(xx, xy, xz, yy, yz, zz)
        length = np.sqrt(u * u + v * v + w * w)
        facing = u * x[i] + v * y[i] + w * z[i]
        good = count >= min_neighbours and flatness > _MIN_FLATNESS and abs(facing) > _MIN_FACING * length * z[i]
        factor = (-1.0 if facing > 0 else 1.0) / length
        found[i] = u * factor if good else 0.0
        found[_BLOCK + i] = v * factor if good else 0.0
        found[2 * _BLOCK + i] = w * factor if good else 0.0


@jit(inline=True)
def _least_direction(
    xx: float, xy: float, xz: float, yy: float, yz: float, zz: float
) -> tuple[float, float, float, float]:
    """Direction (any length) of the least eigenvalue of a covariance, and the sum of its principal minors at trace 1.

    That sum is about the ratio of the second to the first eigenvalue where the third is small.
    """
    # unit trace: independent of the scene's scale, and no overflow at any depth
    scale = 1.0 / (xx + yy + zz)
    xx, xy, xz, yy, yz, zz = xx * scale, xy * scale, xz * scale, yy * scale, yz * scale, zz * scale
    minors = xx * yy - xy * xy + xx * zz - xz * xz + yy * zz - yz * yz
    least = _least_root(minors, xx * (yy * zz - yz * yz) - xy * (xy * zz - xz * yz) + xz * (xy * yz - xz * yy))
    xx, yy, zz = xx - least, yy - least, zz - least
    # the adjugate of C - least * I is a multiple of n n^T; its column with the largest diagonal is the safest
    ax, ay, az = yy * zz - yz * yz, xx * zz - xz * xz, xx * yy - xy * xy
    bxy, bxz, byz = xz * yz - xy * zz, xy * yz - xz * yy, xy * xz - xx * yz
    use_x, use_y = ax >= ay and ax >= az, ay >= az
    u = ax if use_x else (bxy if use_y else bxz)
    v = bxy if use_x else (ay if use_y else byz)
    w = bxz if use_x else (byz if use_y else az)
    # once more, which squares what the root's rounding left in the other directions
    return ax * u + bxy * v + bxz * w, bxy * u + ay * v + byz * w, bxz * u + byz * v + az * w, minors


@jit(inline=True)
def _least_root(minors: float, determinant: float) -> float:
    """Least root of t^3 - t^2 + minors t - determinant, whose three roots are real, by Halley's iteration from 0."""
    least = 0.0
    for _ in range(_HALLEY_STEPS):
        value = ((least - 1) * least + minors) * least - determinant
        slope = (3 * least - 2) * least + minors
        step = 2 * value * slope / (2 * slope * slope - value * (6 * least - 2))
        least -= step if abs(step) < 1 else 0.0  # 0 / 0 at a multiple root, where nothing is left to gain
    return least
