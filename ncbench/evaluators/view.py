"""What the metrics see of a frame: its truth, its picture decoded, its camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.frame import Frame
from ncbench.datasets.pictures import decode_image

BoolMap = NDArray[np.bool_]
FloatMap = NDArray[np.float32]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class View:
    """One frame of the truth, in the canonical convention (OpenCV camera, metres, unit normals).

    Attributes:
        sequence: Name of the clip.
        frame: Index within the clip.
        normal: (H, W, 3) float32 unit normals, zero where invalid.
        valid: (H, W) bool, where ``normal`` counts.
        image: (H, W, 3) uint8 RGB; None where there is none.
        depth: (H, W) float32 z-depth in metres, 0 where unknown.
        flow: (H, W, 2) float32 pixels, from this frame to the frame ``flow_to``; NaN where unknown.
        flow_to: Index of the frame that ``flow`` leads to; None where there is no flow.
        occluded: (H, W) bool, true where this frame's pixel is not visible in frame ``flow_to``.
        intrinsics: (3, 3) float64 in pixels; the centre of the top-left pixel is (0, 0).
        cam_to_world: (4, 4) float64 pose.
        extra: The data set's own columns by name.
    """

    sequence: str
    frame: int
    normal: FloatMap
    valid: BoolMap
    image: NDArray[np.uint8] | None = None
    depth: FloatMap | None = None
    flow: FloatMap | None = None
    flow_to: int | None = None
    occluded: BoolMap | None = None
    intrinsics: Matrix | None = None
    cam_to_world: Matrix | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.valid.shape
        return height, width


def view_of(frame: Frame, following: int | None) -> View:
    """Decode a stored frame for the metrics.

    Args:
        frame: As a store gives it.
        following: Index of the next frame of the clip, which ``frame.flow`` leads to; None at the last.

    Returns:
        The view.

    Raises:
        StoreError: The picture's bytes cannot be decoded.
    """
    return View(
        sequence=frame.sequence,
        frame=frame.frame,
        normal=frame.normal,
        valid=frame.valid,
        image=None if frame.image is None else decode_image(frame.image),
        depth=frame.depth,
        flow=frame.flow,
        flow_to=None if frame.flow is None else following,
        occluded=frame.occluded,
        intrinsics=frame.intrinsics,
        cam_to_world=frame.cam_to_world,
        extra=frame.extra,
    )
