"""Camera paths as text: one pose a line, 12 or 16 numbers row by row (NICE-SLAM's and vMAP's trajectory files)."""

from __future__ import annotations

from pathlib import Path

from ncbench.datasets.formats.arrays import read_bytes
from ncbench.datasets.formats.camera_files import read_poses
from ncbench.datasets.frame import Matrix
from ncbench.errors import SourceError


def count_poses(path: Path) -> int:
    """Count the lines of a trajectory that hold a pose, without decoding them.

    Args:
        path: Text, one pose a line; what follows ``#`` is a comment.

    Returns:
        How many there are, at least 1.

    Raises:
        SourceError: Missing, unreadable, or empty.
    """
    lines = read_bytes(path, "a trajectory").splitlines()
    count = sum(bool(line.partition(b"#")[0].strip()) for line in lines)
    if count == 0:
        raise SourceError.at(path, "expected one pose a line, found none", "Fetch the trajectory again")
    return count


def read_trajectory(path: Path) -> Matrix:
    """Read all poses of a trajectory.

    Args:
        path: See :func:`count_poses`.

    Returns:
        (N, 4, 4) float64 camera-to-world poses.

    Raises:
        SourceError: Missing, unreadable, or a line is no rigid motion.
    """
    return read_poses(path, count_poses(path))
