"""The one interface of every model: a clip in, unit normals out."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Normals = NDArray[np.float32]


@dataclass(frozen=True)
class Truth:
    """What the data set knows about a clip; only controls are given it.

    Attributes:
        normal: (T, H, W, 3) float32 canonical unit normals, zero where invalid.
        valid: (T, H, W) bool.
        depth: (T, H, W) float32 z-depth in metres, 0 where unknown; None where the data set has none.
        normal_source: How the normals were made: ``file``, ``plane_fit``, ``cross_product`` or ``analytic``.
    """

    normal: Normals
    valid: NDArray[np.bool_]
    depth: NDArray[np.float32] | None
    normal_source: str


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of one sequence.

    Attributes:
        sequence: Its name.
        frames: The T frame indices.
        images: (T, H, W, 3) uint8 RGB.
        intrinsics: (T, 3, 3) float64 pinhole matrices in pixels, or None where unknown.
        truth: The ground truth, for controls alone.
    """

    sequence: str
    frames: tuple[int, ...]
    images: NDArray[np.uint8]
    intrinsics: NDArray[np.float64] | None = None
    truth: Truth | None = None


class NormalModel(abc.ABC):
    """Base of every adapter; it is made from the settings block of its card.

    A model that looks at one clip at a time implements ``predict``. A model that carries state from clip to clip
    (overlapping windows, the first frame) overrides ``stream`` instead, which sees all clips of one sequence in
    order and answers each frame exactly once, so that no video is ever held whole.

    Attributes:
        clip_length: How many frames the runner hands over at a time.
        needs_truth: Whether the model is a control that reads the ground truth.
        needs_intrinsics: Whether it refuses frames without a pinhole matrix.
        device: Where it computes, for the record: ``cpu``, ``cuda:0 NVIDIA H100``, ...
    """

    clip_length: ClassVar[int] = 8
    needs_truth: ClassVar[bool] = False
    needs_intrinsics: ClassVar[bool] = False
    device: str = "cpu"

    @abc.abstractmethod
    def __init__(self, settings: Mapping[str, Any]) -> None: ...

    @abc.abstractmethod
    def predict(self, clip: Clip) -> Normals:
        """Predict one clip.

        Args:
            clip: The frames.

        Returns:
            (T, H, W, 3) float32 unit normals at input size, in the axes that the model's card names. A zero vector says
            "no answer" and is scored as the protocol states.
        """

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:  # noqa: ARG002 - for those that read files
        """Name what the answers depend on besides the card and the data; by default nothing.

        Args:
            sequence: Name of a clip.
            frames: Its frame indices.

        Returns:
            Text that changes when the answers would: for a model that reads files, a hash of them.
        """
        return ""

    def stream(self, clips: Iterable[Clip]) -> Iterator[Normals]:
        """Predict the clips of one sequence, in order.

        Args:
            clips: The sequence, cut into clips of ``clip_length`` frames (the last may be shorter).

        Yields:
            One array as ``predict`` returns it for each clip.
        """
        for clip in clips:
            yield self.predict(clip)
