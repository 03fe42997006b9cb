"""Packages and weight files of the learned sources, which ncbench neither requires nor downloads."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncbench.errors import ModelError
from ncbench.files import file_sha256

if TYPE_CHECKING:
    import torch


def import_optional(module: str, source: str, remedy: str) -> Any:  # noqa: ANN401 - a module
    """Import a package that only one source needs.

    Args:
        module: Its dotted name.
        source: Name of the flow's source, for the message.
        remedy: How to get the package.

    Returns:
        The module.

    Raises:
        ModelError: It is not installed, or built for another torch.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, OSError) as error:  # a build for another torch fails with any of them
        raise ModelError(
            f"flow source '{source}' needs {module}, which cannot be imported ({type(error).__name__}: {error}). "
            f"{remedy}"
        ) from error


def fingerprint(weights: Path, source: str) -> str:
    """Name a weight file by its content.

    Args:
        weights: The file.
        source: Name of the flow's source, for the message.

    Returns:
        The first eight digits of its sha256.

    Raises:
        ModelError: There is no such file.
    """
    if not weights.is_file():
        raise ModelError(
            f"{weights}: expected the weights of flow source '{source}', found no file. Download a checkpoint and give "
            "its path as setting 'weights'."
        )
    return file_sha256(weights)[:8]


def read_state(weights: Path) -> Mapping[str, torch.Tensor]:
    """Read a checkpoint without running any code that it may hold.

    Args:
        weights: What ``torch.save`` wrote: a state dict, or a mapping that holds one as ``state_dict`` or ``model``.

    Returns:
        The state dict on the CPU, without the ``module.`` that data-parallel training puts before each name.

    Raises:
        ModelError: The file is damaged, holds other objects than tensors, or no state dict.
    """
    import torch

    try:
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch raise a dozen types for a damaged file
        raise ModelError(
            f"{weights}: is no checkpoint of plain tensors ({type(error).__name__}: {error}). Download it again."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not (isinstance(content, Mapping) and content and all(torch.is_tensor(value) for value in content.values())):
        raise ModelError(f"{weights}: expected a state dict (names to tensors), found {type(content).__name__}")
    return {str(name).removeprefix("module."): value for name, value in content.items()}
