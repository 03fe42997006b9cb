"""The stages of NormalCrafter and of the image model, from scratch through to what the adapters predict."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from ncbench.errors import CardError, ModelError
from ncbench.models.adapters.marigold import EndToEnd
from ncbench.models.adapters.normalcrafter import NormalCrafter
from ncbench.models.base import Clip, Runtime
from ncbench.training.autoencoder_stage import AutoencoderStage
from ncbench.training.image_stage import ImageE2EStage
from ncbench.training.latent_stage import LatentStage
from ncbench.training.losses import denoising_loss
from ncbench.training.pixel_stage import PixelStage
from ncbench.training.stage import Stage
from ncbench.training.unet_groups import group_of, is_reached
from ncbench.training.vae_decoder_stage import DecoderStage

NETWORKS = {
    "unet": {"channels": [64, 64], "heads": [2, 2], "layers": 1, "time_embedding": 8},
    "vae": {"channels": [32, 32], "layers": 1},
    "image_encoder": {"hidden": 16, "layers": 1, "heads": 2, "patch": 56, "token": 16},
}
SEMANTIC = {"random": {"hidden": 24, "patch": 4}, "hidden": 32}
VIDEO = {"networks": NETWORKS, "gradient_checkpointing": False}


def make_batch(clips: int, frames: int, height: int, width: int, seed: int = 0) -> dict[str, Any]:
    drawn = torch.Generator().manual_seed(seed)
    shape = (clips, frames, 3, height, width)
    normal = torch.nn.functional.normalize(torch.randn(shape, generator=drawn), dim=2)
    valid = torch.rand(clips, frames, height, width, generator=drawn) > 0.1
    valid[:, :, : height // 2] = True
    image = torch.randint(0, 256, shape, generator=drawn) / 127.5 - 1
    return {"image": image, "normal": torch.where(valid[:, :, None], normal, 0), "valid": valid}


def cost(stage: Stage, batch: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    return stage(batch, torch.Generator().manual_seed(seed))


def gradients(stage: Stage, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    stage.zero_grad()
    cost(stage, batch)["loss"].backward()
    return {name: p.grad.clone() for name, p in stage.trainable().items()}


def loaded(kind: type[Stage], settings: dict[str, Any], init: Path | None = None) -> Any:
    stage = kind(settings)
    stage.load(init, 0)
    return stage.train()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of the whole layout, whose decoder answers well within -1..1."""
    where = tmp_path_factory.mktemp("latent")
    loaded(LatentStage, {**VIDEO, "semantic": SEMANTIC}).save(where)
    return where


BUILD: dict[str, Callable[[], Stage]] = {
    "autoencoder": lambda: loaded(AutoencoderStage, {"networks": NETWORKS}),
    "decoder": lambda: loaded(DecoderStage, {"networks": NETWORKS}),
    "latent": lambda: loaded(LatentStage, {**VIDEO, "semantic": SEMANTIC}),
    "pixel": lambda: loaded(PixelStage, {**VIDEO, "semantic": SEMANTIC}),
    "image": lambda: loaded(ImageE2EStage, {"networks": {}}),
}


# reviewed: what learns in each stage, by the first parts of the parameters' names
LEARNS = {
    "autoencoder": {"vae.encoder", "vae.decoder", "vae.quant_conv"},
    "decoder": {"vae.decoder"},
    "latent": {"unet.network", "semantic.mlp"},
    "pixel": {"unet.network", "semantic.mlp"},
    "image": {"unet"},
}


@pytest.mark.parametrize("name", sorted(BUILD))
def test_all_that_learns_has_a_gradient_and_nothing_else(name: str) -> None:
    stage = BUILD[name]()
    batch = make_batch(2, 2, 16, 24)
    torch.manual_seed(1)
    first = cost(stage, batch)
    torch.manual_seed(2)
    again = cost(stage, batch)
    assert {key: value.item() for key, value in first.items()} == {key: value.item() for key, value in again.items()}
    first["loss"].backward()
    assert [key for key, value in first.items() if value.requires_grad] == ["loss"]
    assert all(value.ndim == 0 and torch.isfinite(value) for value in first.values())
    learning = stage.trainable()
    depth = 1 if name == "image" else 2
    assert {".".join(key.split(".")[:depth]) for key in learning} == LEARNS[name]
    for key, parameter in stage.named_parameters():
        assert (parameter.grad is not None) == (key in learning), key
    if name in ("latent", "pixel"):
        wanted = {"spatial", "in_out"} if name == "pixel" else {"spatial", "in_out", "embeddings", "mixers", "temporal"}
        prefix = "unet.network."
        for key, _ in stage.unet.network.named_parameters():
            assert (prefix + key in learning) == (group_of(key) in wanted and is_reached(key))


