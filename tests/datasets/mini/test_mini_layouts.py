"""Files of the miniature data sets, read back without the package's own readers."""

import hashlib
import struct

import numpy as np
import pytest
from PIL import Image

from ncbench.datasets.mini.layouts import SINTEL_SKY_DEPTH, write_folder_layout, write_sintel_layout
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.errors import CardError

SETTINGS = {
    "seed": 3,
    "frames": 3,
    "height": 24,
    "width": 32,
    "sequences": [{"name": "street_1", "kind": "outdoor", "seed": 1}, {"name": "toys_1", "kind": "objects"}],
}


def hashes(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("folder")
    write_folder_layout(out, SETTINGS)
    return out


@pytest.fixture(scope="module")
def sintel(tmp_path_factory):
    out = tmp_path_factory.mktemp("sintel")
    write_sintel_layout(out, SETTINGS)
    return out / "training"


@pytest.fixture(scope="module")
def street():
    scene = make_scene("outdoor", 1, 3, 24, 32)
    return [render_frame(scene, index) for index in range(3)]


def test_folder_layout_files(folder):
    expected = {"intrinsics.txt", "poses.txt", "flow/0000.npy", "flow/0001.npy"}
    expected |= {"occluded/0000.png", "occluded/0001.png"}
    expected |= {f"rgb/000{i}.png" for i in range(3)}
    expected |= {f"{kind}/000{i}.npy" for kind in ("normal", "depth") for i in range(3)}
    assert set(hashes(folder)) == {f"{name}/{file}" for name in ("street_1", "toys_1") for file in expected}


def test_folder_layout_contents(folder, street):
    root = folder / "street_1"
    poses = np.loadtxt(root / "poses.txt")
    np.testing.assert_array_equal(poses, [frame.cam_to_world.ravel() for frame in street])
    np.testing.assert_array_equal(np.loadtxt(root / "intrinsics.txt"), street[0].intrinsics)
    for index, frame in enumerate(street):
        with Image.open(root / f"rgb/000{index}.png") as picture:
            assert picture.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(picture), frame.rgb)
        normal = np.load(root / f"normal/000{index}.npy")
        assert normal.dtype == np.float32
        np.testing.assert_array_equal(normal[..., 0], frame.normal[..., 0].astype(np.float32))
        np.testing.assert_array_equal(normal[..., 1:], -frame.normal[..., 1:].astype(np.float32))
        np.testing.assert_array_equal(normal.any(-1), frame.valid)
        assert not np.signbit(normal[~frame.valid]).any()
        assert (normal[..., 2][frame.ids == 1] > 0).any()  # OpenGL: towards the viewer, and the lawn looks up
        assert (normal[..., 1][frame.ids == 1] > 0).all()
        depth = np.load(root / f"depth/000{index}.npy")
        np.testing.assert_array_equal(depth, frame.depth.astype(np.float32))
    flow = np.load(root / "flow/0001.npy")
    assert flow.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(flow).any(-1), ~street[1].valid)


def test_sintel_layout_files(sintel):
    names = ("street_1", "toys_1")
    frames = [f"frame_000{i}" for i in (1, 2, 3)]
    expected = {f"{kind}/{n}/{f}.png" for kind in ("clean", "final") for n in names for f in frames}
    expected |= {f"depth/{n}/{f}.dpt" for n in names for f in frames}
    expected |= {f"camdata_left/{n}/{f}.cam" for n in names for f in frames}
    expected |= {f"flow/{n}/{f}.flo" for n in names for f in frames[:2]}
    expected |= {f"{kind}/{n}/{f}.png" for kind in ("invalid", "occlusions") for n in names for f in frames[:2]}
    assert set(hashes(sintel)) == expected


def grid(path, channels):
    raw = path.read_bytes()
    magic, width, height = struct.unpack("<fii", raw[:12])
    assert magic == 202021.25
    return np.frombuffer(raw[12:], "<f4").reshape((height, width, channels))


