"""Marigold and E2E-FT with tiny random weights in the published layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LCMScheduler,
    MarigoldNormalsPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from ncbench import catalog, open_store
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.models.adapters.latent_diffusion import LatentDiffusion, frame_generators
from ncbench.models.adapters.marigold import EndToEnd, Marigold, join_ensemble
from ncbench.models.base import Clip, Runtime
from ncbench.models.registry import LoadedModel
from ncbench.models.run import RunOptions, predict

Save = Callable[..., Path]
LCM = {"kind": "lcm", "original_inference_steps": 50, "timestep_spacing": "leading"}
TRAILING = {"timestep_spacing": "trailing"}


def make_clip(frames: int = 3, height: int = 20, width: int = 36, first: int = 5) -> Clip:
    images = np.random.default_rng(first).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Clip("room", tuple(range(first, first + frames)), images)


def loaded(model: Any, folder: Path, **runtime: Any) -> Any:
    model.load(Runtime(weights=folder, **runtime))
    return model


def check_same(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for rounding, which a vector that was short before it was scaled to unit length shows more of."""
    difference = np.abs(found - expected)
    assert difference.mean() < 2e-5
    assert difference.max() < 1e-3


def reference_pipeline(folder: Path, scheduler: Any, **index: Any) -> MarigoldNormalsPipeline:
    """Diffusers' own pipeline on the same files, put together by its own loaders."""
    pipeline = MarigoldNormalsPipeline(
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        scheduler=scheduler.from_pretrained(folder / "scheduler"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        prediction_type="normals",
        **index,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise(clip: Clip, frame: int, members: int, resolution: int, seed: int = 0) -> torch.Tensor:
    """The initial latents of one frame, drawn as the adapter does; diffusers takes latents or a generator, not both."""
    height, width = clip.images.shape[1:3]
    longest = max(height, width)
    sides = [side * resolution // longest if resolution else side for side in (height, width)]
    shape = (4, *(-(-side // 8) for side in sides))
    return torch.stack(
        [torch.randn(shape, generator=frame_generators(seed, clip, member)[frame]) for member in range(members)]
    )


@pytest.mark.parametrize(
    ("settings", "index"),
    [
        ({"steps": 1, "processing_resolution": 0}, {}),
        ({"steps": 4, "processing_resolution": 32}, {}),
        ({"steps": 2, "processing_resolution": 48, "ensemble": 3}, {}),
        ({"steps": 2, "processing_resolution": 24, "ensemble": 3, "reduction": "mean"}, {"use_full_z_range": False}),
    ],
)
def test_equals_diffusers_own_pipeline_frame_by_frame(
    stable_diffusion: Save, settings: dict[str, Any], index: dict[str, Any]
) -> None:
    folder = stable_diffusion(index=index, scheduler=TRAILING)
    clip = make_clip()
    found = loaded(Marigold(settings), folder).predict(clip)

    pipeline = reference_pipeline(folder, DDIMScheduler, **index)
    members = settings.get("ensemble", 1)
    for i, image in enumerate(clip.images):
        expected = pipeline(
            Image.fromarray(image),
            num_inference_steps=settings["steps"],
            processing_resolution=settings["processing_resolution"],
            ensemble_size=members,
            ensembling_kwargs={"reduction": settings.get("reduction", "closest")},
            latents=noise(clip, i, members, settings["processing_resolution"]),
        ).prediction[0]
        # the pipeline renormalizes after resizing, as the registry does for every model
        unit = found[i] / np.linalg.norm(found[i], axis=-1, keepdims=True)
        check_same(unit, expected)
    assert found.dtype == np.float32


def test_consistency_model_takes_its_noise_from_each_frames_own_generator(stable_diffusion: Save) -> None:
    folder = stable_diffusion(scheduler=LCM)
    clip = make_clip(frames=2)
    found = loaded(Marigold({"steps": 3, "processing_resolution": 0}), folder).predict(clip)

    scheduler = LCMScheduler.from_pretrained(folder / "scheduler")
    pipeline = reference_pipeline(folder, LCMScheduler)
    for i, image in enumerate(clip.images):
        generator = frame_generators(0, clip)[i]
        picture = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        picture = torch.nn.functional.pad(picture, (0, 4, 0, 4), mode="replicate")  # 20x36 to 24x40
        with torch.no_grad():
            latent = pipeline.vae.encode(picture).latent_dist.mean * 0.18215
            text = pipeline.text_encoder(torch.tensor([[1, 2]]))[0]
            state = torch.randn((1, 4, 3, 5), generator=generator)
            scheduler.set_timesteps(3)
            for t in scheduler.timesteps:
                v = pipeline.unet(torch.cat([latent, state], 1), t, text).sample
                state = scheduler.step(v, t, state, generator=generator).prev_sample
            decoded = pipeline.vae.decode(state / 0.18215).sample.clip(-1, 1)[0, :, :20, :36]
        expected = (decoded / decoded.norm(dim=0)).permute(1, 2, 0).numpy()
        check_same(found[i], expected)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("size", [(24, 32), (20, 35)])
def test_end_to_end_equals_its_formula(stable_diffusion: Save, size: tuple[int, int], spacing: str) -> None:
    # whatever the repository says, the fixed schedule is the trailing one: its last timestep is 999
    folder = stable_diffusion(scheduler={"timestep_spacing": spacing})
    clip = make_clip(frames=2, height=size[0], width=size[1])
    found = loaded(EndToEnd({}), folder).predict(clip)

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    a = torch.cumprod(1 - betas, dim=0)[999].item()
    unet, vae = (
        kind.from_pretrained(folder / name) for kind, name in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"))
    )
    text = CLIPTextModel.from_pretrained(folder / "text_encoder")(torch.tensor([[1, 2]]))[0]
    for i, image in enumerate(clip.images):
        with torch.no_grad():
            picture = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 * 2 - 1
            latent = torch.chunk(vae.quant_conv(vae.encoder(picture)), 2, dim=1)[0] * 0.18215
            v = unet(torch.cat([latent, torch.zeros_like(latent)], 1), 999, text).sample
            x0 = -((1 - a) ** 0.5) * v
            normal = vae.decoder(vae.post_quant_conv(x0 / 0.18215))
            normal = normal / normal.norm(dim=1, keepdim=True)
            # 20x35 is decoded to 16x32, which the released code stretches
            normal = torch.nn.functional.interpolate(normal, size, mode="bilinear", antialias=True)[0]
        check_same(found[i], normal.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("model", [Marigold, EndToEnd])
def test_answers_do_not_depend_on_the_cut(stable_diffusion: Save, model: Any) -> None:
    folder = stable_diffusion(scheduler=TRAILING)
    clip = make_clip(frames=4)
    adapter = loaded(model({"processing_resolution": 24}), folder, seed=7)
    whole = adapter.predict(clip)
    for i in range(4):
        one = adapter.predict(Clip("room", (clip.frames[i],), clip.images[i : i + 1]))
        check_same(one[0], whole[i])


def test_seed_sequence_frame_and_member_each_change_the_noise() -> None:
    def first(seed: int = 0, sequence: str = "a", frame: int = 0, member: int = 0) -> int:
        clip = Clip(sequence, (frame,), np.zeros((1, 1, 1, 3), np.uint8))
        return frame_generators(seed, clip, member)[0].initial_seed()

    seeds = [first(), first(seed=1), first(sequence="b"), first(frame=1), first(member=1), first(seed=1, member=1)]
    assert len(set(seeds)) == len(seeds)
    assert first() == seeds[0]


def test_half_precision_twin_is_found_and_agrees(stable_diffusion: Save) -> None:
    folder = stable_diffusion(scheduler=TRAILING, variant="fp16")
    assert not (folder / "unet" / "diffusion_pytorch_model.safetensors").exists()
    clip = make_clip(frames=1)
    settings = {"steps": 1, "processing_resolution": 0}
    full = loaded(Marigold(settings), folder).predict(clip)
    brief = loaded(Marigold(settings), folder, precision="bf16").predict(clip)
    assert brief.dtype == np.float32
    cosine = (full * brief).sum(-1)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 5


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 50), (9, 8)])
def test_odd_sizes_single_and_grey_frames(stable_diffusion: Save, height: int, width: int) -> None:
    folder = stable_diffusion(scheduler=TRAILING)
    clip = Clip("grey", (0,), np.full((1, height, width, 3), 128, np.uint8))
    found = loaded(Marigold({"steps": 1, "processing_resolution": 0}), folder).predict(clip)
    assert found.shape == (1, height, width, 3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-4)


def test_too_narrow_frames_say_so(stable_diffusion: Save) -> None:
    folder = stable_diffusion(scheduler=TRAILING)
    clip = make_clip(frames=1, height=2, width=400)
    with pytest.raises(ModelError, match="2x400 are too narrow"):
        loaded(Marigold({"processing_resolution": 64}), folder).predict(clip)
    with pytest.raises(ModelError, match="too narrow"):
        loaded(EndToEnd({}), folder).predict(clip)


def test_a_card_predicts_a_protocol_and_records_its_weights(tiny: Path, stable_diffusion: Save) -> None:
    folder = stable_diffusion(scheduler=TRAILING)
    stores = [
        predict("sd-e2e-ft", "tiny", options=RunOptions(weights=folder, batch_size=size), predictions=tiny / str(size))
        for size in (1, 3)
    ]
    record = json.loads((stores[0] / "run.json").read_text())["weights"]
    assert set(record["sha256"]) == set(catalog.load(ModelCard, "sd-e2e-ft").weights.files)  # type: ignore[union-attr]
    one, three = (open_store(store).read("two", 1).normal for store in stores)
    assert one is not None
    assert three is not None
    assert one.shape == (24, 32, 3)
    np.testing.assert_allclose(one, three, atol=2e-3)


def wall_networks(direction: tuple[float, float, float]) -> Any:
    """Networks whose decoder sees one direction everywhere."""

    class Stub(LatentDiffusion):
        def encode(self, pixels: torch.Tensor, generators: Any = None) -> torch.Tensor:
            return torch.zeros(len(pixels), 4, pixels.shape[2] // 8, pixels.shape[3] // 8)

        def noise(self, generators: Any, like: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(like)

        def predict(self, latents: torch.Tensor, timestep: Any, labels: torch.Tensor | None = None) -> torch.Tensor:
            return latents[:, :4]

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            size = (len(latents), 3, 8 * latents.shape[2], 8 * latents.shape[3])
            return torch.tensor(direction).view(1, 3, 1, 1).expand(size).clone()

    return Stub(None, None, None, torch.device("cpu"), torch.float32)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        # a wall that is turned to the right and up, as each model says it; both mean the same in OpenCV axes
        ("marigold-v0-1", (0.6, 0.48, 0.64)),
        ("marigold-v1-1", (0.6, 0.48, 0.64)),
        ("marigold-lcm", (0.6, 0.48, 0.64)),
        ("marigold-e2e-ft", (-0.6, 0.48, 0.64)),
        ("sd-e2e-ft", (-0.6, 0.48, 0.64)),
    ],
)
def test_cards_turn_answers_into_opencv_axes(
    stable_diffusion: Save, name: str, said: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = catalog.load(ModelCard, name)
    kind = EndToEnd if "e2e" in name else Marigold
    folder = stable_diffusion(scheduler=TRAILING)
    model = LoadedModel(card, kind(card.settings), Runtime(weights=folder))
    model.load()
    monkeypatch.setattr(model.adapter, "_networks", wall_networks(said))
    found = model.predict(make_clip(frames=1))
    np.testing.assert_allclose(found, np.broadcast_to([0.6, -0.48, -0.64], found.shape), atol=1e-6)


def test_join_ensemble_equals_diffusers() -> None:
    members = torch.nn.functional.normalize(
        torch.randn(5, 2, 3, 6, 7, generator=torch.Generator().manual_seed(0)), dim=2
    )
    for reduction in ("closest", "mean"):
        found = join_ensemble(members, reduction)  # type: ignore[arg-type]
        for i in range(2):
            expected, _ = MarigoldNormalsPipeline.ensemble_normals(members[:, i], False, reduction)
            torch.testing.assert_close(found[i], expected[0])


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_and_misnamed_tensors_are_named(stable_diffusion: Save, part: str) -> None:
    folder = stable_diffusion(scheduler=TRAILING, copy=True)
    path = next((folder / part).glob("*.safetensors"))
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[f"{name}_renamed"] = tensors.pop(name)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="do not fit the model") as caught:
        loaded(Marigold({}), folder)
    assert name.removeprefix("text_model.") in str(caught.value)
    assert str(folder / part) in str(caught.value)


def test_a_tensor_of_another_shape_is_refused(stable_diffusion: Save) -> None:
    folder = stable_diffusion(scheduler=TRAILING, copy=True)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:, :4].contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"unet: cannot be read.*(?s:.)*conv_in\.weight"):
        loaded(Marigold({}), folder)


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "expected diffusion_pytorch_model.safetensors or"),
        ("vae/config.json", r"vae/config\.json: cannot be read"),
        ("tokenizer/vocab.json", "tokenizer: cannot be read as a CLIP tokenizer"),
        ("scheduler/scheduler_config.json", r"scheduler_config\.json: cannot be read"),
        ("model_index.json", r"model_index\.json: cannot be read"),
    ],
)
def test_missing_files_are_named(stable_diffusion: Save, remove: str, message: str) -> None:
    folder = stable_diffusion(scheduler=TRAILING, copy=True)
    (folder / remove).unlink()
    with pytest.raises(ModelError, match=message):
        loaded(Marigold({}), folder)


