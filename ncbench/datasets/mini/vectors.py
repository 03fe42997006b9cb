"""Arithmetic of rays: vectors as triples of floats, which numba keeps in registers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ncbench.jit import jit

Vector = tuple[float, float, float]
FloatArray = NDArray[np.float64]


@jit()
def dot(a: Vector, b: Vector) -> float:
    """Inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@jit()
def minus(a: Vector, b: Vector) -> Vector:
    """The vector ``a - b``."""
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


@jit()
def along(origin: Vector, direction: Vector, t: float) -> Vector:
    """The point ``origin + t * direction``."""
    return (origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2])


@jit()
def unit(v: Vector) -> Vector:
    """Scale to length 1; the vector must not be zero."""
    scale = 1.0 / math.sqrt(dot(v, v))
    return (v[0] * scale, v[1] * scale, v[2] * scale)


@jit()
def row(table: FloatArray, k: int) -> Vector:
    """Row ``k`` of an (N, 3) array as scalars; a view would cost more than the ray's arithmetic."""
    return (table[k, 0], table[k, 1], table[k, 2])


@jit()
def rotate(m: FloatArray, k: int, v: Vector) -> Vector:
    """``m[k] @ v`` for a stack of (3, 3) matrices."""
    return (
        m[k, 0, 0] * v[0] + m[k, 0, 1] * v[1] + m[k, 0, 2] * v[2],
        m[k, 1, 0] * v[0] + m[k, 1, 1] * v[1] + m[k, 1, 2] * v[2],
        m[k, 2, 0] * v[0] + m[k, 2, 1] * v[1] + m[k, 2, 2] * v[2],
    )


@jit()
def rotate_back(m: FloatArray, k: int, v: Vector) -> Vector:
    """``m[k].T @ v``: the inverse of ``rotate`` where ``m[k]`` is a rotation."""
    return (
        m[k, 0, 0] * v[0] + m[k, 1, 0] * v[1] + m[k, 2, 0] * v[2],
        m[k, 0, 1] * v[0] + m[k, 1, 1] * v[1] + m[k, 2, 1] * v[2],
        m[k, 0, 2] * v[0] + m[k, 1, 2] * v[1] + m[k, 2, 2] * v[2],
    )