def test_sintel_layout_contents(sintel, street):
    frame = street[0]
    depth = grid(sintel / "depth/street_1/frame_0001.dpt", 1)[..., 0]
    np.testing.assert_array_equal(depth == np.float32(SINTEL_SKY_DEPTH), ~frame.valid)
    np.testing.assert_array_equal(depth[frame.valid], frame.depth[frame.valid].astype(np.float32))
    assert not frame.valid.all()
    flow = grid(sintel / "flow/street_1/frame_0001.flo", 2)
    masks = {}
    for kind in ("invalid", "occlusions"):
        with Image.open(sintel / kind / "street_1/frame_0001.png") as picture:
            assert picture.mode == "L"
            masks[kind] = np.asarray(picture)
        assert set(np.unique(masks[kind])) <= {0, 255}
    np.testing.assert_array_equal(masks["invalid"] == 255, ~frame.valid)
    np.testing.assert_array_equal(masks["occlusions"] == 255, frame.occluded & frame.valid)
    assert not flow[masks["invalid"] == 255].any()
    # x = M N X (the format's own definition) carries static points of frame 1 to the flow's targets in frame 2
    cameras = []
    for i in (1, 2):
        raw = (sintel / f"camdata_left/street_1/frame_000{i}.cam").read_bytes()
        assert struct.unpack("<f", raw[:4])[0] == 202021.25
        numbers = np.frombuffer(raw[4:], "<f8")
        cameras.append((numbers[:9].reshape(3, 3), numbers[9:].reshape(3, 4)))
    (m, n), (m2, n2) = cameras
    x, y = np.meshgrid(np.arange(32), np.arange(24))
    points = depth[..., None] * (np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(m).T)
    world = (points - n[:, 3]) @ n[:, :3]
    seen = (world @ n2[:, :3].T + n2[:, 3]) @ m2.T
    lawn = frame.ids == 1
    target = seen[..., :2] / seen[..., 2:] - np.stack([x, y], -1)
    np.testing.assert_allclose(flow[lawn], target[lawn], atol=1e-3)


def test_final_pass_is_a_softer_clean_pass(sintel):
    def load(kind):
        with Image.open(sintel / kind / "toys_1/frame_0001.png") as picture:
            return np.asarray(picture, dtype=float)

    clean, final = load("clean"), load("final")
    assert 0 < np.abs(clean - final).mean() < 25
    assert np.abs(np.diff(final, axis=1)).mean() < np.abs(np.diff(clean, axis=1)).mean()


@pytest.mark.parametrize("write", [write_folder_layout, write_sintel_layout])
def test_bytes_are_a_function_of_the_settings(write, tmp_path):
    small = {**SETTINGS, "frames": 2}
    for name, settings in (
        ("a", small),
        ("b", small),
        ("reordered", {**small, "sequences": small["sequences"][::-1]}),
        ("other", {**small, "seed": 4}),
    ):
        (tmp_path / name).mkdir()
        write(tmp_path / name, settings)
    first = hashes(tmp_path / "a")
    assert first == hashes(tmp_path / "b") == hashes(tmp_path / "reordered")
    other = hashes(tmp_path / "other")
    pictures = [path for path in first if path.endswith(".png") and ("rgb" in path or "clean" in path)]
    for path in pictures:  # a clip with its own seed ignores the data set's
        assert (first[path] == other[path]) == ("street_1" in path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 1}, "frames"),
        ({"height": 2}, "height"),
        ({"sequences": []}, "sequences"),
        ({"sequences": [{"name": "../up", "kind": "room"}]}, "name"),
        ({"sequences": [{"name": "a", "kind": "kitchen"}]}, "kind"),
        ({"sequences": [{"name": "a", "kind": "room"}, {"name": "a", "kind": "room"}]}, "more than once: a"),
        ({"framez": 2}, "Did you mean 'frames'"),
    ],
)
@pytest.mark.parametrize("write", [write_folder_layout, write_sintel_layout])
def test_bad_settings_write_nothing(write, change, message, tmp_path):
    with pytest.raises(CardError, match=message):
        write(tmp_path, {**SETTINGS, **change})
    assert not list(tmp_path.iterdir())
