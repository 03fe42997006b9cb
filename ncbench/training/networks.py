"""NormalCrafter's networks for training: from the published layout or from a description, and back to that layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
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
    clip_statistics,
    diffusers_network,
    no_progress_bar,
    transformers_network,
)
from ncbench.models.adapters.normalcrafter_conditioning import CLIP_SIDE
from ncbench.models.adapters.normalcrafter_weights import Parts, check_fit, read_parts, read_scheduler
from ncbench.training.descriptions import ImageEncoderDescription, VAEDescription, VideoNetworksDescription

# of CLIP's published feature extractor
_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
_SCHEDULER = {  # of Stable Video Diffusion XT
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "use_karras_sigmas": True,
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "steps_offset": 1,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
}

_PIPELINE = {  # what diffusers opens the whole folder as; it is also what the published repository says
    "_class_name": "StableVideoDiffusionPipeline",
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
}


def read_networks(init: Path | None, described: VideoNetworksDescription | None, seed: int) -> Parts:
    """Bring all networks of a video stage.

    Args:
        init: Folder in the published layout; it must hold ``vae``. None makes all from scratch.
        described: What parts that are not there are made of.
        seed: What their weights are drawn from.

    Returns:
        The networks, on the CPU in float32, all frozen.

    Raises:
        ModelError: A file or tensor is missing or wrong, a part is neither there nor described, or the parts do not
            belong together.
    """
    if init is not None and described is None:
        parts, advice = read_parts(init, torch.float32), ADVICE
    else:
        parts = _read_or_make(init, _needed(described), seed)
        advice = "Change 'networks' in the recipe's settings, or start from another folder."
    check_fit(init or "the described networks", parts, advice=advice)
    for network in (parts.unet, parts.vae, parts.image_encoder):
        _frozen(network)
    return parts


def read_vae(init: Path | None, described: VideoNetworksDescription | None, seed: int) -> AutoencoderKLTemporalDecoder:
    """Bring the autoencoder alone; as ``read_networks``."""
    if init is not None:
        vae: AutoencoderKLTemporalDecoder = diffusers_network(AutoencoderKLTemporalDecoder, init / "vae", torch.float32)
        return vae
    return make_vae(_needed(described).vae, seed)


def make_unet(described: VideoNetworksDescription, latents: int, seed: int) -> UNetSpatioTemporalConditionModel:
    """Make a U-Net with random weights.

    Args:
        described: Its sizes, and that of the token.
        latents: Channels of the VAE's latents.
        seed: Of the weights.

    Returns:
        The U-Net, frozen.
    """
    unet, last = described.unet, len(described.unet.channels) - 1
    attends = [level < last or last == 0 for level in range(last + 1)]
    with drawn_from(seed):
        network = UNetSpatioTemporalConditionModel(
            in_channels=2 * latents,
            out_channels=latents,
            down_block_types=tuple(f"{'CrossAttn' * attend}DownBlockSpatioTemporal" for attend in attends),
            up_block_types=tuple(f"{'CrossAttn' * attend}UpBlockSpatioTemporal" for attend in reversed(attends)),
            block_out_channels=unet.channels,
            num_attention_heads=unet.heads,
            layers_per_block=unet.layers,
            cross_attention_dim=described.image_encoder.token,
            addition_time_embed_dim=unet.time_embedding,
            projection_class_embeddings_input_dim=3 * unet.time_embedding,
        )
    frozen: UNetSpatioTemporalConditionModel = _frozen(network)
    return frozen


def make_vae(described: VAEDescription, seed: int) -> AutoencoderKLTemporalDecoder:
    """Make an autoencoder with random weights, frozen; as ``make_unet``."""
    with drawn_from(seed + 1):
        network = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * len(described.channels),
            block_out_channels=described.channels,
            layers_per_block=described.layers,
            latent_channels=described.latent_channels,
            scaling_factor=described.scaling_factor,
            force_upcast=True,
        )
    frozen: AutoencoderKLTemporalDecoder = _frozen(network)
    return frozen


def make_image_encoder(described: ImageEncoderDescription, seed: int) -> CLIPVisionModelWithProjection:
    """Make a CLIP image encoder with random weights, frozen; as ``make_unet``."""
    config = CLIPVisionConfig(
        hidden_size=described.hidden,
        intermediate_size=4 * described.hidden,
        num_hidden_layers=described.layers,
        num_attention_heads=described.heads,
        patch_size=described.patch,
        image_size=CLIP_SIDE,
        projection_dim=described.token,
        hidden_act="gelu",
    )
    with drawn_from(seed + 2):
        frozen: CLIPVisionModelWithProjection = _frozen(CLIPVisionModelWithProjection(config))
    return frozen


def save_networks(parts: Parts, folder: Path) -> None:
    """Write networks in the published layout.

    Args:
        parts: The networks.
        folder: Where to; made if need be.
    """
    parts.unet.save_pretrained(folder / "unet")
    parts.vae.save_pretrained(folder / "vae")
    with no_progress_bar():
        parts.image_encoder.save_pretrained(folder / "image_encoder")
    parts.scheduler.save_pretrained(folder / "scheduler")
    mean, std = parts.image_statistics
    values = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": CLIP_SIDE, "width": CLIP_SIDE},
        "size": {"shortest_edge": CLIP_SIDE},
        "image_mean": mean,
        "image_std": std,
    }
    _write_json(folder / "feature_extractor" / "preprocessor_config.json", values)
    _write_json(folder / "model_index.json", _PIPELINE)


def shrink_of(vae: AutoencoderKLTemporalDecoder, unet: UNetSpatioTemporalConditionModel | None = None) -> int:
    """Count the pixels to a cell of the coarsest features: what both sides of a picture must be multiples of.

    Args:
        vae: The autoencoder.
        unet: The U-Net behind it.

    Returns:
        Pixels, each way.
    """
    levels = len(vae.config["block_out_channels"]) - 1
    if unet is not None:
        levels += len(unet.config["block_out_channels"]) - 1
    return 1 << int(levels)


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Draw new weights from a seed, and leave torch's own generator as it was.

    Args:
        seed: Any integer.

    Yields:
        Nothing; weights are made within.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _frozen(network: Any) -> Any:  # noqa: ANN401 - the network itself
    return network.eval().requires_grad_(requires_grad=False)


def _read_or_make(init: Path | None, described: VideoNetworksDescription, seed: int) -> Parts:
    """Read the parts that a folder holds, and make the others; the autoencoder must be there."""
    vae = read_vae(init, described, seed)
    stored = {one.name: one for one in init.iterdir() if one.is_dir()} if init is not None else {}
    if path := stored.get("unet"):
        unet = diffusers_network(UNetSpatioTemporalConditionModel, path, torch.float32)
    else:
        unet = make_unet(described, int(vae.config["latent_channels"]), seed)
    if path := stored.get("image_encoder"):
        clip = transformers_network(CLIPVisionModelWithProjection, path, torch.float32)
    else:
        clip = make_image_encoder(described.image_encoder, seed)
    if path := stored.get("scheduler"):
        scheduler = read_scheduler(path / "scheduler_config.json")
    else:
        make: Any = EulerDiscreteScheduler.from_config  # has no types
        scheduler = make(_SCHEDULER)
    path = stored.get("feature_extractor")
    statistics = clip_statistics(path / "preprocessor_config.json") if path else (_CLIP_MEAN, _CLIP_STD)
    return Parts(unet, vae, clip, scheduler, statistics)


def _needed(described: VideoNetworksDescription | None) -> VideoNetworksDescription:
    if described is None:
        raise ModelError(
            "there is neither a folder of weights to start from nor a description of networks to make. Pass a folder "
            "in the layout of Stable Video Diffusion (vae, unet, image_encoder, scheduler, feature_extractor), or add "
            "'networks' to the recipe's settings."
        )
    return described


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
