"""NormalCrafter's networks for training: from the published layout or from a description, and back to that layout."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from pydantic import Field, model_validator
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ncbench.errors import ModelError
from ncbench.models.adapters.hub_layout import (
    ADVICE,
    clip_statistics,
    diffusers_network,
    no_progress_bar,
    read_config,
    transformers_network,
)
from ncbench.models.adapters.normalcrafter_conditioning import CLIP_SIDE
from ncbench.models.adapters.normalcrafter_weights import Parts
from ncbench.settings import Settings

# of CLIP's published feature extractor
_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
_GROUP = 32  # diffusers normalizes in 32 groups of channels, whatever their number
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


def _check_channels(channels: tuple[int, ...]) -> None:
    if not channels or any(count <= 0 or count % _GROUP for count in channels):
        raise ValueError(f"channels must be multiples of {_GROUP}, at least one level, found {channels}")


class UNetDescription(Settings):
    """A U-Net of Stable Video Diffusion's kind; the defaults are its XT's.

    The lowest level has no attention, as published, unless it is the only one. Channels are normalized in 32 groups: a
    level of 32 channels loses whatever is constant over a picture, and with it the noise level that it is told.

    Attributes:
        channels: Of each level, multiples of 32.
        heads: Of each level's attention.
        layers: Residual blocks to a level.
        time_embedding: Channels of each time id's embedding.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    heads: tuple[int, ...] = (5, 10, 20, 20)
    layers: int = Field(2, ge=1)
    time_embedding: int = Field(256, ge=2)

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        _check_channels(self.channels)
        if len(self.heads) != len(self.channels):
            raise ValueError(f"{len(self.channels)} levels of channels need as many heads, found {self.heads}")
        uneven = [pair for pair in zip(self.channels, self.heads, strict=True) if pair[0] % pair[1]]
        if uneven:
            raise ValueError(f"channels must be multiples of heads, found (channels, heads) {uneven}")
        return self


class VAEDescription(Settings):
    """An autoencoder of Stable Video Diffusion's kind; the defaults are its own.

    Attributes:
        channels: Of each level, multiples of 32; n levels make latents 2^(n - 1) times smaller.
        layers: Residual blocks to a level.
        latent_channels: Of the latents.
        scaling_factor: What brings latents to unit variance; `AutoencoderStage` measures it.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = Field(2, ge=1)
    latent_channels: int = Field(4, ge=1)
    scaling_factor: float = Field(0.18215, gt=0)

    @model_validator(mode="after")
    def _channels_fit(self) -> Self:
        _check_channels(self.channels)
        return self


class ImageEncoderDescription(Settings):
    """A CLIP image encoder; the defaults are those of the one in Stable Video Diffusion (ViT-H/14).

    Attributes:
        hidden: Channels.
        layers: Transformer layers.
        heads: Of each layer.
        patch: Side of a patch of the 224 x 224 pixels.
        token: Size of the embedding that the U-Net is told.
    """

    hidden: int = Field(1280, ge=2)
    layers: int = Field(32, ge=1)
    heads: int = Field(16, ge=1)
    patch: int = Field(14, ge=1, le=CLIP_SIDE)
    token: int = Field(1024, ge=2)


class VideoNetworksDescription(Settings):
    """Networks to be made with random weights, for parts that the folder to start from does not hold.

    Attributes:
        unet: The U-Net.
        vae: The autoencoder.
        image_encoder: CLIP's; with random weights it still tells pictures apart.
    """

    unet: UNetDescription = UNetDescription()
    vae: VAEDescription = VAEDescription()
    image_encoder: ImageEncoderDescription = ImageEncoderDescription()


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
    vae = read_vae(init, described, seed)
    path = _stored(init, "unet", described)
    if path:
        unet = diffusers_network(UNetSpatioTemporalConditionModel, path, torch.float32)
    else:
        unet = make_unet(_needed(described), int(vae.config["latent_channels"]), seed)
    path = _stored(init, "image_encoder", described)
    if path:
        clip = transformers_network(CLIPVisionModelWithProjection, path, torch.float32)
    else:
        clip = make_image_encoder(_needed(described).image_encoder, seed)
    scheduler, statistics = _scheduler(init), _clip_statistics(init)
    parts = Parts(unet, vae, clip, scheduler, statistics)
    _check_fit(str(init or "the described networks"), parts)
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


def _stored(init: Path | None, name: str, described: VideoNetworksDescription | None) -> Path | None:
    """Say where a part is read from; None where it is to be made."""
    return init / name if init is not None and (described is None or (init / name).is_dir()) else None


def _needed(described: VideoNetworksDescription | None) -> VideoNetworksDescription:
    if described is None:
        raise ModelError(
            "there is neither a folder of weights to start from nor a description of networks to make. Pass a folder "
            "in the layout of Stable Video Diffusion (vae, unet, image_encoder, scheduler, feature_extractor), or add "
            "'networks' to the recipe's settings."
        )
    return described


def _scheduler(init: Path | None) -> EulerDiscreteScheduler:
    make: Any = EulerDiscreteScheduler.from_config  # has no types
    path = None if init is None else init / "scheduler" / "scheduler_config.json"
    config = _SCHEDULER if path is None or not path.exists() else read_config(path)
    try:
        scheduler: EulerDiscreteScheduler = make(config)
    except Exception as error:  # diffusers raises whatever a wrong value leads to
        raise ModelError(f"{path}: describes no EulerDiscreteScheduler ({error}). {ADVICE}") from error
    return scheduler


def _clip_statistics(init: Path | None) -> tuple[list[float], list[float]]:
    path = None if init is None else init / "feature_extractor" / "preprocessor_config.json"
    if path is None or not path.exists():
        return _CLIP_MEAN, _CLIP_STD
    return clip_statistics(path)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _check_fit(where: str, parts: Parts) -> None:
    """Refuse networks that are sound each by itself, and do not belong together."""
    unet, vae, clip = parts.unet.config, parts.vae.config, parts.image_encoder.config
    checks = {
        "U-Net input channels, twice the VAE's latents": (unet["in_channels"], 2 * vae["latent_channels"]),
        "U-Net output channels": (unet["out_channels"], vae["latent_channels"]),
        "U-Net cross-attention, the size of a CLIP embedding": (unet["cross_attention_dim"], clip.projection_dim),
        "scheduler's prediction_type": (parts.scheduler.config["prediction_type"], "v_prediction"),
        "remainder of 64, the adapter's padding, by the networks' downscaling": (
            math.remainder(64, shrink_of(parts.vae, parts.unet)),
            0,
        ),
    }
    problems = [f"{name}: expected {right}, found {left}" for name, (left, right) in checks.items() if left != right]
    if problems:
        raise ModelError(f"{where}: these networks do not belong together; {'; '.join(problems)}.")
