"""What a user says about a folder of their own frames."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from ncbench.datasets.formats.camera_files import intrinsics_from_numbers
from ncbench.datasets.formats.normal_maps import InvalidRule
from ncbench.datasets.readers.depth_normals import PlaneFit
from ncbench.geometry.axes import AXES
from ncbench.settings import Settings, suggest

NormalsFrom = Literal["file", "plane_fit", "cross_product"]


class FolderSettings(Settings):
    """Settings of :class:`~ncbench.datasets.readers.folder.FolderReader`.

    Patterns are relative to the root, with ``{sequence}`` and ``{frame}`` (``{frame:04d}`` says the same: any zero
    padding is read).

    Attributes:
        image: Pattern of the pictures; every picture is one frame. Must hold ``{frame}``.
        normal: Pattern of stored normal maps (``.png`` 8 or 16 bits, ``.npy``, ``.npz``, ``.exr``).
        depth: Pattern of z-depth maps (``.png`` 16 bits, ``.npy``, ``.npz``, ``.exr``, ``.dpt``).
        flow: Pattern of flow to the next frame of the sequence (``.flo`` or ``.npy``); NaN where unknown. The last
            frame needs none.
        occluded: Pattern of masks (PNG, not zero where set): pixels not visible in the next frame; likewise.
        intrinsics: A pattern (per frame, per sequence, or one file for all), or 4 (fx, fy, cx, cy) or 9 numbers.
        fov_degrees: Horizontal field of view instead of ``intrinsics``; square pixels, centred.
        poses: Pattern of camera-to-world poses in OpenCV axes: per frame, or per sequence with one row of 12 or 16
            numbers for each frame, in ascending order.
        sequence_name: Name of the one sequence where the patterns have no ``{sequence}``.
        normals_from: ``file`` takes the stored maps; the others compute normals from depth and intrinsics.
        axes: Axis convention of the stored normals; required with ``normals_from: file``.
        normal_key: Array of an NPZ, or part or layer of an EXR, where there are several.
        depth_key: The same for depth.
        depth_scale: Metres per unit of the depth files; required for PNG (1/5000 = 0.0002 for TUM), else 1.
        max_depth: Depth in metres from which on it counts as unknown; None keeps all.
        invalid: What marks a pixel of a stored map as holding no normal.
        plane_fit: Window and thresholds of ``normals_from: plane_fit``.
    """

    image: str
    normal: str | None = None
    depth: str | None = None
    flow: str | None = None
    occluded: str | None = None
    intrinsics: str | tuple[float, ...] | None = None
    fov_degrees: float | None = Field(default=None, gt=0, lt=180)
    poses: str | None = None
    sequence_name: str = Field(default="sequence", min_length=1)
    normals_from: NormalsFrom = "file"
    axes: str | None = None
    normal_key: str | None = None
    depth_key: str | None = None
    depth_scale: float | None = Field(default=None, gt=0)
    max_depth: float | None = Field(default=None, gt=0)
    invalid: InvalidRule = InvalidRule()
    plane_fit: PlaneFit = PlaneFit()

    @field_validator("axes")
    @classmethod
    def _known_axes(cls, axes: str | None) -> str | None:
        if axes is not None and axes not in AXES:
            raise ValueError(f"unknown axis convention '{axes}'. {suggest(axes, AXES)}")
        return axes

    @field_validator("intrinsics")
    @classmethod
    def _counted(cls, value: str | tuple[float, ...] | None) -> str | tuple[float, ...] | None:
        if isinstance(value, tuple):
            intrinsics_from_numbers(np.array(value))
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.intrinsics is not None and self.fov_degrees is not None:
            raise ValueError("give 'intrinsics' or 'fov_degrees', not both")
        if self.depth is not None and self.depth.lower().endswith(".png") and self.depth_scale is None:
            raise ValueError("PNG depth needs 'depth_scale' (metres per unit)")
        if self.normals_from == "file":
            if self.normal is None or self.axes is None:
                raise ValueError("'normals_from: file' needs 'normal' (a pattern) and 'axes'")
        elif self.depth is None or (self.intrinsics is None and self.fov_degrees is None):
            raise ValueError(f"'normals_from: {self.normals_from}' needs 'depth', and 'intrinsics' or 'fov_degrees'")
        elif self.normal is not None:
            raise ValueError(f"'normal' is given but 'normals_from: {self.normals_from}' would not read it")
        return self
