"""NormalCrafter's networks from the layout of the published repository, checked tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ncbench.errors import ModelError
from ncbench.models.adapters.hub_layout import (
    ADVICE,
    DTYPES,
    clip_statistics,
    network_from_files,
    no_progress_bar,
    read_config,
    weights_file,
)
from ncbench.models.adapters.normalcrafter_conditioning import CLIP_SIDE
from ncbench.models.adapters.normalcrafter_decode import blend_in_place
from ncbench.models.adapters.normalcrafter_frames import MULTIPLE
from ncbench.models.adapters.normalcrafter_networks import Networks
from ncbench.models.adapters.normalcrafter_unet import OneStep, PerFrameUNet
from ncbench.models.base import Runtime
from ncbench.models.weights import read_tensors, require_complete

_TIME_IDS = 3  # frames a second, motion bucket, noise augmentation


@dataclass(frozen=True)
class Parts:
    """What the published repository holds, read.

    Attributes:
        unet: ``unet``.
        vae: ``vae``; its encoder is kept in float32.
        image_encoder: ``image_encoder``, of CLIP.
        scheduler: ``scheduler``.
        image_statistics: Mean and standard deviation of CLIP's input, from ``feature_extractor``.
    """

    unet: UNetSpatioTemporalConditionModel
    vae: AutoencoderKLTemporalDecoder
    image_encoder: CLIPVisionModelWithProjection
    scheduler: EulerDiscreteScheduler
    image_statistics: tuple[list[float], list[float]]


def load_networks(runtime: Runtime, multiple: int = MULTIPLE) -> Networks:
    """Load the networks from the layout of the published repository.

    Args:
        runtime: ``weights`` is the folder that holds ``unet``, ``vae``, ``image_encoder``, ``scheduler`` and
            ``feature_extractor``.
        multiple: Of which both sides of the frames will be multiples.

    Returns:
        The networks, on the device.

    Raises:
        ModelError: A file is missing or is not what it should be, or a tensor is missing, unknown or of another shape;
            the message names it.
    """
    folder = runtime.weights
    if folder is None:
        raise ModelError("NormalCrafter needs weights, and the runtime names no folder of them.")
    parts = read_parts(folder, DTYPES[runtime.precision])
    check_fit(folder, parts, multiple)
    return assemble(parts, runtime)


def read_parts(folder: Path, dtype: torch.dtype) -> Parts:
    """Read all that the published repository holds; whether the parts fit each other is ``check_fit``'s business.

    Args:
        folder: Holds ``unet``, ``vae``, ``image_encoder``, ``scheduler`` and ``feature_extractor``.
        dtype: Number format of U-Net and image encoder; the autoencoder is in float32.

    Returns:
        The parts, on the CPU.

    Raises:
        ModelError: A file is missing or is not what it should be, or a tensor is missing, unknown or of another shape;
            the message names it.
    """
    return Parts(
        unet=_network(UNetSpatioTemporalConditionModel, folder / "unet", dtype),
        vae=_network(AutoencoderKLTemporalDecoder, folder / "vae", torch.float32),
        image_encoder=_image_encoder(folder / "image_encoder", dtype),
        scheduler=read_scheduler(folder / "scheduler" / "scheduler_config.json"),
        image_statistics=clip_statistics(folder / "feature_extractor" / "preprocessor_config.json"),
    )


def assemble(parts: Parts, runtime: Runtime) -> Networks:
    """Bring networks to their device and number format, and make them quick and sparing.

    Args:
        parts: The networks, which are changed.
        runtime: Where and how they compute.

    Returns:
        The networks, ready to run.
    """
    device, dtype = torch.device(runtime.device), DTYPES[runtime.precision]
    vae: Any = parts.vae  # torch types the parts of a module as tensors or modules
    networks: tuple[torch.nn.Module, ...] = (parts.unet, parts.image_encoder, vae)
    for network in networks:
        network.eval().requires_grad_(requires_grad=False)
    for network in networks[:2]:
        torch.nn.Module.to(network, device, dtype)
    encoder_dtype = torch.float32 if vae.config["force_upcast"] else dtype
    for module in (vae.encoder, vae.quant_conv):
        module.to(device, encoder_dtype)
    vae.decoder.to(device, dtype)
    blend_in_place(vae)
    unet = PerFrameUNet(parts.unet)
    if runtime.compile:
        unet.compile()
        vae.decoder.compile()
    mean, std = parts.image_statistics
    return Networks(unet, vae, parts.image_encoder, mean, std, OneStep.of(parts.scheduler), device, dtype)


def _network(kind: type[Any], folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401 - an instance of kind
    return network_from_files(kind, folder / "config.json", weights_file(folder, "diffusion_pytorch_model"), dtype)


def _image_encoder(folder: Path, dtype: torch.dtype) -> CLIPVisionModelWithProjection:
    config = read_config(folder / "config.json")
    path = weights_file(folder, "model")
    tensors = read_tensors(path)
    kind: Any = CLIPVisionModelWithProjection  # from_pretrained's types know no tensors without a file
    try:
        with no_progress_bar():
            network, info = kind.from_pretrained(
                None,
                config=CLIPVisionConfig.from_dict(config),
                state_dict=tensors,
                dtype=dtype,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises whatever a wrong value leads to
        raise ModelError(f"{folder}: cannot be read as a CLIP image encoder ({error}). {ADVICE}") from error
    require_complete(info, path)
    encoder: CLIPVisionModelWithProjection = network
    return encoder


def read_scheduler(path: Path) -> EulerDiscreteScheduler:
    """Read a scheduler.

    Args:
        path: Its ``scheduler_config.json``.

    Returns:
        The scheduler.

    Raises:
        ModelError: The file is missing or describes no such scheduler.
    """
    config = read_config(path)
    make: Any = EulerDiscreteScheduler.from_config  # has no types
    try:
        scheduler: EulerDiscreteScheduler = make(config)
    except Exception as error:  # diffusers raises whatever a wrong value leads to
        raise ModelError(f"{path}: describes no EulerDiscreteScheduler ({error}). {ADVICE}") from error
    return scheduler


def check_fit(where: Path | str, parts: Parts, multiple: int = MULTIPLE, advice: str = ADVICE) -> None:
    """Refuse networks that are sound each by itself, and do not belong together.

    Args:
        where: Where they come from, for the message.
        parts: The networks.
        multiple: Of which both sides of the frames will be multiples.
        advice: What to do about it, for the message.

    Raises:
        ModelError: They do not fit each other or the frames; names every difference.
    """
    unet, vae, clip = parts.unet.config, parts.vae.config, parts.image_encoder.config
    shrinks = 2 ** (len(vae["block_out_channels"]) + len(unet["block_out_channels"]) - 2)
    checks = {
        "U-Net input channels, noisy latents and those of the frames": (
            unet["in_channels"],
            2 * vae["latent_channels"],
        ),
        "U-Net output channels": (unet["out_channels"], vae["latent_channels"]),
        "U-Net cross-attention, the size of a CLIP embedding": (unet["cross_attention_dim"], clip.projection_dim),
        "U-Net time ids": (
            unet["projection_class_embeddings_input_dim"],
            _TIME_IDS * unet["addition_time_embed_dim"],
        ),
        "CLIP input side": (clip.image_size, CLIP_SIDE),
        f"remainder of {multiple} by the networks' downscaling of {shrinks}": (multiple % shrinks, 0),
    }
    problems = [f"{name}: expected {right}, found {left}" for name, (left, right) in checks.items() if left != right]
    if problems:
        raise ModelError(f"{where}: these networks do not belong together; {'; '.join(problems)}. {advice}")
