"""One video through NormalCrafter, in constant memory: frames in, unit normals out once they are final."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ncbench.errors import ModelError
from ncbench.models.adapters.normalcrafter_decode import ChunkedDecoder
from ncbench.models.adapters.normalcrafter_frames import Canvas
from ncbench.models.adapters.normalcrafter_networks import Networks
from ncbench.models.adapters.normalcrafter_settings import NormalCrafterSettings
from ncbench.models.adapters.normalcrafter_windows import WindowStream
from ncbench.models.base import Normals

_NO_NOISE = 0.0  # the third time id, the strength of noise on the frames: released code adds none


class SequencePredictor:
    """Predicts the frames of one sequence while they arrive.

    Args:
        networks: All of them, loaded.
        settings: What shapes the answers.
        progress: Called with (frames done, 0).
    """

    def __init__(
        self, networks: Networks, settings: NormalCrafterSettings, progress: Callable[[int, int], None] | None = None
    ) -> None:
        time_ids = (settings.fps, settings.motion_bucket, _NO_NOISE)
        self._networks = networks
        self._settings = settings
        self._progress = progress
        self._canvas: Canvas | None = None
        self._windows = WindowStream(
            settings.window, settings.stride, lambda told, carried: networks.predict(told, carried, time_ids)
        )
        self._decoder = ChunkedDecoder(settings.decode_chunk, networks.decode)
        self._done = 0

    @property
    def held(self) -> int:
        """How many frames' conditions and latents are in memory."""
        return self._windows.held + self._decoder.held

    def push(self, images: NDArray[np.uint8]) -> Iterator[Normals]:
        """Take the next frames.

        Args:
            images: (T, H, W, 3) uint8 RGB, of one size throughout the sequence.

        Yields:
            (n, H, W, 3) float32 unit normals of the next frames that are final.

        Raises:
            ModelError: The frames are not what they should be, or the network answered with anything but finite
                numbers.
        """
        canvas = self._canvas_of(images)
        # no more frames at a time than a window, however long the clips are that somebody hands over
        for start in range(0, len(images), self._settings.window):
            frames = canvas.place(images[start : start + self._settings.window], self._networks.device)
            conditions = self._networks.condition(frames)
            del frames
            yield from self._decoded(canvas, self._windows.push(conditions))

    def finish(self) -> Iterator[Normals]:
        """Predict what is left; as ``push``."""
        if self._canvas is not None:
            yield from self._decoded(self._canvas, self._windows.finish())
            for decoded in self._decoder.finish():
                yield self._normals(self._canvas, decoded)

    def _decoded(self, canvas: Canvas, pieces: Iterable[torch.Tensor]) -> Iterator[Normals]:
        for piece in pieces:
            for decoded in self._decoder.push(piece):
                yield self._normals(canvas, decoded)

    def _normals(self, canvas: Canvas, decoded: torch.Tensor) -> Normals:
        if not torch.isfinite(decoded).all():
            raise ModelError(
                f"NormalCrafter's decoder answered with numbers that are not finite, at frame {self._done} of the "
                "sequence or shortly after. Run it with another precision (bf16 or fp32)."
            )
        normals: Normals = canvas.normals(decoded).cpu().numpy()
        self._done += len(normals)
        if self._progress is not None:
            self._progress(self._done, 0)
        return normals

    def _canvas_of(self, images: NDArray[np.uint8]) -> Canvas:
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or 0 in images.shape:
            raise ModelError(
                f"expected frames of shape (T, H, W, 3) and type uint8, at least one, got {images.shape} of "
                f"{images.dtype}."
            )
        height, width = images.shape[1:3]
        if self._canvas is None:
            self._canvas = Canvas.fit(height, width, self._settings.longest_side, self._settings.multiple)
        if (height, width) != (self._canvas.height, self._canvas.width):
            raise ModelError(
                f"the frames of a video have one size; these change from {self._canvas.height}x{self._canvas.width} to "
                f"{height}x{width} (rows x columns). Predict them as sequences of their own."
            )
        return self._canvas
