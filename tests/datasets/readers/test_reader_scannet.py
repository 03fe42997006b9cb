"""ScanNet as video: both forms of a scan, two cameras, lost tracking, flow from depth and poses."""

import io
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from ncbench.datasets.mini.layout_scannet import (
    LOST,
    ScannetMiniSettings,
    SensFrame,
    scene_of,
    write_export,
    write_scannet_layout,
    write_sens,
)
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.readers.scannet import ScannetReader
from ncbench.datasets.readers.scannet_lists import read_list
from ncbench.errors import CardError, SourceError

MINI = {
    "frames": 5,
    "height": 72,
    "width": 96,
    "lost_frame": 2,
    "sequences": [{"name": "scene0707_00", "kind": "room"}, {"name": "scene0708_00", "kind": "objects"}],
}
FILTERS = (minimum_filter, maximum_filter)
SPLITS = Path(__file__).resolve().parents[3] / "datasets" / "splits"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("scannet")
    write_scannet_layout(root, MINI)
    return root


@pytest.fixture(scope="module")
def truth():
    checked = ScannetMiniSettings.parse(MINI, "test")
    return {clip.name: [render_frame(scene_of(checked, clip), i) for i in range(5)] for clip in checked.sequences}


def angles(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def flat_scan(folder, *, extrinsic=None, form="sens", pose=None, slope=(2, 3)):
    """One frame of a wall at 2 m, seen by a colour camera whose pixels hold ``slope`` times their column and row."""
    k_depth = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
    k_color = np.array([[118.0, 0, 60.0], [0, 119.0, 50.0], [0, 0, 1]])
    y, x = np.mgrid[:96, :128]
    rgb = np.stack([x * slope[0], y * slope[1] / 2, 0 * x], axis=-1).clip(0, 255).astype(np.uint8)
    frames = [SensFrame(np.eye(4) if pose is None else pose, rgb, np.full((48, 64), 2000, np.uint16))]
    folder.mkdir(parents=True, exist_ok=True)
    if form == "sens":
        path = folder / f"{folder.name}.sens"
        write_sens(path, frames, k_color, k_depth, extrinsic_depth=extrinsic, colour="png", depth="raw")
    else:
        write_export(folder, frames, k_color, k_depth)
    return k_color, k_depth


def test_sequences_leave_lost_frames_out(made):
    reader = ScannetReader(made, {})
    assert dict(reader.sequences()) == {"scene0707_00": (0, 1, 3, 4), "scene0708_00": (0, 1, 3, 4)}
    assert dict(ScannetReader(made / "scans_test", {}).sequences()) == dict(reader.sequences())


@pytest.mark.parametrize("name", ["scene0707_00", "scene0708_00"])
def test_depth_poses_and_normals(made, truth, name):
    for frame in ScannetReader(made, {}).read(name, [0, 1, 3, 4]):
        seen = truth[name][frame.frame]
        np.testing.assert_allclose(frame.depth, seen.depth, atol=0.5001e-3)  # millimetres
        np.testing.assert_allclose(frame.cam_to_world, seen.cam_to_world, atol=1e-6)
        np.testing.assert_allclose(frame.intrinsics, seen.intrinsics, atol=1e-5)
        # Half a millimetre against least squares over 5 x 5 pixels tilts a plane by at most 0.3 mm a pixel (the sum of
        # |x| over that of x^2), in each of two directions; a pixel is depth / focal wide.
        one_plane = [np.ptp([f(seen.normal[..., i], 5) for f in FILTERS], axis=0) < 1e-9 for i in range(3)]
        one_body = minimum_filter(seen.ids, 5) == maximum_filter(seen.ids, 5)
        whole = np.ptp([f(seen.depth, 5) for f in FILTERS], axis=0) < 0.049 * seen.depth  # no window is cut by gamma
        whole[:2] = whole[-2:] = whole[:, :2] = whole[:, -2:] = False  # nor by the border
        inner = np.all(one_plane, axis=0) & one_body & whole & frame.valid
        bound = np.degrees(np.sqrt(2) * 0.3e-3 * seen.intrinsics[0, 0] / seen.depth[inner])
        errors = angles(frame.normal[inner], seen.normal[inner])
        assert inner.sum() > 200
        assert (errors <= bound).all()
        assert errors.mean() < 0.5


@pytest.mark.parametrize("name", ["scene0707_00", "scene0708_00"])
def test_flow_and_occlusion(made, truth, name):
    first, second, third, last = ScannetReader(made, {}).read(name, [0, 1, 3, 4])
    assert last.flow is None
    assert last.occluded is None
    seen = truth[name][0]
    moving = np.array([not np.allclose(motion, np.eye(4)) for motion in seen.motions])
    still = seen.valid & ~moving[seen.ids - 1]
    # half a millimetre of depth moves a point by at most the flow's parallax times 0.5 mm / depth; poses by 1e-6
    np.testing.assert_allclose(first.flow[still], seen.flow[still], atol=0.02)
    away = (minimum_filter(seen.ids, 3) == maximum_filter(seen.ids, 3)) & still
    assert (first.occluded == seen.occluded)[away].mean() > 0.98
    # over the lost frame 2 the flow leads from 1 to 3: check it by reprojection with the frames' own poses
    y, x = np.mgrid[:72, :96]
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(second.intrinsics).T
    world = (rays * second.depth[..., None]) @ second.cam_to_world[:3, :3].T + second.cam_to_world[:3, 3]
    image = (world - third.cam_to_world[:3, 3]) @ third.cam_to_world[:3, :3] @ third.intrinsics.T
    expected = image[..., :2] / image[..., 2:] - np.stack([x, y], -1)
    known = second.depth > 0
    np.testing.assert_allclose(second.flow[known], expected[known], atol=1e-3)


@pytest.mark.parametrize("name", ["scene0707_00", "scene0708_00"])
def test_pictures_lie_on_the_depth_grid(made, truth, name):
    """The colour camera's picture, brought to the depth camera, is what the depth camera would have seen."""
    for frame in ScannetReader(made, {}).read(name, [0, 4]):
        picture = np.asarray(Image.open(io.BytesIO(frame.image))).astype(float)
        seen = truth[name][frame.frame].rgb.astype(float)
        own = np.abs(picture - seen).mean()
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            assert own < 0.8 * np.abs(np.roll(picture, shift, (0, 1)) - seen).mean()


@pytest.mark.parametrize("moved", [False, True])
def test_pictures_follow_both_cameras_exactly(tmp_path, moved):
    extrinsic = np.eye(4)
    if moved:
        angle = 0.05
        extrinsic[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        extrinsic[:3, 3] = [0.03, -0.02, 0.01]
    k_color, k_depth = flat_scan(tmp_path / "scene0001_00", extrinsic=extrinsic)
    (frame,) = ScannetReader(tmp_path, {}).read("scene0001_00", [0])
    picture = np.asarray(Image.open(io.BytesIO(frame.image))).astype(float)
    assert picture.shape == (48, 64, 3)
    y, x = np.mgrid[:48, :64]
    points = 2 * np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(k_depth).T
    image = (points @ extrinsic[:3, :3].T + extrinsic[:3, 3]) @ k_color.T
    u, v = image[..., 0] / image[..., 2], image[..., 1] / image[..., 2]
    inner = (u > 2) & (u < 124) & (v > 2) & (v < 92)
    assert inner.mean() > 0.7
    # a ramp survives area averaging and bilinear sampling; what is left is rounding to 8 bits, three times
    assert np.abs(picture[..., 0] - 2 * u)[inner].max() < 1.6
    assert np.abs(picture[..., 1] - 1.5 * v)[inner].max() < 1.6
    np.testing.assert_allclose(frame.cam_to_world, extrinsic, atol=1e-7)  # the pose carries the base frame


def test_one_camera_keeps_the_stored_picture(tmp_path):
    folder, k = tmp_path / "scene0001_00", np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
    rgb = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    write_export(folder, [SensFrame(np.eye(4), rgb, np.full((48, 64), 2000, np.uint16))], k, k)
    (frame,) = ScannetReader(tmp_path, {}).read("scene0001_00", [0])
    assert frame.image == (folder / "color" / "0.jpg").read_bytes()


def test_clips(made, tmp_path):
    (tmp_path / "clips.txt").write_text("# mine\nscene0708_00 1 3  # two are tracked\n")
    reader = ScannetReader(made, {"clips": str(tmp_path / "clips.txt")})
    assert dict(reader.sequences()) == {"scene0708_00": (1, 3)}
    first, last = reader.read("scene0708_00", [1, 3])
    assert first.flow is not None
    assert last.flow is None  # the clip ends here, although the scan does not
    for text, words in (("scene0708_00 1\n", "a scan not named before"), ("#\n", "at least one line")):
        (tmp_path / "clips.txt").write_text(text)
        with pytest.raises(CardError, match=words):
            ScannetReader(made, {"clips": str(tmp_path / "clips.txt")})
    (tmp_path / "clips.txt").write_text("scene0708_00 3 3\n")
    with pytest.raises(SourceError, match=r"frames 3 to 5, but \[5\] is not there"):
        ScannetReader(made, {"clips": str(tmp_path / "clips.txt")})
    (tmp_path / "clips.txt").write_text("scene0700_00 3 3\n")
    with pytest.raises(SourceError, match="expected the folder of this scan"):
        ScannetReader(made, {"clips": str(tmp_path / "clips.txt")})
    with pytest.raises(CardError, match="Did you mean 'scannet-video20x50'"):
        ScannetReader(made, {"clips": "scannet-video20x5"})


def test_the_published_clips_are_what_their_seed_says():
    rng = random.Random(20)
    names = sorted(rng.sample([f"scene{number:04d}_00" for number in range(707, 807)], 20))
    expected = [[name, str(10 * rng.randrange(11)), "50"] for name in names]
    assert read_list("scannet-video20x50") == expected
    assert "NOT NormalCrafter" in (SPLITS / "scannet-video20x50.txt").read_text()


def test_settings(made):
    (near,) = ScannetReader(made, {"max_depth": 2.0, "flow": False}).read("scene0707_00", [0])
    assert near.depth.max() < 2.0
    assert not near.valid[near.depth == 0].any()
    assert near.flow is None
    with pytest.raises(CardError, match="max_depth"):
        ScannetReader(made, {"max_depth": 0})


def test_fingerprint_covers_the_next_frame_too(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "raw")
    names = ("scene0707_00", "scene0708_00")
    before = {name: ScannetReader(made, {}).fingerprint(name, [0]) for name in names}
    assert {name: ScannetReader(copy, {}).fingerprint(name, [0]) for name in names} == before
    depth = copy / "scans_test" / "scene0708_00" / "depth"
    content = (depth / "1.png").read_bytes()
    (depth / "1.png").write_bytes(content + b"\0")
    assert ScannetReader(copy, {}).fingerprint("scene0708_00", [0]) != before["scene0708_00"]
    (depth / "1.png").write_bytes(content)
    (depth / "4.png").write_bytes(b"changed")
    assert ScannetReader(copy, {}).fingerprint("scene0708_00", [0]) == before["scene0708_00"]
    sens = copy / "scans_test" / "scene0707_00" / "scene0707_00.sens"
    stored = bytearray(sens.read_bytes())
    stored[16] ^= 1  # the sensor's name
    sens.write_bytes(stored)
    assert ScannetReader(copy, {}).fingerprint("scene0707_00", [0]) != before["scene0707_00"]


def test_every_damaged_file_is_named(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "raw")
    folder = copy / "scans_test" / "scene0708_00"
    for kind, name in (("color", "0.jpg"), ("depth", "0.png"), ("pose", "0.txt"), ("intrinsic", "intrinsic_depth.txt")):
        path = folder / kind / name
        content = path.read_bytes()
        for bad in (content[: len(content) // 2], b"", b"?" * len(content), None):
            path.unlink() if bad is None else path.write_bytes(bad)
            with pytest.raises(SourceError, match="scene0708_00"):
                list(ScannetReader(copy, {}).read("scene0708_00", [0]))
            path.write_bytes(content)
    sens = copy / "scans_test" / "scene0707_00" / "scene0707_00.sens"
    content = sens.read_bytes()
    for bad in (content[:3], content[:400], content[: len(content) // 2]):
        sens.write_bytes(bad)
        with pytest.raises(SourceError, match=r"scene0707_00\.sens"):
            list(ScannetReader(copy, {}).read("scene0707_00", [0, 4]))
    (folder / "depth" / "0.png").unlink()
    sens.write_bytes(content)
    assert ScannetReader(copy, {}).sequences()["scene0708_00"] == (1, 3, 4)
    shutil.rmtree(folder / "pose")
    with pytest.raises(SourceError, match=r"scene0708_00/pose: expected a folder"):
        ScannetReader(copy, {})
    with pytest.raises(SourceError, match="expected folders such as scene0000_00"):
        ScannetReader(folder, {})


def test_scans_that_make_no_sense(tmp_path):
    flat_scan(tmp_path / "scene0001_00", pose=LOST)
    with pytest.raises(SourceError, match="the tracking lost every frame"):
        ScannetReader(tmp_path, {})
    flat_scan(tmp_path / "scene0001_00", pose=np.diag([2.0, 2, 2, 1]))
    with pytest.raises(SourceError, match="pose of frame 0 is no rigid motion"):
        ScannetReader(tmp_path, {})
    flat_scan(tmp_path / "scene0001_00", extrinsic=np.diag([2.0, 2, 2, 1]))
    with pytest.raises(SourceError, match="extrinsic matrix is no rigid motion"):
        ScannetReader(tmp_path, {})
    shutil.rmtree(tmp_path / "scene0001_00")
    flat_scan(tmp_path / "scene0001_00", form="export")
    Image.new("L", (64, 48)).save(tmp_path / "scene0001_00" / "depth" / "0.png")
    with pytest.raises(SourceError, match="expected 16-bit grey depth"):
        list(ScannetReader(tmp_path, {}).read("scene0001_00", [0]))
