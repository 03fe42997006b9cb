"""GenPercept with tiny random weights in the published layout, against its authors' formulas frame by frame."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch.nn.functional import interpolate
from transformers import CLIPTextModel

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.models.adapters.genpercept import GenPercept
from ncbench.models.adapters.latent_diffusion import LatentDiffusion
from ncbench.models.base import Clip, Runtime
from ncbench.models.registry import LoadedModel
from ncbench.models.weights import find_weights

Save = Callable[..., Path]
TENSORS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(stable_diffusion: Save, tmp_path: Path) -> Path:
    """Two repositories: the trained U-Net, and the base with a U-Net that is not to be used."""
    base = tmp_path / "stable-diffusion-2-1"
    shutil.copytree(stable_diffusion(in_channels=4), base)
    (tmp_path / "unet_normal_v2").mkdir()
    (base / "unet" / TENSORS).rename(tmp_path / "unet_normal_v2" / TENSORS)
    return tmp_path


def make_clip(frames: int, height: int, width: int) -> Clip:
    images = np.random.default_rng(1).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Clip("room", tuple(range(frames)), images)


def loaded(folder: Path, settings: dict[str, Any] | None = None, **runtime: Any) -> GenPercept:
    model = GenPercept(settings or {})
    model.load(Runtime(weights=folder, **runtime))
    return model


@torch.no_grad()
def literal(folder: Path, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Their pipeline on one picture: their scheduler's configuration, their 0..1 at the end."""
    base = folder / "stable-diffusion-2-1"
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(base / "unet"))
    unet.load_state_dict(load_file(folder / "unet_normal_v2" / TENSORS))
    vae = AutoencoderKL.from_pretrained(base / "vae")
    text = CLIPTextModel.from_pretrained(base / "text_encoder")(torch.tensor([[1, 2]]))[0]
    scheduler = DDIMScheduler(
        beta_start=1.0,
        beta_end=1.0,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    if size != image.shape[:2]:
        pixels = interpolate(pixels, size, mode="bilinear", antialias=True)
    latents = vae.encode(pixels).latent_dist.mean * 0.18215
    scheduler.set_timesteps(1)
    (timestep,) = scheduler.timesteps
    v = unet.eval()(latents, timestep, encoder_hidden_states=text).sample
    latents = scheduler.step(v, timestep, latents).pred_original_sample
    answer = (vae.decode(latents / 0.18215).sample.clip(-1, 1) + 1) / 2
    if answer.shape[-2:] != image.shape[:2]:
        answer = interpolate(answer, image.shape[:2], mode="bilinear", antialias=True)
    return (answer.clip(0, 1) * 2 - 1)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("size", "settings", "scaled"),
    [((24, 40), {}, (24, 40)), ((21, 35), {}, (21, 35)), ((20, 36), {"processing_resolution": 48}, (26, 48))],
)
def test_equals_the_authors_pipeline(
    folder: Path, size: tuple[int, int], settings: dict[str, Any], scaled: tuple[int, int]
) -> None:
    clip = make_clip(2, *size)
    found = loaded(folder, settings).predict(clip)
    assert found.dtype == np.float32
    for i, image in enumerate(clip.images):
        expected = literal(folder, image, scaled)
        assert np.std(expected) > 0.1  # the comparison is about something
        np.testing.assert_allclose(found[i], expected, atol=1e-3)


def test_each_frame_by_itself_and_no_randomness(folder: Path) -> None:
    clip = make_clip(3, 16, 24)
    whole = loaded(folder).predict(clip)
    one = loaded(folder, seed=5).predict(Clip("room", (1,), clip.images[1:2]))
    np.testing.assert_allclose(one[0], whole[1], atol=1e-4)
    half = loaded(folder, precision="bf16").predict(clip)
    assert np.abs(half - whole).mean() < 0.05


def test_the_card_finds_both_repositories_and_turns_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = catalog.load(ModelCard, "genpercept")
    found = find_weights(card, folder)
    assert found is not None
    model = LoadedModel(card, GenPercept(card.settings), Runtime(weights=found.folder))
    model.load()

    def wall(self: LatentDiffusion, latents: torch.Tensor) -> torch.Tensor:
        size = (len(latents), 3, 8 * latents.shape[2], 8 * latents.shape[3])
        return torch.tensor([-0.6, 0.48, 0.64]).view(1, 3, 1, 1).expand(size)  # x left, y up, z to the viewer

    monkeypatch.setattr(LatentDiffusion, "decode", wall)
    answer = model.predict(make_clip(1, 17, 9))
    np.testing.assert_allclose(answer, np.broadcast_to([0.6, -0.48, -0.64], answer.shape), atol=1e-6)


def test_faults_are_named(folder: Path) -> None:
    path = folder / "unet_normal_v2" / TENSORS
    tensors = load_file(path)
    tensors["conv_inn.weight"] = tensors.pop("conv_in.weight")
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"unet_normal_v2.*conv_in\.weight.*Did you mean 'conv_in\.weight'"):
        loaded(folder)
    path.unlink()
    with pytest.raises(ModelError, match=f"unet_normal_v2: expected {TENSORS}"):
        loaded(folder)
    with pytest.raises(ModelError, match="names no folder"):
        GenPercept({}).load(Runtime())
    with pytest.raises(ModelError, match="after 'load'"):
        GenPercept({}).predict(make_clip(1, 8, 8))
    with pytest.raises(CardError, match="processing_resolution"):
        GenPercept({"processing_resolution": -1})


def test_marigolds_network_is_not_taken_for_it(stable_diffusion: Save, folder: Path) -> None:
    other = stable_diffusion()
    shutil.copy(other / "unet" / TENSORS, folder / "unet_normal_v2" / TENSORS)
    shutil.copy(other / "unet" / "config.json", folder / "stable-diffusion-2-1" / "unet" / "config.json")
    with pytest.raises(ModelError, match="U-Net input channels: expected 4, found 8"):
        loaded(folder)
