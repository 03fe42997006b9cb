"""Intrinsics and poses as plain numbers, in text (spaces, commas, ``#`` comments) or NumPy arrays; OpenCV axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes, read_npy, read_npz
from ncbench.datasets.frame import Matrix
from ncbench.errors import SourceError
from ncbench.geometry.cameras import invert_pose


def intrinsics_from_numbers(numbers: Matrix) -> Matrix:
    """Make an intrinsic matrix of 4 or 9 numbers.

    Args:
        numbers: fx, fy, cx, cy; or the matrix row by row. Any shape of 4 or 9 entries.

    Returns:
        (3, 3) float64 matrix in pixels.

    Raises:
        ValueError: Another count, or a number is not finite.
    """
    values = np.asarray(numbers, dtype=np.float64).ravel()
    if values.size not in {4, 9} or not np.isfinite(values).all():
        raise ValueError(f"expected 4 (fx, fy, cx, cy) or 9 finite numbers, found {values.tolist()}")
    if values.size == 9:
        return values.reshape(3, 3)
    fx, fy, cx, cy = values.tolist()
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def read_intrinsics(path: Path) -> Matrix:
    """Read an intrinsic matrix.

    Args:
        path: ``.npy``, ``.npz`` with one array, or text, with 4 (fx, fy, cx, cy) or 9 numbers.

    Returns:
        (3, 3) float64 matrix in pixels.

    Raises:
        SourceError: Unreadable, or not such numbers.
    """
    try:
        return intrinsics_from_numbers(_read_numbers(path))
    except ValueError as error:
        raise SourceError.at(path, str(error), "Correct the camera file") from error


def read_poses(path: Path, count: int) -> Matrix:
    """Read camera-to-world poses.

    Args:
        path: ``.npy``, ``.npz`` with one array, or text, with 12 (3 x 4) or 16 (4 x 4) numbers a pose, row by row.
        count: How many poses it must hold.

    Returns:
        (count, 4, 4) float64 poses, metres.

    Raises:
        SourceError: Unreadable, another count of numbers, or a pose that is no rigid motion.
    """
    values = _read_numbers(path)
    if values.size not in {12 * count, 16 * count}:
        problem = f"expected {count} pose(s) of 12 or 16 numbers, one for each picture, found {values.size} numbers"
        raise SourceError.at(path, problem, "Write one row per frame, in ascending order of the frame numbers")
    rows = values.reshape(count, -1, 4)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, : rows.shape[1]] = rows
    for index, pose in enumerate(poses):
        try:
            if not (np.isfinite(pose).all() and np.array_equal(pose[3], [0, 0, 0, 1])):
                raise ValueError(f"expected finite numbers and a last row of 0 0 0 1, got {pose.tolist()}")
            invert_pose(pose)
        except ValueError as error:
            problem = f"pose {index} is no rigid motion: {error}"
            raise SourceError.at(path, problem, "Write camera-to-world poses without scale or mirror") from error
    return poses


def _read_numbers(path: Path) -> Matrix:
    suffix = path.suffix.lower()
    if suffix in {".npy", ".npz"}:
        return np.asarray(read_npz(path) if suffix == ".npz" else read_npy(path), dtype=np.float64)
    content = read_bytes(path, "numbers of a camera")
    try:
        lines = (line.partition("#")[0] for line in content.decode("utf-8").splitlines())
        return np.array([float(word) for line in lines for word in line.replace(",", " ").split()], dtype=np.float64)
    except ValueError as error:
        raise SourceError.at(path, f"expected numbers of a camera as text ({error})", DAMAGED) from error
