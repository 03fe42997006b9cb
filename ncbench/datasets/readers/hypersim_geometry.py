"""Hypersim's normals made to face the camera, its poses, and whether its files agree with each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.frame import BoolMap, FloatMap, Matrix
from ncbench.errors import SourceError
from ncbench.geometry.axes import axes_matrix, convert_axes
from ncbench.geometry.cameras import invert_pose
from ncbench.geometry.normals_from_depth import normals_by_cross_product

_BACK = -1e-3  # published threshold: a normal is turned where its cosine to the camera is below
_COLUMNS = 128  # of the grid that checks look at
_CLEARLY = 5.0  # degrees by which a mirrored reading must be better to be believed
_READINGS = {"as named": (1, 1, 1), "x mirrored": (-1, 1, 1), "y mirrored": (1, -1, 1), "z mirrored": (1, 1, -1)}


def keyframe_pose(
    orientations: NDArray[Any], positions: NDArray[Any], frame: int, metres_per_unit: float, where: str
) -> Matrix:
    """Look up one pose by its frame id.

    Args:
        orientations: (N, 3, 3) world-from-camera rotations; the camera's axes are right, up, back.
        positions: (N, 3) camera positions in asset units.
        frame: Frame id, which is the row.
        metres_per_unit: Metres in one asset unit.
        where: File of the poses, for messages.

    Returns:
        (4, 4) float64 camera-to-world in OpenCV axes, metres.

    Raises:
        SourceError: No such row, or no rigid motion.
    """
    count = len(orientations)
    if orientations.shape != (count, 3, 3) or positions.shape != (count, 3) or not 0 <= frame < count:
        problem = f"expected orientations (N, 3, 3), positions (N, 3) and a row {frame}"
        found = f"found {orientations.shape} and {positions.shape}"
        raise SourceError.at(where, f"{problem}, {found}", "Fetch this scene again")
    pose = np.eye(4)
    pose[:3, :3] = orientations[frame] @ axes_matrix("opencv", "opengl")
    pose[:3, 3] = positions[frame] * metres_per_unit
    try:
        if not np.isfinite(pose).all():
            raise ValueError("it is not finite")
        invert_pose(pose)
    except ValueError as error:
        raise SourceError.at(where, f"pose {frame} is no rigid motion: {error}", "Fetch this scene again") from error
    return pose


def oriented_normals(
    stored: NDArray[Any], position: NDArray[Any], pose: Matrix, metres_per_unit: float, axes: str
) -> tuple[NDArray[np.float64], FloatMap, BoolMap]:
    """Normalise the stored normals and turn those that point into the surface (see the reader's module).

    Args:
        stored: (H, W, 3) ``normal_cam``.
        position: (H, W, 3) world positions in asset units; infinite entries are replaced from the row above (below in
            the first row), as the published fix does for ai_051_004.
        pose: (4, 4) camera-to-world in OpenCV axes, metres.
        metres_per_unit: Metres in one asset unit.
        axes: Axes of ``stored``.

    Returns:
        Way from the camera to each surface point (H, W, 3) float64 in world axes and metres, NaN where unknown; normals
        (H, W, 3) float32 in OpenCV axes, unit, 0 where invalid; valid (H, W) bool.
    """
    normal = convert_axes(np.asarray(stored, dtype=np.float64), axes, "opencv")
    offset = np.where(np.isfinite(stored).all(axis=-1, keepdims=True), without_infinity(position), np.nan)
    offset = offset * metres_per_unit - pose[:3, 3]
    with np.errstate(invalid="ignore"):
        cosine = -np.einsum("hwi,hwi->hw", normal @ pose[:3, :3].T, offset)
        cosine /= np.sqrt(np.einsum("hwi,hwi->hw", offset, offset))
        normal[cosine < _BACK] *= -1
        length = np.sqrt(np.einsum("hwi,hwi->hw", normal, normal))
    valid = np.isfinite(length) & (length > 0)
    unit = np.where(valid[..., None], normal, 0) / np.where(valid, length, 1)[..., None]
    return offset, unit.astype(np.float32), valid


def without_infinity(position: NDArray[Any]) -> NDArray[np.float64]:
    """Replace infinite entries by those of the row above, top to bottom; the first row takes from the second."""
    patched = np.asarray(position, dtype=np.float64).copy()
    for row, column, channel in zip(*np.nonzero(np.isinf(patched)), strict=True):
        source = row - 1 if row > 0 else min(1, len(patched) - 1)
        patched[row, column, channel] = patched[source, column, channel]
    return patched


def check_geometry(
    offset: NDArray[np.float64],
    distance: FloatMap,
    rays: NDArray[np.float64],
    pose: Matrix,
    limits: tuple[float, float],
    where: str,
) -> None:
    """Check that positions, depth, pose and camera model belong together.

    Args:
        offset: (H, W, 3) way from the camera to the surface, world axes, metres.
        distance: (H, W) Euclidean distance in metres by ``depth_meters``, 0 where unknown.
        rays: (H, W, 3) rays of the camera model.
        pose: (4, 4) camera-to-world.
        limits: Relative difference of distances (median); angle between rays in degrees (median).
        where: File that a complaint names.

    Raises:
        SourceError: A limit is exceeded; the message names what was measured.
    """
    grid = _grid(distance.shape)
    known = np.isfinite(offset[grid]).all(axis=-1) & (distance[grid] > 0)
    if not known.any():
        return
    ray, seen = rays[grid][known], offset[grid][known] @ pose[:3, :3]
    across = np.linalg.norm(np.cross(seen, ray), axis=-1)
    angle = float(np.median(np.degrees(np.arctan2(across, (seen * ray).sum(axis=-1)))))
    ratio = float(np.median(np.linalg.norm(seen, axis=-1) / distance[grid][known]))
    most_ratio, most_angle = limits
    if angle > most_angle:
        problem = f"rays by position and by the camera model differ by {angle:.2f} degrees (median)"
        raise SourceError.at(where, problem, "Check the pose's row and the scene's camera model")
    if abs(ratio - 1) > most_ratio:
        problem = f"distances by position are {ratio:.4f} times those of depth_meters (median)"
        raise SourceError.at(where, problem, "Check the scene's metres per asset unit")


def check_axes(
    normal: FloatMap, valid: BoolMap, depth: NDArray[np.float64], rays: NDArray[np.float64], where: str
) -> None:
    """Check that no mirrored reading of the normals would agree better with the depth.

    Facing tells nothing here, since the fix makes any reading face the camera; nor does the size of the angle, since
    float16 depth is noisy. Signs are disregarded, so four readings remain: as named, or with x, y or z mirrored.

    Args:
        normal: (H, W, 3) in OpenCV axes.
        valid: (H, W).
        depth: (H, W) z-depth in metres, 0 where unknown.
        rays: (H, W, 3) rays of the camera model.
        where: File of the normals, for messages.

    Raises:
        SourceError: A mirrored reading is clearly nearer to the normals of the depth.
    """
    grid = _grid(depth.shape)
    by_depth, known = normals_by_cross_product(depth[grid], np.ascontiguousarray(rays[grid]))
    known &= valid[grid]
    if not known.any():
        return
    found, reference = normal[grid][known].astype(np.float64), by_depth[known].astype(np.float64)
    medians = {}
    for name, signs in _READINGS.items():
        turned = found * signs
        across = np.linalg.norm(np.cross(turned, reference), axis=-1)
        medians[name] = float(np.median(np.degrees(np.arctan2(across, np.abs((turned * reference).sum(axis=-1))))))
    best = min(medians, key=lambda name: medians[name])
    if medians[best] < medians["as named"] - _CLEARLY:
        problem = (
            f"the normals are {medians['as named']:.1f} degrees (median) off those of the depth, but with {best} "
            f"only {medians[best]:.1f}"
        )
        raise SourceError.at(where, problem, "Correct the card's axes")


def _grid(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """About 128 columns: enough for a median, and far enough apart that the noise of float16 depth does not rule."""
    step = max(1, round(shape[1] / _COLUMNS))
    return slice(step // 2, None, step), slice(step // 2, None, step)
