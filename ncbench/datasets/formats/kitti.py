"""KITTI's files: calibration text, and flow as 16-bit PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes, read_png
from ncbench.datasets.formats.camera_files import intrinsics_from_numbers
from ncbench.datasets.frame import FloatMap, Matrix
from ncbench.errors import SourceError


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
    text = read_bytes(path, "a KITTI calibration").decode("utf-8", "replace")
    lines = {key.strip(): rest.split() for key, _, rest in (line.partition(":") for line in text.splitlines())}
    projection, size = (
        _numbers(path, lines, f"P_rect_{camera:02d}", 12),
        _numbers(path, lines, f"S_rect_{camera:02d}", 2),
    )
    try:
        matrix = intrinsics_from_numbers(projection.reshape(3, 4)[:, :3])
    except ValueError as error:
        raise SourceError.at(path, f"P_rect_{camera:02d}: {error}", DAMAGED) from error
    return matrix, (round(size[1]), round(size[0]))


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
