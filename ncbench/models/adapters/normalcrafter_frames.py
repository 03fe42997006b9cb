"""What NormalCrafter's networks see of a frame, and the way back: downscaling, white padding, cutting, upscaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

MULTIPLE = 64  # of the canvas, as released: 8 for the VAE times 8 for the U-Net


@dataclass(frozen=True)
class Canvas:
    """How frames of one size lie on the canvas that the networks see.

    Attributes:
        height: Of the frames, pixels.
        width: Of the frames, pixels.
        inner_height: After downscaling.
        inner_width: After downscaling.
        top: White rows above; where the padding is odd, the spare row lies below.
        left: White columns to the left; the spare column lies to the right.
        outer_height: Of the canvas.
        outer_width: Of the canvas.
    """

    height: int
    width: int
    inner_height: int
    inner_width: int
    top: int
    left: int
    outer_height: int
    outer_width: int

    @classmethod
    def fit(cls, height: int, width: int, longest_side: int, multiple: int = MULTIPLE) -> Canvas:
        """Lay out a frame size: shrink to the longest side (never enlarge), then pad to a multiple.

        Args:
            height: Of the frames, pixels.
            width: Of the frames, pixels.
            longest_side: What the longer side is brought down to.
            multiple: Of which both sides of the canvas are multiples.

        Returns:
            The layout.
        """
        scale = min(1.0, longest_side / max(height, width))
        inner = [max(1, round(side * scale)) for side in (height, width)]
        outer = [-(-side // multiple) * multiple for side in inner]
        top, left = [(whole - part) // 2 for whole, part in zip(outer, inner, strict=True)]
        return cls(height, width, inner[0], inner[1], top, left, outer[0], outer[1])

    @property
    def resizes(self) -> bool:
        """Whether frames are downscaled."""
        return (self.height, self.width) != (self.inner_height, self.inner_width)

    def place(self, images: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
        """Bring frames to the device and onto the canvas.

        Downscaling is anti-aliased bicubic and rounds to 8 bits, as a video reader that resizes does.

        Args:
            images: (T, H, W, 3) uint8 RGB.
            device: Where to.

        Returns:
            (T, 3, outer height, outer width) float32 in 0..1; the padding is white.
        """
        # channels stay interleaved in memory, as released: torch's group normalization on the CPU rounds by layout
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float()
        if self.resizes:
            size = (self.inner_height, self.inner_width)
            pixels = functional.interpolate(pixels, size, mode="bicubic", antialias=True).round().clamp(0, 255)
        bottom = self.outer_height - self.inner_height - self.top
        right = self.outer_width - self.inner_width - self.left
        return functional.pad(pixels / 255, (self.left, right, self.top, bottom), value=1.0)

    def normals(self, decoded: torch.Tensor) -> torch.Tensor:
        """Turn what the VAE decoded into unit normals at input size.

        Args:
            decoded: (T, 3, outer height, outer width).

        Returns:
            (T, H, W, 3) float32 unit vectors, on the same device; zero where all three values are zero. As released,
            values are first clamped to -1..1.
        """
        rows = slice(self.top, self.top + self.inner_height)
        columns = slice(self.left, self.left + self.inner_width)
        maps = decoded[..., rows, columns].float().clamp(-1, 1)
        if self.resizes:
            maps = functional.interpolate(maps, (self.height, self.width), mode="bilinear", align_corners=False)
        return functional.normalize(maps, dim=1).permute(0, 2, 3, 1)
