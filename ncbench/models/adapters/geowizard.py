"""GeoWizard (Fu et al., ECCV 2024): depth and normals of a picture denoised side by side, each looking at the other.

Formulas are those of the authors' ``geowizard_pipeline.py``. Their U-Net holds the tensors of diffusers' own; only how
its self-attention is computed differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ncbench.errors import ModelError
from ncbench.models.base import Clip, MemoryClass, NormalModel, Normals, Runtime
from ncbench.models.memory import Device
from ncbench.settings import Settings

if TYPE_CHECKING:
    import torch
    from transformers import CLIPVisionModelWithProjection

    from ncbench.models.adapters.latent_diffusion import LatentDiffusion

Domain = Literal["indoor", "outdoor", "object"]
_DOMAINS: dict[Domain, tuple[float, ...]] = {"indoor": (1, 0, 0), "outdoor": (0, 1, 0), "object": (0, 0, 1)}
_TASKS = ((0.0, 1.0), (1.0, 0.0))  # depth, normals
_SHORTEST = 1e-5  # added to a vector's length before it divides by that; the released code's


class GeoWizardSettings(Settings):
    """What shapes the answers.

    Attributes:
        domain: What the network is told of the scene.
        steps: Denoising steps.
        ensemble: How many answers from different noise are drawn; the one whose normals lie closest to all others'
            mean is taken as a whole.
        processing_resolution: Pixels that the longer side is scaled to, up or down; 0 keeps the frames' size.
    """

    domain: Domain = "indoor"
    steps: int = Field(10, ge=1, le=1000)
    ensemble: int = Field(1, ge=1, le=100)
    processing_resolution: int = Field(768, ge=0)


@dataclass(frozen=True)
class _Eye:
    """The image encoder of CLIP, and how it wants its input scaled."""

    encoder: CLIPVisionModelWithProjection
    mean: list[float]
    std: list[float]

    def look(self, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Embed pictures (T, 3, h, w) in -1..1 as (T, 1, D); the aspect ratio is not kept."""
        from torch.nn import functional

        side = int(self.encoder.config.image_size)  # type: ignore[arg-type]  # transformers allows height and width
        small = functional.interpolate(pixels / 2 + 0.5, (side, side), mode="bicubic", antialias=True)
        scaled = (small - small.new_tensor(self.mean)[:, None, None]) / small.new_tensor(self.std)[:, None, None]
        embedding: torch.Tensor = self.encoder(scaled.to(dtype)).image_embeds
        return embedding[:, None]


