"""NormalCrafter's second stage: the spatial layers learn from decoded normals, end to end (section 3.3, figure 3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from ncbench.loaders.batch import Batch
from ncbench.training.losses import AngularKind, angular_loss, mean_angle
from ncbench.training.unet_groups import Group
from ncbench.training.vae import Frames, decode
from ncbench.training.video_stage import VideoStage, VideoStageSettings


class PixelStageSettings(VideoStageSettings):
    """Settings of the second stage.

    Attributes:
        learns: Groups of the U-Net's parameters that learn; see `ncbench.training.unet_groups.group_of`. The paper says
            "spatial layers" and freezes temporal ones; of the rest nothing is published. First and last convolution
            are spatial layers; the shares of spatial and temporal answers scale temporal layers and stay; so do
            embeddings of noise level and time ids, which at one noise level are constants that frozen layers rely on.
        decode_chunk: Frames that the decoder sees together. Not published; 2 halves the longest clip's graph, and
            leaves the decoder's temporal layers a neighbour. The adapter decodes 7 together.
        deferred: Whether the decoder's graph is made one chunk at a time in the backward pass, which saves memory where
            clips are longer than a chunk; gradients are the same.
        decoder_checkpointing: Whether the decoder's blocks are computed twice, which saves memory within a chunk;
            gradients are the same.
        angular: ``angle`` in radians (equation 5; the unit is not published, and is a constant factor), or ``cosine``.
    """

    learns: tuple[Group, ...] = ("spatial", "in_out")
    decode_chunk: int = Field(2, ge=1)
    deferred: bool = True
    decoder_checkpointing: bool = False
    angular: AngularKind = "angle"


class PixelStage(VideoStage):
    """One step from zero latents at the highest noise level, decoded; the angular loss, plus semantic regularization.

    Args:
        settings: See ``PixelStageSettings``.
    """

    settings: PixelStageSettings

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.settings = PixelStageSettings.parse(settings, where="stage PixelStage, settings")

    def load(self, init: Path | None, seed: int) -> None:
        """Bring the networks; see ``Stage.load``.

        Args:
            init: As there.
            seed: As there.

        Raises:
            ModelError: As there.
        """
        super().load(init, seed)
        if self.settings.decoder_checkpointing:
            self.vae.enable_gradient_checkpointing()

    @property
    def learns(self) -> tuple[Group, ...]:
        """Groups of the U-Net's parameters that learn."""
        return self.settings.learns

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:  # noqa: ARG002 - no noise
        """Compute the losses of one batch; nothing is random.

        Args:
            batch: See ``Stage.forward``.
            generator: Not used.

        Returns:
            ``loss``; ``angular`` as minimized, ``angle`` in degrees and, where it is on, ``semantic``.
        """
        frames = Frames(batch, self.shrink)
        told = self.condition(frames.images)
        zero = torch.zeros_like(told.latents, dtype=torch.float32)
        sigma = torch.full((len(zero),), self.step.sigma, device=zero.device)
        latents = self.denoise(zero, sigma, told, frames.clips) / self.scaling_factor
        decoded = decode(self.vae, latents, frames.clips, self.settings.decode_chunk, deferred=self.settings.deferred)
        main = angular_loss(decoded, frames.normals, frames.valid, self.settings.angular)
        return {
            **self.regularize(frames.images, main),
            "angular": main.detach(),
            "angle": mean_angle(decoded, frames.normals, frames.valid),
        }
