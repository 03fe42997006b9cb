"""NormalCrafter (Bin et al., ICCV 2025): normals of a video in one diffusion step, as released and streamed.

This module imports no torch, so that listing models stays quick; what computes is imported when weights are loaded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ncbench.errors import ModelError
from ncbench.models.adapters.normalcrafter_settings import NormalCrafterSettings
from ncbench.models.base import Clip, MemoryClass, NormalModel, Normals, Runtime
from ncbench.models.memory import Device

if TYPE_CHECKING:
    from ncbench.models.adapters.normalcrafter_networks import Networks


class NormalCrafter(NormalModel):
    """NormalCrafter behind the one interface; it answers in OpenGL axes.

    A sequence is predicted while it arrives. What is in memory does not depend on its length: the clip at hand, two
    windows of latents, one chunk of decoded frames.
    """

    memory: MemoryClass = "24GB"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = NormalCrafterSettings.parse(settings, where="model NormalCrafter, settings")
        self.clip_length = self.settings.window
        self._networks: Networks | None = None

    def load(self, runtime: Runtime) -> None:
        """Load the networks.

        Args:
            runtime: ``weights`` holds the published layout.

        Raises:
            ModelError: A file or a tensor is missing or is not what it should be.
        """
        from ncbench.models.adapters.normalcrafter_weights import load_networks

        super().load(runtime)
        self._networks = load_networks(runtime, self.settings.multiple)
        self.device = Device(runtime.device).describe()

    def use_less_memory(self) -> bool:
        """Encode one frame at a time, then keep off the device what does not compute."""
        return self._networks is not None and self._networks.use_less_memory()

    def predict(self, clip: Clip) -> Normals:
        """Predict a clip as a video of its own."""
        return next(self.stream([clip]))

    def stream(self, clips: Iterable[Clip]) -> Iterator[Normals]:
        """Predict a sequence; an answer comes as soon as no later frame can change it.

        Args:
            clips: In order; all frames of one size.

        Yields:
            (T, H, W, 3) float32 unit normals of each clip, in OpenGL axes.

        Raises:
            ModelError: The frames change size, or the network answered with anything but finite numbers.
        """
        from ncbench.models.adapters.normalcrafter_sequence import SequencePredictor

        if self._networks is None:
            raise ModelError("NormalCrafter is asked to predict before its weights are loaded; call load first")
        predictor = SequencePredictor(self._networks, self.settings, self.runtime.progress)
        answers = _ClipAnswers()
        for clip in clips:
            answers.expect(len(clip.images))
            for normals in predictor.push(clip.images):
                yield from answers.add(normals)
        for normals in predictor.finish():
            yield from answers.add(normals)


class _ClipAnswers:
    """Cuts predictions, which come in pieces of their own, to the clips that were asked."""

    def __init__(self) -> None:
        self._lengths: deque[int] = deque()
        self._pieces: list[Normals] = []
        self._frames = 0

    def expect(self, frames: int) -> None:
        """Note the length of the next clip."""
        self._lengths.append(frames)

    def add(self, normals: Normals) -> Iterator[Normals]:
        """Take the next predictions; yield the clips that they complete."""
        self._pieces.append(normals)
        self._frames += len(normals)
        while self._lengths and self._frames >= self._lengths[0]:
            length = self._lengths.popleft()
            joined = np.concatenate(self._pieces)
            self._pieces, self._frames = [joined[length:]], self._frames - length
            yield joined[:length]
