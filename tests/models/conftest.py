"""Tiny networks with random weights, saved in the very layout of published repositories."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SaveNetworks = Callable[..., Path]


@pytest.fixture(scope="session")
def one_torch_thread() -> Iterator[None]:
    """Tiny networks are slower on several threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory, one_torch_thread: None) -> SaveNetworks:
    """Save a Stable Diffusion repository: ``stable_diffusion(index=..., variant=..., **unet_settings)``.

    Equal calls share a folder, so never write into it; ``copy=True`` gives one to damage.
    """
    saved: dict[str, Path] = {}

    def save(
        index: dict[str, Any] | None = None,
        scheduler: dict[str, Any] | None = None,
        variant: str | None = None,
        copy: bool = False,
        **unet: Any,
    ) -> Path:
        key = repr((index, scheduler, variant, sorted(unet.items())))
        if key not in saved:
            saved[key] = _save_stable_diffusion(
                tmp_path_factory.mktemp("sd"), index or {}, scheduler or {}, variant, unet
            )
        if not copy:
            return saved[key]
        return Path(shutil.copytree(saved[key], tmp_path_factory.mktemp("sd") / "copy"))

    return save


def _save_stable_diffusion(
    folder: Path, index: dict[str, Any], scheduler: dict[str, Any], variant: str | None, unet_settings: dict[str, Any]
) -> Path:
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, LCMScheduler, UNet2DConditionModel
    from safetensors.torch import load_file, save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        **{
            "sample_size": 8,
            "in_channels": 8,
            "out_channels": 4,
            "block_out_channels": (8, 16),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "cross_attention_dim": 12,
            "attention_head_dim": (2, 2),
            "norm_num_groups": 4,
            "use_linear_projection": True,
            **unet_settings,
        }
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.18215,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=5,
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=9,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    for network in (unet, vae, text):
        for name, tensor in network.named_parameters():
            torch.nn.init.normal_(tensor, std=0.1 if tensor.ndim < 2 else tensor[0].numel() ** -0.5)
            if "norm" in name and name.endswith("weight"):
                tensor.data += 1
    if variant:
        for network in (unet, vae, text):
            network.half()
    unet.save_pretrained(folder / "unet", variant=variant)
    vae.save_pretrained(folder / "vae", variant=variant)
    text.save_pretrained(folder / "text_encoder", variant=variant)
    # published before transformers 5: another prefix, and a buffer that is none any more
    path = next((folder / "text_encoder").glob("*.safetensors"))
    tensors = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(path).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(9)[None]
    save_file(tensors, path, metadata={"format": "pt"})
    config = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        **scheduler,
    }
    kind = LCMScheduler if config.pop("kind", "ddim") == "lcm" else DDIMScheduler
    kind(**config).save_pretrained(folder / "scheduler")
    _save_tokenizer(folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "MarigoldNormalsPipeline", **index}))
    return folder


def _save_tokenizer(folder: Path) -> None:
    folder.mkdir()
    end = "<|endoftext|>"
    special = {"bos_token": "<|startoftext|>", "eos_token": end, "pad_token": "!", "unk_token": end}
    names = ["!", "<|startoftext|>", "<|endoftext|>", "a", "a</w>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"model_max_length": 9, "tokenizer_class": "CLIPTokenizer", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
