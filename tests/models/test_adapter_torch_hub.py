"""torch.hub models against local repositories with the published entry points and output conventions."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.models.adapters.torch_hub import TorchHub
from ncbench.models.base import Clip, Runtime
from ncbench.models.registry import LoadedModel, load_adapter
from ncbench.models.weights import find_weights

CARDS = {
    "dsine": "dsine",
    "metric3d-v2": "metric3d",
    "omnidata-v2": "omnidata",
    "stable-normal": "stable_normal",
    "stable-normal-turbo": "stable_normal",
}

# a wall that is turned to the right and up, as each model says it
HUBCONFS = {
    "dsine": """
        dependencies = ["torch", "numpy"]
        import torch

        class Predictor:
            def __init__(self, state):
                self.direction = state["direction"]

            def infer_tensor(self, img_tensor, intrins=None):
                assert img_tensor.dtype == torch.float32 and 0 <= img_tensor.min() and img_tensor.max() <= 1
                self.intrins = intrins.clone()
                intrins[:, 0, 2] += 1000  # as published: moved by the padding, in place
                n, _, h, w = img_tensor.shape
                return self.direction.view(1, 3, 1, 1).expand(n, 3, h, w)

        def DSINE(local_file_path=None):
            return Predictor(torch.load(local_file_path)["model"])
    """,
    "metric3d": """
        dependencies = ["torch"]
        import torch

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.direction = torch.nn.Parameter(torch.zeros(3))

            def inference(self, data):
                self.seen = data["input"]
                n, _, h, w = self.seen.shape
                normal = torch.cat([self.direction.view(1, 3, 1, 1).expand(n, 3, h, w), torch.ones(n, 1, h, w)], 1)
                return torch.ones(n, 1, h, w), torch.ones(n, 1, h, w), {"prediction_normal": normal}

        def metric3d_vit_large(pretrain=False, **kwargs):
            model = Model()
            if pretrain:
                url = "https://example.invalid/metric_depth_vit_large_800k.pth"
                model.load_state_dict(torch.hub.load_state_dict_from_url(url)["model_state_dict"], strict=False)
            return model
    """,
    "omnidata": """
        dependencies = ["torch"]
        import torch

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.direction = torch.nn.Parameter(torch.zeros(3))

            def forward(self, x):
                self.seen = x
                assert 0 <= x.min() and x.max() <= 1
                return ((self.direction + 1) / 2).view(1, 3, 1, 1).expand(len(x), 3, *x.shape[-2:])

        def surface_normal_dpt_hybrid_384(pretrained=True, **kwargs):
            model = Model()
            if pretrained:
                url = "https://example.invalid/omnidata_normal_dpt_hybrid.pth"
                model.load_state_dict(torch.hub.load_state_dict_from_url(url, map_location="cpu"))
            return model
    """,
    "stable_normal": """
        dependencies = ["torch", "numpy", "PIL"]
        import os
        import numpy as np
        from PIL import Image

        class Predictor:
            def __init__(self, direction, steps):
                self.direction, self.steps, self.seen = direction, steps, []

            def __call__(self, img, resolution=1024, match_input_resolution=True, data_type="indoor",
                         num_inference_steps=None):
                assert img.mode == "RGB" and match_input_resolution and data_type == "indoor"
                self.seen.append((img.size, resolution, num_inference_steps))
                prediction = np.broadcast_to(np.array(self.direction), (img.height, img.width, 3))
                return Image.fromarray(((prediction.clip(-1, 1) + 1) / 2 * 255).astype(np.uint8))

        def _direction(local_cache_dir, name):
            with open(os.path.join(local_cache_dir, name, "model_index.json")) as stream:
                import json
                return json.load(stream)["direction"]

        def StableNormal(local_cache_dir=None, device="cuda:0", yoso_version="yoso-normal-v0-3",
                         diffusion_version="stable-normal-v0-1"):
            assert device == "cpu"
            return Predictor(_direction(local_cache_dir, diffusion_version), 10)

        def StableNormal_turbo(local_cache_dir=None, device="cuda:0", yoso_version="yoso-normal-v0-3"):
            assert device == "cpu"
            return Predictor(_direction(local_cache_dir, yoso_version), 1)
    """,
}
SAID = {"dsine": (-0.6, 0.48, 0.64), "stable_normal": (-0.6, 0.48, 0.64)}  # x left, y up, z to the viewer
SAID |= {"metric3d": (0.6, -0.48, -0.64), "omnidata": (0.6, -0.48, -0.64)}  # x right, y down, z forward


def save_repository(folder: Path, kind: str, state: Any = None) -> Path:
    """Write a copy of a published repository in small, with its checkpoints."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "hubconf.py").write_text(textwrap.dedent(HUBCONFS[kind]))
    direction = torch.tensor(SAID[kind])
    if kind == "dsine":
        torch.save({"model": {"direction": direction}} if state is None else state, folder / "checkpoints/dsine.pt")
    elif kind == "metric3d":
        path = folder / "checkpoints/metric_depth_vit_large_800k.pth"
        torch.save({"model_state_dict": {"direction": direction}}, path)
    elif kind == "omnidata":
        torch.save({"direction": direction}, folder / "checkpoints/omnidata_normal_dpt_hybrid.pth")
    else:
        for name in ("stable-normal-v0-1", "yoso-normal-v0-3"):
            (folder / "weights" / name).mkdir(parents=True)
            (folder / "weights" / name / "model_index.json").write_text(f'{{"direction": {list(SAID[kind])}}}')
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    before = torch.hub.get_dir()
    yield
    assert torch.hub.get_dir() == before


