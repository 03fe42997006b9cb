"""NormalCrafter's decoder: latents to colours, a few frames at a time, in less memory than diffusers needs for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.resnet import AlphaBlender

Decode = Callable[[torch.Tensor], torch.Tensor]
"""Decodes (T, C, h, w) latents to (T, 3, 8 h, 8 w)."""


class ChunkedDecoder:
    """Decodes latents that arrive in pieces of any length, in chunks that are counted from the clip's first frame.

    The decoder's temporal layers see one chunk at a time, so that where chunks are cut shapes the result.

    Args:
        chunk: Frames at a time.
        decode: Decodes one chunk.
    """

    def __init__(self, chunk: int, decode: Decode) -> None:
        self._chunk = chunk
        self._decode = decode
        self._waiting: torch.Tensor | None = None

    @property
    def held(self) -> int:
        """How many frames' latents are in memory."""
        return 0 if self._waiting is None else len(self._waiting)

    def push(self, latents: torch.Tensor) -> list[torch.Tensor]:
        """Take the next latents.

        Args:
            latents: (n, C, h, w).

        Returns:
            All chunks that are full now, decoded.
        """
        waiting = latents if self._waiting is None else torch.cat([self._waiting, latents])
        decoded = []
        while len(waiting) >= self._chunk:
            decoded.append(self._decode(waiting[: self._chunk]))
            waiting = waiting[self._chunk :]
        self._waiting = waiting.clone()  # a slice would keep all of its parent
        return decoded

    def finish(self) -> list[torch.Tensor]:
        """Decode what is left.

        Returns:
            The last, shorter chunk, where there is one.
        """
        waiting, self._waiting = self._waiting, None
        return [] if waiting is None or not len(waiting) else [self._decode(waiting)]


class BlendInPlace(torch.nn.Module):
    """Mixes what a block's spatial and temporal layers answer, into the memory of the temporal answer.

    Diffusers' own makes two products and a sum, each as large as an answer; at full resolution these are the decoder's
    peak. The temporal answer is the fresh result of a sum, which nobody else reads.

    Args:
        blender: Diffusers' own, which knows the learned share.
    """

    def __init__(self, blender: AlphaBlender) -> None:
        super().__init__()
        self.blender = blender

    def forward(
        self, x_spatial: torch.Tensor, x_temporal: torch.Tensor, image_only_indicator: torch.Tensor
    ) -> torch.Tensor:
        """Mix.

        Args:
            x_spatial: (B, C, T, H, W).
            x_temporal: (B, C, T, H, W), overwritten.
            image_only_indicator: (B, T), zero for the frames of a video.

        Returns:
            (B, C, T, H, W).
        """
        share: torch.Tensor = self.blender.get_alpha(image_only_indicator, x_spatial.ndim).to(x_spatial.dtype)
        if self.blender.switch_spatial_to_temporal_mix:
            share = 1 - share
        return x_temporal.lerp_(x_spatial, share)


def blend_in_place(vae: AutoencoderKLTemporalDecoder) -> None:
    """Make the decoder need less memory, at results that differ by rounding alone.

    Args:
        vae: Filled with its weights already: the names of some layers change.
    """
    decoder: Any = vae.decoder  # torch types the parts of a module as tensors or modules
    for block in [decoder.mid_block, *decoder.up_blocks]:
        for resnet in block.resnets:
            resnet.time_mixer = BlendInPlace(resnet.time_mixer)