class GeoWizard(NormalModel):
    """GeoWizard v1; it answers in DSINE's axes. Its depth, known up to a scale and a shift, is left out.

    Depth and normals start from the same noise; that of a frame depends on the seed, the sequence and the frame alone.
    """

    per_frame = True
    clip_length = 2
    memory: MemoryClass = "16GB"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = GeoWizardSettings.parse(settings, where="model GeoWizard, settings")
        self._networks: LatentDiffusion | None = None
        self._eye: _Eye | None = None
        self._scheduler: Any = None

    def load(self, runtime: Runtime) -> None:
        """Load the networks.

        Args:
            runtime: ``weights`` holds ``unet``, ``vae``, ``image_encoder``, ``feature_extractor`` and ``scheduler``.

        Raises:
            ModelError: A file or a tensor is missing or is not what it should be.
        """
        import torch
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from transformers import CLIPVisionModelWithProjection

        from ncbench.models.adapters.geowizard_attention import attend_jointly
        from ncbench.models.adapters.hub_layout import (
            DTYPES,
            clip_statistics,
            diffusers_network,
            load_scheduler,
            transformers_network,
        )
        from ncbench.models.adapters.latent_diffusion import LatentDiffusion, bring, check_fit

        super().load(runtime)
        folder = runtime.weights
        if folder is None:
            raise ModelError("GeoWizard needs weights, and the runtime names no folder of them.")
        device, dtype = torch.device(runtime.device), DTYPES[runtime.precision]
        unet: UNet2DConditionModel = diffusers_network(UNet2DConditionModel, folder / "unet", dtype)
        vae: AutoencoderKL = diffusers_network(AutoencoderKL, folder / "vae", dtype)
        encoder = transformers_network(CLIPVisionModelWithProjection, folder / "image_encoder", dtype)
        check_fit(folder, unet, vae, 2, ("image encoder", encoder.config.projection_dim))
        told, labels = unet.config["projection_class_embeddings_input_dim"], task_labels("indoor", 1).shape[1]
        if told != labels:
            raise ModelError(
                f"{folder}: expected a U-Net that is told task and domain in {labels} numbers "
                f"(projection_class_embeddings_input_dim), found {told}. Is this GeoWizard v1?"
            )
        attend_jointly(unet)
        mean, std = clip_statistics(folder / "feature_extractor" / "preprocessor_config.json")
        self._scheduler = load_scheduler(folder / "scheduler")
        self._eye = _Eye(encoder.to(device), mean, std)
        self._networks = bring(LatentDiffusion(unet, vae, None, device, dtype), compiled=runtime.compile)
        self.device = Device(runtime.device).describe()

    def predict(self, clip: Clip) -> Normals:
        """Denoise each frame's answer, choose from the ensemble, and bring it back to input size."""
        import torch

        from ncbench.models.adapters.framing import Framing, to_maps, to_pixels

        networks, eye = self._networks, self._eye
        if networks is None or eye is None:
            raise ModelError("this model predicts after 'load', which brings its weights to the device")
        framing = Framing.of(clip.images.shape[1:3], self.settings.processing_resolution, "none")
        with torch.inference_mode():
            pixels = framing.fit(to_pixels(clip.images, networks.device), "bicubic")
            picture, seen = networks.encode(pixels), eye.look(pixels, networks.dtype)
            members = [self._member(networks, picture, seen, clip, member) for member in range(self.settings.ensemble)]
            chosen = members[0] if len(members) == 1 else most_central(torch.stack(members))
            return to_maps(framing.restore(chosen.clip(-1, 1), "nearest-opencv"))

    def _member(
        self, networks: LatentDiffusion, picture: torch.Tensor, seen: torch.Tensor, clip: Clip, member: int
    ) -> torch.Tensor:
        """Draw one answer for each frame: (T, 3, h, w) unit normals."""
        import torch

        from ncbench.models.adapters.latent_diffusion import frame_generators

        frames = len(picture)
        # the first half of everything is depth, the second normals; attention tells them apart by their place
        latents = networks.noise(frame_generators(self.runtime.seed, clip, member), picture).repeat(2, 1, 1, 1)
        pictures, told = picture.repeat(2, 1, 1, 1), seen.repeat(2, 1, 1)
        labels = task_labels(self.settings.domain, frames)
        self._scheduler.set_timesteps(self.settings.steps, device=networks.device)
        for timestep in self._scheduler.timesteps:
            found = networks.predict(torch.cat([pictures, latents], dim=1), timestep, labels, told)
            latents = self._scheduler.step(found, timestep, latents).prev_sample
        vectors = networks.decode(latents[frames:])
        length: torch.Tensor = vectors.norm(dim=1, keepdim=True)
        return -vectors / (length + _SHORTEST)


def task_labels(domain: Domain, frames: int) -> torch.Tensor:
    """Tell the U-Net what it denoises and in what kind of scene: sine and cosine of two one-hot codes.

    Args:
        domain: The kind of scene.
        frames: T.

    Returns:
        (2 T, 10) float32: depth of all frames, then normals.
    """
    import torch

    def waves(code: tuple[float, ...]) -> list[float]:
        return [*map(math.sin, code), *map(math.cos, code)]

    rows = [waves(task) + waves(_DOMAINS[domain]) for task in _TASKS]
    return torch.tensor(rows).repeat_interleave(frames, dim=0)


def most_central(members: torch.Tensor) -> torch.Tensor:
    """Choose, frame by frame, the answer that lies closest to the mean of all.

    The mean is taken of azimuths and of polar angles, each by itself, as released; where azimuths wrap around it is no
    mean direction, but all members are measured by the same.

    Args:
        members: (E, T, 3, h, w) unit normals.

    Returns:
        (T, 3, h, w).
    """
    import torch

    x, y, z = members.unbind(dim=2)
    azimuth, polar = torch.atan2(y, x).mean(dim=0), torch.atan2(torch.hypot(x, y), z).mean(dim=0)
    mean = torch.stack([polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], dim=1)
    cosine = torch.cosine_similarity(mean[None], members, dim=2).clip(-0.999, 0.999)
    best = torch.acos(cosine).flatten(2).sum(dim=-1).argmin(dim=0)
    chosen: torch.Tensor = members[best, torch.arange(members.shape[1], device=best.device)]
    return chosen
