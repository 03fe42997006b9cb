"""Networks from the folders in which diffusers and transformers publish them, checked tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from transformers.utils import logging

from ncbench.errors import ModelError
from ncbench.models.base import Precision
from ncbench.models.memory import is_out_of_memory
from ncbench.models.weights import read_tensors, require_complete

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ADVICE = "Get the files of the revision that the card names."
_VARIANTS = (None, "fp16")
_CHANNELS = 3
_SCHEDULERS: dict[str, Any] = {kind.__name__: kind for kind in (DDIMScheduler, LCMScheduler)}


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON configuration.

    Args:
        path: The file.

    Returns:
        Its values.

    Raises:
        ModelError: It cannot be read, or is no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}). {ADVICE}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(values).__name__}. {ADVICE}")
    return values


def diffusers_network(kind: type[Any], folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401 - an instance of kind
    """Load a network of diffusers, in full precision where that is here, else from its half-precision twin.

    Args:
        kind: Class of the network.
        folder: Holds ``config.json`` and ``diffusion_pytorch_model[.fp16].safetensors``.
        dtype: Number format to hold it in.

    Returns:
        The network, in evaluation mode and without gradients, on the CPU.

    Raises:
        ModelError: A file or a tensor is missing or is not what it should be; the message names it.
    """
    variant = _variant(folder, "diffusion_pytorch_model")
    # low_cpu_mem_usage would fill a missing tensor with random numbers only when accelerate is installed
    options = {"torch_dtype": dtype, "use_safetensors": True, "low_cpu_mem_usage": False}
    return _pretrained(kind, folder, variant, options)


def transformers_network(kind: type[Any], folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401 - as above
    """Load a network of transformers; as ``diffusers_network`` from ``model[.fp16].safetensors``."""
    return _pretrained(kind, folder, _variant(folder, "model"), {"dtype": dtype, "use_safetensors": True})


def network_from_files(kind: type[Any], config: Path, weights: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401 - as above
    """Make a network of diffusers without memory of its own, and give it the stored tensors themselves.

    Quicker than ``diffusers_network``, and config and tensors may lie apart; but tensors under names that diffusers has
    given up since are not renamed.

    Args:
        kind: Class of the network.
        config: Its ``config.json``.
        weights: Its tensors.
        dtype: Number format to hold it in.

    Returns:
        The network, on the CPU.

    Raises:
        ModelError: A file or a tensor is missing or is not what it should be; the message names it.
    """
    values = read_config(config)
    try:
        with torch.device("meta"):
            network = kind.from_config(values)
    except Exception as error:  # diffusers raises whatever a wrong value leads to
        raise ModelError(f"{config}: describes no {kind.__name__} ({error}). {ADVICE}") from error
    tensors, wanted = read_tensors(weights), network.state_dict()
    require_complete(
        {
            "missing_keys": wanted.keys() - tensors.keys(),
            "unexpected_keys": tensors.keys() - wanted.keys(),
            "mismatched_keys": [
                (name, tensors[name].shape, wanted[name].shape)
                for name in sorted(wanted.keys() & tensors.keys())
                if tensors[name].shape != wanted[name].shape
            ],
        },
        weights,
    )
    network.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
    return network


def weights_file(folder: Path, stem: str) -> Path:
    """Find a file of tensors, in full precision where that is here, else its half-precision twin.

    Args:
        folder: Holds ``<stem>[.fp16].safetensors``.
        stem: Of the name.

    Returns:
        The file.

    Raises:
        ModelError: Neither is there.
    """
    return folder / _file_name(stem, _variant(folder, stem))


def clip_statistics(path: Path) -> tuple[list[float], list[float]]:
    """Read how a CLIP image encoder wants its input scaled.

    Args:
        path: ``preprocessor_config.json`` of a feature extractor.

    Returns:
        Mean and standard deviation of each channel, for pixels in 0..1.

    Raises:
        ModelError: The file is missing or lacks them.
    """
    config = read_config(path)
    found = []
    for key in ("image_mean", "image_std"):
        value = config.get(key)
        if not (isinstance(value, list) and len(value) == _CHANNELS and all(isinstance(item, float) for item in value)):
            raise ModelError(f"{path}: expected {key} to be three numbers, found {value!r}. {ADVICE}")
        found.append(value)
    return found[0], found[1]


def load_scheduler(folder: Path, **changes: Any) -> Any:  # noqa: ANN401 - of the class that its configuration names
    """Load a scheduler.

    Args:
        folder: Holds ``scheduler_config.json``.
        **changes: Settings that replace published ones.

    Returns:
        The scheduler.

    Raises:
        ModelError: The file is missing or describes no scheduler that is known here.
    """
    path = folder / "scheduler_config.json"
    config = read_config(path)
    name = config.get("_class_name")
    if name not in _SCHEDULERS:
        raise ModelError(f"{path}: expected the scheduler to be {' or '.join(_SCHEDULERS)}, found {name!r}. {ADVICE}")
    try:
        return _SCHEDULERS[name].from_config(config, **changes)
    except Exception as error:  # diffusers raises whatever a wrong value leads to
        raise ModelError(f"{path}: describes no {name} ({error}). {ADVICE}") from error


def _pretrained(kind: type[Any], folder: Path, variant: str | None, options: dict[str, Any]) -> Any:  # noqa: ANN401
    read_config(folder / "config.json")
    try:
        with no_progress_bar():
            network, info = kind.from_pretrained(
                folder, variant=variant, local_files_only=True, output_loading_info=True, **options
            )
    except Exception as error:  # a wrong value in a configuration leads to any error
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{folder}: cannot be read as a {kind.__name__} ({error}). {ADVICE}") from error
    require_complete(info, folder)
    return network.eval().requires_grad_(requires_grad=False)


def _variant(folder: Path, stem: str) -> str | None:
    names = {variant: _file_name(stem, variant) for variant in _VARIANTS}
    for variant, name in names.items():
        if (folder / name).is_file():
            return variant
    raise ModelError(f"{folder}: expected {' or '.join(names.values())}, and neither is there. {ADVICE}")


def _file_name(stem: str, variant: str | None) -> str:
    return f"{stem}{f'.{variant}' if variant else ''}.safetensors"


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar of its own while a network loads."""
    bars: Any = logging  # has no types
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