@pytest.mark.parametrize("name", ["decoder", "latent", "pixel", "image"])
def test_normals_that_are_not_valid_change_nothing(name: str) -> None:
    stage = BUILD[name]()
    batch = make_batch(1, 2, 16, 24)
    spoilt = {**batch, "normal": torch.where(batch["valid"][:, :, None], batch["normal"], math.nan)}
    plain, again = gradients(stage, batch), gradients(stage, spoilt)
    assert all(torch.equal(value, again[key]) for key, value in plain.items())


@pytest.mark.parametrize("name", sorted(BUILD))
def test_a_step_against_the_gradient_lowers_the_loss(name: str) -> None:
    stage = BUILD[name]()
    batch = make_batch(1, 2, 16, 16)
    before = cost(stage, batch)["loss"].item()
    slope = gradients(stage, batch)
    size = 1e-3 / sum(value.square().sum() for value in slope.values()).sqrt()
    with torch.no_grad():
        for key, parameter in stage.trainable().items():
            parameter.sub_(size * slope[key])
    assert cost(stage, batch)["loss"].item() < before


def test_saved_stage_opens_as_it_was_and_the_next_goes_on_from_it(folder: Path, tmp_path: Path) -> None:
    stage = loaded(PixelStage, {"semantic": SEMANTIC}, folder)
    batch = make_batch(1, 2, 16, 24)
    before = cost(stage, batch)
    assert stage.semantic is not None
    reference = loaded(LatentStage, {"semantic": SEMANTIC}, folder)
    assert torch.equal(stage.semantic.mlp[0].weight, reference.semantic.mlp[0].weight)
    stage.save(tmp_path)
    again = cost(loaded(PixelStage, {"semantic": SEMANTIC}, tmp_path), batch)
    for key, value in before.items():
        assert again[key].item() == pytest.approx(value.item(), abs=2e-4), key
    assert (tmp_path / "semantic" / "mlp.safetensors").is_file()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"unet", "vae", "image_encoder", "scheduler", "feature_extractor", "semantic", "model_index.json"}


