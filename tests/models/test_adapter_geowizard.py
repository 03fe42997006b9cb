"""GeoWizard with tiny random weights in the published layout, against its authors' formulas frame by frame."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch.nn.functional import interpolate
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.models.adapters.geowizard import GeoWizard, most_central, task_labels
from ncbench.models.adapters.latent_diffusion import LatentDiffusion, frame_generators
from ncbench.models.base import Clip, Runtime
from ncbench.models.registry import LoadedModel
from ncbench.models.weights import find_weights

Save = Callable[..., Path]
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
LABELS = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 10}


@pytest.fixture(scope="module")
def folder(stable_diffusion: Save, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("geowizard")
    shutil.copytree(stable_diffusion(**LABELS), made, dirs_exist_ok=True)
    for name in ("text_encoder", "tokenizer"):
        shutil.rmtree(made / name)
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=8, image_size=16, projection_dim=12, **sizes))
    for name, tensor in encoder.named_parameters():
        torch.nn.init.normal_(tensor, std=0.5 if tensor.ndim < 2 else tensor[0].numel() ** -0.5)
        if "norm" in name and name.endswith("weight"):
            tensor.data += 1
    encoder.save_pretrained(made / "image_encoder")
    (made / "feature_extractor").mkdir()
    values = {"image_mean": MEAN, "image_std": STD, "crop_size": {"height": 16, "width": 16}}
    (made / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(values))
    return made


def make_clip(frames: int, height: int, width: int) -> Clip:
    coarse = np.random.default_rng(1).integers(0, 256, (frames, 4, 5, 3), dtype=np.uint8)
    return Clip("room", tuple(range(2, 2 + frames)), np.stack([cv2.resize(image, (width, height)) for image in coarse]))


def loaded(folder: Path, settings: dict[str, Any], **runtime: Any) -> GeoWizard:
    model = GeoWizard(settings)
    model.load(Runtime(weights=folder, **runtime))
    return model


class SlowJointAttention:
    """One picture: two rows, depth and normals; each query sees the tokens of both, head by head."""

    def __call__(self, attn: Any, hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
        depth, normals = hidden_states
        both = torch.cat([depth, normals])
        rows = []
        for tokens in (depth, normals):
            heads = []
            width = tokens.shape[-1] // attn.heads
            for head in range(attn.heads):
                part = slice(head * width, (head + 1) * width)
                query, key, value = attn.to_q(tokens)[:, part], attn.to_k(both)[:, part], attn.to_v(both)[:, part]
                heads.append(torch.softmax(query @ key.T / width**0.5, dim=-1) @ value)
            rows.append(attn.to_out[0](torch.cat(heads, dim=-1)))
        return torch.stack(rows)


@torch.no_grad()
def literal(
    folder: Path, image: np.ndarray, size: tuple[int, int], generator: torch.Generator, domain: list[float], steps: int
) -> torch.Tensor:
    """Their ``single_infer`` on one picture; (3, h, w) before it is brought back to input size."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    unet.set_attn_processor(
        {
            name: SlowJointAttention() if "attn1" in name else processor
            for name, processor in unet.attn_processors.items()
        }
    )
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    clip = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder")
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    rgb = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    if size != image.shape[:2]:
        rgb = interpolate(rgb, size, mode="bicubic", antialias=True).clip(-1, 1)
    small = interpolate((rgb + 1) / 2, (16, 16), mode="bicubic", antialias=True)
    seen = clip((small - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]).image_embeds[:, None]
    picture = vae.encode(rgb).latent_dist.mean * 0.18215
    latent = torch.randn(picture.shape[1:], generator=generator)[None].repeat(2, 1, 1, 1)
    task = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    kind = torch.tensor([domain, domain])
    labels = torch.cat([torch.sin(task), torch.cos(task), torch.sin(kind), torch.cos(kind)], dim=-1)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        told = torch.cat([picture.repeat(2, 1, 1, 1), latent], dim=1)
        found = unet(told, t.repeat(2), encoder_hidden_states=seen.repeat(2, 1, 1), class_labels=labels).sample
        latent = scheduler.step(found, t, latent).prev_sample
    normal = vae.decode(latent[1:] / 0.18215).sample[0]
    return -normal / (normal.norm(dim=0) + 1e-5)


