"""An autoencoder from scratch, a stand-in for Stable Video Diffusion's where that is too large or not at hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import distributed

from ncbench.loaders.batch import Batch
from ncbench.settings import Settings
from ncbench.training.descriptions import VideoNetworksDescription
from ncbench.training.losses import distance, fill_invalid, psnr
from ncbench.training.networks import read_vae, shrink_of
from ncbench.training.stage import ReconstructionStage
from ncbench.training.vae import Frames, decode, encode, let_decoder_learn
from ncbench.training.vae_decoder_stage import NormalLoss, reconstruct_normals


class AutoencoderStageSettings(Settings):
    """Settings of an autoencoder from scratch; NormalCrafter starts from a finished one.

    Attributes:
        networks: Sizes; only ``vae`` counts here, the rest is for the stages that follow.
        image_weight: Of the mean absolute error of given-back frames.
        normal_weight: Of the loss of given-back normals.
        normal: That loss.
        kl_weight: Of the divergence from the standard normal distribution, a mean over latents. Small, as in latent
            diffusion (Rombach et al., 2022, appendix G): it bounds the latents without blurring pictures.
        decode_chunk: Frames that the decoder sees together.
        average: Share of the latents' variance that one step replaces in its running average, from which
            ``scaling_factor`` is saved.
    """

    networks: VideoNetworksDescription | None = None
    image_weight: float = Field(1.0, ge=0)
    normal_weight: float = Field(1.0, ge=0)
    normal: NormalLoss = NormalLoss()
    kl_weight: float = Field(1e-4, ge=0)
    decode_chunk: int = Field(7, ge=1)
    average: float = Field(0.01, gt=0, le=1)


class AutoencoderStage(ReconstructionStage):
    """Frames and normals are encoded, drawn from, and given back.

    Args:
        settings: See ``AutoencoderStageSettings``.
    """

    moments: torch.Tensor
    """Running mean and mean square of the normals' latents, and how much of a full average they hold."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.settings = AutoencoderStageSettings.parse(settings, where="stage AutoencoderStage, settings")
        self.register_buffer("moments", torch.zeros(3))

    def load(self, init: Path | None, seed: int) -> None:
        """Bring the autoencoder; see ``Stage.load``.

        Args:
            init: Folder that holds ``vae``; None makes it from the description.
            seed: Of new weights.

        Raises:
            ModelError: As there.
        """
        self.vae = read_vae(init, self.settings.networks, seed)
        self.vae.requires_grad_(requires_grad=True)
        let_decoder_learn(self.vae)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Compute the losses of one batch.

        Args:
            batch: See ``Stage.forward``.
            generator: On the CPU.

        Returns:
            ``loss``; ``image``, ``normal`` and its parts, ``kl``, ``psnr`` of normals in decibels, and ``deviation``,
            the standard deviation of their latents.
        """
        settings, frames = self.settings, Frames(batch, shrink_of(self.vae))
        normals = fill_invalid(frames.normals, frames.valid)
        found = encode(self.vae, torch.cat([frames.images, normals]))
        noise = torch.randn(found.mean.shape, generator=generator).to(found.mean.device)
        latents = found.mean.float() + found.std.float() * noise
        decoded = decode(self.vae, latents, 2 * frames.clips, settings.decode_chunk, deferred=False)
        images, answers = decoded.chunk(2)
        image = distance(images, frames.images, torch.ones_like(frames.valid))
        normal, parts = settings.normal.of(answers, frames)
        divergence = 0.5 * (found.mean.square() + found.var - 1 - found.logvar).mean()
        loss = settings.image_weight * image + settings.normal_weight * normal + settings.kl_weight * divergence
        deviation = self._measure(found.mean.detach()[len(normals) :])
        logs = {"image": image, "normal": normal, "kl": divergence}
        return {
            "loss": loss,
            **{name: value.detach() for name, value in logs.items()},
            **parts,
            "psnr": psnr(answers, frames.normals, frames.valid),
            "deviation": deviation,
        }

    def reconstruct(self, normals: torch.Tensor) -> torch.Tensor:
        """Encode and decode; see ``ReconstructionStage.reconstruct``.

        Args:
            normals: (T, 3, H, W).

        Returns:
            (T, 3, H, W).
        """
        return reconstruct_normals(self.vae, normals, self.settings.decode_chunk)

    def save(self, folder: Path) -> None:
        """Write ``vae``, with the ``scaling_factor`` that brings normals' latents to unit variance.

        Args:
            folder: See ``Stage.save``.
        """
        mean, square, held = self.moments.tolist()
        if held > 0:
            variance = square / held - (mean / held) ** 2
            vae: Any = self.vae  # diffusers' configuration has no types
            vae.register_to_config(scaling_factor=max(variance, 1e-12) ** -0.5)
        self.vae.save_pretrained(folder / "vae")

    @torch.no_grad()
    def _measure(self, latents: torch.Tensor) -> torch.Tensor:
        """Take the latents of one batch into the running moments; return their standard deviation.

        Of several processes each takes all batches, in the order in which a single one meets them.
        """
        values = latents.float()
        now = torch.stack([values.mean(), values.square().mean(), torch.ones_like(values.mean())]).to(self.moments)
        if self.training:
            for batch in _from_all_processes(now):
                self.moments.lerp_(batch, self.settings.average)
        return values.std()


def _from_all_processes(value: torch.Tensor) -> list[torch.Tensor]:
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values = [torch.empty_like(value) for _ in range(distributed.get_world_size())]
    distributed.all_gather(values, value)
    return values