def test_validation_and_the_loss_see_what_the_adapter_answers(folder: Path) -> None:
    """One clip whose sides are multiples of 64, so that neither side pads."""
    batch = make_batch(1, 3, 64, 128)
    pixels = ((batch["image"][0] + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    adapter = NormalCrafter({})
    adapter.load(Runtime(weights=folder))
    expected = adapter.predict(Clip("video", (0, 1, 2), pixels))
    stage = loaded(PixelStage, {"decode_chunk": 7}, folder).eval()
    found = stage.predict(batch["image"][0]).permute(0, 2, 3, 1).numpy()
    assert np.abs(found - expected).mean() < 1e-5
    truth, valid = batch["normal"][0].permute(0, 2, 3, 1).numpy(), batch["valid"][0].numpy()
    angle = np.degrees(np.arccos(np.clip((expected * truth).sum(-1), -1, 1)))[valid].mean()
    assert cost(stage, batch)["angle"].item() == pytest.approx(angle, abs=1e-2)


def test_shorter_number_formats_leave_the_conditions_those_of_the_adapter(folder: Path) -> None:
    stage = loaded(PixelStage, {}, folder)
    images = make_batch(1, 2, 64, 64)["image"][0]
    conditions, clip, latents = stage.condition(images), [], []
    stage.image_encoder.register_forward_pre_hook(lambda _, args: clip.append(args[0]))
    stage.unet.network.conv_in.register_forward_pre_hook(lambda _, args: latents.append(args[0][:, 4:]))
    stage.condition(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = stage.condition(images)
        stage.predict(images)
    for pixels in clip[1:]:
        torch.testing.assert_close(pixels, clip[0], rtol=1e-5, atol=1e-5)
    assert len(clip) == 3
    for found in (again.latents, latents[0]):
        torch.testing.assert_close(found, conditions.latents, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["latent", "pixel", "image"])
def test_memory_savings_change_no_gradient(name: str) -> None:
    kind, settings = {
        "latent": (LatentStage, VIDEO),
        "pixel": (PixelStage, {**VIDEO, "decode_chunk": 1, "deferred": False}),
        "image": (ImageE2EStage, {"networks": {}, "deferred": False, "gradient_checkpointing": False}),
    }[name]
    batch = make_batch(2, 2, 16, 16)
    saving = {"gradient_checkpointing": True} | ({} if name == "latent" else {"deferred": True})
    saving |= {"decoder_checkpointing": True} if name == "pixel" else {}
    plain, found = gradients(loaded(kind, settings), batch), gradients(loaded(kind, {**settings, **saving}), batch)
    for key, value in plain.items():
        assert (value - found[key]).norm() <= 1e-4 * value.norm() + 1e-7, key


def test_denoising_of_perfect_latents_costs_nothing_and_noise_as_the_formula_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = loaded(LatentStage, {"share_at_max": 0.0, "valid_share": 0.0}, folder)
    batch = make_batch(2, 2, 16, 16)
    seen: dict[str, Any] = {}

    def denoise(noisy: torch.Tensor, sigma: torch.Tensor, *_: Any) -> torch.Tensor:
        seen.update(noisy=noisy, sigma=sigma)
        return seen.get("answer", noisy)

    monkeypatch.setattr(stage, "denoise", denoise)
    cost(stage, batch)
    sigma = seen["sigma"]
    assert sigma[0] == sigma[1]
    assert sigma[2] == sigma[3]
    assert sigma[0] != sigma[2]  # a level a clip
    with torch.no_grad():
        normals = batch["normal"].flatten(0, 1)
        clean = stage.vae.encode(normals).latent_dist.mode() * stage.vae.config["scaling_factor"]
    noise = (seen["noisy"] - clean) / sigma[:, None, None, None]
    assert 0.8 < noise.std().item() < 1.2
    # (1 + s^2) / s^2 * (s n)^2 of an answer that is the noisy input itself
    expected = ((1 + sigma[:, None, None, None] ** 2) * noise**2).mean()
    assert cost(stage, batch)["denoising"].item() == pytest.approx(expected.item(), rel=1e-3)
    seen["answer"] = clean
    assert cost(stage, batch)["denoising"].item() < 1e-6
    assert denoising_loss(clean, clean, sigma, torch.ones(4, 8, 8).bool()).item() == 0


def test_latents_at_the_highest_level_may_be_zero_as_in_inference(folder: Path) -> None:
    stage = loaded(LatentStage, {"share_at_max": 1.0, "noise_at_max": "zero"}, folder)
    batch = make_batch(1, 2, 16, 16)
    assert cost(stage, batch, seed=0)["loss"].item() == cost(stage, batch, seed=1)["loss"].item()
    drawn = loaded(LatentStage, {"share_at_max": 1.0}, folder)
    assert cost(drawn, batch, seed=0)["loss"].item() != cost(drawn, batch, seed=1)["loss"].item()


def test_autoencoder_measures_what_brings_latents_to_unit_variance(tmp_path: Path) -> None:
    stage = loaded(AutoencoderStage, {"networks": NETWORKS})
    batch = make_batch(2, 3, 16, 16)
    for _ in range(3):
        deviation = cost(stage, batch)["deviation"].item()
    stage.save(tmp_path)
    opened = loaded(DecoderStage, {}, tmp_path)
    assert opened.vae.config["scaling_factor"] == pytest.approx(1 / deviation, rel=1e-2)
    latents = opened.vae.encode(batch["normal"].flatten(0, 1)).latent_dist.mode()
    assert (latents * opened.vae.config["scaling_factor"]).std().item() == pytest.approx(1, rel=1e-2)
    normals = batch["normal"][0]
    torch.testing.assert_close(stage.reconstruct(normals), opened.reconstruct(normals), rtol=1e-3, atol=1e-3)
    assert opened.reconstruct(normals[:, :, :13, :15]).shape == (3, 3, 13, 15)


def test_decoder_stage_keeps_the_rest_of_the_folder(folder: Path, tmp_path: Path) -> None:
    stage = loaded(DecoderStage, {}, folder)
    before = stage.vae.encoder.conv_in.weight.clone()
    with torch.no_grad():
        stage.vae.decoder.conv_out.bias += 1
    stage.save(tmp_path)
    opened = loaded(PixelStage, {}, tmp_path)
    assert torch.equal(opened.vae.encoder.conv_in.weight, before)
    assert torch.equal(opened.vae.decoder.conv_out.bias, stage.vae.decoder.conv_out.bias)
    with pytest.raises(ModelError, match="predicts no normals"):
        stage.predict(torch.zeros(1, 3, 16, 16))


def test_image_stage_is_what_the_adapter_opens_and_predicts(tmp_path: Path) -> None:
    stage = loaded(ImageE2EStage, {"networks": {}})
    stage.save(tmp_path)
    batch = make_batch(1, 2, 24, 32)
    pixels = ((batch["image"][0] + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    adapter = EndToEnd({})
    adapter.load(Runtime(weights=tmp_path))
    expected = adapter.predict(Clip("room", (0, 1), pixels))
    found = stage.predict(batch["image"][0]).permute(0, 2, 3, 1).numpy()
    assert np.abs(found - expected).mean() < 1e-4
    # the paper's formula: x0 = -sqrt(1 - a) v at the last timestep, from zeros
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    share = DDIMScheduler.from_pretrained(tmp_path / "scheduler").alphas_cumprod[999]
    with torch.no_grad():
        told = stage.vae.encode(batch["image"][0]).latent_dist.mode() * stage.vae.config["scaling_factor"]
        said = unet(torch.cat([told, torch.zeros_like(told)], 1), 999, stage.prompt.expand(2, -1, -1)).sample
        answer = stage.vae.decode(-((1 - share) ** 0.5) * said / stage.vae.config["scaling_factor"]).sample
    unit = torch.nn.functional.normalize(answer, dim=1).permute(0, 2, 3, 1).numpy()
    assert np.abs(found - unit).mean() < 1e-4
    assert stage.predict(batch["image"][0][:, :, :21, :30]).shape == (2, 3, 21, 30)


def test_image_networks_from_scratch_are_the_same_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = loaded(ImageE2EStage, {"networks": {}})
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: 1)
    second = loaded(ImageE2EStage, {"networks": {}})
    assert torch.equal(first.prompt, second.prompt)


@pytest.mark.parametrize("kind", [LatentStage, PixelStage])
def test_files_of_dino_are_named_before_anything_is_loaded(kind: type[Stage], tmp_path: Path) -> None:
    settings = {"semantic": {"dino": str(tmp_path)}}
    with pytest.raises(ModelError, match=r"config\.json: cannot be read"):
        kind(settings).files()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        kind(settings).files()
    (tmp_path / "pytorch_model.bin").touch()
    assert kind(settings).files() == [tmp_path / "config.json", tmp_path / "pytorch_model.bin"]
    (tmp_path / "model.safetensors").touch()  # the one that is read
    assert kind(settings).files() == [tmp_path / "config.json", tmp_path / "model.safetensors"]
    assert kind({"semantic": SEMANTIC}).files() == kind({}).files() == []


@pytest.mark.parametrize("kind", [AutoencoderStage, DecoderStage, LatentStage, PixelStage, ImageE2EStage])
def test_wrong_settings_and_folders_are_named(kind: type[Stage], tmp_path: Path) -> None:
    with pytest.raises(CardError, match=f"stage {kind.__name__}, settings: unknown key 'networkss'.*networks"):
        kind({"networkss": {}})
    with pytest.raises(ModelError, match="neither a folder of weights to start from nor a description"):
        kind({}).load(None, 0)
    with pytest.raises(ModelError, match=str(tmp_path / "typo")):
        kind({}).load(tmp_path / "typo", 0)
