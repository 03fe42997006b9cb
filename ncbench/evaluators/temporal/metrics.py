"""The formulas of the temporal metrics: one error for each pixel, from vectors that are already brought together.

``reference`` is what frame k shows at x, ``warped`` is what frame k + 1 shows where the flow takes x. Predictions of no
direction are NaN, errors made from them are NaN, and ``charged`` replaces these: who gives no answer is scored like one
who draws a direction at random, anew in every frame. The charges are the expected values of each formula then.

All vectors of a call have one shape. ScoreError is raised where they do not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.temporal import kernels

Vectors = NDArray[np.floating[Any]]
Values = NDArray[np.float64]
Matrix = NDArray[np.float64]

CHARGES: dict[str, float] = {
    "opw": 2.0,  # components are uniform in [-1, 1]: three times the mean distance of two such, 2/3
    "rc_deg": 90.0,
    "tge_deg": math.degrees(4 / 3),  # the truth cancels: mean distance of two points on the unit sphere
    "dtheta_deg": 45.0,  # angles to a fixed direction have density sin/2: their mean difference is pi/4
    "accel_deg": math.degrees(7 / 3),  # distance of 2w from u + v: 2 + |u + v|^2 / 6 on average
}
"""What a pixel without an answer costs, by metric."""


def opw_error(reference: Vectors, warped: Vectors) -> Values:
    """Measure the change along the flow, as Buffer Anytime's smoothness loss does (CVPR 2025, eqs. 4 and 5).

    Args:
        reference: (..., 3) normals of frame k.
        warped: (..., 3) normals of frame k + 1 fetched along the flow, interpolated and not brought to unit length.

    Returns:
        (...) float64 sum of the absolute differences of the three components, in [0, 2 sqrt(3)].
    """
    (now, after), errors = _flat(reference, warped)
    kernels.opw(now, after, errors.reshape(-1))
    return errors


def rc_error(reference: Vectors, warped: Vectors, rotation: Matrix) -> Values:
    """Measure the angle that is left of a change when the camera's rotation is taken out.

    Args:
        reference: (..., 3) normals of frame k.
        warped: (..., 3) normals of the other frame fetched along the flow; lengths do not matter.
        rotation: (3, 3) from the other camera's axes to those of frame k.

    Returns:
        (...) float64 degrees in [0, 180].
    """
    (now, after), errors = _flat(reference, warped)
    kernels.rc(now, after, _matrix(rotation), errors.reshape(-1))
    return errors


def tge_error(
    reference: Vectors, warped: Vectors, true_reference: Vectors, true_warped: Vectors, rotation: Matrix
) -> Values:
    """Measure how the error changes along the flow; an error that is carried with the surface costs nothing.

    Args:
        reference: (..., 3) predicted normals of frame k.
        warped: (..., 3) predicted normals of the other frame fetched along the flow.
        true_reference: (..., 3) true normals of frame k.
        true_warped: (..., 3) true normals of the other frame fetched along the flow.
        rotation: (3, 3) from the other camera's axes to those of frame k.

    Returns:
        (...) float64 length of the difference of the two error vectors, times 180 / pi: degrees for small errors.
    """
    (now, after, true_now, true_after), errors = _flat(reference, warped, true_reference, true_warped)
    kernels.tge(now, after, true_now, true_after, _matrix(rotation), errors.reshape(-1))
    return errors


def dtheta_error(reference: Vectors, warped: Vectors, true_reference: Vectors, true_warped: Vectors) -> Values:
    """Measure how the angular error changes along the flow. It needs no poses, and misses errors that change side.

    Args:
        reference: (..., 3) predicted normals of frame k.
        warped: (..., 3) predicted normals of the other frame fetched along the flow.
        true_reference: (..., 3) true normals of frame k.
        true_warped: (..., 3) true normals of the other frame fetched along the flow.

    Returns:
        (...) float64 degrees in [0, 180].
    """
    (now, after, true_now, true_after), errors = _flat(reference, warped, true_reference, true_warped)
    kernels.dtheta(now, after, true_now, true_after, errors.reshape(-1))
    return errors


def accel_error(
    reference: Vectors, following: Vectors, from_following: Matrix, previous: Vectors, from_previous: Matrix
) -> Values:
    """Measure the second difference in time: a jitter costs, a steady drift does not.

    Args:
        reference: (..., 3) normals of frame k.
        following: (..., 3) normals of frame k + 1 fetched along the flow; lengths do not matter.
        from_following: (3, 3) from the axes of camera k + 1 to those of camera k.
        previous: (..., 3) normals of frame k - 1 fetched along the flow; lengths do not matter.
        from_previous: (3, 3) from the axes of camera k - 1 to those of camera k.

    Returns:
        (...) float64 length of the second difference, times 180 / pi.
    """
    (now, after, before), errors = _flat(reference, following, previous)
    kernels.accel(now, after, _matrix(from_following), before, _matrix(from_previous), errors.reshape(-1))
    return errors


def charged(errors: Values, charge: float) -> Values:
    """Replace the errors of pixels without an answer, which are NaN, by what they cost."""
    return np.where(np.isnan(errors), charge, errors)


def unit(vectors: Vectors) -> Values:
    """Bring (..., 3) vectors to unit length in float64; NaN where they have no direction."""
    wide = np.asarray(vectors, dtype=np.float64)
    length = lengths(wide)[..., None]
    return np.asarray(wide / np.where(length > 0, length, np.nan))


def lengths(vectors: Vectors) -> Values:
    """Measure (..., n) vectors in float64: (...)."""
    wide = np.asarray(vectors, dtype=np.float64)
    # several times as quick as numpy.linalg.norm, whose reduction is slow over so short an axis
    return np.asarray(np.sqrt(np.einsum("...i,...i->...", wide, wide)))


def turn(vectors: Vectors, rotation: Matrix) -> Values:
    """Apply a (3, 3) rotation to (..., 3) vectors, in float64."""
    return np.asarray(np.asarray(vectors, dtype=np.float64) @ rotation.T)


def rotation_between(pose_a: Matrix, pose_b: Matrix) -> Matrix:
    """Give the (3, 3) rotation from the axes of camera b to those of camera a, from (4, 4) camera-to-world poses."""
    return np.asarray(pose_a[:3, :3].T @ pose_b[:3, :3])


def _flat(*vectors: Vectors) -> tuple[list[Vectors], Values]:
    """Lay (..., 3) vectors out as (N, 3), and make room for their (...) errors."""
    shapes = {each.shape for each in vectors}
    if len(shapes) > 1 or vectors[0].shape[-1:] != (3,):
        raise ScoreError(f"expected (..., 3) vectors of one shape, got {sorted(shapes)}")
    return [np.ascontiguousarray(each).reshape(-1, 3) for each in vectors], np.empty(vectors[0].shape[:-1])


def _matrix(rotation: Matrix) -> Matrix:
    return np.ascontiguousarray(rotation, dtype=np.float64)
