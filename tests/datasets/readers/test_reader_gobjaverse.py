"""The G-Objaverse reader on its miniature, against the renderer's truth."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.datasets.mini.layout_objaverse import (
    GObjaverseLayoutSettings,
    gobjaverse_scene,
    write_gobjaverse_layout,
)
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.source_files import pack_tar, write_exr
from ncbench.datasets.readers.gobjaverse import GObjaverseReader
from ncbench.errors import CardError, SourceError

LAYOUT = {
    "seed": 13,
    "views": 4,
    "size": 64,
    "objects": [
        {"group": 0, "number": 10010, "packed": True},
        {"group": 0, "number": 10011, "broken_views": [2]},
        {"group": 1, "number": 9},
    ],
}
SETTINGS = {"axes": "opengl", "size": [64, 64], "flow": True}
VIEW = "0/10011/campos_512_v4/00000/00000"
FLOAT_BOUND = np.degrees(2 * np.sqrt(3) * 2**-24)  # float32 on disk and again in the frame


def angles(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.einsum("ni,ni->n", a, b)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("gobjaverse")
    write_gobjaverse_layout(out, LAYOUT)
    return out


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made, tmp_path / "raw")
    return tmp_path / "raw"


def truth(sequence, view):
    layout = GObjaverseLayoutSettings.parse(LAYOUT, "test")
    item = next(item for item in layout.objects if sequence == f"{item.group}-{item.number}")
    return render_frame(gobjaverse_scene(layout, item), view)


def test_frames_agree_with_the_renderer(made, record_property):
    reader = GObjaverseReader(made, SETTINGS)
    assert dict(reader.sequences()) == {"0-10010": (0, 1, 2, 3), "0-10011": (0, 1, 3), "1-9": (0, 1, 2, 3)}
    errors = []
    for sequence, views in reader.sequences().items():
        for frame in reader.read(sequence, views):
            exact = truth(sequence, frame.frame)
            exact.valid[-1] = False  # the miniature stores NaN there
            np.testing.assert_array_equal(frame.valid, exact.valid)
            errors.append(angles(frame.normal[frame.valid], exact.normal[frame.valid]))
            np.testing.assert_allclose(frame.depth, exact.depth, rtol=1e-6)
            np.testing.assert_allclose(frame.intrinsics, exact.intrinsics, atol=1e-9)
            np.testing.assert_allclose(frame.cam_to_world, exact.cam_to_world, atol=1e-12)
    errors = np.concatenate(errors)
    record_property("degrees", f"mean {errors.mean():.2g}, max {errors.max():.2g}")
    assert errors.max() < FLOAT_BOUND


def test_flow_leads_to_the_next_complete_view(made):
    frames = {frame.frame: frame for frame in GObjaverseReader(made, SETTINGS).read("0-10011", (0, 1, 3))}
    exact = truth("0-10011", 0)
    known = exact.valid & np.isfinite(exact.flow[..., 0])
    np.testing.assert_allclose(frames[0].flow[known], exact.flow[known], atol=1e-3)
    assert (frames[0].occluded[known] != exact.occluded[known]).mean() < 0.1
    after = truth("0-10011", 3)
    one = truth("0-10011", 1)
    y, x = np.nonzero(one.valid)
    local = np.stack([(x - 31.5) / one.intrinsics[0, 0], (y - 31.5) / one.intrinsics[0, 0], x * 0 + 1.0], -1)
    world = (local * one.depth[y, x][:, None]) @ one.cam_to_world[:3, :3].T + one.cam_to_world[:3, 3]
    seen = (world - after.cam_to_world[:3, 3]) @ after.cam_to_world[:3, :3] @ after.intrinsics.T
    np.testing.assert_allclose(frames[1].flow[y, x], seen[:, :2] / seen[:, 2:] - np.stack([x, y], -1), atol=1e-3)
    assert frames[3].flow is None


def test_pictures_are_laid_over_the_background(root):
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[..., :3], rgba[:32, :, 3], rgba[32:, :, 3] = (200, 100, 0), 255, 51
    Image.fromarray(rgba).save(root / f"{VIEW}.png")
    frame = next(GObjaverseReader(root, SETTINGS | {"background": [0, 100, 255]}).read("0-10011", [0]))
    picture = Image.open(io.BytesIO(frame.image))
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    pixels = np.asarray(picture)
    np.testing.assert_array_equal(pixels[0, 0], [200, 100, 0])
    np.testing.assert_array_equal(pixels[-1, 0], [40, 100, 204])
    assert not frame.valid[32:].any()  # half transparent
    assert GObjaverseReader(root, SETTINGS | {"min_alpha": 51}).read("0-10011", [0])


def test_depth_under_the_cubes_reach_is_dropped(root):
    path = root / f"{VIEW}.json"
    values = json.loads(path.read_text())
    distance = np.linalg.norm(values["origin"])
    depth = np.full((64, 64), distance - 0.867 + 0.01, np.float32)
    depth[:20], depth[20:25] = distance - 0.867 - 0.01, np.nan
    write_exr(root / f"{VIEW}_nd.exr", {"R": depth * 0, "G": depth * 0, "B": depth * 0, "A": depth})
    frame = next(GObjaverseReader(root, SETTINGS).read("0-10011", [0]))
    assert not frame.depth[:25].any()
    np.testing.assert_allclose(frame.depth[25:], distance - 0.857, rtol=1e-6)
    assert not frame.valid.any()


def test_wrong_channels_and_the_other_kind_of_camera_are_named(made):
    wrong = {"components": {"channels": ["R", "G", "B"], "signs": [1, 1, 1]}}
    with pytest.raises(SourceError, match=r"00000_nd\.exr: .*\['R', 'B', 'G'\] times \[-1, -1, 1\] fits"):
        list(GObjaverseReader(made, SETTINGS | wrong).read("1-9", [0]))
    with pytest.raises(SourceError, match="fits|point away"):
        list(GObjaverseReader(made, SETTINGS | {"columns": "blender"}).read("1-9", [0]))


def test_folders_and_tars_read_alike_and_lists_leave_out(root):
    before = next(GObjaverseReader(root, SETTINGS).read("1-9", [1]))
    pack_tar(root / "1" / "9")
    after = next(GObjaverseReader(root, SETTINGS).read("1-9", [1]))
    np.testing.assert_array_equal(before.normal, after.normal)
    (root / "poor.json").write_text(json.dumps(["0/10010", "1/9"]))
    assert list(GObjaverseReader(root, SETTINGS | {"exclude": "poor.json"}).sequences()) == ["0-10011"]
    assert list(GObjaverseReader(root, SETTINGS | {"min_views": 4}).sequences()) == ["0-10010", "1-9"]
    assert GObjaverseReader(root, SETTINGS | {"views": [0, 2]}).sequences()["0-10011"] == (0,)
    (root / "poor.json").write_text("nothing")
    with pytest.raises(SourceError, match="expected ids like"):
        GObjaverseReader(root, SETTINGS | {"exclude": "poor.json"})


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"x": 1}', '{"x": [1,0,0], "y": [0,1,0], "z": [0,0,3], "origin": [0,0,2]}']
)
def test_a_damaged_camera_is_told(text, root):
    (root / f"{VIEW}.json").write_text(text)
    with pytest.raises(SourceError, match=r"00000\.json: expected JSON with a camera"):
        list(GObjaverseReader(root, SETTINGS).read("0-10011", [0]))


def test_damaged_and_missing_files_are_told(root, tmp_path):
    reader = GObjaverseReader(root, SETTINGS)
    path = root / f"{VIEW}_nd.exr"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(SourceError, match="00000_nd.exr"):
        list(reader.read("0-10011", [0]))
    write_exr(path, dict.fromkeys("RGB", np.zeros((64, 64), np.float32)))
    with pytest.raises(SourceError, match="A is missing"):
        list(reader.read("0-10011", [0]))
    Image.new("RGB", (64, 64)).save(root / f"{VIEW}.png")
    with pytest.raises(SourceError, match="expected red, green, blue and alpha"):
        list(reader.read("0-10011", [0]))
    with pytest.raises(SourceError, match="expected 512 x 512 pixels"):
        list(GObjaverseReader(root, {"axes": "opengl"}).read("1-9", [0]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="expected objects"):
        GObjaverseReader(tmp_path / "empty", {})
    with pytest.raises(CardError, match="cube_radius"):
        GObjaverseReader(root, {"cube": 1})


@pytest.mark.parametrize("name", ["gobjaverse", "gobjaverse-mini"])
def test_the_cards_settings_fit_the_reader(name, made):
    card = catalog.load(DatasetCard, name)
    assert GObjaverseReader(made, card.reader_settings()).normal_source == card.normals
