"""Frames brought to the size that a network wants, and its answers brought back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ncbench.errors import ModelError

Padding = Literal["replicate", "imagenet_black", "none"]
Filter = Literal["bilinear", "bicubic"]
Back = Literal["bilinear", "bilinear-antialias", "nearest", "nearest-opencv"]

_MULTIPLE: dict[Padding, int] = {"replicate": 8, "imagenet_black": 32, "none": 1}
# black as DSINE's harness knows it, (0 - mean) / std of ImageNet; Lotus pads pictures scaled to -1..1 with it
_IMAGENET_BLACK = (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)


def to_pixels(images: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Scale pictures as networks of latent diffusion expect them.

    Args:
        images: (T, H, W, 3) uint8 RGB.
        device: Where to put them.

    Returns:
        (T, 3, H, W) float32 in -1..1.
    """
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_maps(values: torch.Tensor) -> NDArray[np.float32]:
    """Bring (T, C, H, W) of a device back as (T, H, W, C) float32."""
    maps: NDArray[np.float32] = values.permute(0, 2, 3, 1).float().contiguous().cpu().numpy()
    return maps


@dataclass(frozen=True)
class Framing:
    """How frames of one size are fitted to a network.

    Attributes:
        size: Height and width of the frames.
        resized: What they are scaled to.
        margins: Left, right, top, bottom: pixels added around the scaled frames.
        padding: What is in them.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    margins: tuple[int, int, int, int]
    padding: Padding

    @classmethod
    def of(cls, size: tuple[int, int], longest: int, padding: Padding) -> Framing:
        """Plan the fit.

        Args:
            size: Height and width of the frames.
            longest: Pixels that their longer side is scaled to, up or down; 0 keeps their size.
            padding: ``replicate`` repeats the last row and column up to a multiple of 8 (diffusers), ``imagenet_black``
                surrounds to a multiple of 32 (Lotus' evaluation), ``none`` leaves it to the network to drop what is
                left of 8 (E2E-FT), its answer then being stretched.

        Returns:
            The plan.

        Raises:
            ModelError: The frames are too narrow for the network.
        """
        height, width = size
        side = max(size)
        resized = (height * longest // side, width * longest // side) if longest else size
        if min(resized) < (_MULTIPLE["replicate"] if padding == "none" else 1):
            raise ModelError(
                f"frames of {height}x{width} are too narrow: scaled to {resized[0]}x{resized[1]}, nothing of them is "
                "left for the network. Crop them, or set 'processing_resolution' higher."
            )
        multiple = _MULTIPLE[padding]
        down, right = -resized[0] % multiple, -resized[1] % multiple
        left, top = (right // 2, down // 2) if padding == "imagenet_black" else (0, 0)
        return cls(size, resized, (left, right - left, top, down - top), padding)

    def fit(self, pixels: torch.Tensor, filtered: Filter = "bilinear") -> torch.Tensor:
        """Scale (antialiased) and pad.

        Args:
            pixels: (T, 3, H, W) float32 in -1..1.
            filtered: How to scale; what ``bicubic`` overshoots is cut off.

        Returns:
            (T, 3, h, w).
        """
        if self.resized != self.size:
            pixels = functional.interpolate(pixels, self.resized, mode=filtered, antialias=True).clip(-1, 1)
        if not any(self.margins):
            return pixels
        if self.padding == "replicate":
            return functional.pad(pixels, self.margins, mode="replicate")
        black = torch.tensor(_IMAGENET_BLACK, device=pixels.device).view(1, 3, 1, 1)
        return functional.pad(pixels - black, self.margins) + black

    def crop(self, answer: torch.Tensor) -> torch.Tensor:
        """Take the margins away.

        Args:
            answer: (T, C, h, w), at the size that the network made of ``fit``'s.

        Returns:
            (T, C, h', w').
        """
        left, right, top, bottom = self.margins
        return answer[..., top : answer.shape[-2] - bottom, left : answer.shape[-1] - right]

    def restore(self, answer: torch.Tensor, back: Back) -> torch.Tensor:
        """Scale an answer without margins back to the frames' size.

        Args:
            answer: (T, C, h', w').
            back: How to scale. ``nearest-opencv`` rounds places down, as OpenCV's INTER_NEAREST does.

        Returns:
            (T, C, H, W).
        """
        if tuple(answer.shape[-2:]) == self.size:
            return answer
        if back == "nearest-opencv":
            return functional.interpolate(answer, self.size, mode="nearest")
        if back == "nearest":
            return functional.interpolate(answer, self.size, mode="nearest-exact")
        return functional.interpolate(answer, self.size, mode="bilinear", antialias=back == "bilinear-antialias")
