"""End-to-end fine-tuning of an image diffusion model: one step, decoded, compared in pixels (Marigold + E2E-FT).

Martin Garcia et al., "Fine-Tuning Image-Conditional Diffusion Models is Easier than You Think", WACV 2025: the U-Net
takes the latents of the picture beside zeros in place of noise, is told the last timestep (trailing spacing), and its
v-prediction gives the clean latents, which the frozen autoencoder decodes; the loss is the angle (section 4.2). The
frames of a clip are single pictures here.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import Field
from torch.nn import functional

from ncbench.errors import ModelError
from ncbench.loaders.batch import Batch
from ncbench.models.adapters.framing import Framing
from ncbench.models.adapters.hub_layout import load_scheduler
from ncbench.models.adapters.latent_diffusion import LatentDiffusion, load_latent_diffusion
from ncbench.models.base import Runtime
from ncbench.settings import Settings
from ncbench.training.deferred import decode_in_chunks
from ncbench.training.image_networks import ImageNetworksDescription, write_image_networks
from ncbench.training.losses import AngularKind, angular_loss, mean_angle
from ncbench.training.stage import Stage

_KEPT = ("text_encoder", "tokenizer", "scheduler")


class ImageE2EStageSettings(Settings):
    """Settings of end-to-end fine-tuning.

    Attributes:
        networks: Sizes of networks with random weights, where there is no folder to start from.
        angular: ``angle`` in radians, as published, or ``cosine``.
        decode_chunk: Pictures that are decoded together; results do not depend on it.
        deferred: Whether the decoder's graph is made one chunk at a time in the backward pass; gradients are the same.
        gradient_checkpointing: Whether the U-Net's blocks are computed twice to save memory, as published.
    """

    networks: ImageNetworksDescription | None = None
    angular: AngularKind = "angle"
    decode_chunk: int = Field(1, ge=1)
    deferred: bool = True
    gradient_checkpointing: bool = True


class ImageE2EStage(Stage):
    """The whole U-Net learns; autoencoder and the empty prompt's embedding stay.

    Args:
        settings: See ``ImageE2EStageSettings``.
    """

    prompt: torch.Tensor
    """(1, L, C) embedding of the empty prompt."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.settings = ImageE2EStageSettings.parse(settings, where="stage ImageE2EStage, settings")
        self._made: TemporaryDirectory[str] | None = None
        self._init = Path()

    def load(self, init: Path | None, seed: int) -> None:
        """Bring the networks; see ``Stage.load``.

        Args:
            init: A Stable Diffusion or Marigold repository whose U-Net takes eight channels; it must still be there
                when ``save`` copies its text encoder, tokenizer and scheduler. None makes a small one.
            seed: Of new weights.

        Raises:
            ModelError: As there.
        """
        self._init = init if init is not None else self._make(seed)
        networks = load_latent_diffusion(Runtime(weights=self._init), prompt="short", channels=2)
        self._scheduler = load_scheduler(self._init / "scheduler", timestep_spacing="trailing")
        self._scheduler.set_timesteps(1)
        if self._scheduler.config["prediction_type"] != "v_prediction":
            raise ModelError(
                f"{self._init / 'scheduler'}: expected prediction_type 'v_prediction', found "
                f"'{self._scheduler.config['prediction_type']}'. Start from Stable Diffusion 2 or Marigold."
            )
        self.unet, self.vae = networks.unet, networks.vae
        self.unet.requires_grad_(requires_grad=True)
        if self.settings.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        # cloned, since the adapter computes it where no gradient may ever pass; not part of a checkpoint
        assert networks.prompt is not None  # noqa: S101 - it was asked for
        self.register_buffer("prompt", networks.prompt.clone(), persistent=False)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:  # noqa: ARG002 - no noise
        """Compute the losses of one batch; nothing is random.

        Args:
            batch: See ``Stage.forward``.
            generator: Not used.

        Returns:
            ``loss``; ``angular`` as minimized, and ``angle`` in degrees.
        """
        decoded = self._answer(batch["image"].flatten(0, 1))
        normals, valid = batch["normal"].flatten(0, 1), batch["valid"].flatten(0, 1)
        loss = angular_loss(decoded, normals, valid, self.settings.angular)
        return {"loss": loss, "angular": loss.detach(), "angle": mean_angle(decoded, normals, valid)}

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Predict each frame by itself; see ``Stage.predict``.

        Args:
            images: (T, 3, H, W) float32 in -1..1.

        Returns:
            (T, 3, H, W) float32 unit normals.
        """
        with torch.no_grad():
            return functional.normalize(self._answer(images), dim=1)

    def save(self, folder: Path) -> None:
        """Write U-Net and autoencoder, and copy what the other parts of the repository were.

        Args:
            folder: See ``Stage.save``.
        """
        self.unet.save_pretrained(folder / "unet")
        self.vae.save_pretrained(folder / "vae")
        for name in _KEPT:
            shutil.copytree(self._init / name, folder / name, dirs_exist_ok=True)
        index = self._init / "model_index.json"
        if index.is_file():
            shutil.copyfile(index, folder / "model_index.json")

    def _answer(self, images: torch.Tensor) -> torch.Tensor:
        """Run one step: (N, 3, H, W) in -1..1 to (N, 3, H, W) vectors as decoded, by the adapter's own networks."""
        networks = LatentDiffusion(self.unet, self.vae, self.prompt, images.device, self.unet.dtype)
        height, width = images.shape[-2:]
        framing = Framing.of((height, width), 0, "replicate")
        with torch.no_grad():
            picture = networks.encode(framing.fit(images))
        zeros = torch.zeros_like(picture)
        timestep = self._scheduler.timesteps[0].to(images.device)
        said = networks.predict(torch.cat([picture, zeros], dim=1), timestep)
        latents: torch.Tensor = self._scheduler.step(said, timestep, zeros).pred_original_sample
        settings = self.settings
        decoded = decode_in_chunks(
            networks.decode, latents, len(latents), settings.decode_chunk, deferred=settings.deferred
        )
        return framing.crop(decoded)

    def _make(self, seed: int) -> Path:
        if self.settings.networks is None:
            raise ModelError(
                "there is neither a folder of weights to start from nor a description of networks to make. Pass a "
                "Stable Diffusion or Marigold repository, or add 'networks' to the recipe's settings."
            )
        self._made = TemporaryDirectory(prefix="ncbench-")
        folder = Path(self._made.name)
        write_image_networks(self.settings.networks, folder, seed)
        return folder
