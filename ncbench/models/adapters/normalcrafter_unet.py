"""NormalCrafter's U-Net: Stable Video Diffusion's, told of every frame by itself, and the one step that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

from ncbench.errors import ModelError
from ncbench.models.adapters.normalcrafter_conditioning import Conditions


class OneTokenAttention:
    """Cross-attention to a single token: its softmax is 1, so that the answer is the token's value for every query.

    Equal to ``AttnProcessor2_0`` bit for bit there, without the queries, the keys and the attention itself.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,  # noqa: ARG002 - diffusers passes it; the answer does not depend on it
        encoder_hidden_states: torch.Tensor,
        **_: Any,  # noqa: ANN401 - what else diffusers passes, all None here
    ) -> torch.Tensor:
        """Return (B, 1, C), which diffusers adds to the (B, N, C) of all queries."""
        answer: torch.Tensor = attn.to_out[0](attn.to_v(encoder_hidden_states))
        return answer


class PerFrameUNet(torch.nn.Module):
    """SVD's U-Net with one CLIP token for each frame, where SVD repeats that of one picture.

    Temporal cross-attention looks at the token of a clip's first frame alone; that is how SVD's blocks are made. Of the
    cross-attention only what a single token leaves of it is computed.

    Args:
        network: Filled with its weights.
    """

    def __init__(self, network: UNetSpatioTemporalConditionModel) -> None:
        super().__init__()
        self.network = network
        processor: Any = OneTokenAttention()  # diffusers' type for it is its own default processor
        for module in network.modules():
            if isinstance(module, Attention) and module.is_cross_attention:
                module.set_processor(processor)

    def forward(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        embeddings: torch.Tensor,
        time_ids: torch.Tensor,
        clips: int = 1,
    ) -> torch.Tensor:
        """Run B clips of T frames; a window of inference is one clip.

        Args:
            latents: (B T, in channels, h, w), clip after clip: noisy latents and, behind them, those of the frames.
            timestep: (1,) or (B T,) float32, the c_noise of each frame's noise level.
            embeddings: (B T, 1, D).
            time_ids: (3,) float32: frames a second, motion bucket, noise augmentation.
            clips: B.

        Returns:
            (B T, out channels, h, w).
        """
        net: Any = self.network  # torch types the parts of a module as tensors or modules
        time = net.time_embedding(net.time_proj(timestep).to(latents.dtype))
        added = net.add_embedding(net.add_time_proj(time_ids).reshape(1, -1).to(latents.dtype))
        # SVD's blocks take stills too, and ask of each frame whether it is one; the answer's shape divides the clips
        common = {
            "temb": (time + added).expand(latents.shape[0], -1),
            "image_only_indicator": latents.new_zeros(clips, latents.shape[0] // clips),
        }
        told = {**common, "encoder_hidden_states": embeddings}

        sample = net.conv_in(latents)
        skips = [sample]
        for block in net.down_blocks:
            sample, outputs = block(sample, **(told if _looks_at_tokens(block) else common))
            skips.extend(outputs)
        sample = net.mid_block(sample, **told)
        for block in net.up_blocks:
            count = len(block.resnets)
            taken = tuple(skips[-count:])
            del skips[-count:]
            sample = block(sample, res_hidden_states_tuple=taken, **(told if _looks_at_tokens(block) else common))
        result: torch.Tensor = net.conv_out(net.conv_act(net.conv_norm_out(sample)))
        return result


def _looks_at_tokens(block: torch.nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))


@dataclass(frozen=True)
class OneStep:
    """A single Euler step from the highest noise level down to zero.

    With the preconditioning of EDM (Karras et al. 2022, table 1, in the form of SVD's v-prediction) the estimate of the
    clean latents is x0 = z / (sigma^2 + 1) - sigma / sqrt(sigma^2 + 1) * UNet(z / sqrt(sigma^2 + 1)), and an Euler step
    to noise level zero ends exactly there. NormalCrafter starts from z = 0, except where the window before has
    predicted a frame already.

    Attributes:
        sigma: The noise level: 700 as published.
        timestep: What the U-Net is told of it: 0.25 ln sigma.
    """

    sigma: float
    timestep: float

    @classmethod
    def of(cls, scheduler: EulerDiscreteScheduler) -> OneStep:
        """Take the step that a scheduler makes when it is asked for one.

        Args:
            scheduler: As SVD configures it.

        Returns:
            The step.

        Raises:
            ModelError: It predicts anything but v, so that the formula does not hold.
        """
        kind = scheduler.config["prediction_type"]
        if kind != "v_prediction":
            raise ModelError(
                f"the scheduler's prediction_type is '{kind}', NormalCrafter's is 'v_prediction'. Get "
                "scheduler/scheduler_config.json of the revision that the card names."
            )
        scheduler.set_timesteps(1)
        return cls(float(scheduler.sigmas[0]), float(scheduler.timesteps[0]))

    def __call__(
        self, unet: torch.nn.Module, conditions: Conditions, carried: torch.Tensor | None, time_ids: torch.Tensor
    ) -> torch.Tensor:
        """Predict the latents of one window.

        Args:
            unet: A ``PerFrameUNet``.
            conditions: Of the window's T frames.
            carried: (n, C, h, w) float32 latents that the window before predicted for the first n frames; None where
                there are none.
            time_ids: As the U-Net takes them.

        Returns:
            (T, C, h, w) float32.
        """
        scale = self.sigma**2 + 1
        noisy = torch.zeros_like(conditions.latents, dtype=torch.float32)
        if carried is not None:
            noisy[: len(carried)] = carried
        latents = torch.cat([(noisy / scale**0.5).to(conditions.latents.dtype), conditions.latents], dim=1)
        timestep = torch.tensor([self.timestep], device=latents.device)
        velocity: torch.Tensor = unet(latents, timestep, conditions.embeddings, time_ids)
        clean: torch.Tensor = noisy / scale - self.sigma / scale**0.5 * velocity.float()
        return clean
