"""The one interface of every model: a clip in; unit normals, depth or both out."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Normals = NDArray[np.float32]
DepthMaps = NDArray[np.float32]
Precision = Literal["fp32", "bf16", "fp16"]
MemoryClass = Literal["light", "8GB", "16GB", "24GB", "48GB", "80GB"]


@dataclass(frozen=True)
class Runtime:
    """Where and how a model computes; what it computes is the card's business.

    Attributes:
        weights: Folder that holds the files that the card's ``weights`` name, each checked; None where the card names
            none.
        device: In torch's spelling: ``cpu``, ``cuda``, ``cuda:1``.
        precision: Number format of the network.
        compile: Whether to compile the network (``torch.compile``).
        seed: What all randomness of the model is drawn from.
        progress: Called with (frames done, frames in all; 0 where nobody knows) by a model that is slow within a clip.
    """

    weights: Path | None = None
    device: str = "cpu"
    precision: Precision = "fp32"
    compile: bool = False
    seed: int = 0
    progress: Callable[[int, int], None] | None = None


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
    depth: DepthMaps | None
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
        fps: Frames a second, or None where unknown.
    """

    sequence: str
    frames: tuple[int, ...]
    images: NDArray[np.uint8]
    intrinsics: NDArray[np.float64] | None = None
    truth: Truth | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Answer:
    """What a model says of one clip, at input size; at least one of normals and depth.

    Attributes:
        normal: (T, H, W, 3) float32 unit normals in the axes that the model's card names. A zero vector says "no
            answer" and is scored as the protocol states. None for a depth model.
        depth: (T, H, W) float32, as the card's ``depth`` says: z-depth in metres or up to a scale, 0 where there is no
            answer; or disparity. NaN says "no answer" in each of them.
        confidence: (T, H, W) float32, larger is surer, in the model's own unit.
    """

    normal: Normals | None
    depth: DepthMaps | None = None
    confidence: NDArray[np.float32] | None = None


class NormalModel(abc.ABC):
    """Base of every adapter; it is made from the settings block of its card.

    Making one is light: it checks settings and loads nothing, so that listing and fingerprinting are quick. ``load``
    is called once, before the first prediction.

    A model that looks at one clip at a time implements ``predict``. A model that carries state from clip to clip
    (overlapping windows, the first frame) overrides ``stream`` instead, which sees all clips of one sequence in
    order and answers each frame exactly once, so that no video is ever held whole.

    Attributes:
        clip_length: How many frames the runner hands over at a time, unless ``per_frame`` lets it choose.
        per_frame: Whether each frame's answer depends on that frame alone. The runner may then cut a sequence anywhere:
            it fills the device with larger clips, and halves them where memory runs out.
        needs_truth: Whether the model is a control that reads the ground truth.
        needs_intrinsics: Whether it refuses frames without a pinhole matrix.
        gives_confidence: Whether answers carry a confidence, so that the store has a column for it.
        memory: The smallest graphics card that holds it at the card's own settings; ``light`` runs anywhere.
        deterministic: Whether equal input, seed and device give equal bits.
        device: Where it computes, for the record: ``cpu``, ``cuda:0 NVIDIA H100``, ...
        runtime: What ``load`` was given.
    """

    clip_length: int = 8
    per_frame: bool = False
    needs_truth: ClassVar[bool] = False
    needs_intrinsics: bool = False
    gives_confidence: bool = False
    memory: MemoryClass = "light"
    deterministic: bool = True
    device: str = "cpu"
    runtime: Runtime = Runtime()

    @abc.abstractmethod
    def __init__(self, settings: Mapping[str, Any]) -> None: ...

    def load(self, runtime: Runtime) -> None:
        """Load weights and move to the device; by default only keeps the runtime.

        Args:
            runtime: Where and how to compute.

        Raises:
            ModelError: A file of weights is missing, or is not what the adapter expects.
        """
        self.runtime = runtime

    @abc.abstractmethod
    def predict(self, clip: Clip) -> Normals | Answer:
        """Predict one clip.

        Args:
            clip: The frames.

        Returns:
            An answer, or its normals alone: (T, H, W, 3) float32 unit normals at input size, in the axes that the
            model's card names.
        """

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:  # noqa: ARG002 - for those that read files
        """Name what the answers depend on besides the card, its weights and the data; by default nothing.

        Args:
            sequence: Name of a clip.
            frames: Its frame indices.

        Returns:
            Text that changes when the answers would: for a model that reads files, a hash of them.
        """
        return ""

    def use_less_memory(self) -> bool:
        """Make the next try need less memory, at equal answers: smaller chunks, parts moved off the device.

        Called after memory ran out, for a model that is not ``per_frame``; its sequence then starts again.

        Returns:
            Whether there was something to lower; by default there is not.
        """
        return False

    def stream(self, clips: Iterable[Clip]) -> Iterator[Normals | Answer]:
        """Predict the clips of one sequence, in order.

        Args:
            clips: The sequence, cut into clips of ``clip_length`` frames (the last may be shorter).

        Yields:
            One answer as ``predict`` returns it for each clip, in order. It need not come before the next clip is
            taken, so that a model may look ahead.
        """
        for clip in clips:
            yield self.predict(clip)
