"""NormalCrafter's first stage: the whole U-Net learns to denoise the latents of normals (section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field

from ncbench.loaders.batch import Batch
from ncbench.training.edm import draw_sigma
from ncbench.training.losses import denoising_loss, fill_invalid, latent_valid
from ncbench.training.unet_groups import GROUPS, Group
from ncbench.training.vae import Frames, encode_frozen
from ncbench.training.video_stage import VideoStage, VideoStageSettings


class LatentStageSettings(VideoStageSettings):
    """Settings of the first stage.

    Attributes:
        share_at_max: Probability that a clip's noise level is the scheduler's maximum, 700 (section 4.1).
        sigma_mean: Of ln(sigma) otherwise, "following SVD" (section 4.1).
        sigma_spread: Standard deviation of ln(sigma).
        noise_at_max: Whether latents at the maximum are noise, or zero as in inference and in the second stage. Not
            published; ``drawn`` is plain denoising, whose best answer there does not depend on the noise.
        target: Whether the latents to be found are the mode of the encoder's distribution or drawn from it. Not
            published; the mode, as for the frames.
        fill: What the encoder sees where the data have no normal. Not published; zero belongs to no direction and
            means the same in all axes.
        valid_share: Of a latent cell's pixels that must be valid for the cell to count; 0 counts all cells. Not
            published; 1, since a cell that mixes normals and filling has a target that no normals decode from.
    """

    share_at_max: float = Field(0.5, ge=0, le=1)
    sigma_mean: float = 0.7
    sigma_spread: float = Field(1.6, ge=0)
    noise_at_max: Literal["drawn", "zero"] = "drawn"
    target: Literal["mode", "sample"] = "mode"
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    valid_share: float = Field(1.0, ge=0, le=1)


class LatentStage(VideoStage):
    """Denoising score matching on latents, plus semantic regularization.

    Args:
        settings: See ``LatentStageSettings``.
    """

    settings: LatentStageSettings
    learns: tuple[Group, ...] = GROUPS

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.settings = LatentStageSettings.parse(settings, where="stage LatentStage, settings")

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Compute the losses of one batch.

        Args:
            batch: See ``Stage.forward``.
            generator: On the CPU.

        Returns:
            ``loss``; ``denoising`` and, where it is on, ``semantic``.
        """
        frames = Frames(batch, self.shrink)
        told = self.condition(frames.images)
        clean = self._target(frames, generator)
        sigma = draw_sigma(
            frames.clips,
            generator,
            sigma_max=self.step.sigma,
            share_at_max=self.settings.share_at_max,
            mean=self.settings.sigma_mean,
            spread=self.settings.sigma_spread,
        )
        each = sigma.repeat_interleave(len(clean) // frames.clips).to(clean.device)
        noisy = clean + each[:, None, None, None] * torch.randn(clean.shape, generator=generator).to(clean.device)
        if self.settings.noise_at_max == "zero":
            noisy = torch.where((each == self.step.sigma)[:, None, None, None], 0, noisy)
        denoised = self.denoise(noisy, each, told, frames.clips)
        factor = frames.images.shape[-1] // clean.shape[-1]
        main = denoising_loss(denoised, clean, each, latent_valid(frames.valid, factor, self.settings.valid_share))
        return {**self.regularize(frames.images, main), "denoising": main.detach()}

    def _target(self, frames: Frames, generator: torch.Generator) -> torch.Tensor:
        """Encode normals to (B T, C, h, w) float32 latents of unit variance."""
        normals = fill_invalid(frames.normals, frames.valid, self.settings.fill)
        latents, deviation = encode_frozen(self.vae, normals)
        if self.settings.target == "sample":
            latents = latents + deviation * torch.randn(latents.shape, generator=generator).to(latents.device)
        return latents * self.scaling_factor
