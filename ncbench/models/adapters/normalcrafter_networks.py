"""NormalCrafter's networks at work: each on its device and in its number format, no larger at a time than need be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from transformers import CLIPVisionModelWithProjection

from ncbench.models.adapters.normalcrafter_conditioning import Conditions, clip_pixels
from ncbench.models.adapters.normalcrafter_unet import OneStep, PerFrameUNet

_ENCODED_TOGETHER = 2  # frames; the encoder in float32 needs more memory a frame than all else


@dataclass
class Networks:
    """All networks, ready to run.

    The VAE's encoder runs in float32 where its configuration asks for that (``force_upcast``, as SVD's does) and its
    decoder in the network's number format; neither is ever converted back and forth.

    Attributes:
        unet: The U-Net.
        vae: The autoencoder.
        image_encoder: CLIP's.
        image_mean: Of CLIP's input, each channel.
        image_std: Of CLIP's input, each channel.
        step: The one step that the U-Net takes.
        device: Where they compute.
        dtype: The network's number format.
        encoded_together: How many frames the VAE encodes at a time; the results do not depend on it.
        offloaded: Whether a network is on the device only while it computes.
    """

    unet: PerFrameUNet
    vae: AutoencoderKLTemporalDecoder
    image_encoder: CLIPVisionModelWithProjection
    image_mean: list[float]
    image_std: list[float]
    step: OneStep
    device: torch.device
    dtype: torch.dtype
    encoded_together: int = _ENCODED_TOGETHER
    offloaded: bool = False

    @torch.inference_mode()
    def condition(self, frames: torch.Tensor) -> Conditions:
        """Encode frames.

        Args:
            frames: (T, 3, H, W) float32 in 0..1, H and W multiples of 64.

        Returns:
            What the U-Net is told of them.
        """
        with self._in_use(self.image_encoder):
            pixels = clip_pixels(frames, self.image_mean, self.image_std).to(self.dtype)
            embeddings = self.image_encoder(pixels).image_embeds[:, None]
        encoder_dtype = self.vae.quant_conv.weight.dtype
        with self._in_use(self.vae.encoder, self.vae.quant_conv):
            latents = [
                self.vae.encode((2 * part - 1).to(encoder_dtype)).latent_dist.mode().to(self.dtype)
                for part in torch.split(frames, self.encoded_together)
            ]
        return Conditions(embeddings, torch.cat(latents))

    @torch.inference_mode()
    def predict(
        self, conditions: Conditions, carried: torch.Tensor | None, time_ids: tuple[float, float, float]
    ) -> torch.Tensor:
        """Predict the latents of one window.

        Args:
            conditions: Of its frames.
            carried: As ``OneStep`` takes them.
            time_ids: Frames a second, motion bucket, noise augmentation.

        Returns:
            (T, C, h, w) float32.
        """
        with self._in_use(self.unet):
            return self.step(self.unet, conditions, carried, torch.tensor(time_ids, device=self.device))

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode one chunk.

        Args:
            latents: (T, C, h, w) float32.

        Returns:
            (T, 3, 8 h, 8 w), not clamped, in the network's number format.
        """
        with self._in_use(self.vae.decoder):
            scaled = (latents / self.vae.config["scaling_factor"]).to(self.dtype)
            decoded: torch.Tensor = self.vae.decode(scaled, num_frames=len(scaled)).sample
            return decoded

    def use_less_memory(self) -> bool:
        """First encode single frames, then keep only the network on the device that computes.

        Returns:
            Whether there was something left to do.
        """
        if self.encoded_together > 1:
            self.encoded_together = 1
            return True
        if self.offloaded or self.device.type == "cpu":
            return False
        networks: tuple[torch.nn.Module, ...] = (self.unet, self.vae, self.image_encoder)
        for network in networks:
            network.to("cpu")
        self.offloaded = True
        return True

    @contextmanager
    def _in_use(self, *modules: torch.nn.Module) -> Iterator[None]:
        if not self.offloaded:
            yield
            return
        for module in modules:
            module.to(self.device)
        try:
            yield
        finally:
            for module in modules:
                module.to("cpu")
