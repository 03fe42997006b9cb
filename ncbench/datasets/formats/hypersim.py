"""Hypersim's metadata files, its camera model, and its official tonemap (Roberts et al., ICCV 2021)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.datasets.frame import Matrix
from ncbench.errors import SourceError
from ncbench.geometry.axes import axes_matrix

_FETCH_AGAIN = "Fetch the file from the repository apple/ml-hypersim again"
_PINHOLE = 1e-6  # relative change of a ray's z across the picture; real scenes lie below 1e-9 or well above this
_GAMMA = 1.0 / 2.2
_PERCENTILE, _WANTED = 90, 0.8  # the brightness at this percentile is mapped to this value
_DARK = 1e-4  # below this brightness the scale is 0, so that a black picture is not divided by nothing
_TRUE = ("true", "1")


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One row of ``metadata_images_split_scene_v1.csv`` that belongs to the public release."""

    scene: str
    camera: str
    frame: int
    split: str


@dataclass(frozen=True, slots=True)
class SceneCamera:
    """What ``metadata_camera_parameters.csv`` says of one scene.

    Attributes:
        height: Picture's height in pixels.
        width: Picture's width in pixels.
        m_cam_from_uv: (3, 3) float64, takes (u, v, 1) to a ray in right-up-back axes; see ``hypersim_rays``.
        metres_per_unit: Metres in one asset unit.
    """

    height: int
    width: int
    m_cam_from_uv: Matrix
    metres_per_unit: float

    def intrinsics(self) -> Matrix | None:
        """Give the pinhole matrix where the camera is one.

        Returns:
            (3, 3) float64 matrix in pixels (a shifted lens moves its centre), or None where the picture's plane is
            tilted, so that no matrix [[fx, s, cx], [0, fy, cy], [0, 0, 1]] describes the rays.
        """
        uv_from_pixel = np.array(
            [[2 / self.width, 0, 1 / self.width - 1], [0, -2 / self.height, 1 - 1 / self.height], [0, 0, 1]]
        )
        rays_from_pixel = axes_matrix("opengl", "opencv") @ self.m_cam_from_uv @ uv_from_pixel
        depth = rays_from_pixel[2]
        tilt = max(abs(depth[0]) * self.width, abs(depth[1]) * self.height)
        if tilt > _PINHOLE * abs(depth[2]) or abs(rays_from_pixel[1, 0]) > _PINHOLE * abs(rays_from_pixel[1, 1]):
            return None
        flat = np.vstack([rays_from_pixel[:2] / depth[2], [0, 0, 1]])
        flat[1, 0] = 0
        matrix = np.linalg.inv(flat)
        return np.asarray(matrix / matrix[2, 2])


def read_split_rows(path: Path) -> list[ImageRow]:
    """Read which pictures are public and which part each belongs to.

    Args:
        path: ``metadata_images_split_scene_v1.csv``.

    Returns:
        The rows of the public release, in the file's order.

    Raises:
        SourceError: Missing, unreadable, or not that table.
    """
    columns = ("scene_name", "camera_name", "frame_id", "included_in_public_release", "split_partition_name")
    rows = []
    for number, row in _table(read_bytes(path, "Hypersim's split table"), columns, str(path)):
        if row["included_in_public_release"].strip().lower() not in _TRUE:
            continue
        frame = row["frame_id"]
        if not frame.isascii() or not frame.isdigit():
            raise SourceError.at(path, f"line {number}: expected a frame number, found '{frame}'", _FETCH_AGAIN)
        rows.append(ImageRow(row["scene_name"], row["camera_name"], int(frame), row["split_partition_name"]))
    return rows


def read_scene_cameras(path: Path) -> dict[str, SceneCamera]:
    """Read the camera model of every scene.

    Args:
        path: ``metadata_camera_parameters.csv``.

    Returns:
        Scene -> camera.

    Raises:
        SourceError: Missing, unreadable, or not that table.
    """
    matrix = [f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3)]
    size = ("settings_output_img_height", "settings_output_img_width")
    columns = ("scene_name", *size, "settings_units_info_meters_scale", *matrix)
    cameras = {}
    for number, row in _table(read_bytes(path, "Hypersim's camera table"), columns, str(path)):
        values = [_number(row[name]) for name in columns[1:]]
        if not all(math.isfinite(value) for value in values) or min(values[:3]) <= 0:
            problem = f"line {number}: expected sizes, a scale and a matrix, found {values}"
            raise SourceError.at(path, problem, _FETCH_AGAIN)
        height, width, scale, *entries = values
        cameras[row["scene_name"]] = SceneCamera(int(height), int(width), np.array(entries).reshape(3, 3), scale)
    return cameras


def metres_per_asset_unit(content: bytes, where: str) -> float:
    """Find the scale in a scene's ``metadata_scene.csv``.

    Args:
        content: The file.
        where: Where it came from, for messages.

    Returns:
        Metres in one asset unit.

    Raises:
        SourceError: The table does not hold it.
    """
    for _, row in _table(content, ("parameter_name", "parameter_value"), where):
        if row["parameter_name"] == "meters_per_asset_unit":
            scale = _number(row["parameter_value"])
            if scale > 0 and math.isfinite(scale):
                return scale
    raise SourceError.at(where, "expected a row meters_per_asset_unit with a positive number", DAMAGED)


def tonemap(colour: NDArray[Any], entity: NDArray[Any]) -> NDArray[np.uint8]:
    """Apply the official tonemap (``scene_generate_images_tonemap.py`` of apple/ml-hypersim).

    With brightness b = 0.3 R + 0.59 G + 0.11 B over the pixels that show something (entity not -1), colours are scaled
    so that the 90th percentile of b becomes 0.8 after the gamma of 1/2.2, then cut to [0, 1] and to 8 bits (rounded
    down, as its writer does). Values that are not finite are left out of the percentile; NaN comes out black, infinity
    white.

    Args:
        colour: (H, W, 3) linear radiance, float16 in the files.
        entity: (H, W) integer render entity, -1 where there is none.

    Returns:
        (H, W, 3) uint8.
    """
    brightness = colour.astype(np.float32) @ np.array([0.3, 0.59, 0.11], dtype=np.float32)
    shown = entity != -1
    bright = brightness[shown & np.isfinite(brightness)]
    if not shown.any():
        scale = 1.0
    else:
        current = float(np.percentile(bright, _PERCENTILE)) if bright.size else 0.0
        scale = _WANTED ** (1.0 / _GAMMA) / current if current >= _DARK else 0.0
    if colour.dtype == np.float16:  # only 65536 values exist: six times faster by table, and the same picture
        return _encode(np.arange(1 << 16, dtype=np.uint16).view(np.float16), scale)[colour.view(np.uint16)]
    return _encode(colour, scale)


def _encode(linear: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.nan_to_num(linear.astype(np.float64) * scale, nan=0.0, posinf=np.inf, neginf=0.0)
        return (np.clip(np.maximum(scaled, 0.0) ** _GAMMA, 0.0, 1.0) * 255).astype(np.uint8)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _table(content: bytes, columns: tuple[str, ...], where: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line numbers and rows, after checking that the columns are there."""
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise SourceError.at(where, f"expected columns {', '.join(columns)}, missing {missing}", _FETCH_AGAIN)
        for row in reader:
            yield reader.line_num, {name: row[name] or "" for name in columns}
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError.at(where, f"expected a table of comma-separated values ({error})", DAMAGED) from error
