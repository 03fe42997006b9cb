"""GeoWizard's self-attention: depth and normals of a picture look at each other as well as at themselves."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.nn import functional


class JointAttention:
    """Self-attention of a batch whose first half is depth and whose second half is normals of the same frames."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        **_: Any,  # noqa: ANN401 - what else diffusers passes, all None here
    ) -> torch.Tensor:
        """Attend.

        Args:
            attn: The layer.
            hidden_states: (2 T, N, C).

        Returns:
            (2 T, N, C).
        """
        keys, values = (
            torch.cat(layer(hidden_states).chunk(2), dim=1).repeat(2, 1, 1) for layer in (attn.to_k, attn.to_v)
        )
        query, key, value = (
            states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for states in (attn.to_q(hidden_states), keys, values)
        )
        answer: torch.Tensor = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        projected: torch.Tensor = attn.to_out[0](answer)
        return projected


def attend_jointly(unet: UNet2DConditionModel) -> None:
    """Replace the self-attention of every transformer; parameters stay.

    Args:
        unet: As diffusers makes it; changed.
    """
    processor: Any = JointAttention()  # diffusers' type for it is a list of its own
    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.attn1.set_processor(processor)
