"""NormalCrafter's fine-tuning of the VAE's decoder on normals, before its two stages (section 4.1)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from pydantic import Field
from torch.nn import functional

from ncbench.loaders.batch import Batch
from ncbench.settings import Settings
from ncbench.training.descriptions import VideoNetworksDescription
from ncbench.training.losses import AngularKind, DistanceKind, angular_loss, distance, fill_invalid, mean_angle, psnr
from ncbench.training.networks import read_vae, shrink_of
from ncbench.training.stage import ReconstructionStage
from ncbench.training.vae import Frames, decode, encode_frozen, let_decoder_learn, margins_of

_OTHER_PARTS = ("unet", "image_encoder", "scheduler", "feature_extractor", "semantic")


class NormalLoss(Settings):
    """What given-back normals cost. The paper does not state it.

    Attributes:
        distance: ``l1`` or ``l2`` of the three values; l1, which is what most autoencoders of latent diffusion learn
            with and what keeps edges sharper.
        distance_weight: It holds the length of vectors near 1, of which angles say nothing.
        angular: ``angle`` in radians or ``cosine``.
        angular_weight: It is what is measured in the end (5.75 to 4.07 degrees in the paper).
    """

    distance: DistanceKind = "l1"
    distance_weight: float = Field(1.0, ge=0)
    angular: AngularKind = "angle"
    angular_weight: float = Field(1.0, ge=0)

    def of(self, answers: torch.Tensor, frames: Frames) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss.

        Args:
            answers: (N, 3, H, W) as decoded.
            frames: With the true normals.

        Returns:
            The weighted sum with its graph, and ``distance``, ``angular`` and ``angle`` (degrees) without.
        """
        far = distance(answers, frames.normals, frames.valid, self.distance)
        angular = angular_loss(answers, frames.normals, frames.valid, self.angular)
        parts = {
            "distance": far.detach(),
            "angular": angular.detach(),
            "angle": mean_angle(answers, frames.normals, frames.valid),
        }
        return self.distance_weight * far + self.angular_weight * angular, parts


class DecoderStageSettings(Settings):
    """Settings of the decoder's fine-tuning.

    Attributes:
        networks: What the autoencoder is made of where there is no folder to start from.
        normal: The loss.
        decode_chunk: Frames that the decoder sees together; 7, as in inference.
        deferred: Whether its graph is made one chunk at a time in the backward pass, which saves memory where clips are
            longer than a chunk; gradients are the same.
    """

    networks: VideoNetworksDescription | None = None
    normal: NormalLoss = NormalLoss()
    decode_chunk: int = Field(7, ge=1)
    deferred: bool = False


class DecoderStage(ReconstructionStage):
    """The encoder is frozen, and the decoder, its temporal layers too, learns to give normals back.

    Args:
        settings: See ``DecoderStageSettings``.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.settings = DecoderStageSettings.parse(settings, where="stage DecoderStage, settings")
        self._init: Path | None = None

    def load(self, init: Path | None, seed: int) -> None:
        """Bring the autoencoder; see ``Stage.load``.

        Args:
            init: Folder that holds ``vae``; what else is in it is copied by ``save``.
            seed: Of new weights.

        Raises:
            ModelError: As there.
        """
        self._init = init
        self.vae = read_vae(init, self.settings.networks, seed)
        let_decoder_learn(self.vae)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:  # noqa: ARG002 - the mode
        """Compute the losses of one batch; nothing is random.

        Args:
            batch: See ``Stage.forward``.
            generator: Not used.

        Returns:
            ``loss``; ``distance``, ``angular``, ``angle`` in degrees and ``psnr`` in decibels.
        """
        frames = Frames(batch, shrink_of(self.vae))
        latents, _ = encode_frozen(self.vae, fill_invalid(frames.normals, frames.valid))
        settings = self.settings
        answers = decode(self.vae, latents, frames.clips, settings.decode_chunk, deferred=settings.deferred)
        loss, parts = settings.normal.of(answers, frames)
        return {"loss": loss, **parts, "psnr": psnr(answers, frames.normals, frames.valid)}

    def reconstruct(self, normals: torch.Tensor) -> torch.Tensor:
        """Encode and decode; see ``ReconstructionStage.reconstruct``.

        Args:
            normals: (T, 3, H, W).

        Returns:
            (T, 3, H, W).
        """
        return reconstruct_normals(self.vae, normals, self.settings.decode_chunk)

    def save(self, folder: Path) -> None:
        """Write ``vae``, and copy the other networks of the folder that training started from.

        Args:
            folder: See ``Stage.save``.
        """
        self.vae.save_pretrained(folder / "vae")
        for name in _OTHER_PARTS:
            if self._init is not None and (self._init / name).is_dir():
                shutil.copytree(self._init / name, folder / name, dirs_exist_ok=True)


@torch.no_grad()
def reconstruct_normals(vae: AutoencoderKLTemporalDecoder, normals: torch.Tensor, chunk: int) -> torch.Tensor:
    """Encode and decode the normals of one clip.

    Args:
        vae: The autoencoder.
        normals: (T, 3, H, W), zero where not valid.
        chunk: Frames that the decoder sees together.

    Returns:
        (T, 3, H, W) float32 unit normals.
    """
    height, width = normals.shape[-2:]
    margins = margins_of(height, width, shrink_of(vae))
    latents, _ = encode_frozen(vae, functional.pad(normals, margins))
    decoded = decode(vae, latents, 1, chunk, deferred=False)
    left, _, top, _ = margins
    return functional.normalize(decoded[..., top : top + height, left : left + width], dim=1)
