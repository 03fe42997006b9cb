"""KITTI's files: calibration text, measurements of position and heading, and flow as 16-bit PNG."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.datasets.formats.camera_files import intrinsics_from_numbers
from ncbench.datasets.formats.png import read_png
from ncbench.datasets.frame import FloatMap, Matrix
from ncbench.errors import SourceError

_FEW_DIGITS = 1e-3  # rotations are written with six or seven digits


class Oxts(NamedTuple):
    """One measurement of the GPS and inertial unit.

    Attributes:
        latitude: Degrees.
        longitude: Degrees.
        altitude: Metres.
        roll: Radians, positive where the left side is up.
        pitch: Radians, positive where the front is down.
        yaw: Radians, 0 to the east, counter-clockwise.
    """

    latitude: float
    longitude: float
    altitude: float
    roll: float
    pitch: float
    yaw: float


def read_rectified_camera(path: Path, camera: int) -> tuple[Matrix, tuple[int, int]]:
    """Read a rectified camera out of ``calib_cam_to_cam.txt``.

    Args:
        path: Lines ``key: numbers``; ``P_rect_0c`` is the 3 x 4 projection and ``S_rect_0c`` the size of a picture.
        camera: 0 to 3; 2 and 3 are the colour cameras.

    Returns:
        Intrinsics (3, 3) float64 in pixels, and the picture's (height, width).

    Raises:
        SourceError: Unreadable, or the lines are missing or not such numbers.
    """
    lines = _lines(path)
    matrix, _ = _projection(path, lines, camera)
    width, height = _numbers(path, lines, f"S_rect_{camera:02d}", 2)
    return matrix, (round(height), round(width))


def read_camera_from_camera0(path: Path, camera: int) -> Matrix:
    """Read where a rectified camera stands, out of ``calib_cam_to_cam.txt``.

    The projection is ``P_rect_0c R_rect_00`` of a point in the frame of camera 0 before rectification; its last column
    is the intrinsics times the shift between the two cameras.

    Args:
        path: Lines ``key: numbers``.
        camera: 0 to 3.

    Returns:
        (4, 4) float64: from camera 0 before rectification to the rectified camera, in metres.

    Raises:
        SourceError: Unreadable, or the lines are missing or not such numbers.
    """
    lines = _lines(path)
    matrix, last = _projection(path, lines, camera)
    return _rigid(_rotation(path, lines, "R_rect_00"), np.linalg.inv(matrix) @ last)


def read_rigid_motion(path: Path) -> Matrix:
    """Read ``calib_velo_to_cam.txt`` or ``calib_imu_to_velo.txt``.

    Args:
        path: Lines ``R: 9 numbers`` and ``T: 3 numbers``, in metres.

    Returns:
        (4, 4) float64, with the rotation that is nearest to the file's few digits.

    Raises:
        SourceError: Unreadable, or no rotation and translation.
    """
    lines = _lines(path)
    return _rigid(_rotation(path, lines, "R"), _numbers(path, lines, "T", 3))


def read_oxts(path: Path) -> Oxts:
    """Read position and heading out of ``oxts/data/NNNNNNNNNN.txt``.

    Args:
        path: Thirty numbers, of which the first six are read.

    Returns:
        The measurement.

    Raises:
        SourceError: Unreadable, or other numbers.
    """
    words = read_bytes(path, "a measurement of KITTI's GPS").decode("utf-8", "replace").split()
    values = _numbers(path, {"the line": words}, "the line", 30)[:6]
    if not (abs(values[0]) < 90 and abs(values[1]) <= 180):
        raise SourceError.at(path, f"expected latitude and longitude in degrees, found {values[:2].tolist()}", DAMAGED)
    return Oxts(*values.tolist())


def read_flow_png(path: Path) -> FloatMap:
    """Read flow of KITTI 2015: red and green hold 64 times u and v plus 2^15, blue is 1 where the flow is known.

    Args:
        path: A 16-bit colour PNG.

    Returns:
        (H, W, 2) float32 in pixels, NaN where unknown.

    Raises:
        SourceError: Unreadable, or not 16 bits and three channels.
    """
    stored = read_png(path)
    if stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[2] != 3:
        problem = f"expected 16 bits and three channels, found {stored.dtype} of shape {stored.shape}"
        raise SourceError.at(path, problem, "Unpack data_scene_flow.zip again")
    flow: FloatMap = ((stored[:, :, :2].astype(np.float64) - 32768) / 64).astype(np.float32)
    flow[stored[:, :, 2] == 0] = np.nan
    return flow


def _lines(path: Path) -> dict[str, list[str]]:
    text = read_bytes(path, "a KITTI calibration").decode("utf-8", "replace")
    return {key.strip(): rest.split() for key, _, rest in (line.partition(":") for line in text.splitlines())}


def _projection(path: Path, lines: dict[str, list[str]], camera: int) -> tuple[Matrix, Matrix]:
    """Intrinsics (3, 3), and the last column (3,) of the projection."""
    key = f"P_rect_{camera:02d}"
    projection = _numbers(path, lines, key, 12).reshape(3, 4)
    try:
        return intrinsics_from_numbers(projection[:, :3]), projection[:, 3]
    except ValueError as error:
        raise SourceError.at(path, f"{key}: {error}", DAMAGED) from error


def _rotation(path: Path, lines: dict[str, list[str]], key: str) -> Matrix:
    stored = _numbers(path, lines, key, 9).reshape(3, 3)
    left, stretch, right = np.linalg.svd(stored)
    if np.abs(stretch - 1).max() > _FEW_DIGITS or np.linalg.det(stored) < 0:
        raise SourceError.at(path, f"{key}: expected a rotation, found {stored.tolist()}", DAMAGED)
    return np.asarray(left @ right)


def _rigid(rotation: Matrix, translation: Matrix) -> Matrix:
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = rotation, translation
    return motion


def _numbers(path: Path, lines: dict[str, list[str]], key: str, count: int) -> Matrix:
    words = lines.get(key)
    if words is None:
        raise SourceError.at(path, f"expected a line '{key}:', found {sorted(lines)[:8]}", DAMAGED)
    try:
        values = np.array([float(word) for word in words], dtype=np.float64)
    except ValueError:
        values = np.empty(0)
    if values.size != count or not np.isfinite(values).all():
        raise SourceError.at(path, f"{key}: expected {count} numbers, found {words}", DAMAGED)
    return values
