"""The video autoencoder in training: frames and normals to latents, latents back to pictures.

Conditions are the VAE's latents as they are; targets of the U-Net are multiplied by ``scaling_factor``, since the
released code divides by it before it decodes (as Stable Video Diffusion does), and so expects latents of unit variance
from the U-Net.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch.nn import functional

from ncbench.loaders.batch import Batch
from ncbench.training.deferred import decode_in_chunks

_ENCODED_TOGETHER = 4  # frames; the encoder in float32 needs more memory a frame than all else


class Frames:
    """The frames of a batch's clips in one row, padded to what the networks take.

    Args:
        batch: As `ncbench.loaders` makes it.
        multiple: What both sides must be multiples of.

    Attributes:
        clips: B.
        images: (B T, 3, H', W') in -1..1; the padding is white, as in the adapter, and lies on all sides.
        normals: (B T, 3, H', W'), zero where not valid.
        valid: (B T, H', W') bool, false in the padding.
    """

    def __init__(self, batch: Batch, multiple: int) -> None:
        margins = margins_of(batch["image"].shape[-2], batch["image"].shape[-1], multiple)
        self.clips = len(batch["image"])
        self.images = functional.pad(batch["image"].flatten(0, 1), margins, value=1.0)
        valid = batch["valid"].flatten(0, 1)
        normals = torch.where(valid[:, None], batch["normal"].flatten(0, 1), 0)
        self.normals = functional.pad(normals, margins)
        self.valid = functional.pad(valid, margins)


def margins_of(height: int, width: int, multiple: int) -> tuple[int, int, int, int]:
    """Lay out padding to a multiple as the adapter does: symmetric, the odd rest below and to the right.

    Args:
        height: Pixels.
        width: Pixels.
        multiple: Pixels.

    Returns:
        Left, right, top, bottom.
    """
    right, bottom = -width % multiple, -height % multiple
    return right // 2, right - right // 2, bottom // 2, bottom - bottom // 2


def let_decoder_learn(vae: AutoencoderKLTemporalDecoder) -> None:
    """Set ``requires_grad`` of the decoder's parameters.

    Diffusers' decoder passes through the attention of its middle block between residual blocks; where that has but one,
    as in small networks, the attention is never reached, and stays as it is.

    Args:
        vae: The autoencoder.
    """
    vae.decoder.requires_grad_(requires_grad=True)
    middle: Any = vae.decoder.mid_block  # torch types the parts of a module as tensors or modules
    for attention in middle.attentions[len(middle.resnets) - 1 :]:
        attention.requires_grad_(requires_grad=False)


def encode(vae: AutoencoderKLTemporalDecoder, pictures: torch.Tensor) -> DiagonalGaussianDistribution:
    """Encode pictures, in float32 where the VAE's configuration asks for that.

    Args:
        vae: The autoencoder.
        pictures: (N, 3, H, W) in -1..1.

    Returns:
        The distribution of (N, C, h, w) latents, unscaled.
    """
    with full_precision(pictures.device, needed=bool(vae.config["force_upcast"])):
        found: Any = vae.encode(pictures.to(vae.quant_conv.weight.dtype))
        distribution: DiagonalGaussianDistribution = found.latent_dist
        return distribution


@torch.no_grad()
def encode_frozen(vae: AutoencoderKLTemporalDecoder, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode pictures a few at a time and without a graph.

    Args:
        vae: The autoencoder.
        pictures: (N, 3, H, W) in -1..1.

    Returns:
        Mode and standard deviation of the latents, each (N, C, h, w) float32, unscaled.
    """
    found = [encode(vae, part) for part in torch.split(pictures, _ENCODED_TOGETHER)]
    return torch.cat([one.mean.float() for one in found]), torch.cat([one.std.float() for one in found])


def decode(
    vae: AutoencoderKLTemporalDecoder, latents: torch.Tensor, clips: int, chunk: int, *, deferred: bool
) -> torch.Tensor:
    """Decode clips with a graph.

    Args:
        vae: The autoencoder.
        latents: (B T, C, h, w) float32, unscaled, clip after clip.
        clips: B.
        chunk: Frames that the decoder sees together, counted from each clip's first.
        deferred: Whether graphs are made one chunk at a time, in the backward pass.

    Returns:
        (B T, 3, H, W) float32, not clamped.
    """
    weight: torch.Tensor = next(vae.decoder.parameters())

    def one(part: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = vae.decode(part.to(weight.dtype), num_frames=len(part)).sample
        return decoded.float()

    return decode_in_chunks(one, latents, clips, chunk, deferred=deferred)


def full_precision(device: torch.device, *, needed: bool) -> AbstractContextManager[Any]:
    """Switch automatic shorter number formats off.

    Args:
        device: Where is computed.
        needed: Whether to switch them off at all.

    Returns:
        A context.
    """
    return torch.autocast(device.type, enabled=False) if needed else nullcontext()
