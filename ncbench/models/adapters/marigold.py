"""Marigold's normals (Ke et al., 2025) and their end-to-end fine-tuned kin (Martin Garcia et al., WACV 2025).

Both are Stable Diffusion 2 U-Nets that take the latents of a picture beside those of the answer. Listing models stays
quick: torch and diffusers are imported when weights are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ncbench.errors import ModelError
from ncbench.models.base import Clip, MemoryClass, NormalModel, Normals, Runtime
from ncbench.models.memory import Device
from ncbench.settings import Settings

if TYPE_CHECKING:
    import torch

    from ncbench.models.adapters.latent_diffusion import LatentDiffusion

_SHORTEST = 1e-6  # of a vector that is scaled to unit length; the released code's
_SHORTEST_E2E = 1e-5


class MarigoldSettings(Settings):
    """What shapes the answers.

    Attributes:
        steps: Denoising steps.
        ensemble: How many answers from different noise are joined.
        reduction: How: the answer ``closest`` to their mean direction, each pixel on its own, or that ``mean``.
        processing_resolution: Pixels that the longer side is scaled to, up or down; 0 keeps the frames' size.
    """

    steps: int = Field(4, ge=1, le=1000)
    ensemble: int = Field(1, ge=1, le=100)
    reduction: Literal["closest", "mean"] = "closest"
    processing_resolution: int = Field(768, ge=0)


class Marigold(NormalModel):
    """Marigold normals, any version; it answers in OpenGL axes.

    Formulas and defaults are those of diffusers' ``MarigoldNormalsPipeline``. Frames are batched; the noise of each
    depends on the seed, the sequence and the frame alone, so that answers do not depend on how a sequence is cut.
    """

    per_frame = True
    clip_length = 4
    memory: MemoryClass = "16GB"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = MarigoldSettings.parse(settings, where="model Marigold, settings")
        self._networks: LatentDiffusion | None = None
        self._scheduler: Any = None
        self._full_z_range = True

    def load(self, runtime: Runtime) -> None:
        """Load the networks.

        Args:
            runtime: ``weights`` holds a Marigold repository: ``unet``, ``vae``, ``text_encoder``, ``tokenizer``,
                ``scheduler`` and ``model_index.json``.

        Raises:
            ModelError: A file or a tensor is missing or is not what it should be.
        """
        from ncbench.models.adapters.hub_layout import load_scheduler, read_config
        from ncbench.models.adapters.latent_diffusion import load_latent_diffusion

        super().load(runtime)
        self._networks = load_latent_diffusion(runtime, prompt="short", channels=2)
        assert runtime.weights is not None  # noqa: S101 - or the networks could not be loaded
        self._scheduler = load_scheduler(runtime.weights / "scheduler")
        index = read_config(runtime.weights / "model_index.json")
        self._full_z_range = bool(index.get("use_full_z_range", True))
        self.device = Device(runtime.device).describe()

    def predict(self, clip: Clip) -> Normals:
        """Denoise each frame's answer, join the ensemble, and bring it back to input size."""
        import torch

        from ncbench.models.adapters.framing import Framing, to_maps, to_pixels

        networks = _loaded(self._networks)
        framing = Framing.of(clip.images.shape[1:3], self.settings.processing_resolution, "replicate")
        with torch.inference_mode():
            picture = networks.encode(framing.fit(to_pixels(clip.images, networks.device)))
            members = [
                framing.crop(self._member(networks, picture, clip, member)) for member in range(self.settings.ensemble)
            ]
            joined = members[0] if len(members) == 1 else join_ensemble(torch.stack(members), self.settings.reduction)
            return to_maps(framing.restore(joined, "bilinear"))

    def _member(self, networks: LatentDiffusion, picture: torch.Tensor, clip: Clip, member: int) -> torch.Tensor:
        """Draw one answer for each frame: (T, 3, h, w) unit normals."""
        import torch

        from ncbench.models.adapters.latent_diffusion import frame_generators

        generators = frame_generators(self.runtime.seed, clip, member)
        latents = networks.noise(generators, picture)
        self._scheduler.set_timesteps(self.settings.steps, device=networks.device)
        for timestep in self._scheduler.timesteps:
            found = networks.predict(torch.cat([picture, latents], dim=1), timestep)
            # a consistency model's scheduler draws new noise between its steps
            latents = self._scheduler.step(found, timestep, latents, generator=generators).prev_sample
        normals = networks.decode(latents).clip(-1, 1)
        if not self._full_z_range:
            normals[:, 2] = normals[:, 2] * 0.5 + 0.5
        return _unit(normals, _SHORTEST)