def enlarged(normal: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(normal.permute(1, 2, 0).numpy(), size[::-1], interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize(
    ("size", "settings", "scaled", "code"),
    [
        ((16, 24), {"steps": 2, "processing_resolution": 0}, (16, 24), [1.0, 0.0, 0.0]),
        ((30, 45), {"steps": 3, "processing_resolution": 36, "domain": "outdoor"}, (24, 36), [0.0, 1.0, 0.0]),
        ((19, 21), {"steps": 1, "processing_resolution": 0, "domain": "object"}, (19, 21), [0.0, 0.0, 1.0]),
    ],
)
def test_equals_the_authors_pipeline_frame_by_frame(
    folder: Path, size: tuple[int, int], settings: dict[str, Any], scaled: tuple[int, int], code: list[float]
) -> None:
    clip = make_clip(2, *size)
    found = loaded(folder, settings).predict(clip)
    assert found.dtype == np.float32
    for i, image in enumerate(clip.images):
        normal = literal(folder, image, scaled, frame_generators(0, clip)[i], code, settings["steps"])
        assert normal.std() > 0.2  # the comparison is about something
        difference = np.abs(found[i] - enlarged(normal, size))
        assert difference.mean() < 1e-4  # short vectors, made unit, show more rounding than others
        assert difference.max() < 2e-2


def test_an_ensemble_takes_one_member_as_a_whole(folder: Path) -> None:
    clip = make_clip(2, 16, 24)
    settings = {"steps": 1, "processing_resolution": 0}
    found = loaded(folder, settings | {"ensemble": 3}).predict(clip)
    for i, image in enumerate(clip.images):
        members = [
            literal(folder, image, (16, 24), frame_generators(0, clip, member)[i], [1.0, 0.0, 0.0], 1).double().numpy()
            for member in range(3)
        ]
        azimuth = np.mean([np.arctan2(m[1], m[0]) for m in members], axis=0)
        polar = np.mean([np.arctan2(np.hypot(m[0], m[1]), m[2]) for m in members], axis=0)
        mean = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)])
        errors = [
            np.arccos(np.clip((mean * m).sum(0) / np.linalg.norm(m, axis=0), -0.999, 0.999)).sum() for m in members
        ]
        best = members[int(np.argmin(errors))]
        assert np.abs(found[i] - best.transpose(1, 2, 0)).mean() < 1e-4


def test_the_mean_of_equal_members_is_theirs() -> None:
    one = torch.nn.functional.normalize(torch.randn(1, 2, 3, 4, 4), dim=2)
    other = torch.nn.functional.normalize(one + 0.5 * torch.randn(1, 2, 3, 4, 4), dim=2)
    chosen = most_central(torch.cat([other, one, one, one]))
    torch.testing.assert_close(chosen, one[0])


def test_labels_say_task_and_domain() -> None:
    labels = task_labels("outdoor", 3)
    assert labels.shape == (6, 10)
    waves = [np.sin([0, 1]), np.cos([0, 1]), np.sin([0, 1, 0]), np.cos([0, 1, 0])]
    np.testing.assert_allclose(labels[2], np.concatenate(waves), atol=1e-6)
    np.testing.assert_allclose(labels[3, :4], [np.sin(1), 0, np.cos(1), 1], atol=1e-6)


def test_answers_do_not_depend_on_the_cut_but_on_the_seed(folder: Path) -> None:
    clip = make_clip(3, 16, 24)
    settings = {"steps": 2, "processing_resolution": 0}
    whole = loaded(folder, settings).predict(clip)
    for i in range(3):
        one = loaded(folder, settings).predict(Clip("room", (clip.frames[i],), clip.images[i : i + 1]))
        assert np.abs(one[0] - whole[i]).mean() < 1e-4
    assert not np.allclose(loaded(folder, settings, seed=1).predict(clip), whole, atol=1e-2)


def test_the_card_finds_its_files_and_turns_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = catalog.load(ModelCard, "geowizard")
    assert card.settings == {"domain": "indoor", "steps": 50, "ensemble": 10, "processing_resolution": 768}
    found = find_weights(card, folder)
    assert found is not None
    model = LoadedModel(card, GeoWizard({"steps": 1, "processing_resolution": 0}), Runtime(weights=found.folder))
    model.load()

    def wall(self: LatentDiffusion, latents: torch.Tensor) -> torch.Tensor:
        size = (len(latents), 3, 8 * latents.shape[2], 8 * latents.shape[3])
        return torch.tensor([0.6, -0.48, -0.64]).view(1, 3, 1, 1).expand(size)  # turned around at the end

    monkeypatch.setattr(LatentDiffusion, "decode", wall)
    answer = model.predict(make_clip(1, 17, 9))
    np.testing.assert_allclose(answer, np.broadcast_to([0.6, -0.48, -0.64], answer.shape), atol=1e-6)


def test_faults_are_named(folder: Path, stable_diffusion: Save, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "feature_extractor" / "preprocessor_config.json"
    path.write_text("{}")
    with pytest.raises(ModelError, match="expected image_mean to be three numbers"):
        loaded(tmp_path, {})
    shutil.rmtree(tmp_path / "unet")
    shutil.copytree(
        stable_diffusion(**LABELS | {"projection_class_embeddings_input_dim": 4}) / "unet", tmp_path / "unet"
    )
    with pytest.raises(ModelError, match="task and domain in 10 numbers.*found 4. Is this GeoWizard v1"):
        loaded(tmp_path, {})
    shutil.rmtree(tmp_path / "unet")
    shutil.copytree(stable_diffusion(**LABELS | {"cross_attention_dim": 16}) / "unet", tmp_path / "unet")
    with pytest.raises(ModelError, match="the image encoder's size: expected 12, found 16"):
        loaded(tmp_path, {})
    with pytest.raises(ModelError, match="names no folder"):
        GeoWizard({}).load(Runtime())
    with pytest.raises(ModelError, match="after 'load'"):
        GeoWizard({}).predict(make_clip(1, 8, 8))
    with pytest.raises(CardError, match="domain"):
        GeoWizard({"domain": "space"})
