"""NormalCrafter's U-Net for training: its blocks by name, and which of its parameters learn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel

Group = Literal["spatial", "in_out", "embeddings", "mixers", "temporal"]
GROUPS: tuple[Group, ...] = ("spatial", "in_out", "embeddings", "mixers", "temporal")
_WITHIN: dict[Group, tuple[str, ...]] = {
    "mixers": (".time_mixer.",),
    "temporal": (".temporal_res_block.", ".temporal_transformer_blocks.", ".time_pos_embed."),
}
_AHEAD: dict[Group, tuple[str, ...]] = {
    "in_out": ("conv_in.", "conv_norm_out.", "conv_out."),
    "embeddings": ("time_embedding.", "add_embedding."),
}
# cross-attention to one token: its softmax is 1 whatever the query and the key are, and only the query is normalized
_UNREACHED = (".norm2.", ".attn2.to_q.", ".attn2.to_k.")
_BLOCKS = (".transformer_blocks.", ".temporal_transformer_blocks.")


def block_of(network: UNetSpatioTemporalConditionModel, name: str) -> torch.nn.Module:
    """Find a block by the name that NormalCrafter's table 3 gives it.

    Args:
        network: The U-Net.
        name: ``down<i>`` is down_blocks[i], ``mid`` the middle block, ``up<i>`` up_blocks[i], counted from 0.

    Returns:
        The block.

    Raises:
        KeyError: There is no such block.
    """
    parts: Any = network  # torch types the parts of a module as tensors or modules
    blocks = {f"down{index}": block for index, block in enumerate(parts.down_blocks)}
    blocks |= {f"up{index}": block for index, block in enumerate(parts.up_blocks)}
    found: torch.nn.Module = (blocks | {"mid": parts.mid_block})[name]
    return found


def group_of(name: str) -> Group:
    """Say which group a parameter of the U-Net belongs to.

    Args:
        name: As ``UNetSpatioTemporalConditionModel.named_parameters`` gives it.

    Returns:
        ``temporal``: residual blocks and transformers along time and their positions; ``mixers``: the shares of spatial
        and temporal answers; ``in_out``: first and last convolution; ``embeddings``: of noise level and time ids;
        ``spatial``: all else.
    """
    within = next((group for group, marks in _WITHIN.items() if any(mark in name for mark in marks)), None)
    ahead = next((group for group, marks in _AHEAD.items() if name.startswith(marks)), None)
    return within or ahead or "spatial"


def is_reached(name: str) -> bool:
    """Say whether the answer depends on a parameter at all.

    Cross-attention to a single token does not depend on its query and key.

    Args:
        name: As for ``group_of``.

    Returns:
        Whether it does.
    """
    return not (any(block in name for block in _BLOCKS) and any(part in name for part in _UNREACHED))


def let_learn(network: UNetSpatioTemporalConditionModel, groups: Iterable[Group]) -> None:
    """Set ``requires_grad`` of every parameter of the U-Net.

    Args:
        network: The U-Net.
        groups: Those that learn.
    """
    wanted = set(groups)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(group_of(name) in wanted and is_reached(name))
