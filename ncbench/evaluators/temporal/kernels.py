"""The formulas of ``metrics`` as machine code: one pass over flat (N, 3) arrays, float64 inside, NaN for no answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.evaluators.angular_kernel import angle
from ncbench.jit import jit

Flat = NDArray[np.floating[Any]]
Matrix = NDArray[np.float64]
Values = NDArray[np.float64]
Vector = tuple[float, float, float]


@jit(inline=True)
def _row(vectors: Flat, i: int) -> Vector:
    return np.float64(vectors[i, 0]), np.float64(vectors[i, 1]), np.float64(vectors[i, 2])


@jit(inline=True)
def _unit(v: Vector) -> Vector:
    """Bring to unit length; 0 / 0 makes a vector of no direction NaN."""
    length = math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    return v[0] / length, v[1] / length, v[2] / length


@jit(inline=True)
def _turn(r: Matrix, v: Vector) -> Vector:
    return (
        r[0, 0] * v[0] + r[0, 1] * v[1] + r[0, 2] * v[2],
        r[1, 0] * v[0] + r[1, 1] * v[1] + r[1, 2] * v[2],
        r[2, 0] * v[0] + r[2, 1] * v[1] + r[2, 2] * v[2],
    )


@jit()
def opw(reference: Flat, warped: Flat, out: Values) -> None:
    """See ``metrics.opw_error``."""
    for i in range(len(out)):
        a, b = _row(reference, i), _row(warped, i)
        out[i] = abs(a[0] - b[0]) + abs(a[1] - b[1]) + abs(a[2] - b[2])


@jit()
def rc(reference: Flat, warped: Flat, rotation: Matrix, out: Values) -> None:
    """See ``metrics.rc_error``."""
    for i in range(len(out)):
        a, b = _row(reference, i), _turn(rotation, _row(warped, i))
        out[i] = angle(a[0], a[1], a[2], b[0], b[1], b[2])


@jit()
def tge(reference: Flat, warped: Flat, true_reference: Flat, true_warped: Flat, rotation: Matrix, out: Values) -> None:
    """See ``metrics.tge_error``."""
    for i in range(len(out)):
        p, t = _unit(_row(reference, i)), _unit(_row(true_reference, i))
        q, s = _unit(_row(warped, i)), _unit(_row(true_warped, i))
        r = _turn(rotation, (q[0] - s[0], q[1] - s[1], q[2] - s[2]))
        x, y, z = p[0] - t[0] - r[0], p[1] - t[1] - r[1], p[2] - t[2] - r[2]
        out[i] = math.degrees(math.sqrt(x * x + y * y + z * z))


@jit()
def dtheta(reference: Flat, warped: Flat, true_reference: Flat, true_warped: Flat, out: Values) -> None:
    """See ``metrics.dtheta_error``."""
    for i in range(len(out)):
        p, t = _row(reference, i), _row(true_reference, i)
        q, s = _row(warped, i), _row(true_warped, i)
        out[i] = abs(angle(p[0], p[1], p[2], t[0], t[1], t[2]) - angle(q[0], q[1], q[2], s[0], s[1], s[2]))


@jit()
def accel(
    reference: Flat, following: Flat, from_following: Matrix, previous: Flat, from_previous: Matrix, out: Values
) -> None:
    """See ``metrics.accel_error``."""
    for i in range(len(out)):
        n = _unit(_row(reference, i))
        a = _turn(from_following, _unit(_row(following, i)))
        b = _turn(from_previous, _unit(_row(previous, i)))
        x, y, z = a[0] + b[0] - 2 * n[0], a[1] + b[1] - 2 * n[1], a[2] + b[2] - 2 * n[2]
        out[i] = math.degrees(math.sqrt(x * x + y * y + z * z))
