"""Stable Diffusion's networks as image models of normals use them: on the latents of a picture, without a prompt."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from ncbench.errors import ModelError
from ncbench.models.adapters.hub_layout import ADVICE, DTYPES, diffusers_network, transformers_network
from ncbench.models.base import Clip, Runtime


@dataclass
class LatentDiffusion:
    """The networks, ready to run. Latents are float32 throughout; only the networks use the shorter number format.

    Attributes:
        unet: The U-Net.
        vae: The autoencoder.
        prompt: (1, L, C) embedding of the empty prompt; None for a model that is told of each frame by itself.
        device: Where they compute.
        dtype: The networks' number format.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    prompt: torch.Tensor | None
    device: torch.device
    dtype: torch.dtype

    @property
    def latent_channels(self) -> int:
        """Channels of a picture's latents."""
        return int(self.vae.config["latent_channels"])

    def encode(self, pixels: torch.Tensor, generators: Sequence[torch.Generator] | None = None) -> torch.Tensor:
        """Encode pictures.

        Args:
            pixels: (N, 3, H, W) in -1..1.
            generators: One each picture: draws from the encoder's distribution; None takes its mode.

        Returns:
            (N, C, H // 8, W // 8) float32 scaled latents.
        """
        found = self.vae.encode(pixels.to(self.dtype)).latent_dist
        latents: torch.Tensor = found.mode().float()
        if generators is not None:
            latents = latents + found.std.float() * self.noise(generators, latents)
        return latents * float(self.vae.config["scaling_factor"])

    def predict(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor | int,
        labels: torch.Tensor | None = None,
        told: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the U-Net.

        Args:
            latents: (N, C, h, w).
            timestep: The same for all.
            labels: (1, L) or (N, L) class labels, for a U-Net that takes them.
            told: (N, L, C) what the cross-attention looks at, in the place of the empty prompt.

        Returns:
            (N, C', h, w) float32.

        Raises:
            ValueError: There is neither a prompt nor anything in its place.
        """
        told = self.prompt if told is None else told
        if told is None:
            raise ValueError("this U-Net has no prompt, and is told nothing in its place")
        prompt = told.expand(len(latents), -1, -1)
        labels = None if labels is None else labels.to(self.device, self.dtype).expand(len(latents), -1)
        found = self.unet(latents.to(self.dtype), timestep, encoder_hidden_states=prompt, class_labels=labels)
        answer: torch.Tensor = found.sample.float()
        return answer

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode scaled latents.

        Args:
            latents: (N, C, h, w) float32.

        Returns:
            (N, 3, 8 h, 8 w) float32, not clamped.
        """
        decoded: torch.Tensor = self.vae.decode((latents / self.vae.config["scaling_factor"]).to(self.dtype)).sample
        return decoded.float()

    def noise(self, generators: Sequence[torch.Generator], like: torch.Tensor) -> torch.Tensor:
        """Draw standard normal noise, each frame's from its own generator.

        Args:
            generators: One each frame, on the CPU, so that every device gets the same numbers.
            like: (N, _, h, w): gives height and width.

        Returns:
            (N, C, h, w) float32 on the device.
        """
        shape = (self.latent_channels, *like.shape[-2:])
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(self.device)


def load_latent_diffusion(
    runtime: Runtime,
    prompt: Literal["short", "padded"],
    channels: int,
    unet: UNet2DConditionModel | None = None,
) -> LatentDiffusion:
    """Load the networks from the layout of a Stable Diffusion repository.

    The text encoder is needed for one embedding alone and is not kept.

    Args:
        runtime: ``weights`` holds ``unet``, ``vae``, ``text_encoder`` and ``tokenizer``.
        prompt: The empty prompt's tokens: its two (``short``), or padded to the tokenizer's length.
        channels: How many latent channels the U-Net must take in, in units of the VAE's.
        unet: In the place of the repository's own.

    Returns:
        The networks, on the device.

    Raises:
        ModelError: A file is missing or is not what it should be, or a tensor is missing, unknown or of another shape;
            the message names it.
    """
    folder = runtime.weights
    if folder is None:
        raise ModelError("this model needs weights, and the runtime names no folder of them.")
    device, dtype = torch.device(runtime.device), DTYPES[runtime.precision]
    if unet is None:
        unet = diffusers_network(UNet2DConditionModel, folder / "unet", dtype)
    vae: AutoencoderKL = diffusers_network(AutoencoderKL, folder / "vae", dtype)
    text_encoder = transformers_network(CLIPTextModel, folder / "text_encoder", dtype)
    check_fit(folder, unet, vae, channels, ("text encoder", text_encoder.config.hidden_size))
    tokens = _empty_prompt(runtime, prompt)
    with torch.inference_mode():
        embedding = text_encoder.to(device)(tokens.to(device))[0].to(dtype)
    return bring(LatentDiffusion(unet, vae, embedding, device, dtype), compiled=runtime.compile)


def check_fit(
    folder: Path, unet: UNet2DConditionModel, vae: AutoencoderKL, channels: int, looks_at: tuple[str, int]
) -> None:
    """Refuse networks that are sound each by itself, and do not belong together.

    Args:
        folder: Where they come from, for the message.
        unet: The U-Net.
        vae: The autoencoder.
        channels: How many latent channels the U-Net must take in, in units of the VAE's.
        looks_at: What its cross-attention looks at, and the size of that.

    Raises:
        ModelError: They do not fit; the message says how.
    """
    latents, (encoder, size) = vae.config["latent_channels"], looks_at
    checks = {
        "U-Net input channels": (unet.config["in_channels"], channels * latents),
        "U-Net output channels": (unet.config["out_channels"], latents),
        f"U-Net cross-attention, the {encoder}'s size": (unet.config["cross_attention_dim"], size),
        "VAE downscaling": (2 ** (len(vae.config["block_out_channels"]) - 1), 8),
    }
    problems = [f"{name}: expected {right}, found {left}" for name, (left, right) in checks.items() if left != right]
    if problems:
        raise ModelError(f"{folder}: these networks do not fit the model; {'; '.join(problems)}. {ADVICE}")


def bring(networks: LatentDiffusion, *, compiled: bool) -> LatentDiffusion:
    """Bring networks to their device.

    Args:
        networks: On any device; changed.
        compiled: Whether to compile them as well.

    Returns:
        The same.
    """
    torch.nn.Module.to(networks.unet, networks.device)  # diffusers wraps its own in a function without types
    torch.nn.Module.to(networks.vae, networks.device)
    if compiled:
        torch.nn.Module.compile(networks.unet)
        networks.vae.encoder.compile()
        networks.vae.decoder.compile()
    return networks


def frame_generators(seed: int, clip: Clip, member: int = 0) -> list[torch.Generator]:
    """Make a generator for each frame that does not depend on how a sequence is cut.

    Args:
        seed: Of the run.
        clip: The frames.
        member: Of an ensemble.

    Returns:
        One each frame, on the CPU, started from (seed, sequence, frame, member) alone.
    """
    made = []
    for frame in clip.frames:
        key = [seed, zlib.crc32(clip.sequence.encode()), frame % 2**32, member]
        made.append(
            torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
        )
    return made


def _empty_prompt(runtime: Runtime, prompt: Literal["short", "padded"]) -> torch.Tensor:
    """Tokenize the empty prompt: start, end, and with ``padded`` the padding that Stable Diffusion knows."""
    assert runtime.weights is not None  # noqa: S101 - the caller checks
    folder = runtime.weights / "tokenizer"
    kind: Any = CLIPTokenizer  # has no types
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
        tokens: torch.Tensor = tokenizer(
            "",
            padding="do_not_pad" if prompt == "short" else "max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
    except Exception as error:  # transformers raises whatever a wrong file leads to
        raise ModelError(f"{folder}: cannot be read as a CLIP tokenizer ({error}). {ADVICE}") from error
    return tokens