def make_clip(frames: int = 2, height: int = 30, width: int = 47, intrinsics: Any = None) -> Clip:
    images = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Clip("room", tuple(range(frames)), images, intrinsics)


def loaded(folder: Path, **settings: Any) -> Any:
    model = TorchHub(settings)
    model.load(Runtime(weights=folder))
    return model


@pytest.mark.parametrize(("name", "kind"), CARDS.items())
def test_cards_find_the_files_run_the_entry_point_and_turn_axes(name: str, kind: str, tmp_path: Path) -> None:
    card = catalog.load(ModelCard, name)
    folder = save_repository(tmp_path / name, kind)
    weights = find_weights(card, tmp_path)  # all files that the card names are in a copy of the repository
    assert weights is not None
    assert weights.folder == folder
    assert card.weights is not None
    assert len(card.weights.revision) == 40
    found = LoadedModel(card, load_adapter(card), Runtime(weights=folder)).predict(make_clip())
    # StableNormal answers in eight bits
    np.testing.assert_allclose(found, np.broadcast_to([0.6, -0.48, -0.64], found.shape), atol=5e-3)


def test_dsine_is_given_intrinsics_that_stay_the_callers(tmp_path: Path) -> None:
    model = loaded(save_repository(tmp_path / "hub", "dsine"), model="dsine", fov_degrees=90)
    camera = np.array([[40.0, 0, 23], [0, 41, 14.5], [0, 0, 1]])
    given = np.stack([camera, camera + np.eye(3)[:, [2, 0, 1]] * 0])
    clip = make_clip(intrinsics=given.copy())
    model.predict(clip)
    np.testing.assert_allclose(model._model.intrins, given)
    np.testing.assert_array_equal(clip.intrinsics, given)
    model.predict(make_clip(frames=1, height=30, width=20))
    # 90 degrees along the longer side of 30 pixels: its half is one focal length
    np.testing.assert_allclose(model._model.intrins[0], [[15, 0, 9.5], [0, 15, 14.5], [0, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 40), (308, 532)])
