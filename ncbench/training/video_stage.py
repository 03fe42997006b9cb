"""What the stages of NormalCrafter that train its U-Net have in common."""

from __future__ import annotations

import abc
from pathlib import Path

import torch
from pydantic import Field

from ncbench.models.adapters.normalcrafter_conditioning import Conditions, clip_pixels
from ncbench.models.adapters.normalcrafter_networks import Networks
from ncbench.models.adapters.normalcrafter_sequence import SequencePredictor
from ncbench.models.adapters.normalcrafter_settings import NormalCrafterSettings
from ncbench.models.adapters.normalcrafter_unet import OneStep, PerFrameUNet
from ncbench.models.adapters.normalcrafter_weights import Parts
from ncbench.settings import Settings
from ncbench.training.descriptions import VideoNetworksDescription
from ncbench.training.edm import precondition
from ncbench.training.networks import read_networks, save_networks, shrink_of
from ncbench.training.semantic import SemanticRegularizer, SemanticSettings, dino_files
from ncbench.training.stage import Stage
from ncbench.training.unet_groups import Group, let_learn
from ncbench.training.vae import encode_frozen, full_precision

_NO_NOISE = 0.0  # the third time id: no noise is added to the frames, as in the adapter


class ValidationNetworks(Networks):
    """The adapter's networks within automatic number formats, which leave its conditions in float32."""

    def condition(self, frames: torch.Tensor) -> Conditions:
        """Encode frames; as ``Networks.condition``.

        Args:
            frames: (T, 3, H, W) float32 in 0..1.

        Returns:
            What the U-Net is told of them.
        """
        with full_precision(frames.device, needed=True):
            return super().condition(frames)


class VideoStageSettings(Settings):
    """What both stages share.

    Attributes:
        networks: What networks that the folder to start from does not hold are made of; None where it holds all.
        semantic: Semantic feature regularization; None trains without it (table 2, "w/o SFR").
        gradient_checkpointing: Whether the U-Net's blocks are computed twice to save memory; gradients are the same.
        inference: What the adapter is run with in validation; ``fps`` and ``motion_bucket`` are also what the U-Net is
            told in training (not published; inference's values keep both alike).
    """

    networks: VideoNetworksDescription | None = None
    semantic: SemanticSettings | None = None
    gradient_checkpointing: bool = True
    inference: NormalCrafterSettings = Field(default_factory=NormalCrafterSettings)


class VideoStage(Stage):
    """Networks, conditions, the denoiser, validation and saving."""

    settings: VideoStageSettings

    unet: PerFrameUNet
    semantic: SemanticRegularizer | None

    @property
    @abc.abstractmethod
    def learns(self) -> tuple[Group, ...]:
        """Groups of the U-Net's parameters that learn."""

    def load(self, init: Path | None, seed: int) -> None:
        """Bring the networks; see ``Stage.load``.

        Args:
            init: Folder in the published layout; None makes all from the description.
            seed: Of new weights.

        Raises:
            ModelError: As there.
        """
        parts = read_networks(init, self.settings.networks, seed)
        let_learn(parts.unet, self.learns)
        if self.settings.gradient_checkpointing:
            parts.unet.enable_gradient_checkpointing()
        self.unet = PerFrameUNet(parts.unet)
        self.vae, self.image_encoder = parts.vae, parts.image_encoder
        self.scheduler, self.image_statistics = parts.scheduler, parts.image_statistics
        self.step = OneStep.of(parts.scheduler)
        self.semantic = (
            SemanticRegularizer.attach(self.settings.semantic, parts.unet, init, seed)
            if self.settings.semantic
            else None
        )

    def files(self) -> list[Path]:
        """Name DINO's files, which the semantic regularization teaches; see ``Stage.files``.

        Returns:
            Configuration and weights; none without regularization or with a random transformer.

        Raises:
            ModelError: As there.
        """
        return dino_files(self.settings.semantic) if self.settings.semantic else []

    @property
    def shrink(self) -> int:
        """What both sides of the frames are padded to a multiple of."""
        return shrink_of(self.vae, self.unet.network)

    @property
    def scaling_factor(self) -> float:
        """What brings the VAE's latents to the variance that the U-Net predicts."""
        return float(self.vae.config["scaling_factor"])

    @torch.no_grad()
    def condition(self, images: torch.Tensor) -> Conditions:
        """Encode frames as the adapter does, each by itself.

        Args:
            images: (N, 3, H, W) in -1..1.

        Returns:
            What the U-Net is told of them.
        """
        dtype: torch.dtype = self.unet.network.conv_in.weight.dtype
        with full_precision(images.device, needed=True):  # resizing is a product of matrices, which bf16 would round
            pixels = clip_pixels((images.float() + 1) / 2, *self.image_statistics)
        weight: torch.Tensor = next(self.image_encoder.parameters())
        embeddings = self.image_encoder(pixels.to(weight.dtype)).image_embeds[:, None]
        return Conditions(embeddings.to(dtype), encode_frozen(self.vae, images)[0].to(dtype))

    def denoise(self, noisy: torch.Tensor, sigma: torch.Tensor, told: Conditions, clips: int) -> torch.Tensor:
        """Estimate clean latents; at zero noisy latents and the highest level this is the adapter's one step.

        Args:
            noisy: (B T, C, h, w) float32.
            sigma: (B T,) float32 noise level of each frame.
            told: Of the frames.
            clips: B.

        Returns:
            (B T, C, h, w) float32, of unit variance.
        """
        factors = precondition(sigma)
        skip, out, into = (factor[:, None, None, None] for factor in factors[:3])
        latents = torch.cat([(into * noisy).to(told.latents.dtype), told.latents], dim=1)
        inference = self.settings.inference
        time_ids = torch.tensor([inference.fps, inference.motion_bucket, _NO_NOISE], device=noisy.device)
        said = self.unet(latents, factors.noise, told.embeddings, time_ids, clips)
        clean: torch.Tensor = skip * noisy + out * said.float()
        return clean

    def regularize(self, images: torch.Tensor, main: torch.Tensor) -> dict[str, torch.Tensor]:
        """Add semantic regularization, where it is on, to the main loss.

        Args:
            images: (N, 3, H, W) in -1..1, of the U-Net's latest pass.
            main: Scalar.

        Returns:
            ``loss``, and ``semantic`` without a graph.
        """
        if self.semantic is None:
            return {"loss": main}
        semantic = self.semantic(images)
        return {"loss": main + self.semantic.settings.weight * semantic, "semantic": semantic.detach()}

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Predict a clip by the adapter's own code; see ``Stage.predict``.

        Args:
            images: (T, 3, H, W) float32 in -1..1, made of 8 bits.

        Returns:
            (T, 3, H, W) float32 unit normals.
        """
        parameter = self.unet.network.conv_in.weight
        networks = ValidationNetworks(
            self.unet,
            self.vae,
            self.image_encoder,
            *self.image_statistics,
            self.step,
            parameter.device,
            parameter.dtype,
        )
        predictor = SequencePredictor(networks, self.settings.inference)
        pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        pieces = [*predictor.push(pixels), *predictor.finish()]
        return torch.cat([torch.from_numpy(piece) for piece in pieces]).permute(0, 3, 1, 2).to(images.device)

    def save(self, folder: Path) -> None:
        """Write all networks in the published layout, and the perceptron of the regularization apart.

        Args:
            folder: See ``Stage.save``.
        """
        parts = Parts(self.unet.network, self.vae, self.image_encoder, self.scheduler, self.image_statistics)
        save_networks(parts, folder)
        if self.semantic is not None:
            self.semantic.save(folder)
