"""Octahedral coding of unit normals: three floats become two 16-bit integers, at most 0.0026 degrees away.

The sphere is projected onto the octahedron |x| + |y| + |z| = 1 and unfolded to a square (Meyer et al., "On
Floating-Point Normal Vectors", EGSR 2010). The square's centre is (0, 0, -1), a wall seen head-on in the OpenCV camera
frame, so that the hemisphere z < 0 is the inner diamond and neighbouring normals have neighbouring codes. Codes run
from 0 to 65534, which makes the centre (32767) and all six axes exact; (65535, 65535) means "no normal".

Rounding is to the nearest code on the octahedron's face, whose code points form a triangular lattice, not to the
nearest corner of the square: that lowers the worst error from 0.0037 to 0.0025 degrees (Cigolle et al., JCGT 2014,
search for it among neighbours; on the lattice one comparison decides).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ncbench.jit import jit

INVALID_CODE = 65535
"""Both codes of a pixel that has no normal."""

SHORTEST, LONGEST = np.float32(1e-30), np.float32(1e30)
"""Sums |x| + |y| + |z| outside this range hold no direction that float32 arithmetic can recover."""


@jit()
def _encode(normals: NDArray[np.floating], u: NDArray[np.uint16], v: NDArray[np.uint16]) -> None:
    """Code a flat array x0 y0 z0 x1 ... into two planes; flat because a constant stride of 3 is what vectorizes."""
    zero, half, one, scale = np.float32(0), np.float32(0.5), np.float32(1), np.float32(32767)
    for i in range(u.shape[0]):
        x, y, z = np.float32(normals[3 * i]), np.float32(normals[3 * i + 1]), np.float32(normals[3 * i + 2])
        length = abs(x) + abs(y) + abs(z)
        usable = (length > SHORTEST) & (length < LONGEST)  # also false for NaN
        factor = scale / (length if usable else one)
        x *= factor
        y *= factor
        far = z > zero
        a = np.copysign(scale - abs(y), x) if far else x
        b = np.copysign(scale - abs(x), y) if far else y
        p, q = a + scale, b + scale
        code_u, code_v = np.int32(p + half), np.int32(q + half)
        rest_u, rest_v = p - np.float32(code_u), q - np.float32(code_v)
        size_u, size_v = abs(rest_u), abs(rest_v)
        # on a face |dz| = |du + dv| adds to the error where both rests point the same way along the slope
        step = (rest_u * rest_v * a * b > zero) & (max(size_u, size_v) + size_u + size_v > one)
        code_u += np.int32(np.copysign(one, rest_u)) if step & (size_u >= size_v) else np.int32(0)
        code_v += np.int32(np.copysign(one, rest_v)) if step & (size_u < size_v) else np.int32(0)
        u[i] = code_u if usable else INVALID_CODE
        v[i] = code_v if usable else INVALID_CODE


@jit()
def decode_codes(u: NDArray[np.uint16], v: NDArray[np.uint16], normals: NDArray[np.float32]) -> None:
    """Undo ``_encode``; float32 inside: its rounding is 0.3 % of the coding error and it runs twice as fast."""
    zero, one, scale = np.float32(0), np.float32(1), np.float32(32767)
    for i in range(u.shape[0]):
        code_u, code_v = np.int32(u[i]), np.int32(v[i])
        x, y = np.float32(code_u - 32767), np.float32(code_v - 32767)
        z = abs(x) + abs(y) - scale
        fold = max(z, zero)
        x -= np.copysign(fold, x)
        y -= np.copysign(fold, y)
        # never below 32767^2 / 3; the bound spares the check for division by zero, which would forbid vectorizing
        length = np.sqrt(max(x * x + y * y + z * z, one))
        factor = zero if code_u == INVALID_CODE else one / length
        normals[3 * i], normals[3 * i + 1], normals[3 * i + 2] = x * factor, y * factor, z * factor


def encode_octahedral(normals: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Code directions as pairs of integers.

    Args:
        normals: (..., 3) float32 or float64 directions of any length, OpenCV camera frame.

    Returns:
        (..., 2) uint16 codes, 0 to 65534; (65535, 65535) where the input is zero, NaN or infinite, or where
        |x| + |y| + |z| is not between 1e-30 and 1e30. In memory the codes are two planes: ``codes[..., 0]`` is
        contiguous.

    Raises:
        ValueError: The last axis is not 3 long.

    Examples:
        >>> encode_octahedral(np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0]])).tolist()
        [[32767, 32767], [65535, 65535]]
    """
    if normals.ndim < 1 or normals.shape[-1] != 3:
        raise ValueError(f"normals must have shape (..., 3), got {normals.shape}")
    kept = normals if normals.dtype == np.float64 else normals.astype(np.float32, copy=False)
    codes = np.empty((2, normals.size // 3), np.uint16)
    _encode(np.ascontiguousarray(kept).reshape(-1), codes[0], codes[1])
    return np.moveaxis(codes.reshape(2, *normals.shape[:-1]), 0, -1)


def decode_octahedral(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Turn codes back into unit normals.

    Args:
        codes: (..., 2) uint16 from ``encode_octahedral``.

    Returns:
        (..., 3) float32 unit normals; the zero vector where the first code is 65535.

    Raises:
        ValueError: The last axis is not 2 long or the type is not uint16.
    """
    if codes.ndim < 1 or codes.shape[-1] != 2 or codes.dtype != np.uint16:
        raise ValueError(f"codes must be uint16 of shape (..., 2), got {codes.dtype} {codes.shape}")
    u, v = np.ascontiguousarray(codes[..., 0]), np.ascontiguousarray(codes[..., 1])
    normals = np.empty((*codes.shape[:-1], 3), np.float32)
    decode_codes(u.reshape(-1), v.reshape(-1), normals.reshape(-1))
    return normals
