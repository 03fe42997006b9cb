"""GenPercept's normals (Xu et al., ICLR 2025): Stable Diffusion 2.1 fine-tuned to answer in one step, without noise.

Formulas are those of the authors' ``genpercept_pipeline.py``. Its networks are classes of diffusers: only the U-Net was
trained, and is published alone; all others are Stable Diffusion 2.1's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ncbench.errors import ModelError
from ncbench.models.base import Clip, MemoryClass, NormalModel, Normals, Runtime
from ncbench.models.memory import Device
from ncbench.settings import Settings

if TYPE_CHECKING:
    from ncbench.models.adapters.latent_diffusion import LatentDiffusion

BASE = "stable-diffusion-2-1"
UNET = "unet_normal_v2"
# the first of the single timestep that their scheduler makes: leading spacing, offset 1
_TIMESTEP = 1


class GenPerceptSettings(Settings):
    """What shapes the answers.

    Attributes:
        processing_resolution: Pixels that the longer side is scaled to, up or down; 0 keeps the frames' size.
    """

    processing_resolution: int = Field(0, ge=0)


class GenPercept(NormalModel):
    """GenPercept v2; it answers without random numbers.

    With all of the schedule's betas at 1 nothing is left of the input but its place in the U-Net, so that the latents
    of the answer are x0 = -v, v being the U-Net's answer to the picture's own latents (paper, section 3).
    """

    per_frame = True
    clip_length = 4
    memory: MemoryClass = "16GB"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = GenPerceptSettings.parse(settings, where="model GenPercept, settings")
        self._networks: LatentDiffusion | None = None

    def load(self, runtime: Runtime) -> None:
        """Load the networks.

        Args:
            runtime: ``weights`` holds ``unet_normal_v2`` of the authors' repository, and ``stable-diffusion-2-1`` with
                ``vae``, ``text_encoder``, ``tokenizer`` and ``unet/config.json``.

        Raises:
            ModelError: A file or a tensor is missing or is not what it should be.
        """
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        from ncbench.models.adapters.hub_layout import DTYPES, network_from_files, weights_file
        from ncbench.models.adapters.latent_diffusion import load_latent_diffusion

        super().load(runtime)
        folder = runtime.weights
        if folder is None:
            raise ModelError("GenPercept needs weights, and the runtime names no folder of them.")
        unet: UNet2DConditionModel = network_from_files(
            UNet2DConditionModel,
            folder / BASE / "unet" / "config.json",
            weights_file(folder / UNET, "diffusion_pytorch_model"),
            DTYPES[runtime.precision],
        )
        unet.eval().requires_grad_(requires_grad=False)
        base = replace(runtime, weights=folder / BASE)
        self._networks = load_latent_diffusion(base, prompt="short", channels=1, unet=unet)
        self.device = Device(runtime.device).describe()

    def predict(self, clip: Clip) -> Normals:
        """Run the one step on all frames together."""
        import torch

        from ncbench.models.adapters.framing import Framing, to_maps, to_pixels

        networks = self._networks
        if networks is None:
            raise ModelError("this model predicts after 'load', which brings its weights to the device")
        framing = Framing.of(clip.images.shape[1:3], self.settings.processing_resolution, "none")
        with torch.inference_mode():
            picture = networks.encode(framing.fit(to_pixels(clip.images, networks.device)))
            normals = networks.decode(-networks.predict(picture, _TIMESTEP)).clip(-1, 1)
            return to_maps(framing.restore(normals, "bilinear-antialias"))
