"""Lotus with tiny random weights in the published layout, against its formulas spelt out frame by frame."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn.functional import interpolate, pad
from transformers import CLIPTextModel

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.models.adapters.latent_diffusion import LatentDiffusion, frame_generators
from ncbench.models.adapters.lotus import Lotus
from ncbench.models.base import Clip, Runtime
from ncbench.models.registry import LoadedModel

Save = Callable[..., Path]
TASK = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}


def repository(save: Save, kind: str, **options: Any) -> Path:
    return save(in_channels=8 if kind == "generation" else 4, **TASK, **options)


def make_clip(frames: int = 2, height: int = 40, width: int = 72) -> Clip:
    images = np.random.default_rng(1).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Clip("room", tuple(range(3, 3 + frames)), images)


def loaded(folder: Path, seed: int = 0, **settings: Any) -> Lotus:
    model = Lotus(settings)
    model.load(Runtime(weights=folder, seed=seed))
    return model


def literal(folder: Path, image: np.ndarray, generators: list[torch.Generator], kind: str) -> torch.Tensor:
    """The authors' pipeline on one scaled and padded picture (1, 3, h, w) in -1..1, written out; in 0..1 as theirs."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    # "" as Stable Diffusion tokenizes it: start, end, and padding ("!", number 0) up to the tokenizer's length
    text = CLIPTextModel.from_pretrained(folder / "text_encoder")(torch.tensor([[1, 2, 0, 0, 0, 0, 0, 0, 0]]))[0]
    one_zero = torch.tensor([[1.0, 0.0]])
    task = torch.cat([torch.sin(one_zero), torch.cos(one_zero)], dim=-1)
    posterior = vae.encode(image).latent_dist
    shape = posterior.mean.shape
    drawn = posterior.mean + torch.exp(0.5 * posterior.logvar) * torch.randn(shape, generator=generators[0])
    latents = drawn * 0.18215
    if kind == "generation":
        latents = torch.cat([latents, torch.randn(shape, generator=generators[1])], dim=1)
    x0 = unet(latents, torch.tensor(999), encoder_hidden_states=text, class_labels=task).sample
    return (vae.decode(x0 / 0.18215).sample / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("kind", ["generation", "regression"])
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((32, 64), {}),
        ((40, 70), {}),  # 12 rows above and below, 13 columns to the left and right
        ((40, 70), {"processing_resolution": 48, "padding": "none"}),  # 27x48, decoded to 24x48
    ],
)
def test_equals_the_authors_formulas(
    stable_diffusion: Save, kind: str, size: tuple[int, int], settings: dict[str, Any]
) -> None:
    folder = repository(stable_diffusion, kind)
    clip = make_clip(2, *size)
    found = loaded(folder, kind=kind, **settings).predict(clip)
    assert found.dtype == np.float32
    for i, image in enumerate(clip.images):
        generators = [frame_generators(0, clip, member)[i] for member in (0, 1)]
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        if settings:
            pixels = interpolate(pixels, (27, 48), mode="bilinear", antialias=True)
        else:
            below, right = -size[0] % 32, -size[1] % 32
            margins = (right // 2, right - right // 2, below // 2, below - below // 2)
            black = [(0 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0 - 0.406) / 0.225]
            pixels = torch.cat([pad(pixels[:, c : c + 1], margins, value=black[c]) for c in range(3)], dim=1)
        with torch.no_grad():
            answer = literal(folder, pixels, generators, kind) * 2 - 1
        if settings:
            assert answer.shape[-2:] == (24, 48)
            answer = interpolate(answer, size, mode="nearest-exact")
        else:
            answer = answer[..., margins[2] : margins[2] + size[0], margins[0] : margins[0] + size[1]]
        np.testing.assert_allclose(found[i], answer[0].permute(1, 2, 0).numpy(), atol=1e-3)


@pytest.mark.parametrize("kind", ["generation", "regression"])
def test_answers_do_not_depend_on_the_cut_but_on_the_seed(stable_diffusion: Save, kind: str) -> None:
    folder = repository(stable_diffusion, kind)
    clip = make_clip(3, 16, 24)
    model = loaded(folder, kind=kind)
    whole = model.predict(clip)
    for i in range(3):
        one = model.predict(Clip("room", (clip.frames[i],), clip.images[i : i + 1]))
        np.testing.assert_allclose(one[0], whole[i], atol=1e-4)
    assert not np.allclose(loaded(folder, seed=1, kind=kind).predict(clip), whole)


@pytest.mark.parametrize(("name", "kind"), [("lotus-g", "generation"), ("lotus-d", "regression")])
def test_cards_turn_answers_into_opencv_axes(
    stable_diffusion: Save, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = catalog.load(ModelCard, name)
    assert card.settings["kind"] == kind
    model = LoadedModel(card, Lotus(card.settings), Runtime(weights=repository(stable_diffusion, kind)))
    model.load()

    def wall(self: LatentDiffusion, latents: torch.Tensor) -> torch.Tensor:
        size = (len(latents), 3, 8 * latents.shape[2], 8 * latents.shape[3])
        return torch.tensor([-0.6, 0.48, 0.64]).view(1, 3, 1, 1).expand(size)  # x left, y up, z to the viewer

    monkeypatch.setattr(LatentDiffusion, "decode", wall)
    found = model.predict(make_clip(1, 17, 9))
    np.testing.assert_allclose(found, np.broadcast_to([0.6, -0.48, -0.64], found.shape), atol=1e-6)


def test_half_precision_grey_and_single_frames(stable_diffusion: Save) -> None:
    folder = repository(stable_diffusion, "regression", variant="fp16")
    model = Lotus({"kind": "regression"})
    model.load(Runtime(weights=folder, precision="bf16"))
    found = model.predict(Clip("grey", (0,), np.full((1, 5, 7, 3), 90, np.uint8)))
    assert found.shape == (1, 5, 7, 3)
    assert np.isfinite(found).all()


def test_g_and_d_are_not_mistaken_for_each_other_or_for_marigold(stable_diffusion: Save) -> None:
    with pytest.raises(ModelError, match="U-Net input channels: expected 8, found 4"):
        loaded(repository(stable_diffusion, "regression"), kind="generation")
    with pytest.raises(ModelError, match="U-Net input channels: expected 4, found 8"):
        loaded(repository(stable_diffusion, "generation"), kind="regression")
    with pytest.raises(ModelError, match="Is this a Lotus repository"):
        loaded(stable_diffusion(), kind="generation")


def test_bad_settings_and_early_predictions_are_refused() -> None:
    with pytest.raises(CardError, match="'kind' is required"):
        Lotus({})
    with pytest.raises(ModelError, match="after 'load'"):
        Lotus({"kind": "regression"}).predict(make_clip())


def test_too_narrow_frames_say_so(stable_diffusion: Save) -> None:
    model = loaded(repository(stable_diffusion, "regression"), kind="regression", padding="none")
    with pytest.raises(ModelError, match="7x64 are too narrow"):
        model.predict(make_clip(1, 7, 64))


def test_the_task_is_that_of_the_released_code() -> None:
    from ncbench.models.adapters.lotus import _TASK

    assert pytest.approx((math.sin(1), 0.0, math.cos(1), 1.0)) == _TASK
