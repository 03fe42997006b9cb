"""The maps of one frame on their way into a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BoolMap = NDArray[np.bool_]
FloatMap = NDArray[np.float32]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Maps:
    """What a frame shows, decoded; OpenCV axes. What nobody asked for is None.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        normal: (H, W, 3) float32, unit length, zero where not valid.
        valid: (H, W) bool.
        depth: (H, W) float32 z-depth in metres, 0 where unknown.
        flow: (H, W, 2) float32, pixels to the next frame of the sequence, NaN where unknown.
        occluded: (H, W) bool, not visible in the next frame of the sequence.
        intrinsics: (3, 3) float64, pixels; the centre of the top-left pixel is (0, 0).
        cam_to_world: (4, 4) float64, metres.
    """

    image: NDArray[np.uint8]
    normal: FloatMap
    valid: BoolMap
    depth: FloatMap | None = None
    flow: FloatMap | None = None
    occluded: BoolMap | None = None
    intrinsics: Matrix | None = None
    cam_to_world: Matrix | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.valid.shape
        return height, width
