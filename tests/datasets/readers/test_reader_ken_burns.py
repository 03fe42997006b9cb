"""The 3D Ken Burns reader on its miniature, against the renderer's truth."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.datasets.mini.layout_ken_burns import (
    KenBurnsLayoutSettings,
    ken_burns_scene,
    move_view,
    write_ken_burns_layout,
)
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.source_files import pack_zip, write_exr
from ncbench.datasets.readers.ken_burns import VIEWS, KenBurnsReader
from ncbench.errors import CardError, SourceError

LAYOUT = {
    "seed": 11,
    "samples": 2,
    "height": 48,
    "width": 64,
    "captures": [{"name": "town-flying", "kind": "outdoor"}, {"name": "asdf-walking", "kind": "room"}],
}
SETTINGS = {"axes": "opencv", "size": [48, 64], "flow": True}
# components in half precision are off by at most 2^-12 of their size's power of two: 2^-12 in (0.5, 1]
HALF_BOUND = np.degrees(np.sqrt(3) * 2**-12)


def angles(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.einsum("ni,ni->n", a, b)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("ken-burns")
    write_ken_burns_layout(out, LAYOUT)
    return out


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made, tmp_path / "raw")
    return tmp_path / "raw"


def truth(sequence, view):
    layout = KenBurnsLayoutSettings.parse(LAYOUT, "test")
    name, number = sequence.rsplit("-", 1)
    capture = next(item for item in layout.captures if item.name == name)
    scene = ken_burns_scene(layout, capture, int(number) - 1)
    return render_frame(move_view(scene, int(number) - 1, view), 0)


def test_one_capture_is_zipped_and_the_other_is_not(made):
    assert (made / "town-flying-normal.zip").is_file()
    assert (made / "asdf-walking-normal" / "00001-bl-normal.exr").is_file()
    with zipfile.ZipFile(made / "town-flying-depth.zip") as archive:
        assert "town-flying-depth/00002-tr-depth.exr" in archive.namelist()


def test_frames_agree_with_the_renderer(made, record_property):
    reader = KenBurnsReader(made, SETTINGS)
    assert list(reader.sequences()) == [
        f"{name}-0000{number}" for name in ("asdf-walking", "town-flying") for number in (1, 2)
    ]
    errors = []
    for sequence, frames in reader.sequences().items():
        first_pose = truth(sequence, "tl").cam_to_world
        for frame in reader.read(sequence, frames):
            exact = truth(sequence, VIEWS[frame.frame])
            assert frame.extra == {"view": VIEWS[frame.frame]}
            np.testing.assert_array_equal(frame.valid, exact.valid)
            errors.append(angles(frame.normal[frame.valid], exact.normal[frame.valid]))
            np.testing.assert_allclose(frame.depth, exact.depth, rtol=1e-6)
            np.testing.assert_allclose(frame.intrinsics, exact.intrinsics, atol=1e-9)
            relative = np.linalg.inv(first_pose) @ exact.cam_to_world
            np.testing.assert_allclose(frame.cam_to_world, relative, atol=1e-12)
    errors = np.concatenate(errors)
    record_property("degrees", f"mean {errors.mean():.2g}, max {errors.max():.2g}")
    assert errors.max() < HALF_BOUND


def test_flow_between_views_is_the_baseline_over_the_depth(made):
    frames = list(KenBurnsReader(made, SETTINGS).read("asdf-walking-00001", range(4)))
    for frame, (across, down) in zip(frames, ((-1, 0), (0, -1), (1, 0)), strict=False):
        disparity = frame.intrinsics[0, 0] * 0.2 / frame.depth
        expected = np.stack([across * disparity, down * disparity], axis=-1)
        np.testing.assert_allclose(frame.flow, expected, atol=1e-4)
        assert 0 < frame.occluded.mean() < 0.3
    assert frames[3].flow is None
    assert frames[3].occluded is None
    without = next(KenBurnsReader(made, SETTINGS | {"flow": False}).read("asdf-walking-00001", [0]))
    assert without.flow is None


def test_zip_and_folder_read_alike(root):
    before = next(KenBurnsReader(root, SETTINGS).read("asdf-walking-00002", [1]))
    for kind in ("", "-depth", "-normal"):
        pack_zip(root / f"asdf-walking{kind}")
    after = next(KenBurnsReader(root, SETTINGS).read("asdf-walking-00002", [1]))
    np.testing.assert_array_equal(before.normal, after.normal)
    assert before.image == after.image


def test_the_field_of_view_spans_the_longer_side(root):
    for kind in ("image.png", "depth.exr", "normal.exr"):
        for path in root.glob(f"asdf-walking*/*-{kind}"):
            if kind == "image.png":
                Image.new("RGB", (40, 60)).save(path)
            else:
                write_exr(path, dict.fromkeys("RGB", np.full((60, 40), -0.577 if "normal" in kind else 300, "f")))
    frame = next(
        KenBurnsReader(
            root,
            {
                "axes": "opencv",
                "size": None,
                "components": {"channels": ["B", "G", "R"], "signs": [1, 1, 1], "max_away": 1.0},
            },
        ).read("asdf-walking-00001", [0])
    )
    field = json.loads((root / "asdf-walking" / "00001-meta.json").read_text())["fltFov"]
    np.testing.assert_allclose(frame.intrinsics[0, 0], 30 / np.tan(np.radians(field) / 2))
    np.testing.assert_allclose(frame.intrinsics[:2, 2], [19.5, 29.5])


def test_a_wrong_channel_order_is_named_with_the_one_that_fits(made):
    wrong = SETTINGS | {"components": {"channels": ["R", "G", "B"], "signs": [1, -1, 1]}}
    reader = KenBurnsReader(made, wrong)
    with pytest.raises(SourceError, match=r"normal\.exr: .*\['B', 'G', 'R'\] times \[1, -1, 1\] fits"):
        list(reader.read("asdf-walking-00001", [0]))


def test_a_wrong_depth_unit_and_a_wrong_size_are_named(made):
    with pytest.raises(SourceError, match=r"depth\.exr: .*median depth"):
        list(KenBurnsReader(made, SETTINGS | {"depth_scale": 1e-5}).read("asdf-walking-00001", [0]))
    with pytest.raises(SourceError, match="expected 512 x 512 pixels"):
        list(KenBurnsReader(made, {}).read("asdf-walking-00001", [0]))


def test_the_far_limit_drops_depth_and_normals(made):
    frame = next(KenBurnsReader(made, SETTINGS | {"max_depth": 20.0}).read("town-flying-00001", [0]))
    exact = truth("town-flying-00001", "tl")
    np.testing.assert_array_equal(frame.valid, exact.valid & (exact.depth < 20))


def test_missing_and_damaged_files_are_told(root):
    reader = KenBurnsReader(root, SETTINGS)
    path = root / "asdf-walking-normal" / "00001-tl-normal.exr"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(SourceError, match="00001-tl-normal"):
        list(reader.read("asdf-walking-00001", [0]))
    write_exr(path, {"X": np.zeros((48, 64), np.float32)})
    with pytest.raises(SourceError, match="expected channels R, G, B"):
        list(reader.read("asdf-walking-00001", [0]))
    meta = root / "asdf-walking" / "00001-meta.json"
    for text in ("", "{}", '{"fltFov": "wide"}', '{"fltFov": 190}', "[1]"):
        meta.write_text(text)
        with pytest.raises(SourceError, match="fltFov"):
            list(reader.read("asdf-walking-00001", [1]))
    path.unlink()
    with pytest.raises(SourceError, match=r"00001-tl-normal\.exr: expected a file, found none"):
        KenBurnsReader(root, SETTINGS)
    shutil.rmtree(root / "asdf-walking-depth")
    with pytest.raises(SourceError, match=r"asdf-walking-depth\.zip: expected this archive"):
        KenBurnsReader(root, SETTINGS)


def test_an_empty_folder_a_typo_and_an_unknown_frame_are_told(made, tmp_path):
    with pytest.raises(SourceError, match="expected captures"):
        KenBurnsReader(tmp_path, {})
    with pytest.raises(CardError, match="depth_scale"):
        KenBurnsReader(made, {"depth_scales": 1})
    with pytest.raises(SourceError, match=r"not \[4\]"):
        list(KenBurnsReader(made, SETTINGS).read("asdf-walking-00001", [4]))


def test_the_fingerprint_sees_the_next_views_depth_only_with_flow(root):
    with_flow, without = (KenBurnsReader(root, SETTINGS | {"flow": flow}) for flow in (True, False))
    before = [reader.fingerprint("asdf-walking-00001", [0]) for reader in (with_flow, without)]
    path = root / "asdf-walking-depth" / "00001-tr-depth.exr"
    path.write_bytes(path.read_bytes() + b" ")
    after = [reader.fingerprint("asdf-walking-00001", [0]) for reader in (with_flow, without)]
    assert before[0] != after[0]
    assert before[1] == after[1]


@pytest.mark.parametrize("name", ["ken-burns", "ken-burns-mini"])
def test_the_cards_settings_fit_the_reader(name, made):
    card = catalog.load(DatasetCard, name)
    assert KenBurnsReader(made, card.reader_settings()).normal_source == card.normals
