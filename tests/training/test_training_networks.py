"""Networks from a description or a folder, the U-Net on several clips, the groups of its parameters, and DINO."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from ncbench.errors import CardError, ModelError
from ncbench.models.adapters.normalcrafter_unet import OneStep, PerFrameUNet
from ncbench.models.adapters.normalcrafter_weights import load_networks
from ncbench.models.base import Runtime
from ncbench.training.descriptions import VideoNetworksDescription
from ncbench.training.networks import (
    make_unet,
    make_vae,
    read_networks,
    save_networks,
    shrink_of,
)
from ncbench.training.semantic import SemanticRegularizer, SemanticSettings, channels_of, load_dino
from ncbench.training.unet_groups import GROUPS, block_of, group_of, is_reached, let_learn

TINY = VideoNetworksDescription.parse(
    {
        "unet": {"channels": [64, 128], "heads": [2, 4], "layers": 1, "time_embedding": 8},
        "vae": {"channels": [32, 32, 32], "layers": 1},
        "image_encoder": {"hidden": 16, "layers": 1, "heads": 2, "patch": 56, "token": 16},
    },
    "tiny",
)
SVD_XT = VideoNetworksDescription()


@pytest.fixture(scope="module")
def svd() -> UNetSpatioTemporalConditionModel:
    """The U-Net of Stable Video Diffusion XT, without memory for its parameters."""
    with torch.device("meta"):
        network = make_unet(SVD_XT, 4, 0)
    return network.to("meta")  # diffusers makes a few on the CPU in any case


@pytest.fixture(scope="module")
def unet() -> UNetSpatioTemporalConditionModel:
    network = make_unet(TINY, 4, 0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("mix_factor"):
                parameter.normal_()  # 0.5 everywhere hides mixed-up blocks
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("networks")
    save_networks(read_networks(None, TINY, 0), where)
    return where


def told(frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    latents = torch.randn(frames, 8, 8, 12, generator=drawn)
    return (
        latents,
        torch.randn(frames, generator=drawn),
        torch.randn(frames, 1, 16, generator=drawn),
        torch.tensor([7.0, 127.0, 0.0]),
    )


# ---- the U-Net


def test_several_clips_with_one_token_each_equal_diffusers_own(unet: UNetSpatioTemporalConditionModel) -> None:
    latents, noise, tokens, ids = told(6)
    network, divided = make_copy(unet), latents.unflatten(0, (2, 3))
    with torch.no_grad():
        expected = network(divided, noise[:2], tokens[:2], ids.expand(2, -1), return_dict=False)[0].flatten(0, 1)
        each = (noise[:2].repeat_interleave(3), tokens[:2].repeat_interleave(3, dim=0))
        found = PerFrameUNet(make_copy(unet))(latents, *each, ids, clips=2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_several_clips_equal_each_by_itself(unet: UNetSpatioTemporalConditionModel) -> None:
    latents, noise, tokens, ids = told(6)
    alone = PerFrameUNet(unet)
    with torch.no_grad():
        noise = noise[:2].repeat_interleave(3)
        expected = [alone(latents[part], noise[part][:1], tokens[part], ids) for part in (slice(0, 3), slice(3, 6))]
        found = PerFrameUNet(make_copy(unet))(latents, noise, tokens, ids, clips=2)
        joined = PerFrameUNet(make_copy(unet))(latents, noise, tokens, ids, clips=1)
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-5)
    assert (joined - found).abs().max() > 1e-3  # the division matters


def make_copy(unet: UNetSpatioTemporalConditionModel) -> UNetSpatioTemporalConditionModel:
    copy = UNetSpatioTemporalConditionModel.from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    return copy.eval()


def test_unreached_parameters_are_those_without_a_gradient_in_diffusers_own_forward_pass(
    unet: UNetSpatioTemporalConditionModel,
) -> None:
    network = make_copy(unet).double()
    latents, noise, tokens, ids = told(3)
    answer = network(latents[None].double(), noise[:1], tokens[:1].double(), ids[None], return_dict=False)[0]
    answer.square().sum().backward()
    for name, parameter in network.named_parameters():
        largest = 0.0 if parameter.grad is None else parameter.grad.abs().max().item()
        assert (largest > 1e-9) == is_reached(name), (name, largest)


SNAPSHOT = {
    # reviewed: what of a block belongs to which group
    "conv_in.weight": "in_out",
    "time_embedding.linear_1.weight": "embeddings",
    "add_embedding.linear_2.bias": "embeddings",
    "down_blocks.0.attentions.0.norm.weight": "spatial",
    "down_blocks.0.attentions.0.proj_in.weight": "spatial",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": "spatial",
    "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2.bias": "spatial",
    "down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_q.weight": "temporal",
    "down_blocks.0.attentions.0.temporal_transformer_blocks.0.ff_in.net.0.proj.weight": "temporal",
    "down_blocks.0.attentions.0.temporal_transformer_blocks.0.norm_in.weight": "temporal",
    "down_blocks.0.attentions.0.time_pos_embed.linear_1.weight": "temporal",
    "down_blocks.0.attentions.0.time_mixer.mix_factor": "mixers",
    "down_blocks.0.attentions.0.proj_out.weight": "spatial",
    "down_blocks.0.resnets.0.spatial_res_block.conv1.weight": "spatial",
    "down_blocks.0.resnets.0.spatial_res_block.time_emb_proj.weight": "spatial",
    "down_blocks.0.resnets.0.temporal_res_block.conv1.weight": "temporal",
    "down_blocks.0.resnets.0.time_mixer.mix_factor": "mixers",
    "down_blocks.0.downsamplers.0.conv.weight": "spatial",
    "mid_block.resnets.0.spatial_res_block.norm1.weight": "spatial",
    "up_blocks.0.upsamplers.0.conv.weight": "spatial",
    "up_blocks.1.resnets.0.spatial_res_block.conv_shortcut.weight": "spatial",
    "conv_norm_out.weight": "in_out",
    "conv_out.bias": "in_out",
}


def test_groups_of_parameters(unet: UNetSpatioTemporalConditionModel) -> None:
    names = dict(unet.named_parameters())
    assert {name: group_of(name) for name in SNAPSHOT if name in names} == SNAPSHOT


def test_groups_of_the_published_unet(svd: UNetSpatioTemporalConditionModel) -> None:
    counts: Counter[str] = Counter()
    for name, parameter in svd.named_parameters():
        group = group_of(name)
        counts[group] += parameter.numel()
        temporal = any(f".{part}" in name for part in ("temporal_", "time_pos_embed", "time_mixer"))
        assert temporal == (group in ("temporal", "mixers")), name
        assert (group == "spatial") == (
            not temporal and name.startswith(("down_blocks.", "mid_block.", "up_blocks."))
        ), name
    assert set(counts) == set(GROUPS)
    assert sum(counts.values()) == 1_524_623_082  # the published U-Net: 3.05 GB in half precision
    assert counts["mixers"] == sum(name.endswith("mix_factor") for name, _ in svd.named_parameters())


def test_groups_that_learn(svd: UNetSpatioTemporalConditionModel) -> None:
    let_learn(svd, ("spatial", "in_out"))
    learning = {name for name, parameter in svd.named_parameters() if parameter.requires_grad}
    assert {group_of(name) for name in learning} == {"spatial", "in_out"}
    assert not any(".norm2." in name and "resnets" not in name for name in learning)
    let_learn(svd, GROUPS)
    frozen = [name for name, parameter in svd.named_parameters() if not parameter.requires_grad]
    # 32 transformers, a spatial and a temporal block each, of whose norm2 (weight, bias), to_q and to_k nothing depends
    blocks = sum(name.endswith("attn2.to_q.weight") for name, _ in svd.named_parameters())
    assert blocks == 32
    assert len(frozen) == 4 * blocks


# ---- semantic regularization


@pytest.mark.parametrize(
    ("block", "channels", "stride"),
    [
        ("down1", 640, 4),
        ("down2", 1280, 8),
        ("down3", 1280, 8),
        ("mid", 1280, 8),
        ("up0", 1280, 4),
        ("up1", 1280, 2),
        ("up2", 640, 1),
    ],
)
def test_features_of_the_published_unet(
    svd: UNetSpatioTemporalConditionModel, block: str, channels: int, stride: int
) -> None:
    """At 576 x 768: 36 x 48 cells of 1280 channels behind block up1, the cells of a ViT with patches of 16 pixels."""
    seen: list[Any] = []
    hook = block_of(svd, block).register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.device("meta"):
        svd(torch.empty(1, 2, 8, 72, 96), torch.empty(1), torch.empty(1, 1, 1024), torch.empty(1, 3))
    hook.remove()
    features = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    assert features.shape == (2, channels, 72 // stride, 96 // stride)
    assert channels_of(svd, block) == channels


def semantic(unet: UNetSpatioTemporalConditionModel, **changes: Any) -> SemanticRegularizer:
    values = {"random": {"hidden": 24, "patch": 4}, "hidden": 32, **changes}
    return SemanticRegularizer.attach(SemanticSettings.parse(values, "semantic"), unet, None, 0)


@pytest.mark.parametrize("block", ["down1", "mid", "up0", "up1"])
def test_loss_is_minus_the_mean_cosine_and_teaches_unet_and_perceptron_alone(
    unet: UNetSpatioTemporalConditionModel, block: str
) -> None:
    network = make_copy(unet)
    made = semantic(network, block=block)
    let_learn(network, GROUPS)
    latents, noise, tokens, ids = told(2)
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    PerFrameUNet(network)(latents, noise, tokens, ids, clips=1)
    features = made._features
    loss = made(images)
    height, width = features.shape[-2:]
    cosines = [
        torch.nn.functional.cosine_similarity(
            made.mlp(features[n, :, i, j]), made.look(images, height, width)[n, i, j], dim=0
        )
        for n in range(2)
        for i in range(height)
        for j in range(width)
    ]
    assert loss.item() == pytest.approx(-torch.stack(cosines).mean().item(), rel=1e-4)
    loss.backward()
    assert all(p.grad is not None for p in made.mlp.parameters())
    assert not any(p.requires_grad for p in made.dino.parameters())
    reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert "conv_in.weight" in reached
    assert "conv_out.weight" not in reached
    with pytest.raises(RuntimeError, match="U-Net has to run first"):
        made(images)


def vit(**changes: Any) -> ViTConfig:
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    return ViTConfig(**{**sizes, "image_size": 32, "patch_size": 8, **changes})


def test_dino_sees_imagenets_statistics_at_one_patch_a_cell(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = ViTModel(vit(), add_pooling_layer=False).eval()
    reference.save_pretrained(tmp_path)
    made = SemanticRegularizer(SemanticSettings(dino=tmp_path), load_dino(SemanticSettings(dino=tmp_path), 0), 8, 0)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = reference((pixels - mean[:, None, None]) / std[:, None, None]).last_hidden_state[:, 1:]
    torch.testing.assert_close(made.look(pixels * 2 - 1, 4, 4), expected.reshape(2, 4, 4, 24), rtol=1e-4, atol=1e-5)
    # another grid: the picture is resized, the positions are interpolated
    assert made.look(pixels * 2 - 1, 3, 7).shape == (2, 3, 7, 24)


@pytest.mark.parametrize("kind", ["vit.safetensors", "vit.bin", "vit with a head", "dinov2"])
def test_dino_opens_published_layouts(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    if kind == "dinov2":
        reference = Dinov2Model(
            Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
        )
    else:
        reference = ViTModel(vit(), add_pooling_layer="head" in kind)
    reference.save_pretrained(tmp_path)
    if kind == "vit.bin":
        tensors = load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    found = load_dino(SemanticSettings(dino=tmp_path), 0)
    stored = reference.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in found.state_dict().items())
    assert not found.training


def test_dino_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json: cannot be read"):
        load_dino(SemanticSettings(dino=tmp_path / "none"), 0)
    ViTModel(vit(), add_pooling_layer=False).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"hidden_size": 48}))
    with pytest.raises(ModelError, match="another shape"):
        load_dino(SemanticSettings(dino=tmp_path), 0)
    config.write_text(json.dumps(values | {"model_type": "bert"}))
    with pytest.raises(ModelError, match="expected model_type vit or dinov2, found 'bert'"):
        load_dino(SemanticSettings(dino=tmp_path), 0)
    config.write_text(json.dumps(values))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        load_dino(SemanticSettings(dino=tmp_path), 0)
    with pytest.raises(ModelError, match=r"Set semantic\.dino"):
        load_dino(SemanticSettings(), 0)


def test_block_that_a_small_unet_lacks(unet: UNetSpatioTemporalConditionModel) -> None:
    with pytest.raises(ModelError, match=r"semantic\.block is 'up2', which a U-Net of 2 levels does not have"):
        semantic(unet, block="up2")


# ---- folders


def test_saved_networks_open_in_diffusers_and_in_the_adapter(folder: Path) -> None:
    parts = read_networks(None, TINY, 0)
    opened = read_networks(folder, None, 1)
    for kind, mine, again in (
        (UNetSpatioTemporalConditionModel, parts.unet, opened.unet),
        (AutoencoderKLTemporalDecoder, parts.vae, opened.vae),
    ):
        name = "unet" if kind is UNetSpatioTemporalConditionModel else "vae"
        theirs = kind.from_pretrained(folder / name).state_dict()
        for key, value in mine.state_dict().items():
            assert torch.equal(value, theirs[key])
            assert torch.equal(value, again.state_dict()[key])
    pipeline = StableVideoDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert torch.equal(pipeline.unet.conv_in.weight, parts.unet.conv_in.weight)
    assert torch.equal(pipeline.vae.encoder.conv_in.weight, parts.vae.encoder.conv_in.weight)
    extractor = pipeline.feature_extractor
    assert (list(extractor.image_mean), list(extractor.image_std)) == parts.image_statistics
    adapter = load_networks(Runtime(weights=folder))
    assert adapter.step == OneStep.of(parts.scheduler)
    assert adapter.step.sigma == 700
    assert adapter.step.timestep == pytest.approx(0.25 * math.log(700), rel=1e-6)
    assert (adapter.image_mean, adapter.image_std) == parts.image_statistics
    assert shrink_of(parts.vae, parts.unet) == 8


def test_weights_depend_on_the_seed_alone() -> None:
    state = torch.get_rng_state()
    first, second, other = make_vae(TINY.vae, 0), make_vae(TINY.vae, 0), make_vae(TINY.vae, 1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.encoder.conv_in.weight, second.encoder.conv_in.weight)
    assert not torch.equal(first.encoder.conv_in.weight, other.encoder.conv_in.weight)


def test_published_sizes_are_those_of_the_description() -> None:
    with torch.device("meta"):
        vae = make_vae(SVD_XT.vae, 0)
    assert sum(p.numel() for p in vae.parameters()) == 97_742_847  # 196 MB in half precision
    assert shrink_of(vae) == 8


def damaged(folder: Path, where: Path) -> Path:
    return Path(shutil.copytree(folder, where / "copy"))


def test_wrong_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a folder of weights to start from nor a description"):
        read_networks(None, None, 0)
    with pytest.raises(ModelError, match=str(tmp_path / "nothing" / "vae")):
        read_networks(tmp_path / "nothing", TINY, 0)
    copy = damaged(folder, tmp_path)
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file({name: value for name, value in tensors.items() if name != "conv_in.weight"}, path)
    with pytest.raises(ModelError, match=f"{copy / 'unet'}.*conv_in.weight"):
        read_networks(copy, None, 0)
    shutil.rmtree(copy / "unet")
    with pytest.raises(ModelError, match=str(copy / "unet")):
        read_networks(copy, None, 0)
    wide = TINY.model_copy(update={"image_encoder": TINY.image_encoder.model_copy(update={"token": 24})})
    with pytest.raises(
        ModelError, match=r"do not belong together.*size of a CLIP embedding: expected 16, found 24.*Change 'networks'"
    ):
        read_networks(copy, wide, 0)


@pytest.mark.parametrize(
    "missing", ["unet", "vae", "image_encoder", "scheduler/scheduler_config.json", "feature_extractor"]
)
def test_a_part_that_is_neither_there_nor_described_is_named(folder: Path, tmp_path: Path, missing: str) -> None:
    copy = damaged(folder, tmp_path)
    (copy / missing).rename(tmp_path / "away")
    with pytest.raises(ModelError, match=str(copy / missing)):
        read_networks(copy, None, 0)


def test_networks_are_frozen_and_in_full_precision_whatever_they_are_stored_in(folder: Path, tmp_path: Path) -> None:
    copy = damaged(folder, tmp_path)
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    half = {name: value.half() for name, value in load_file(path).items()}
    path.unlink()
    save_file(half, copy / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    for described in (None, TINY):
        parts = read_networks(copy, described, 0)
        for network in (parts.unet, parts.vae, parts.image_encoder):
            assert not network.training
            for parameter in network.parameters():
                assert (parameter.dtype, parameter.requires_grad) == (torch.float32, False)
        stored = parts.unet.state_dict()
        assert all(torch.equal(value.float(), stored[name]) for name, value in half.items())


def test_parts_that_are_not_there_are_made_as_described(folder: Path, tmp_path: Path) -> None:
    copy = damaged(folder, tmp_path)
    for name in ("unet", "scheduler", "feature_extractor"):
        shutil.rmtree(copy / name)
    opened, whole = read_networks(copy, TINY, 5), read_networks(folder, None, 0)
    stored = whole.image_encoder.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in opened.image_encoder.state_dict().items())
    assert not torch.equal(opened.unet.conv_in.weight, whole.unet.conv_in.weight)
    assert opened.scheduler.config["sigma_max"] == 700


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unet": {"channels": [20]}}, "multiples of 32"),
        ({"unet": {"channels": [32, 64], "heads": [2]}}, "need as many heads"),
        ({"unet": {"channels": [32], "heads": [5]}}, "multiples of heads"),
        ({"vae": {"channels": []}}, "at least one level"),
        ({"vae": {"chanels": [32]}}, "Did you mean 'channels'"),
    ],
)
def test_descriptions_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CardError, match=message):
        VideoNetworksDescription.parse(values, "here")
