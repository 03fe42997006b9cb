"""MoGe-2 against a stand-in of its package with the published interface."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.models.adapters.moge import MoGe
from ncbench.models.base import Clip, Runtime
from ncbench.models.registry import LoadedModel, load_adapter

WALL = (0.6, -0.48, -0.64)


class MoGeModel(torch.nn.Module):
    """As published: ``from_pretrained`` of a file with ``model_config`` and ``model``, not strict; ``infer``."""

    def __init__(self, normal: bool = True) -> None:
        super().__init__()
        self.points_head = torch.nn.Linear(2, 2)
        if normal:
            self.normal_head = torch.nn.Linear(3, 1)

    @classmethod
    def from_pretrained(cls, path: str) -> "MoGeModel":
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        model = cls(**checkpoint["model_config"])
        model.load_state_dict(checkpoint["model"], strict=False)
        return model

    def infer(self, image: torch.Tensor, **options: Any) -> dict[str, torch.Tensor]:
        assert image.dtype == torch.float32
        assert image.min() >= 0
        assert image.max() <= 1
        self.options = options
        n, _, h, w = image.shape
        depth = torch.full((n, h, w), 2.5)
        depth[:, 0, 0], depth[:, 0, 1] = torch.inf, -1
        normal = self.normal_head.weight.view(1, 1, 1, 3).expand(n, h, w, 3)
        return {"normal": normal, "depth": depth, "mask": depth > 0, "points": torch.zeros(n, h, w, 3)}


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = [ModuleType(name) for name in ("moge", "moge.model", "moge.model.v2")]
    modules[2].MoGeModel = MoGeModel  # type: ignore[attr-defined]
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)


def save(folder: Path, normal: bool = True, drop: str = "") -> Path:
    model = MoGeModel(normal)
    if normal:
        model.normal_head.weight.data = torch.tensor([WALL])
    state = {name: tensor for name, tensor in model.state_dict().items() if name != drop}
    folder.mkdir(exist_ok=True)
    torch.save({"model_config": {"normal": normal}, "model": state}, folder / "model.pt")
    return folder


def make_clip(intrinsics: Any = None) -> Clip:
    return Clip("room", (0, 1), np.random.default_rng(0).integers(0, 256, (2, 9, 13, 3), dtype=np.uint8), intrinsics)


@pytest.mark.usefixtures("package")
def test_card_answers_normals_and_metres_without_a_mask(tmp_path: Path) -> None:
    card = catalog.load(ModelCard, "moge-2")
    assert card.requires == ["moge"]
    model = LoadedModel(card, load_adapter(card), Runtime(weights=save(tmp_path)))
    answer = model.answer(make_clip())
    assert answer.normal is not None
    assert answer.depth is not None
    np.testing.assert_allclose(answer.normal, np.broadcast_to(WALL, (2, 9, 13, 3)), atol=1e-6)
    assert answer.depth[:, 0, :3].tolist() == [[0.0, 0.0, 2.5]] * 2  # neither infinite nor behind the camera
    options = model.adapter._model.options
    assert options == {"resolution_level": 9, "apply_mask": False, "fov_x": None, "use_fp16": False}


@pytest.mark.usefixtures("package")
def test_field_of_view_comes_from_intrinsics_where_asked(tmp_path: Path) -> None:
    model = MoGe({"use_intrinsics": True, "resolution_level": 3})
    model.load(Runtime(weights=save(tmp_path), precision="fp16"))
    camera = np.array([[6.5, 0, 6], [0, 6.5, 4], [0, 0, 1]])  # half of 13 pixels: 90 degrees
    model.predict(make_clip(np.stack([camera, camera])))
    assert model._model.options["fov_x"].tolist() == pytest.approx([90, 90])
    assert model._model.options["use_fp16"]


@pytest.mark.usefixtures("package")
def test_missing_tensors_are_named_and_models_without_normals_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"1 tensors are missing: points_head\.bias"):
        MoGe({}).load(Runtime(weights=save(tmp_path, drop="points_head.bias")))
    with pytest.raises(ModelError, match="has no normals"):
        MoGe({}).load(Runtime(weights=save(tmp_path, normal=False)))
    with pytest.raises(ModelError, match="cannot be read"):
        MoGe({}).load(Runtime(weights=tmp_path / "elsewhere"))
    with pytest.raises(ModelError, match="names no folder"):
        MoGe({}).load(Runtime())


def test_an_absent_package_and_bad_settings_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moge", None)  # as if not installed
    with pytest.raises(ModelError, match="needs its own package"):
        MoGe({}).load(Runtime(weights=save(tmp_path)))
    with pytest.raises(CardError, match="resolution_level"):
        MoGe({"resolution_level": 10})
    with pytest.raises(ModelError, match="after 'load'"):
        MoGe({}).predict(make_clip())