def test_pickles_are_not_opened(stable_diffusion: Save) -> None:
    folder = stable_diffusion(scheduler=TRAILING, copy=True)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(ModelError, match="neither is there"):
        loaded(Marigold({}), folder)


def test_networks_of_another_model_are_refused(stable_diffusion: Save) -> None:
    with pytest.raises(ModelError, match="U-Net input channels: expected 8, found 4"):
        loaded(EndToEnd({}), stable_diffusion(in_channels=4))


def test_another_scheduler_is_refused(stable_diffusion: Save) -> None:
    folder = stable_diffusion(scheduler=TRAILING, copy=True)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "PNDMScheduler"}))
    with pytest.raises(ModelError, match="expected the scheduler to be DDIMScheduler or LCMScheduler"):
        loaded(Marigold({}), folder)


def test_bad_settings_and_early_predictions_are_refused() -> None:
    with pytest.raises(CardError, match="Did you mean 'steps'"):
        Marigold({"step": 4})
    with pytest.raises(CardError, match="Valid: none, replicate"):
        EndToEnd({"padding": "black"})
    with pytest.raises(ModelError, match="after 'load'"):
        EndToEnd({}).predict(make_clip())
    with pytest.raises(ModelError, match="names no folder"):
        Marigold({}).load(Runtime())
