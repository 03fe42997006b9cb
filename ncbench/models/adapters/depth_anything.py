"""Depth Anything V2 (Yang et al., NeurIPS 2024) through transformers; its answer is disparity, or metres if metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from ncbench.errors import ModelError
from ncbench.models.base import Answer, Clip, DepthMaps, MemoryClass, NormalModel, Runtime
from ncbench.models.memory import Device
from ncbench.settings import Settings

if TYPE_CHECKING:
    import torch

_CHANNELS = 3


class DepthAnythingSettings(Settings):
    """What shapes the answers.

    Attributes:
        input_size: Pixels that a side is scaled to, in the place of the published 518; null keeps that.
    """

    input_size: int | None = Field(None, ge=14, le=8192)


@dataclass(frozen=True)
class Preprocessing:
    """What ``preprocessor_config.json`` asks for.

    Attributes:
        side: That a side of the frame is scaled to: the one that changes the scale less.
        multiple: That both sides are rounded to.
        mean: Of each channel, for pixels in 0..1.
        std: Of each channel.
    """

    side: int
    multiple: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def read(cls, path: Path, side: int | None) -> Preprocessing:
        """Read the published file.

        Args:
            path: ``preprocessor_config.json``.
            side: In the place of the published one.

        Returns:
            The values.

        Raises:
            ModelError: The file is missing, or asks for something else than Depth Anything's does.
        """
        from ncbench.models.adapters.hub_layout import ADVICE, read_config

        config = read_config(path)
        size = config.get("size")
        sound = (
            isinstance(size, dict)
            and isinstance(size.get("height"), int)
            and size.get("height") == size.get("width")
            and config.get("keep_aspect_ratio") is True
            and isinstance(config.get("ensure_multiple_of"), int)
            and all(
                isinstance(item, list) and len(item) == _CHANNELS
                for item in map(config.get, ("image_mean", "image_std"))
            )
        )
        if not sound:
            raise ModelError(
                f"{path}: expected size (height = width), keep_aspect_ratio: true, ensure_multiple_of, image_mean and "
                f"image_std, found {config}. {ADVICE}"
            )
        return cls(
            side or config["size"]["height"],
            config["ensure_multiple_of"],
            tuple(config["image_mean"]),
            tuple(config["image_std"]),
        )

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Choose the network's size: the smaller change of scale for both sides, each rounded to the multiple.

        Args:
            height: Of the frames.
            width: Of the frames.

        Returns:
            Height and width.

        Raises:
            ModelError: A side would vanish.
        """
        scale = min(self.side / width, self.side / height, key=lambda factor: abs(1 - factor))
        if abs(1 - self.side / width) == abs(1 - self.side / height):
            scale = self.side / height  # a tie goes to the height, as in transformers
        found = round(scale * height / self.multiple), round(scale * width / self.multiple)
        if min(found) < 1:
            raise ModelError(f"frames of {height}x{width} are too narrow for this model. Crop them.")
        return found[0] * self.multiple, found[1] * self.multiple


class DepthAnything(NormalModel):
    """Depth Anything V2 of any size, relative (disparity) or metric (z-depth in metres).

    Frames are scaled with an antialiased bicubic filter and the answer bicubically back, as transformers does.
    """

    per_frame = True
    clip_length = 8
    memory: MemoryClass = "8GB"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = DepthAnythingSettings.parse(settings, where="model DepthAnything, settings")
        self._network: torch.nn.Module | None = None
        self._preprocessing: Preprocessing | None = None

    def load(self, runtime: Runtime) -> None:
        """Load the network.

        Args:
            runtime: ``weights`` holds ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``.

        Raises:
            ModelError: A file or a tensor is missing or is not what it should be.
        """
        from transformers import DepthAnythingForDepthEstimation

        from ncbench.models.adapters.hub_layout import DTYPES, transformers_network

        super().load(runtime)
        if runtime.weights is None:
            raise ModelError("Depth Anything needs weights, and the runtime names no folder of them.")
        self._preprocessing = Preprocessing.read(runtime.weights / "preprocessor_config.json", self.settings.input_size)
        network: torch.nn.Module = transformers_network(
            DepthAnythingForDepthEstimation, runtime.weights, DTYPES[runtime.precision]
        )
        self._network = network.to(runtime.device)
        if runtime.compile:
            self._network.compile()
        self.device = Device(runtime.device).describe()

    def predict(self, clip: Clip) -> Answer:
        """Run all frames together."""
        import torch
        from torch.nn import functional

        if self._network is None or self._preprocessing is None:
            raise ModelError("this model predicts after 'load', which brings its weights to the device")
        size = (clip.images.shape[1], clip.images.shape[2])
        with torch.inference_mode():
            pixels = torch.from_numpy(clip.images).to(self.runtime.device).permute(0, 3, 1, 2).float() / 255
            pixels = functional.interpolate(pixels, self._preprocessing.target(*size), mode="bicubic", antialias=True)
            mean, std = (
                torch.tensor(values, device=pixels.device).view(1, 3, 1, 1)
                for values in (self._preprocessing.mean, self._preprocessing.std)
            )
            pixels = (pixels.clip(0, 1) - mean) / std  # the filter overshoots at edges
            found = self._network(pixels.to(next(self._network.parameters()).dtype)).predicted_depth.float()
            restored = functional.interpolate(found[:, None], size, mode="bicubic", align_corners=False)
            depth: DepthMaps = restored[:, 0].clip(min=0).cpu().numpy().astype(np.float32)
        return Answer(None, depth)
