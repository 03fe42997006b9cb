"""Depth Anything V2 with tiny random weights in the published layout, and normals from anybody's depth."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.geometry.cameras import pinhole_rays
from ncbench.models.adapters.depth_anything import DepthAnything, Preprocessing
from ncbench.models.adapters.depth_normals import DepthNormals, depth_from_disparity
from ncbench.models.base import Answer, Clip, NormalModel, Runtime
from ncbench.models.registry import LoadedModel, load_adapter

HERE = f"{__name__}:Planes"
PREPROCESSOR = {
    "do_normalize": True,
    "do_pad": False,
    "do_rescale": True,
    "do_resize": True,
    "ensure_multiple_of": 14,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "DPTImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "keep_aspect_ratio": True,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 56, "width": 56},
    "size_divisor": None,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, one_torch_thread: None) -> Path:
    folder = tmp_path_factory.mktemp("depth-anything")
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        mlp_ratio=2,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=8,
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
        patch_size=14,
    )
    network = DepthAnythingForDepthEstimation(config)
    for tensor in network.parameters():
        torch.nn.init.normal_(tensor, std=0.3 if tensor.ndim < 2 else tensor[0].numel() ** -0.5)
    network.head.conv3.bias.data.fill_(2.0)  # disparity above zero, past the last ReLU
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def make_clip(frames: int = 3, height: int = 60, width: int = 90, intrinsics: Any = None) -> Clip:
    smooth = np.random.default_rng(0).integers(0, 256, (frames, 5, 7, 3), dtype=np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((width, height))) for image in smooth])
    return Clip("room", tuple(range(frames)), images, intrinsics)


def loaded(folder: Path, **settings: Any) -> DepthAnything:
    model = DepthAnything(settings)
    model.load(Runtime(weights=folder))
    return model


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 61), (14, 15), (200, 203)])
def test_equals_transformers_own_processing_frame_by_frame(weights: Path, height: int, width: int) -> None:
    clip = make_clip(2, height, width)
    answer = loaded(weights).predict(clip)
    assert answer.normal is None
    assert answer.depth is not None

    processor = DPTImageProcessorPil.from_pretrained(weights)
    network = DepthAnythingForDepthEstimation.from_pretrained(weights).eval()
    for i, image in enumerate(clip.images):
        with torch.no_grad():
            outputs = network(**processor(images=Image.fromarray(image), return_tensors="pt"))
        expected = processor.post_process_depth_estimation(outputs, [(height, width)])[0]["predicted_depth"].numpy()
        assert expected.std() > 0.01
        # the PIL route rounds scaled pixels to eight bits; the way back overshoots below zero, where no disparity is
        np.testing.assert_allclose(answer.depth[i], expected.clip(min=0), atol=0.02 * expected.std() + 2e-3)


def test_answers_do_not_depend_on_the_cut(weights: Path) -> None:
    clip = make_clip(4)
    model = loaded(weights)
    whole = model.predict(clip).depth
    for i in range(4):
        one = model.predict(Clip("room", (i,), clip.images[i : i + 1])).depth
        assert whole is not None
        assert one is not None
        np.testing.assert_allclose(one[0], whole[i], atol=1e-5)


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((480, 640), (518, 686)),  # 518 / 480 changes less than 518 / 640
        ((640, 480), (686, 518)),
        ((1080, 1920), (518, 924)),
        ((436, 1024), (518, 1218)),
        ((518, 518), (518, 518)),
        ((30, 40), (392, 518)),
    ],
)
def test_target_sizes_are_those_of_transformers(size: tuple[int, int], target: tuple[int, int]) -> None:
    from transformers.models.dpt.image_processing_pil_dpt import get_resize_output_image_size

    reference = get_resize_output_image_size(np.zeros((3, *size)), (518, 518), True, 14)
    assert (reference.height, reference.width) == target
    assert Preprocessing(518, 14, (0, 0, 0), (1, 1, 1)).target(*size) == target


def test_input_size_can_be_set_and_narrow_frames_say_so(weights: Path) -> None:
    assert loaded(weights, input_size=28).predict(make_clip(1)).depth is not None
    with pytest.raises(ModelError, match="4x900 are too narrow"):
        Preprocessing(56, 14, (0, 0, 0), (1, 1, 1)).target(4, 900)


def test_missing_tensors_files_and_wrong_preprocessing_are_named(weights: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(weights, tmp_path / "copy"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["head.conv1.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensors are missing: head\.conv1\.weight"):
        loaded(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors or model\.fp16\.safetensors"):
        loaded(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | {"keep_aspect_ratio": False}))
    with pytest.raises(ModelError, match="keep_aspect_ratio: true"):
        loaded(folder)
    with pytest.raises(ModelError, match="names no folder"):
        DepthAnything({}).load(Runtime())
    with pytest.raises(ModelError, match="after 'load'"):
        DepthAnything({}).predict(make_clip(1))


class Planes(NormalModel):
    """Answers with the depth or disparity of one plane, whatever it sees; looks one clip ahead."""

    clip_length = 2

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.normal = np.array(settings["normal"]) / np.linalg.norm(settings["normal"])
        self.inverse = bool(settings.get("inverse"))
        self.silent = bool(settings.get("silent"))

    def predict(self, clip: Clip) -> Answer:
        if self.silent:
            return Answer(np.zeros((*clip.images.shape[:3], 3), np.float32))
        assert clip.intrinsics is not None
        rays = pinhole_rays(clip.intrinsics[0], *clip.images.shape[1:3])
        inverse = -(rays @ self.normal) / 2.0  # the plane's distance is 2 m
        values = 7 * inverse if self.inverse else 1 / inverse
        return Answer(None, np.repeat(values[None], len(clip.images), axis=0).astype(np.float32))

    def stream(self, clips: Iterable[Clip]) -> Iterator[Answer]:
        answers = [self.predict(clip) for clip in clips]
        yield from answers


CAMERA = np.array([[50.0, 0, 24.5], [0, 48.0, 14.5], [0, 0, 1]])
NORMAL = [0.3, -0.4, -0.8]


def planes(depth: str, intrinsics: bool = True, **settings: Any) -> list[Answer]:
    model = DepthNormals(
        {"depth_model": HERE, "depth": depth, "depth_settings": {"normal": NORMAL, "inverse": depth == "disparity"}}
        | settings
    )
    cameras = np.repeat(CAMERA[None], 2, axis=0) if intrinsics else None
    clips = [make_clip(2, 30, 50, cameras), make_clip(1, 30, 50, cameras[:1] if cameras is not None else None)]
    return list(model.stream(clips))


@pytest.mark.parametrize(
    ("depth", "settings"), [("metres", {}), ("relative", {}), ("disparity", {"farthest": 1e9})], ids=str
)
def test_a_plane_has_its_own_normal_everywhere(depth: str, settings: dict[str, Any]) -> None:
    answers = planes(depth, **settings)
    assert [len(answer.depth) for answer in answers if answer.depth is not None] == [2, 1]
    expected = np.array(NORMAL) / np.linalg.norm(NORMAL)
    for answer in answers:
        assert answer.normal is not None
        np.testing.assert_allclose(answer.normal, np.broadcast_to(expected, answer.normal.shape), atol=1e-4)


def test_edges_fall_back_to_the_nearest_differences_and_holes_stay_empty() -> None:
    # with an impossible number of neighbours no plane is ever fitted
    strict = planes("metres", plane_fit={"window": 3, "gamma": 1e-9, "min_neighbours": 9})[0]
    assert strict.normal is not None
    inside = strict.normal[:, 1:-1, 1:-1]
    expected = np.array(NORMAL) / np.linalg.norm(NORMAL)
    np.testing.assert_allclose(inside, np.broadcast_to(expected, inside.shape), atol=1e-4)


def test_disparity_keeps_its_scale_free_meaning() -> None:
    disparity = np.array([[8.0, 4.0, 2.0], [-1.0, np.nan, np.inf]], np.float32)
    found = depth_from_disparity(disparity, 1e9)
    np.testing.assert_allclose(found[0], [1, 2, 4], rtol=1e-6)
    assert found[1, 0] == pytest.approx(1e9)
    assert found[1, 1:].tolist() == [0, 0]
    np.testing.assert_allclose(depth_from_disparity(disparity * 3, 50.0), depth_from_disparity(disparity, 50.0))
    assert not depth_from_disparity(np.zeros((2, 2), np.float32), 10.0).any()


def test_a_field_of_view_stands_in_for_intrinsics() -> None:
    flat = {"normal": [0, 0, -1]}
    model = DepthNormals({"depth_model": HERE, "depth": "metres", "depth_settings": flat, "fov_degrees": 60})
    assert not model.needs_intrinsics
    # a wall seen head-on has the same normal whatever the focal length
    found = model._normals(np.full((1, 20, 30), 3, np.float32), camera_without())
    np.testing.assert_allclose(found, np.broadcast_to([0, 0, -1.0], found.shape), atol=1e-6)
    strict = DepthNormals({"depth_model": HERE, "depth": "metres", "depth_settings": flat})
    assert strict.needs_intrinsics
    with pytest.raises(ModelError, match="Set 'fov_degrees'"):
        strict._normals(np.full((1, 20, 30), 3, np.float32), camera_without())


def camera_without() -> Any:
    from ncbench.models.adapters.depth_normals import _Camera

    return _Camera("room", None)


def test_models_without_depth_and_other_classes_are_refused() -> None:
    with pytest.raises(ModelError, match="answered without depth"):
        planes("metres", depth_settings={"normal": NORMAL, "silent": True})
    with pytest.raises(ModelError, match="not a subclass"):
        DepthNormals({"depth_model": "builtins:dict", "depth": "metres"})
    with pytest.raises(CardError, match="Valid: disparity, metres, relative"):
        DepthNormals({"depth_model": HERE, "depth": "inverse"})


@pytest.mark.parametrize("name", ["depth-anything-v2", "depth-anything-v2-small"])
def test_cards_answer_normals_and_disparity_at_input_size(weights: Path, name: str) -> None:
    card = catalog.load(ModelCard, name)
    adapter = load_adapter(card)
    assert (adapter.per_frame, adapter.memory, adapter.needs_intrinsics) == (True, "8GB", False)
    answer = LoadedModel(card, adapter, Runtime(weights=weights)).answer(make_clip(2, 33, 47))
    assert answer.normal is not None
    assert answer.depth is not None
    assert answer.normal.shape == (2, 33, 47, 3)
    assert answer.depth.shape == (2, 33, 47)
    # what is fitted to visible points faces the camera
    rays = pinhole_rays(
        np.array([[47 / 2 / np.tan(np.pi / 6), 0, 23], [0, 47 / 2 / np.tan(np.pi / 6), 16], [0, 0, 1]]), 33, 47
    )
    seen = np.linalg.norm(answer.normal, axis=-1) > 0
    assert seen.mean() > 0.9
    assert ((answer.normal * rays).sum(-1)[seen] <= 0).all()
