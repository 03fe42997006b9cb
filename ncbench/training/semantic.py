"""Semantic feature regularization: an intermediate feature of the U-Net is taught to say what DINO sees.

NormalCrafter, section 3.2 and equation 4: L_reg = - mean over patches of cos(DINO(image), MLP(feature)). DINO is
frozen; the perceptron learns with the U-Net, is saved beside it, and is not part of the finished model. Features are
never resampled: the image is resized so that DINO has one patch for each of the U-Net's cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from pydantic import Field
from safetensors.torch import save_file
from torch.nn import functional
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from ncbench.errors import ModelError
from ncbench.models.adapters.hub_layout import ADVICE, no_progress_bar, read_config
from ncbench.models.weights import fill, read_tensors, require_complete
from ncbench.settings import Settings
from ncbench.training.networks import drawn_from
from ncbench.training.unet_groups import block_of

Block = Literal["down1", "down2", "down3", "mid", "up0", "up1", "up2"]
_FILE = Path("semantic") / "mlp.safetensors"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which DINO was trained with


class RandomViT(Settings):
    """A vision transformer with random weights, to try a recipe out without a download.

    Attributes:
        hidden: Channels.
        layers: Transformer layers.
        heads: Of each layer.
        patch: Side of a patch, pixels.
    """

    hidden: int = Field(32, ge=2)
    layers: int = Field(1, ge=1)
    heads: int = Field(2, ge=1)
    patch: int = Field(8, ge=1)


class SemanticSettings(Settings):
    """What the features are compared with, and how.

    Attributes:
        dino: Folder with a vision transformer in transformers' layout: ``config.json`` (model_type ``vit``, as
            facebook/dino-vitb16 and dino-vitb8, or ``dinov2``) and ``model.safetensors`` or ``pytorch_model.bin``. The
            paper cites DINO of 2021 and names neither size nor patch; ViT-B/16 is that paper's strongest with 16-pixel
            patches, which fit block ``up1`` without resizing.
        random: A transformer with random weights, where ``dino`` is not set.
        block: Whose features; ``up1`` is the paper's choice (table 3). ``down<i>`` and ``up<i>`` are diffusers'
            ``down_blocks[i]`` and ``up_blocks[i]``, after their down- or upsampler; ``mid`` is its ``mid_block``.
        hidden: Width of the perceptron's two inner layers. Not published; 2048 and SiLU are REPA's (Yu et al., 2025),
            which aligns features with DINO in the same way.
        weight: Factor of the loss. Not published, where the sum is written without one.
        start: Whether the perceptron goes on from the one in the folder to start from, where there is one.
    """

    dino: Path | None = None
    random: RandomViT | None = None
    block: Block = "up1"
    hidden: int = Field(2048, ge=1)
    weight: float = Field(1.0, ge=0)
    start: Literal["continue", "new"] = "continue"


class SemanticRegularizer(torch.nn.Module):
    """DINO, the perceptron, and the hook that takes the features.

    Args:
        settings: See there.
        dino: The frozen transformer.
        channels: Of the block's features.
        seed: Of the perceptron's weights.
    """

    def __init__(self, settings: SemanticSettings, dino: ViTModel | Dinov2Model, channels: int, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.dino = dino
        patch: Any = dino.config.patch_size  # transformers' types allow sides of their own
        self.patch = int(patch)
        with drawn_from(seed + 3):
            self.mlp = torch.nn.Sequential(
                torch.nn.Linear(channels, settings.hidden),
                torch.nn.SiLU(),
                torch.nn.Linear(settings.hidden, settings.hidden),
                torch.nn.SiLU(),
                torch.nn.Linear(settings.hidden, int(dino.config.hidden_size)),
            )
        self._features: torch.Tensor | None = None

    @classmethod
    def attach(
        cls, settings: SemanticSettings, network: UNetSpatioTemporalConditionModel, init: Path | None, seed: int
    ) -> Self:
        """Load DINO, make or load the perceptron, and hook the U-Net's block.

        Args:
            settings: See there.
            network: The U-Net.
            init: Folder to start from; ``semantic/mlp.safetensors`` in it is the perceptron to go on with.
            seed: Of new weights.

        Returns:
            The regularizer, which from now on sees the features of every pass.

        Raises:
            ModelError: DINO or the perceptron cannot be read, or the U-Net has no such block.
        """
        try:
            block = block_of(network, settings.block)
        except KeyError as error:
            raise ModelError(
                f"semantic.block is '{settings.block}', which a U-Net of {len(network.config['block_out_channels'])} "
                "levels does not have. Choose 'mid' or a lower number."
            ) from error
        made = cls(settings, load_dino(settings, seed), channels_of(network, settings.block), seed)
        if init is not None and settings.start == "continue" and (init / _FILE).is_file():
            fill(made.mlp, read_tensors(init / _FILE), init / _FILE)
        block.register_forward_hook(made._take)
        return made

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the loss for the features of the U-Net's latest pass.

        Args:
            images: (N, 3, H, W) in -1..1, what that pass was told of.

        Returns:
            Scalar in -1..1: minus the mean cosine; the weight is the caller's.
        """
        features, self._features = self._features, None
        if features is None:
            raise RuntimeError("the U-Net has to run first: its features are taken on the way")
        height, width = features.shape[-2:]
        seen = self.look(images, height, width)
        weight: torch.Tensor = next(self.mlp.parameters())
        said = self.mlp(features.permute(0, 2, 3, 1).to(weight.dtype))
        return -functional.cosine_similarity(said.float(), seen.float(), dim=-1).mean()

    @torch.no_grad()
    def look(self, images: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Compute DINO's features, one patch for each cell.

        Args:
            images: (N, 3, H, W) in -1..1.
            height: Cells.
            width: Cells.

        Returns:
            (N, height, width, D), of the last layer, normalized as DINO's own heads see them.
        """
        size = (height * self.patch, width * self.patch)
        if tuple(images.shape[-2:]) != size:
            images = functional.interpolate(images.float(), size, mode="bicubic", antialias=True)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
        pixels = ((images + 1) / 2 - mean) / std
        weight: torch.Tensor = next(self.dino.parameters())
        told = {"interpolate_pos_encoding": True} if isinstance(self.dino, ViTModel) else {}
        found: torch.Tensor = self.dino(pixels.to(weight.dtype), **told).last_hidden_state
        return found[:, -height * width :].reshape(len(images), height, width, -1)  # behind the class token

    def save(self, folder: Path) -> None:
        """Write the perceptron, apart from the networks that a finished model needs.

        Args:
            folder: Of the whole stage.
        """
        path = folder / _FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.mlp.state_dict().items()}, path)

    def train(self, mode: bool = True) -> Self:
        """Keep DINO in evaluation mode whatever the perceptron is in."""
        super().train(mode)
        torch.nn.Module.eval(self.dino)
        return self

    def _take(self, _: torch.nn.Module, __: Any, output: Any) -> None:  # noqa: ANN401 - what a block answers
        self._features = output[0] if isinstance(output, tuple) else output


def channels_of(network: UNetSpatioTemporalConditionModel, block: str) -> int:
    """Say how many channels the features of a block have.

    Args:
        network: The U-Net.
        block: As ``block_of`` takes it.

    Returns:
        Channels.
    """
    channels = list(network.config["block_out_channels"])
    if block == "mid":
        return int(channels[-1])
    level = int(block[-1])
    return int(channels[level] if block.startswith("down") else channels[::-1][level])


def dino_files(settings: SemanticSettings) -> list[Path]:
    """Find the files of the frozen transformer.

    Args:
        settings: Names the folder.

    Returns:
        Its configuration and its weights; nothing where no folder is named.

    Raises:
        ModelError: One of them is not there, or the configuration cannot be read.
    """
    if settings.dino is None:
        return []
    config = settings.dino / "config.json"
    read_config(config)
    names = ("model.safetensors", "pytorch_model.bin")
    path = next((settings.dino / name for name in names if (settings.dino / name).is_file()), None)
    if path is None:
        raise ModelError(f"{settings.dino}: expected {' or '.join(names)}, and neither is there. {ADVICE}")
    return [config, path]


def load_dino(settings: SemanticSettings, seed: int) -> ViTModel | Dinov2Model:
    """Load the frozen transformer.

    Args:
        settings: Names the folder, or describes random weights.
        seed: Of random weights.

    Returns:
        It, in evaluation mode and without gradients, on the CPU in float32.

    Raises:
        ModelError: The folder cannot be read as one, or neither is set.
    """
    if settings.dino is None:
        if settings.random is None:
            raise ModelError(
                "semantic regularization needs DINO. Set semantic.dino to a folder with facebook/dino-vitb16 "
                "(config.json and model.safetensors or pytorch_model.bin), or leave 'semantic' out of the recipe's "
                "settings."
            )
        return _random_vit(settings.random, seed)
    about, path = dino_files(settings)
    values = read_config(about)
    kinds: dict[str, tuple[Any, Any]] = {"vit": (ViTModel, ViTConfig), "dinov2": (Dinov2Model, Dinov2Config)}
    if values.get("model_type") not in kinds:
        raise ModelError(
            f"{about}: expected model_type {' or '.join(kinds)}, found {values.get('model_type')!r}. {ADVICE}"
        )
    kind, config = kinds[values["model_type"]]
    tensors = {name: value for name, value in read_tensors(path).items() if not name.startswith("pooler.")}
    try:
        with no_progress_bar():
            network, info = kind.from_pretrained(
                None,
                config=config.from_dict(values),
                state_dict=tensors,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
                **({"add_pooling_layer": False} if kind is ViTModel else {}),  # a head that DINO does not have
            )
    except Exception as error:  # transformers raises whatever a wrong value leads to
        raise ModelError(f"{settings.dino}: cannot be read as a {kind.__name__} ({error}). {ADVICE}") from error
    require_complete(info, path)
    dino: ViTModel | Dinov2Model = network.eval().requires_grad_(requires_grad=False)
    return dino


def _random_vit(described: RandomViT, seed: int) -> ViTModel:
    config = ViTConfig(
        hidden_size=described.hidden,
        num_hidden_layers=described.layers,
        num_attention_heads=described.heads,
        intermediate_size=4 * described.hidden,
        patch_size=described.patch,
        image_size=8 * described.patch,
    )
    with drawn_from(seed + 4):
        network = ViTModel(config, add_pooling_layer=False)
    network.requires_grad_(requires_grad=False)
    torch.nn.Module.eval(network)
    return network
