"""MoGe-2 (Wang et al., 2025) through its own package, which is not on a package index."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from ncbench.errors import ModelError
from ncbench.models.base import Answer, Clip, MemoryClass, NormalModel, Runtime
from ncbench.models.memory import Device, is_out_of_memory
from ncbench.settings import Settings

_CHECKPOINT = "model.pt"


class MoGeSettings(Settings):
    """What shapes the answers.

    Attributes:
        resolution_level: From 0 (quick) to 9 (most tokens).
        use_intrinsics: Whether the network is told the field of view of frames with intrinsics. Depth depends on it,
            normals do not.
    """

    resolution_level: int = Field(9, ge=0, le=9)
    use_intrinsics: bool = False


class MoGe(NormalModel):
    """MoGe-2 with a normal head; answers with normals in OpenCV axes and z-depth in metres.

    The network's mask is not applied: it would set normals to zero, which count as 90 degrees wrong.
    """

    per_frame = True
    clip_length = 4
    memory: MemoryClass = "8GB"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = MoGeSettings.parse(settings, where="model MoGe, settings")
        self._model: Any = None

    def load(self, runtime: Runtime) -> None:
        """Load the network.

        Args:
            runtime: ``weights`` holds ``model.pt``.

        Raises:
            ModelError: The package is not installed, or the file is missing, lacks tensors, or is of a model without
                normals.
        """
        from ncbench.models.weights import read_tensors, require_complete

        super().load(runtime)
        if runtime.weights is None:
            raise ModelError("MoGe needs weights, and the runtime names no folder of them.")
        try:
            published = importlib.import_module("moge.model.v2").MoGeModel
        except ImportError as error:
            raise ModelError(
                f"MoGe needs its own package, and importing it failed ({error}). Its README says how to install it "
                "from github.com/microsoft/MoGe; it wants a torchvision of the same build as torch."
            ) from error
        path = runtime.weights / _CHECKPOINT
        stored = read_tensors(path)
        try:
            model = published.from_pretrained(str(path))
        except Exception as error:  # its own code may raise anything
            if is_out_of_memory(error):
                raise
            raise ModelError(f"{path}: cannot be read as MoGe-2 ({type(error).__name__}: {error})") from error
        # its loader leaves a missing tensor random without a word
        require_complete({"missing_keys": [name for name, _ in model.named_parameters() if name not in stored]}, path)
        if not hasattr(model, "normal_head"):
            raise ModelError(f"{path}: this MoGe has no normals. Take one whose name ends in '-normal'.")
        self._model = model.to(runtime.device).eval()
        self.device = Device(runtime.device).describe()

    def predict(self, clip: Clip) -> Answer:
        """Run all frames together."""
        import torch

        from ncbench.models.adapters.hub_layout import DTYPES

        if self._model is None:
            raise ModelError("this model predicts after 'load', which brings its weights to the device")
        device, dtype = torch.device(self.runtime.device), DTYPES[self.runtime.precision]
        pixels = torch.from_numpy(clip.images).to(device).permute(0, 3, 1, 2).float() / 255
        fov = None
        if self.settings.use_intrinsics and clip.intrinsics is not None:
            degrees = np.degrees(2 * np.arctan(clip.images.shape[2] / 2 / clip.intrinsics[:, 0, 0]))
            fov = torch.tensor(degrees, dtype=torch.float32, device=device)
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype == torch.bfloat16):
            found = self._model.infer(
                pixels,
                resolution_level=self.settings.resolution_level,
                apply_mask=False,
                fov_x=fov,
                use_fp16=dtype == torch.float16,
            )
        depth = found["depth"].detach().float().cpu().numpy()
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
        return Answer(found["normal"].detach().float().cpu().numpy(), depth)
