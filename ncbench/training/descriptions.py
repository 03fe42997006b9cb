"""Sizes of NormalCrafter's networks, for those that are to be made with random weights."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ncbench.models.adapters.normalcrafter_conditioning import CLIP_SIDE
from ncbench.settings import Settings

_GROUP = 32  # diffusers normalizes in 32 groups of channels, whatever their number


def _check_channels(channels: tuple[int, ...]) -> None:
    if not channels or any(count <= 0 or count % _GROUP for count in channels):
        raise ValueError(f"channels must be multiples of {_GROUP}, at least one level, found {channels}")


class UNetDescription(Settings):
    """A U-Net of Stable Video Diffusion's kind; the defaults are its XT's.

    The lowest level has no attention, as published, unless it is the only one. Channels are normalized in 32 groups: a
    level of 32 channels loses whatever is constant over a picture, and with it the noise level that it is told.

    Attributes:
        channels: Of each level, multiples of 32.
        heads: Of each level's attention.
        layers: Residual blocks to a level.
        time_embedding: Channels of each time id's embedding.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    heads: tuple[int, ...] = (5, 10, 20, 20)
    layers: int = Field(2, ge=1)
    time_embedding: int = Field(256, ge=2)

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        _check_channels(self.channels)
        if len(self.heads) != len(self.channels):
            raise ValueError(f"{len(self.channels)} levels of channels need as many heads, found {self.heads}")
        uneven = [pair for pair in zip(self.channels, self.heads, strict=True) if pair[0] % pair[1]]
        if uneven:
            raise ValueError(f"channels must be multiples of heads, found (channels, heads) {uneven}")
        return self


class VAEDescription(Settings):
    """An autoencoder of Stable Video Diffusion's kind; the defaults are its own.

    Attributes:
        channels: Of each level, multiples of 32; n levels make latents 2^(n - 1) times smaller.
        layers: Residual blocks to a level.
        latent_channels: Of the latents.
        scaling_factor: What brings latents to unit variance; `AutoencoderStage` measures it.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = Field(2, ge=1)
    latent_channels: int = Field(4, ge=1)
    scaling_factor: float = Field(0.18215, gt=0)

    @model_validator(mode="after")
    def _channels_fit(self) -> Self:
        _check_channels(self.channels)
        return self


class ImageEncoderDescription(Settings):
    """A CLIP image encoder; the defaults are those of the one in Stable Video Diffusion (ViT-H/14).

    Attributes:
        hidden: Channels.
        layers: Transformer layers.
        heads: Of each layer.
        patch: Side of a patch of the 224 x 224 pixels.
        token: Size of the embedding that the U-Net is told.
    """

    hidden: int = Field(1280, ge=2)
    layers: int = Field(32, ge=1)
    heads: int = Field(16, ge=1)
    patch: int = Field(14, ge=1, le=CLIP_SIDE)
    token: int = Field(1024, ge=2)


class VideoNetworksDescription(Settings):
    """Networks to be made with random weights, for parts that the folder to start from does not hold.

    Attributes:
        unet: The U-Net.
        vae: The autoencoder.
        image_encoder: CLIP's; with random weights it still tells pictures apart.
    """

    unet: UNetDescription = UNetDescription()
    vae: VAEDescription = VAEDescription()
    image_encoder: ImageEncoderDescription = ImageEncoderDescription()
