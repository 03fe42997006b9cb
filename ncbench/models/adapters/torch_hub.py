"""Models that their authors publish as torch.hub repositories: StableNormal, DSINE, Metric3D v2 and Omnidata v2.

Their code runs from the user's own copy, pinned by its commit; nothing is fetched from a moving branch. Checkpoints
that it asks torch.hub for are taken from ``checkpoints/`` of that copy, and are read as tensors alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from ncbench.errors import ModelError, NcbenchError
from ncbench.models.base import Clip, MemoryClass, NormalModel, Normals, Runtime
from ncbench.models.memory import Device, is_out_of_memory
from ncbench.settings import Settings, suggest

if TYPE_CHECKING:
    from ncbench.models.adapters.torch_hub_models import Published

_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_DIMENSIONS = 4


class TorchHubSettings(Settings):
    """Which model, and what shapes its answers.

    Attributes:
        model: Its name here, which stands for entry point, preprocessing and postprocessing.
        fov_degrees: Field of view along the longer side of frames without intrinsics, for DSINE.
        resolution: Pixels that the longer side is scaled to, for StableNormal.
        steps: Denoising steps, for StableNormal; null takes the published number.
    """

    model: str
    fov_degrees: float = Field(60.0, gt=0, lt=180)
    resolution: int = Field(1024, ge=64)
    steps: int | None = Field(None, ge=1)


class TorchHub(NormalModel):
    """A model of a torch.hub repository; each card names the axes of its own.

    What runs is the repository's code. It is imported under the names that it gives its modules, so that one process
    runs one such model.
    """

    per_frame = True
    clip_length = 4
    memory: MemoryClass = "16GB"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from ncbench.models.adapters.torch_hub_models import PUBLISHED

        self.settings = TorchHubSettings.parse(settings, where="model TorchHub, settings")
        if self.settings.model not in PUBLISHED:
            raise ModelError(
                f"no model of torch.hub is called '{self.settings.model}' here. "
                f"{suggest(self.settings.model, PUBLISHED)}"
            )
        self._published: Published = PUBLISHED[self.settings.model]
        self._model: Any = None

    def load(self, runtime: Runtime) -> None:
        """Run the repository's entry point.

        Args:
            runtime: ``weights`` is the user's copy of the repository, with ``hubconf.py`` and ``checkpoints/``.

        Raises:
            ModelError: There is no such copy, a package that it imports is missing, or its code fails.
        """
        import torch

        super().load(runtime)
        folder, published = runtime.weights, self._published
        if folder is None or not (folder / "hubconf.py").is_file():
            raise ModelError(
                f"{folder}: expected a copy of the repository {published.repository} with its hubconf.py. Clone it, "
                "check out the commit that the card names, and pass the folder with --weights."
            )
        arguments = {
            name: value.format(folder=folder, device=runtime.device) if isinstance(value, str) else value
            for name, value in published.arguments.items()
        }
        try:
            with _hub_folder(folder):
                run_entry: Any = torch.hub.load  # has no types
                self._model = run_entry(
                    str(folder), published.entry, source="local", trust_repo=True, verbose=False, **arguments
                )
        except Exception as error:  # the repository's own code may raise anything
            if is_out_of_memory(error):
                raise
            raise ModelError(f"{folder}: {published.entry} of its hubconf.py failed: {_advice(error)}") from error
        if isinstance(self._model, torch.nn.Module):
            self._model = self._model.to(runtime.device).eval()
        self.device = Device(runtime.device).describe()

    def predict(self, clip: Clip) -> Normals:
        """Run all frames through the model."""
        import torch

        from ncbench.models.adapters.hub_layout import DTYPES

        if self._model is None:
            raise ModelError("this model predicts after 'load', which brings its code and weights here")
        device, dtype = torch.device(self.runtime.device), DTYPES[self.runtime.precision]
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            try:
                found = self._published.run(self._model, clip, device, self.settings)
            except NcbenchError:
                raise
            except Exception as error:  # as above
                if is_out_of_memory(error):
                    raise
                raise ModelError(f"{self._published.entry} failed on a clip: {_advice(error)}") from error
        expected = (*clip.images.shape[:3], 3)
        if not isinstance(found, np.ndarray) or found.ndim != _DIMENSIONS or found.shape != expected:
            raise ModelError(
                f"{self._published.entry} answered with {getattr(found, 'shape', type(found).__name__)} where "
                f"{expected} was expected: is this the commit that the card names?"
            )
        return found.astype(np.float32)


@contextmanager
def _hub_folder(folder: Path) -> Iterator[None]:
    """Let torch.hub look for checkpoints in the user's copy, and read them without running code."""
    import torch

    before, forced = torch.hub.get_dir(), os.environ.get(_TENSORS_ONLY)
    torch.hub.set_dir(str(folder))
    os.environ[_TENSORS_ONLY] = "1"
    try:
        yield
    finally:
        torch.hub.set_dir(before)
        os.environ.pop(_TENSORS_ONLY)
        if forced is not None:
            os.environ[_TENSORS_ONLY] = forced


def _advice(error: Exception) -> str:
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError) or "Missing dependencies" in str(error):
        return (
            f"{told}. Install what it imports, best in an environment of its own with the adapter 'command'; a "
            "torchvision of another build than torch breaks both."
        )
    return told
