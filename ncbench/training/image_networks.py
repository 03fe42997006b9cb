"""A Stable Diffusion repository with random weights, for the image stage's dry runs and tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from pydantic import Field
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from ncbench.settings import Settings
from ncbench.training.networks import drawn_from

_VAE_LEVELS = 4  # Stable Diffusion's latents are 8 times smaller, which the adapters rely on
_START, _END = "<|startoftext|>", "<|endoftext|>"


class ImageNetworksDescription(Settings):
    """Networks of Stable Diffusion's kind, small.

    Attributes:
        channels: Of the U-Net's levels, multiples of ``groups``; all but the lowest attend.
        heads: Channels of the attention are divided into so many.
        layers: Residual blocks to a level of the U-Net and of the autoencoder.
        vae_channels: Of the autoencoder's four levels, multiples of ``groups``.
        groups: In which channels are normalized.
        token: Size of the text encoder's embedding.
    """

    channels: tuple[int, ...] = (32, 64)
    heads: int = Field(2, ge=1)
    layers: int = Field(1, ge=1)
    vae_channels: tuple[int, int, int, int] = (16, 16, 32, 32)
    groups: int = Field(8, ge=1)
    token: int = Field(16, ge=2)


def write_image_networks(described: ImageNetworksDescription, folder: Path, seed: int) -> None:
    """Write a repository of Stable Diffusion with eight input channels.

    Args:
        described: Sizes.
        folder: Where to; made if need be.
        seed: Of the weights.
    """
    last = len(described.channels) - 1
    attends = [level < last or last == 0 for level in range(last + 1)]
    make: Any = UNet2DConditionModel  # its types know one number of heads alone
    with drawn_from(seed):
        unet = make(
            in_channels=8,
            out_channels=4,
            block_out_channels=described.channels,
            down_block_types=tuple(f"{'CrossAttn' * attend}DownBlock2D" for attend in attends),
            up_block_types=tuple(f"{'CrossAttn' * attend}UpBlock2D" for attend in reversed(attends)),
            layers_per_block=described.layers,
            cross_attention_dim=described.token,
            attention_head_dim=described.heads,
            norm_num_groups=described.groups,
            use_linear_projection=True,
        )
        vae = AutoencoderKL(
            block_out_channels=described.vae_channels,
            down_block_types=("DownEncoderBlock2D",) * _VAE_LEVELS,
            up_block_types=("UpDecoderBlock2D",) * _VAE_LEVELS,
            layers_per_block=described.layers,
            norm_num_groups=described.groups,
            scaling_factor=0.18215,
        )
        text = CLIPTextModel(_text_config(described.token))
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    encoder = folder / "text_encoder"
    encoder.mkdir(parents=True, exist_ok=True)
    # not by save_pretrained, which writes in the first of several processes alone, and each has a folder of its own
    text.config.to_json_file(encoder / "config.json", use_diff=False)
    save_file(text.state_dict(), encoder / "model.safetensors", metadata={"format": "pt"})
    DDIMScheduler(  # of Stable Diffusion 2
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    _write_tokenizer(folder / "tokenizer")
    _write_json(folder / "model_index.json", {"_class_name": "MarigoldNormalsPipeline"})


def _text_config(token: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=3,
        hidden_size=token,
        intermediate_size=2 * token,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def _write_tokenizer(folder: Path) -> None:
    """Write a tokenizer that knows the empty prompt and nothing else."""
    special = {"bos_token": _START, "eos_token": _END, "pad_token": "!", "unk_token": _END}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    _write_json(folder / "vocab.json", {"!": 0, _START: 1, _END: 2})
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json", {"model_max_length": 8, "tokenizer_class": "CLIPTokenizer", **special}
    )


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
