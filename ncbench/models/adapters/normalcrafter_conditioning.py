"""What NormalCrafter's U-Net is told of each frame: a CLIP embedding and a latent of the VAE, both frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional

CLIP_SIDE = 224


@dataclass(frozen=True)
class Conditions:
    """What the U-Net is told of T frames.

    Attributes:
        embeddings: (T, 1, D) of the CLIP image encoder, one token a frame, in the network's number format.
        latents: (T, C, h, w) of the VAE's encoder, the mode and not scaled, in the network's number format.
    """

    embeddings: torch.Tensor
    latents: torch.Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, frames: slice) -> Conditions:
        return Conditions(self.embeddings[frames], self.latents[frames])

    def __add__(self, other: Conditions) -> Conditions:
        return Conditions(
            torch.cat([self.embeddings, other.embeddings]),
            torch.cat([self.latents, other.latents]),
        )


@lru_cache(maxsize=16)
def antialiased_resize(size: int, target: int) -> torch.Tensor:
    """Write Stable Video Diffusion's resize along one side as a matrix.

    It is a Gaussian blur (sigma (size / target - 1) / 2, at least 0.001; a kernel of 4 sigma, made odd, at least 3;
    mirrored at the border) and then bicubic interpolation with aligned corners. Both are linear and separable, so that
    a picture is resized by one matrix from the left and one from the right.

    Args:
        size: Pixels of the side.
        target: Pixels after resizing.

    Returns:
        (target, size) float32 on the CPU.
    """
    sigma = max((size / target - 1) / 2, 0.001)
    taps = int(max(4 * sigma, 3))
    taps += taps % 2 == 0
    offsets = torch.arange(taps, dtype=torch.float32) - taps // 2
    kernel = torch.exp(-offsets.square() / (2 * torch.tensor(sigma).square()))
    kernel = kernel / kernel.sum()
    # every column of the identity is one signal, so that the blurred columns are the matrix itself
    signals = functional.pad(torch.eye(size)[:, None], (taps // 2, taps // 2), mode="reflect")
    blurred = functional.conv1d(signals, kernel[None, None])[:, 0].T
    return functional.interpolate(blurred[None, None], (target, size), mode="bicubic", align_corners=True)[0, 0]


def clip_pixels(frames: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Bring frames to what the CLIP image encoder takes; the aspect ratio is not kept.

    Args:
        frames: (T, 3, H, W) float32 in 0..1.
        mean: Of each channel, as the feature extractor's configuration states it.
        std: Of each channel.

    Returns:
        (T, 3, 224, 224) float32.
    """
    rows = antialiased_resize(frames.shape[-2], CLIP_SIDE).to(frames.device)
    columns = antialiased_resize(frames.shape[-1], CLIP_SIDE).to(frames.device)
    small = rows @ frames @ columns.T
    return (small - small.new_tensor(mean)[:, None, None]) / small.new_tensor(std)[:, None, None]
