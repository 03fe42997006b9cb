"""What a step depends on, taken out of live objects and put back: parameters, moments, means, positions.

Torch's distributed state dictionaries are used, so that names are the stage's own however `accelerate` wrapped it, and
sharded parameters (FSDP) come whole. No generator has a state worth keeping: each step draws from its own number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from ncbench.errors import ModelError
from ncbench.training.checkpoint import Tensors
from ncbench.training.optimization import RunningMean

_JOINT = "/"


def capture(model: torch.nn.Module, optimizer: torch.optim.Optimizer, mean: RunningMean | None) -> Tensors:
    """Copy out what training has changed; every process must call it.

    Args:
        model: The stage, wrapped or not.
        optimizer: Torch's own.
        mean: The running mean, if there is one.

    Returns:
        ``parameters`` (those that learn, and buffers), ``optimizer`` and perhaps ``ema``: name -> tensor on the CPU. In
        processes other than the first, the first two are empty.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    parameters = get_model_state_dict(model, options=options)
    states: Any = get_optimizer_state_dict(model, optimizer, options=options).get("state", {})
    tensors: dict[str, dict[str, torch.Tensor]] = {
        "parameters": {name: _cpu(value) for name, value in parameters.items()},
        "optimizer": {
            f"{name}{_JOINT}{field}": _cpu(value) for name, state in states.items() for field, value in state.items()
        },
    }
    if mean is not None:
        tensors["ema"] = {name: _cpu(value) for name, value in mean.values.items()}
    return tensors


def restore(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, mean: RunningMean | None, tensors: Tensors
) -> None:
    """Put back what ``capture`` gave.

    Args:
        model: The stage, wrapped or not, with the networks that the run started from.
        optimizer: A new one.
        mean: A new one, if the run keeps one.
        tensors: From a checkpoint.

    Raises:
        ModelError: The tensors are those of other networks.
    """
    options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)
    states: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors["optimizer"].items():
        name, _, field = key.rpartition(_JOINT)
        states.setdefault(name, {})[field] = value
    try:
        set_model_state_dict(model, dict(tensors["parameters"]), options=options)
        here = StateDictOptions(ignore_frozen_params=True)  # in every process, for the groups and names
        whole: Any = get_optimizer_state_dict(model, optimizer, options=here)
        if set(whole["state"]) != set(states):
            raise KeyError(", ".join(sorted(set(whole["state"]) ^ set(states))[:3]))
        set_optimizer_state_dict(model, optimizer, whole | {"state": states}, options=options)
        if mean is not None:
            mean.load(tensors["ema"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"the checkpoint does not fit the stage's networks ({error}). Was the code or the folder of --init "
            "changed? Resume with what the run began with, or start a new one."
        ) from error


def _cpu(value: Any) -> torch.Tensor:  # noqa: ANN401 - tensors, but torch types states as anything
    return torch.as_tensor(value).detach().cpu()
