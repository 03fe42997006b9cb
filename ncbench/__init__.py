"""Honest, fast, reproducible benchmarks and data for surface normals from images and video.

The names below are imported on first use, so that ``import ncbench`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncbench.datasets.store import Store as Store
    from ncbench.datasets.store import open_store as open_store
    from ncbench.errors import NcbenchError as NcbenchError
    from ncbench.evaluators.angular import angular_error as angular_error
    from ncbench.evaluators.run import evaluate as evaluate
    from ncbench.loaders.clips import NormalClips as NormalClips
    from ncbench.loaders.clips import NormalFrames as NormalFrames
    from ncbench.loaders.loader import Loader as Loader
    from ncbench.loaders.recipes import open_clips as open_clips
    from ncbench.models.registry import load_model as load_model

__version__ = version("ncbench")

_LAZY = {
    "Loader": "ncbench.loaders.loader",
    "NcbenchError": "ncbench.errors",
    "NormalClips": "ncbench.loaders.clips",
    "NormalFrames": "ncbench.loaders.clips",
    "Store": "ncbench.datasets.store",
    "angular_error": "ncbench.evaluators.angular",
    "evaluate": "ncbench.evaluators.run",
    "load_model": "ncbench.models.registry",
    "open_clips": "ncbench.loaders.recipes",
    "open_store": "ncbench.datasets.store",
}

__all__ = [
    "Loader",
    "NcbenchError",
    "NormalClips",
    "NormalFrames",
    "Store",
    "__version__",
    "angular_error",
    "evaluate",
    "load_model",
    "open_clips",
    "open_store",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _LAZY:
        raise AttributeError(f"module 'ncbench' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
