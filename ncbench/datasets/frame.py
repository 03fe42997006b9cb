"""The canonical frame: what every reader yields and every store row holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolMap = NDArray[np.bool_]
FloatMap = NDArray[np.float32]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame in the canonical convention (OpenCV camera: x right, y down, z forward; metres; unit normals).

    Attributes:
        sequence: Name of the clip that the frame belongs to.
        frame: Index within the clip; frames of a clip ascend.
        image: The original encoded bytes of the picture (PNG, JPEG, ...), never re-encoded; None where there is none.
        normal: (H, W, 3) float32, unit length facing the camera (n . ray < 0), zero where invalid.
        valid: (H, W) bool, True where ``normal`` is meant to be used.
        depth: (H, W) float32 z-depth in metres, 0 where unknown.
        flow: (H, W, 2) float32, (u, v) in pixels from this frame to the next frame of the clip, NaN where unknown.
        occluded: (H, W) bool, True where this frame's pixel is not visible in the next frame of the clip.
        intrinsics: (3, 3) float64 pinhole matrix in pixels; the centre of the top-left pixel is (0, 0).
        cam_to_world: (4, 4) float64 pose, metres.
        extra: Card-specific columns by name; a value is anything that the column's declared feature accepts.
    """

    sequence: str
    frame: int
    image: bytes | None
    normal: FloatMap
    valid: BoolMap
    depth: FloatMap | None = None
    flow: FloatMap | None = None
    occluded: BoolMap | None = None
    intrinsics: Matrix | None = None
    cam_to_world: Matrix | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.valid.shape
        return height, width


@dataclass(frozen=True, slots=True)
class Skipped:
    """A frame that a reader leaves out, in the place where the frame would have been.

    Attributes:
        sequence: Name of the clip.
        frame: Index within the clip; the numbers of its neighbours do not close up.
        reason: One line that says what is wrong with the source; the same for the same files, so without time or
            machine. Paths are written relative to the raw folder.
    """

    sequence: str
    frame: int
    reason: str
