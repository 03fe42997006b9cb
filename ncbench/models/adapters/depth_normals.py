"""Any depth model as a normal model: planes fitted to what it answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.readers.depth_normals import PlaneFit, plane_fit_normals
from ncbench.errors import ModelError
from ncbench.geometry.cameras import field_of_view_intrinsics, pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.models.base import Answer, Clip, DepthMaps, NormalModel, Normals, Runtime
from ncbench.registry import load_attribute
from ncbench.settings import Settings
from ncbench.sources import Attribute


class DepthNormalsSettings(Settings):
    """The depth model, and how normals follow.

    Attributes:
        depth_model: Its adapter, ``module:class``.
        depth_settings: Its settings.
        depth: What it answers: z-depth in ``metres``, ``relative`` z-depth (up to a scale), or ``disparity`` (1 / depth
            up to a scale and a shift).
        farthest: For disparity, whose shift is unknown: how many times farther than the frame's nearest point one of
            disparity zero is taken to be. Normals depend on it; none is right for every picture.
        fov_degrees: Horizontal field of view of frames without intrinsics; null refuses such frames.
        plane_fit: Window and thresholds.
    """

    depth_model: Attribute
    depth_settings: dict[str, Any] = Field(default_factory=dict)
    depth: Literal["metres", "relative", "disparity"]
    farthest: float = Field(100.0, gt=1)
    fov_degrees: float | None = Field(None, gt=0, lt=180)
    plane_fit: PlaneFit = PlaneFit()


@dataclass(frozen=True)
class _Camera:
    """What of a clip is needed once its depth is known; the pictures are let go."""

    sequence: str
    intrinsics: NDArray[np.float64] | None


class DepthNormals(NormalModel):
    """Answers with another model's depth and the normals of planes fitted to it; these are in OpenCV axes.

    Where too few neighbours agree on a plane the normal comes from the nearest differences (cross product); where depth
    is unknown there is none.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = DepthNormalsSettings.parse(settings, where="model DepthNormals, settings")
        kind = load_attribute(self.settings.depth_model)
        if not (isinstance(kind, type) and issubclass(kind, NormalModel)):
            raise ModelError(
                f"model DepthNormals: depth_model '{self.settings.depth_model}' is not a subclass of "
                "ncbench.models.base.NormalModel"
            )
        self._model: NormalModel = kind(self.settings.depth_settings)
        self.per_frame = self._model.per_frame
        self.clip_length = self._model.clip_length
        self.gives_confidence = self._model.gives_confidence
        self.memory = self._model.memory
        self.deterministic = self._model.deterministic
        self.needs_intrinsics = self._model.needs_intrinsics or self.settings.fov_degrees is None

    def load(self, runtime: Runtime) -> None:
        """Load the depth model; as its own ``load``."""
        super().load(runtime)
        self._model.load(runtime)
        self.device = self._model.device

    def predict(self, clip: Clip) -> Answer:
        """Predict one clip on its own."""
        return next(self.stream([clip]))

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """As the depth model's."""
        return self._model.fingerprint(sequence, frames)

    def use_less_memory(self) -> bool:
        """As the depth model's."""
        return self._model.use_less_memory()

    def stream(self, clips: Iterable[Clip]) -> Iterator[Answer]:
        """Let the depth model see the sequence, and fit planes to each of its answers."""
        waiting: deque[_Camera] = deque()

        def remembered() -> Iterator[Clip]:
            for clip in clips:
                waiting.append(_Camera(clip.sequence, clip.intrinsics))
                yield clip

        for answer in self._model.stream(remembered()):
            if not isinstance(answer, Answer) or answer.depth is None:
                raise ModelError(f"depth model '{self.settings.depth_model}' answered without depth")
            if not waiting:
                raise ModelError(f"depth model '{self.settings.depth_model}' answered more clips than it was given")
            yield Answer(self._normals(answer.depth, waiting.popleft()), answer.depth, answer.confidence)

    def _normals(self, answered: DepthMaps, camera: _Camera) -> Normals:
        count, height, width = answered.shape
        intrinsics = camera.intrinsics
        if intrinsics is None:
            if self.settings.fov_degrees is None:
                raise ModelError(
                    f"sequence '{camera.sequence}' has no intrinsics, which normals from depth need. Set 'fov_degrees'."
                )
            matrix = field_of_view_intrinsics(height, width, self.settings.fov_degrees)
            intrinsics = np.broadcast_to(matrix, (count, 3, 3))
        maps = []
        for values, matrix in zip(answered, intrinsics, strict=True):
            depth = (
                depth_from_disparity(values, self.settings.farthest) if self.settings.depth == "disparity" else values
            )
            rays = pinhole_rays(matrix, height, width)
            normal, valid = plane_fit_normals(depth, rays, self.settings.plane_fit)
            if not valid.all():
                crossed, crossed_valid = normals_by_cross_product(depth, rays)
                normal = np.where(valid[..., None], normal, np.where(crossed_valid[..., None], crossed, np.float32(0)))
            maps.append(normal)
        return np.stack(maps)


def depth_from_disparity(disparity: NDArray[np.float32], farthest: float) -> NDArray[np.float32]:
    """Turn affine-invariant disparity into depth in units of the nearest point's.

    Args:
        disparity: (H, W) up to a scale and a shift; the nearest point has the largest. Below zero counts as zero.
        farthest: Depth of a point of disparity zero; the nearest point's is 1.

    Returns:
        (H, W) float32 depth, 0 where the disparity is not finite, and everywhere where none is above zero.

    Examples:
        >>> depth_from_disparity(np.array([[4.0, 2.0, 0.0, np.nan]], np.float32), 100.0).round(3).tolist()
        [[1.0, 1.9800000190734863, 100.0, 0.0]]
    """
    known = np.isfinite(disparity)
    clipped = np.where(known, disparity, 0).clip(min=0).astype(np.float64)
    nearest = clipped.max(initial=0.0)
    if nearest <= 0:
        return np.zeros(disparity.shape, np.float32)
    inverse = clipped / nearest * (1 - 1 / farthest) + 1 / farthest
    return np.where(known, 1 / inverse, 0).astype(np.float32)
