"""Text files of TUM RGB-D sequences: lists of time-stamped files, trajectories, and matching the two by time.

Format: https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats (lines; ``#`` begins a comment).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.datasets.frame import Matrix
from ncbench.errors import SourceError


def read_file_list(path: Path) -> list[tuple[float, str]]:
    """Read ``rgb.txt`` or ``depth.txt``.

    Args:
        path: Lines of a time in seconds and a file name relative to the list's folder.

    Returns:
        (time, name) in the file's order.

    Raises:
        SourceError: Unreadable, a line is not like that, a name leaves the folder, or times do not ascend.
    """
    entries: list[tuple[float, str]] = []
    for number, words in _lines(path):
        time = _float(words[0]) if len(words) == 2 else math.nan
        if math.isnan(time):
            raise SourceError.at(path, f"line {number}: expected a time and a file name, found {words}", DAMAGED)
        if Path(words[1]).is_absolute() or ".." in Path(words[1]).parts:
            raise SourceError.at(path, f"line {number}: '{words[1]}' is not inside the sequence's folder", DAMAGED)
        if entries and time <= entries[-1][0]:
            raise SourceError.at(path, f"line {number}: expected a later time than {entries[-1][0]}", DAMAGED)
        entries.append((time, words[1]))
    if not entries:
        raise SourceError.at(path, "expected lines of a time and a file name, found none", DAMAGED)
    return entries


def read_trajectory(path: Path) -> tuple[NDArray[np.float64], Matrix]:
    """Read ``groundtruth.txt``: lines ``t tx ty tz qx qy qz qw``, camera-to-world, quaternion's w last.

    Args:
        path: The file.

    Returns:
        Times (N,) float64 in seconds, in the file's order, and poses (N, 4, 4) float64, metres.

    Raises:
        SourceError: Unreadable, a line is not like that, or a quaternion is not of unit length (within 1 %).
    """
    rows = []
    for number, words in _lines(path):
        values = [_float(word) for word in words]
        if len(values) != 8 or any(math.isnan(value) for value in values):
            raise SourceError.at(path, f"line {number}: expected t tx ty tz qx qy qz qw, found {words}", DAMAGED)
        if abs(math.hypot(*values[4:]) - 1) > 0.01:
            problem = f"line {number}: expected a unit quaternion, found length {math.hypot(*values[4:]):.4f}"
            raise SourceError.at(path, problem, "Check that it is qx qy qz qw, w last")
        rows.append(values)
    if not rows:
        raise SourceError.at(path, "expected lines of a time and a pose, found none", DAMAGED)
    table = np.array(rows, dtype=np.float64)
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    poses[:, :3, 3] = table[:, 1:4]
    poses[:, :3, :3] = rotations(table[:, 4:])
    return table[:, 0], poses


def rotations(quaternions: NDArray[np.float64]) -> Matrix:
    """Turn quaternions into rotation matrices.

    Args:
        quaternions: (N, 4) as x, y, z, w; normalised here.

    Returns:
        (N, 3, 3) float64.
    """
    x, y, z, w = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


def associate(first: NDArray[np.float64], second: NDArray[np.float64], max_difference: float) -> dict[int, int]:
    """Match two lists of times one to one, the closest pairs first, as the benchmark's own tools do.

    Args:
        first: (N,) times in seconds.
        second: (M,) times in seconds.
        max_difference: Pairs further apart than this are not made.

    Returns:
        Index into ``first`` -> index into ``second``, ascending.
    """
    order = np.argsort(second, kind="stable")
    low = np.searchsorted(second[order], first - max_difference, "left")
    high = np.searchsorted(second[order], first + max_difference, "right")
    pairs = [
        (abs(first[a] - second[b]), a, int(b))
        for a in range(len(first))
        for b in order[max(low[a] - 1, 0) : high[a] + 1]  # one more on either side: the sum above is rounded
        if abs(first[a] - second[b]) <= max_difference
    ]
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for _, a, b in sorted(pairs):
        if a not in matched and b not in taken:
            matched[a] = b
            taken.add(b)
    return dict(sorted(matched.items()))


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Words of each line that is not empty or a comment, with the line's number."""
    try:
        text = read_bytes(path, "a text file of a TUM sequence").decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError.at(path, f"expected text, found other bytes ({error})", DAMAGED) from error
    split = ((number, line.partition("#")[0].split()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, words) for number, words in split if words]


def _float(word: str) -> float:
    """Read a finite number; NaN for anything else."""
    try:
        value = float(word)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
