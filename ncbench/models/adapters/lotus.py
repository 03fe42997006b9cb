"""Lotus normals (He et al., ICLR 2025): one step of Stable Diffusion 2 that answers with the latents themselves.

G starts from noise, D from the picture alone. Formulas are those of the authors' ``pipeline.py``; its class is not part
of diffusers, its networks are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ncbench.errors import ModelError
from ncbench.models.base import Clip, MemoryClass, NormalModel, Normals, Runtime
from ncbench.models.memory import Device
from ncbench.settings import Settings

if TYPE_CHECKING:
    from ncbench.models.adapters.latent_diffusion import LatentDiffusion

# the switch between a dense answer and the picture itself: sine and cosine of (1, 0), the dense answer
_TASK = (math.sin(1.0), math.sin(0.0), math.cos(1.0), math.cos(0.0))
_ENCODER_MEMBER, _NOISE_MEMBER = 0, 1  # two streams of random numbers each frame


class LotusSettings(Settings):
    """What shapes the answers.

    Attributes:
        kind: ``generation`` (G: the U-Net sees the picture's latents and noise) or ``regression`` (D: no noise).
        timestep: That the U-Net is told.
        processing_resolution: Pixels that the longer side is scaled to, up or down; 0 keeps the frames' size.
        padding: ``imagenet_black`` as in the released evaluation, up to a multiple of 32; ``none`` as in the released
            ``infer.py``, where the network drops what is left of a multiple of 8 and its answer is stretched.
    """

    kind: Literal["generation", "regression"]
    timestep: int = Field(999, ge=0, le=999)
    processing_resolution: int = Field(0, ge=0)
    padding: Literal["imagenet_black", "none"] = "imagenet_black"


class Lotus(NormalModel):
    """Lotus-G and Lotus-D; answers in DSINE's axes.

    The released code samples the encoder's distribution instead of taking its mode, so that both have random numbers;
    those of a frame depend on the seed, the sequence and the frame alone.
    """

    per_frame = True
    clip_length = 4
    memory: MemoryClass = "16GB"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = LotusSettings.parse(settings, where="model Lotus, settings")
        self._networks: LatentDiffusion | None = None

    def load(self, runtime: Runtime) -> None:
        """Load the networks.

        Args:
            runtime: ``weights`` holds a Lotus repository: ``unet``, ``vae``, ``text_encoder`` and ``tokenizer``.

        Raises:
            ModelError: A file or a tensor is missing or is not what it should be.
        """
        from ncbench.models.adapters.latent_diffusion import load_latent_diffusion

        super().load(runtime)
        channels = 2 if self.settings.kind == "generation" else 1
        networks = load_latent_diffusion(runtime, prompt="padded", channels=channels)
        size = networks.unet.config["projection_class_embeddings_input_dim"]
        if size != len(_TASK):
            raise ModelError(
                f"{runtime.weights}: expected a U-Net that takes a task of {len(_TASK)} numbers "
                f"(projection_class_embeddings_input_dim), found {size}. Is this a Lotus repository?"
            )
        self._networks = networks
        self.device = Device(runtime.device).describe()

    def predict(self, clip: Clip) -> Normals:
        """Run the one step on all frames together."""
        import torch

        from ncbench.models.adapters.framing import Framing, to_maps, to_pixels
        from ncbench.models.adapters.latent_diffusion import frame_generators

        networks = self._networks
        if networks is None:
            raise ModelError("this model predicts after 'load', which brings its weights to the device")
        framing = Framing.of(clip.images.shape[1:3], self.settings.processing_resolution, self.settings.padding)
        with torch.inference_mode():
            pixels = framing.fit(to_pixels(clip.images, networks.device))
            latents = networks.encode(pixels, frame_generators(self.runtime.seed, clip, _ENCODER_MEMBER))
            if self.settings.kind == "generation":
                noise = networks.noise(frame_generators(self.runtime.seed, clip, _NOISE_MEMBER), latents)
                latents = torch.cat([latents, noise], dim=1)
            found = networks.predict(latents, self.settings.timestep, torch.tensor([_TASK]))
            normals = framing.crop(networks.decode(found).clip(-1, 1))
            return to_maps(framing.restore(normals, "nearest"))