def test_metric3d_sees_what_its_own_example_prepares(height: int, width: int, tmp_path: Path) -> None:
    model = loaded(save_repository(tmp_path / "hub", "metric3d"), model="metric3d-v2-large")
    clip = make_clip(2, height, width)
    found = model.predict(clip)
    assert found.shape == (2, height, width, 3)
    for i, image in enumerate(clip.images):
        scale = min(616 / height, 1064 / width)
        rgb = cv2.resize(image, (int(width * scale), int(height * scale)), interpolation=cv2.INTER_LINEAR)
        rows, columns = 616 - rgb.shape[0], 1064 - rgb.shape[1]
        mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
        expected = np.tile(mean, (616, 1064, 1))
        expected[rows // 2 : rows // 2 + rgb.shape[0], columns // 2 : columns // 2 + rgb.shape[1]] = rgb
        seen = model._model.seen[i].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(seen, (expected - mean) / std, atol=1e-5)


def test_metric3d_gives_each_pixel_its_own_normal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(save_repository(tmp_path / "hub", "metric3d"), model="metric3d-v2-large")
    clip = make_clip(1, 154, 200)  # 616 x 800: margins of 132 columns

    def ramp(data: Any) -> Any:
        columns = torch.arange(1064.0).view(1, 1, 1, -1).expand(1, 4, 616, -1)
        return None, None, {"prediction_normal": columns}

    monkeypatch.setattr(model._model, "inference", ramp)
    found = model.predict(clip)[0, 0, 1:-1, 0]
    np.testing.assert_allclose(found, 132 + 4 * np.arange(1, 199) + 1.5, atol=1e-3)


@pytest.mark.parametrize(("size", "seen"), [((50, 50), (384, 384)), ((48, 64), (384, 512)), ((90, 50), (704, 384))])
def test_omnidata_sees_whole_frames(size: tuple[int, int], seen: tuple[int, int], tmp_path: Path) -> None:
    model = loaded(save_repository(tmp_path / "hub", "omnidata"), model="omnidata-v2")
    clip = make_clip(1, *size)
    assert model.predict(clip).shape == (1, *size, 3)
    assert tuple(model._model.seen.shape[-2:]) == seen
    if size[0] == size[1]:  # as its demo: PIL's bilinear filter, which rounds twice
        expected = np.asarray(Image.fromarray(clip.images[0]).resize((384, 384), Image.Resampling.BILINEAR)) / 255
        np.testing.assert_allclose(model._model.seen[0].permute(1, 2, 0).numpy(), expected, atol=1 / 255 + 1e-6)


def test_stable_normal_is_called_picture_by_picture(tmp_path: Path) -> None:
    folder = save_repository(tmp_path / "hub", "stable_normal")
    model = loaded(folder, model="stable-normal", resolution=512, steps=7)
    model.predict(make_clip(2, 30, 47))
    assert model._model.seen == [((47, 30), 512, 7)] * 2
    assert loaded(folder, model="stable-normal-turbo")._model.steps == 1


class Hostile:
    def __reduce__(self) -> Any:
        return Path.write_text, (Path("/tmp/must-not-exist-ncbench"), "ran")  # noqa: S108 - never written


def test_checkpoints_run_no_code(tmp_path: Path) -> None:
    folder = save_repository(tmp_path / "hub", "dsine", state={"model": Hostile()})
    with pytest.raises(ModelError, match="DSINE of its hubconf.py failed.*(?s:.)*eights"):
        loaded(folder, model="dsine")
    assert not Path("/tmp/must-not-exist-ncbench").exists()  # noqa: S108


def test_missing_copies_checkpoints_packages_and_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a copy of the repository hugoycj/DSINE-hub"):
        loaded(tmp_path, model="dsine")
    folder = save_repository(tmp_path / "hub", "omnidata")
    (folder / "checkpoints/omnidata_normal_dpt_hybrid.pth").unlink()
    with pytest.raises(ModelError, match="surface_normal_dpt_hybrid_384.*no network in tests"):
        loaded(folder, model="omnidata-v2")
    (folder / "hubconf.py").write_text("dependencies = ['torch', 'not_installed_anywhere']\n")
    with pytest.raises(ModelError, match="not_installed_anywhere.*adapter 'command'"):
        loaded(folder, model="omnidata-v2")
    (folder / "hubconf.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ModelError, match="not_installed_anywhere.*adapter 'command'"):
        loaded(folder, model="omnidata-v2")
    with pytest.raises(ModelError, match="Did you mean 'dsine'"):
        TorchHub({"model": "dsines"})
    with pytest.raises(CardError, match="'model' is required"):
        TorchHub({})
    with pytest.raises(ModelError, match="after 'load'"):
        TorchHub({"model": "dsine"}).predict(make_clip())


def test_answers_of_another_shape_and_crashes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(save_repository(tmp_path / "hub", "dsine"), model="dsine")
    monkeypatch.setattr(model._model, "infer_tensor", lambda *_, **__: torch.zeros(2, 3, 4, 4))
    with pytest.raises(ModelError, match=r"answered with \(2, 4, 4, 3\) where \(2, 30, 47, 3\)"):
        model.predict(make_clip())

    def crash(*_: Any, **__: Any) -> None:
        raise KeyError("intrins")

    monkeypatch.setattr(model._model, "infer_tensor", crash)
    with pytest.raises(ModelError, match="DSINE failed on a clip: KeyError"):
        model.predict(make_clip())