class EndToEndSettings(Settings):
    """What shapes the answers.

    Attributes:
        processing_resolution: Pixels that the longer side is scaled to, up or down; 0 keeps the frames' size.
        padding: ``none`` as in the released evaluation, where the network drops what is left of a multiple of 8 and
            its answer is stretched; ``replicate`` pads instead, as the authors' pipeline on the Hub does.
    """

    processing_resolution: int = Field(0, ge=0)
    padding: Literal["none", "replicate"] = "none"


class EndToEnd(NormalModel):
    """Marigold + E2E-FT and Stable Diffusion + E2E-FT: one step from zero noise; answers in DSINE's axes.

    With v the U-Net's answer at the last timestep, the latents are x0 = sqrt(a) 0 - sqrt(1 - a) v, where a is the
    cumulated product of alphas at that timestep ("Fine-Tuning Image-Conditional Diffusion Models is Easier than You
    Think", section 3; trailing timesteps).
    """

    per_frame = True
    clip_length = 4
    memory: MemoryClass = "16GB"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = EndToEndSettings.parse(settings, where="model EndToEnd, settings")
        self._networks: LatentDiffusion | None = None
        self._scheduler: Any = None

    def load(self, runtime: Runtime) -> None:
        """Load the networks.

        Args:
            runtime: ``weights`` holds a Stable Diffusion repository: ``unet``, ``vae``, ``text_encoder``,
                ``tokenizer`` and ``scheduler``.

        Raises:
            ModelError: A file or a tensor is missing or is not what it should be.
        """
        from ncbench.models.adapters.hub_layout import load_scheduler
        from ncbench.models.adapters.latent_diffusion import load_latent_diffusion

        super().load(runtime)
        self._networks = load_latent_diffusion(runtime, prompt="short", channels=2)
        assert runtime.weights is not None  # noqa: S101 - or the networks could not be loaded
        self._scheduler = load_scheduler(runtime.weights / "scheduler", timestep_spacing="trailing")
        self.device = Device(runtime.device).describe()

    def predict(self, clip: Clip) -> Normals:
        """Run one step on all frames together."""
        import torch

        from ncbench.models.adapters.framing import Framing, to_maps, to_pixels

        networks = _loaded(self._networks)
        framing = Framing.of(clip.images.shape[1:3], self.settings.processing_resolution, self.settings.padding)
        with torch.inference_mode():
            picture = networks.encode(framing.fit(to_pixels(clip.images, networks.device)))
            zeros = torch.zeros_like(picture)
            self._scheduler.set_timesteps(1, device=networks.device)
            timestep = self._scheduler.timesteps[0]
            found = networks.predict(torch.cat([picture, zeros], dim=1), timestep)
            latents = self._scheduler.step(found, timestep, zeros).pred_original_sample
            normals = framing.crop(_unit(networks.decode(latents), _SHORTEST_E2E))
            return to_maps(framing.restore(normals, "bilinear-antialias"))


def join_ensemble(members: torch.Tensor, reduction: Literal["closest", "mean"]) -> torch.Tensor:
    """Join answers from different noise.

    Args:
        members: (E, T, 3, h, w) unit normals.
        reduction: ``closest`` takes, pixel by pixel, the member with the largest cosine to the mean direction.

    Returns:
        (T, 3, h, w) unit normals.
    """
    mean = _unit(members.mean(dim=0), _SHORTEST)
    if reduction == "mean":
        return mean
    best = (members * mean).sum(dim=2, keepdim=True).argmax(dim=0, keepdim=True)
    return members.gather(0, best.expand(-1, -1, 3, -1, -1))[0]


def _unit(vectors: torch.Tensor, shortest: float) -> torch.Tensor:
    """Scale (T, 3, h, w) to unit length, and what is shorter than ``shortest`` by that."""
    length: torch.Tensor = vectors.norm(dim=1, keepdim=True)
    return vectors / length.clamp(min=shortest)


def _loaded(networks: LatentDiffusion | None) -> LatentDiffusion:
    if networks is None:
        raise ModelError("this model predicts after 'load', which brings its weights to the device")
    return networks
