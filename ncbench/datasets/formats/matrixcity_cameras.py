"""Camera files of MatrixCity (Li et al., ICCV 2023): two JSON forms that differ in keys and in units."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.datasets.frame import Matrix
from ncbench.errors import SourceError
from ncbench.geometry.cameras import invert_pose

_SCALE_TOLERANCE = 0.02


class Form(NamedTuple):
    """How one kind of file writes its poses.

    Attributes:
        matrix: Key of the 4 x 4 matrix.
        frame: Key of the frame's number, or of a path whose stem is the number.
        rotation: Scale that the rotation is stored with.
        metres: Metres per unit of position.
    """

    matrix: str
    frame: str
    rotation: float
    metres: float


TRANSFORMS = Form("rot_mat", "frame_index", 0.01, 1.0)
"""``<block>/transforms.json``: rotations divided by 100, positions in metres."""

POSE = Form("transform_matrix", "file_path", 1.0, 100.0)
"""``pose/<block>/transforms_<split>.json``: plain rotations, positions in units of 100 m."""


class Cameras(NamedTuple):
    """Cameras of a block.

    Attributes:
        field_of_view: Horizontal, radians.
        poses: Frame number -> (4, 4) camera-to-world, metres, in the file's own camera axes (right, up, back).
    """

    field_of_view: float
    poses: dict[int, Matrix]


def read_cameras(path: Path, form: Form) -> Cameras:
    """Read the cameras of one block.

    Args:
        path: The JSON file.
        form: ``TRANSFORMS`` or ``POSE``.

    Returns:
        The cameras, by ascending frame number.

    Raises:
        SourceError: Unreadable, not JSON of this form, a frame twice, or a matrix that is no rotation at the form's
            scale.
    """
    try:
        values: Any = json.loads(read_bytes(path, "cameras as JSON"))
        angle = float(values["camera_angle_x"])
        if not 0 < angle < math.pi:
            raise ValueError(f"camera_angle_x must lie between 0 and pi, found {angle}")
        poses: dict[int, Matrix] = {}
        for entry in values["frames"]:
            number = _number(entry, form)
            if number in poses:
                raise ValueError(f"frame {number} comes twice")
            poses[number] = _pose(entry[form.matrix], form, number)
    except (ValueError, TypeError, KeyError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        problem = f"expected camera_angle_x and frames with {form.frame} and {form.matrix} ({error!r})"
        raise SourceError.at(path, problem, DAMAGED) from error
    return Cameras(angle, dict(sorted(poses.items())))


def _number(entry: Mapping[str, Any], form: Form) -> int:
    value = entry[form.frame]
    return int(PurePosixPath(value).stem) if isinstance(value, str) else int(value)


def _pose(values: Any, form: Form, number: int) -> Matrix:  # noqa: ANN401 - JSON
    matrix = np.array(values, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix[:3]).all():
        raise ValueError(f"frame {number}: expected a finite 4 x 4 matrix, found shape {matrix.shape}")
    scale = float(np.cbrt(abs(np.linalg.det(matrix[:3, :3]))))
    if abs(scale / form.rotation - 1) > _SCALE_TOLERANCE:
        raise ValueError(f"frame {number}: expected a rotation scaled by {form.rotation}, found a scale of {scale:.6g}")
    pose = np.eye(4)  # the last entry of the file's last row is padding
    pose[:3, :3] = matrix[:3, :3] / scale
    pose[:3, 3] = matrix[:3, 3] * form.metres
    invert_pose(pose)  # raises where it is no rotation
    return pose
