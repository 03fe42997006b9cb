"""The Sintel reader on a tiny data set in the official layout: one plane and a moving, zooming camera."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ncbench.datasets.formats.sintel import write_cam, write_dpt, write_flo
from ncbench.datasets.readers.sintel import SintelReader, leaves_picture
from ncbench.errors import CardError, SourceError

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "sintel" / "alley_1"
H, W = 24, 40
PLANE_NORMAL = np.array([0.3, -0.5, -0.8]) / np.linalg.norm([0.3, -0.5, -0.8])  # world; n . X = OFFSET
OFFSET = -4.0


def camera(index):
    """Intrinsics and camera-to-world of frame ``index``; every frame has its own focal length."""
    angle = 0.03 * index
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, [0.1 * index, -0.02 * index, 0.05 * index]
    return np.array([[50.0 + index, 0, 19.5], [0, 50.0 + index, 11.5], [0, 0, 1]]), pose


def rays(intrinsics):
    y, x = np.mgrid[:H, :W]
    return np.stack(
        [(x - intrinsics[0, 2]) / intrinsics[0, 0], (y - intrinsics[1, 2]) / intrinsics[1, 1], x * 0 + 1], -1
    )


def plane(index):
    """Depth and camera-space normal."""
    intrinsics, pose = camera(index)
    normal = pose[:3, :3].T @ PLANE_NORMAL
    offset = OFFSET - PLANE_NORMAL @ pose[:3, 3]
    return offset / (rays(intrinsics) @ normal), normal


def project_to_next(index):
    intrinsics, pose = camera(index)
    depth, _ = plane(index)
    world = (rays(intrinsics) * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
    following, next_pose = camera(index + 1)
    seen = (world - next_pose[:3, 3]) @ next_pose[:3, :3]
    y, x = np.mgrid[:H, :W]
    image = seen @ following.T
    return image[..., :2] / image[..., 2:] - np.stack([x, y], -1)


def write_frame(root, sequence, index, last):
    for folder in ("final", "clean", "depth", "camdata_left", "flow", "invalid", "occlusions"):
        (root / folder / sequence).mkdir(parents=True, exist_ok=True)
    name = f"frame_{index:04d}"
    pixels = np.random.default_rng(index).integers(0, 255, (H, W, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "final" / sequence / f"{name}.png")
    Image.fromarray(255 - pixels).save(root / "clean" / sequence / f"{name}.png")
    depth = plane(index)[0].copy()
    depth[0, :3] = [1e9, np.nan, 0]
    write_dpt(root / "depth" / sequence / f"{name}.dpt", depth)
    intrinsics, pose = camera(index)
    write_cam(root / "camdata_left" / sequence / f"{name}.cam", intrinsics, np.linalg.inv(pose)[:3])
    if last:
        return
    write_flo(root / "flow" / sequence / f"{name}.flo", project_to_next(index))
    mask = np.zeros((H, W), np.uint8)
    mask[5, 6] = 255
    Image.fromarray(mask).save(root / "invalid" / sequence / f"{name}.png")
    Image.fromarray(np.roll(mask, 1, axis=1)).save(root / "occlusions" / sequence / f"{name}.png")


@pytest.fixture
def root(tmp_path):
    for sequence, count in (("alley_1", 3), ("bamboo_1", 2)):
        for index in range(1, count + 1):
            write_frame(tmp_path / "training", sequence, index, last=index == count)
    return tmp_path


def angle(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def test_sequences_and_frame_numbers(root):
    reader = SintelReader(root, {})
    assert dict(reader.sequences()) == {"alley_1": (1, 2, 3), "bamboo_1": (1, 2)}
    assert dict(SintelReader(root / "training", {"sequences": ["bamboo_1"]}).sequences()) == {"bamboo_1": (1, 2)}
    assert reader.normal_source == "plane_fit"
    assert [str(kind) for kind in reader.extra_features().values()] == ["string"]


@pytest.mark.parametrize("render_pass", ["clean", "final"])
def test_frames_match_the_closed_form(root, render_pass):
    frames = list(SintelReader(root, {"render_pass": render_pass}).read("alley_1", [1, 2, 3]))
    assert [frame.frame for frame in frames] == [1, 2, 3]
    for frame in frames:
        depth, normal = plane(frame.frame)
        intrinsics, pose = camera(frame.frame)
        assert frame.image == (root / "training" / render_pass / "alley_1" / f"frame_000{frame.frame}.png").read_bytes()
        assert frame.extra == {"render_pass": render_pass}
        np.testing.assert_array_equal(frame.intrinsics, intrinsics)
        np.testing.assert_allclose(frame.cam_to_world, pose, atol=1e-12)
        assert frame.depth[0, :3].tolist() == [0, 0, 0]
        np.testing.assert_allclose(frame.depth[1:], depth[1:], rtol=1e-6)
        assert not frame.valid[0, :3].any()
        assert frame.valid[1:].all()
        assert angle(frame.normal[frame.valid].astype(np.float64), normal).max() < 0.01
        assert ((frame.normal.astype(np.float64) * rays(intrinsics)).sum(-1)[frame.valid] < 0).all()
        assert (frame.normal.dtype, frame.depth.dtype, frame.valid.dtype) == (np.float32, np.float32, np.bool_)


def test_flow_and_occlusion(root):
    first, second, last = SintelReader(root, {}).read("alley_1", [1, 2, 3])
    assert last.flow is None
    assert last.occluded is None
    for frame in (first, second):
        expected = project_to_next(frame.frame)
        assert np.isnan(frame.flow[5, 6]).all()
        known = np.isfinite(frame.flow).all(-1)
        assert known.sum() == H * W - 1
        np.testing.assert_allclose(frame.flow[known], expected[known], atol=1e-4)
        assert frame.occluded[5, 7]
        x, y = np.arange(W) + expected[..., 0], np.arange(H)[:, None] + expected[..., 1]
        outside = (x < 0) | (x > W - 1) | (y < 0) | (y > H - 1)
        outside[5, 6:8] = [False, True]
        np.testing.assert_array_equal(frame.occluded, outside)
        assert outside.sum() > 10


def test_pose_depth_and_flow_agree_through_the_frame_alone(root):
    """What the reader gives is consistent without a look at the truth: reprojection gives the flow."""
    first, second = SintelReader(root, {}).read("bamboo_1", [1, 2])
    world = (rays(first.intrinsics) * first.depth[..., None]) @ first.cam_to_world[:3, :3].T + first.cam_to_world[:3, 3]
    seen = (world - second.cam_to_world[:3, 3]) @ second.cam_to_world[:3, :3] @ second.intrinsics.T
    y, x = np.mgrid[:H, :W]
    flow = seen[..., :2] / seen[..., 2:] - np.stack([x, y], -1)
    known = np.isfinite(first.flow).all(-1) & (first.depth > 0)
    np.testing.assert_allclose(flow[known], first.flow[known], atol=1e-4)


def test_max_depth_and_plane_fit_settings(root):
    depth = plane(1)[0]
    limit = float(np.median(depth))
    (frame,) = SintelReader(root, {"max_depth": limit}).read("alley_1", [1])
    np.testing.assert_array_equal(frame.depth[1:] > 0, depth.astype(np.float32)[1:] < limit)
    assert not (frame.valid & (frame.depth == 0)).any()
    (strict,) = SintelReader(root, {"plane_fit": {"window": 3, "min_neighbours": 9}}).read("alley_1", [1])
    assert not strict.valid[:, 0].any()  # at the border a 3 x 3 window holds fewer than nine points


def test_without_flow(root):
    for folder in ("flow", "invalid", "occlusions"):
        shutil.rmtree(root / "training" / folder)
    (frame,) = SintelReader(root, {"flow": False}).read("alley_1", [1])
    assert frame.flow is None
    with pytest.raises(SourceError, match=r"training/flow: expected a folder .* set flow: false"):
        SintelReader(root, {})


def test_reading_is_a_pure_function_and_streams(root):
    reader = SintelReader(root, {})
    backwards = list(reader.read("alley_1", [3, 1]))
    again = list(reader.read("alley_1", [1, 2, 3]))
    np.testing.assert_array_equal(backwards[1].normal, again[0].normal)
    np.testing.assert_array_equal(backwards[0].normal, again[2].normal)
    (root / "training" / "depth" / "alley_1" / "frame_0002.dpt").unlink()
    stream = reader.read("alley_1", [1, 2])
    next(stream)  # the damage lies behind the first frame
    with pytest.raises(SourceError, match=r"frame_0002\.dpt"):
        next(stream)


def used(root, number):
    kinds = {
        "final": "png",
        "depth": "dpt",
        "camdata_left": "cam",
        "flow": "flo",
        "invalid": "png",
        "occlusions": "png",
    }
    return [root / "training" / folder / "alley_1" / f"frame_{number:04d}.{suffix}" for folder, suffix in kinds.items()]


def test_fingerprint_covers_exactly_the_files_that_are_used(root, tmp_path):
    reader = SintelReader(root, {})
    before = reader.fingerprint("alley_1", [1])
    assert before == SintelReader(root, {}).fingerprint("alley_1", [1])
    assert before != reader.fingerprint("alley_1", [2])
    for path in used(root, 1):
        content = path.read_bytes()
        path.write_bytes(content + b"\0")
        assert reader.fingerprint("alley_1", [1]) != before
        path.write_bytes(content)
    for path in (*used(root, 2), root / "training" / "clean" / "alley_1" / "frame_0001.png"):
        path.write_bytes(b"changed")
    assert reader.fingerprint("alley_1", [1]) == before
    moved = tmp_path / "elsewhere"
    shutil.copytree(root / "training", moved / "training")
    assert SintelReader(moved, {}).fingerprint("alley_1", [1]) == before


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "missing"])
def test_every_damaged_file_is_named(root, index, damage):
    reader = SintelReader(root, {})
    path = used(root, 1)[index]
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
        with pytest.raises(SourceError, match=r"\[1\] is missing" if index == 0 else path.name):
            SintelReader(root, {})
    else:
        path.write_bytes({"truncated": content[:-5], "empty": b"", "garbage": b"x" * len(content)}[damage])
    with pytest.raises(SourceError) as caught:
        list(reader.read("alley_1", [1]))
    assert f"{path.parent.name}/{path.name}" in str(caught.value)


@pytest.mark.parametrize("folder", ["final", "depth", "flow", "invalid", "occlusions"])
def test_another_size_is_refused(root, folder):
    path = next((root / "training" / folder / "alley_1").glob("frame_0002.*"))
    small = np.zeros((H, W - 1))
    if folder == "depth":
        write_dpt(path, small)
    elif folder == "flow":
        write_flo(path, np.zeros((H, W - 1, 2)))
    else:
        Image.fromarray(small.astype(np.uint8)).save(path)
    reader = SintelReader(root, {})
    with pytest.raises(SourceError, match=rf"{folder}/alley_1/{path.name}: expected 40 x 24 pixels .* found 39 x 24"):
        list(reader.read("alley_1", [2]))  # even where the odd one is read alone


def test_gap_in_the_middle(root):
    (root / "training" / "final" / "alley_1" / "frame_0002.png").unlink()
    with pytest.raises(SourceError, match=r"expected every picture from 1 to 3, but \[2\] is missing"):
        SintelReader(root, {})


@pytest.mark.parametrize("folder", ["depth", "camdata_left", "flow", "invalid", "occlusions"])
def test_a_sequence_without_pictures_is_named(root, folder):
    (root / "training" / folder / "cave_2").mkdir()
    with pytest.raises(SourceError, match=rf"final: expected the pictures of \['cave_2'\], of which '{folder}' has"):
        SintelReader(root, {})
    assert list(SintelReader(root, {"sequences": ["alley_1"]}).sequences()) == ["alley_1"]  # nobody asked for it
    if folder in ("flow", "invalid", "occlusions"):
        assert len(SintelReader(root, {"flow": False}).sequences()) == 2


def test_one_number_twice(root):
    pictures = root / "training" / "final" / "alley_1"
    shutil.copy(pictures / "frame_0002.png", pictures / "frame_00002.png")
    with pytest.raises(SourceError, match="same frame number"):
        SintelReader(root, {})


def test_layout_errors(root, tmp_path):
    with pytest.raises(SourceError, match=r"expected a folder .* found nothing\. Unpack"):
        SintelReader(tmp_path / "nowhere", {})
    empty = tmp_path / "empty"
    for folder in ("final", "depth", "camdata_left", "flow", "invalid", "occlusions"):
        (empty / folder).mkdir(parents=True)
    with pytest.raises(SourceError, match="one sub-folder a sequence, found none"):
        SintelReader(empty, {})
    for folder in ("final", "depth"):
        (empty / folder / "alley_1").mkdir()
    with pytest.raises(SourceError, match="expected pictures"):
        SintelReader(empty, {})
    shutil.rmtree(root / "training" / "depth")
    (root / "training" / "depth").write_bytes(b"")
    with pytest.raises(SourceError, match=r"depth: expected a folder .* found a file"):
        SintelReader(root, {})


def test_camera_that_is_no_camera(root):
    path = used(root, 1)[2]
    intrinsics, pose = camera(1)
    write_cam(path, intrinsics, pose[:3] * 2)
    with pytest.raises(SourceError, match=r"frame_0001\.cam: its extrinsics are no rigid motion"):
        list(SintelReader(root, {}).read("alley_1", [1]))
    write_cam(path, np.zeros((3, 3)), pose[:3])
    with pytest.raises(SourceError, match=r"frame_0001\.cam: expected \[\[fx"):
        list(SintelReader(root, {}).read("alley_1", [1]))


def test_wrong_settings_and_requests(root):
    with pytest.raises(CardError, match="Did you mean 'render_pass'"):
        SintelReader(root, {"render_pas": "final"})
    with pytest.raises(CardError, match=r"plane_fit\.window"):
        SintelReader(root, {"plane_fit": {"window": 4}})
    with pytest.raises(SourceError, match="Did you mean 'alley_1'"):
        SintelReader(root, {"sequences": ["alley_2"]})
    reader = SintelReader(root, {})
    with pytest.raises(SourceError, match="Did you mean 'alley_1'"):
        next(reader.read("alley_9", [1]))
    with pytest.raises(SourceError, match=r"3 frames from 1 to 3, but not \[7\]"):
        next(reader.read("alley_1", [1, 7]))


def test_unknown_flow_leaves_nothing():
    flow = np.zeros((3, 4, 2), np.float32)
    flow[0, 0], flow[1, 0], flow[2, 3] = np.nan, [-0.25, 0], [0, 0.25]
    expected = np.zeros((3, 4), bool)
    expected[1, 0] = expected[2, 3] = True
    np.testing.assert_array_equal(leaves_picture(flow), expected)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="real Sintel files are not here")
def test_real_pictures_and_flow_through_the_reader(tmp_path):
    """Real pictures and flow; depth and camera, of which there is no public sample, are a wall."""
    training = tmp_path / "training"
    for folder in ("final", "flow", "depth", "camdata_left", "invalid", "occlusions"):
        (training / folder / "alley_1").mkdir(parents=True)
    for number in (1, 2):
        name = f"frame_000{number}"
        shutil.copy(REAL / "rgb" / f"{name}.png", training / "final" / "alley_1")
        shutil.copy(REAL / "flow" / f"{name}.flo", training / "flow" / "alley_1")
        write_dpt(training / "depth" / "alley_1" / f"{name}.dpt", np.full((436, 1024), 3.0))
        write_cam(
            training / "camdata_left" / "alley_1" / f"{name}.cam",
            [[1120, 0, 511.5], [0, 1120, 217.5], [0, 0, 1]],
            np.eye(4)[:3],
        )
        for folder in ("invalid", "occlusions"):
            Image.fromarray(np.zeros((436, 1024), np.uint8)).save(training / folder / "alley_1" / f"{name}.png")
    first, second = SintelReader(tmp_path, {}).read("alley_1", [1, 2])
    assert first.image == (REAL / "rgb" / "frame_0001.png").read_bytes()
    assert second.flow is None
    assert first.valid.all()
    assert angle(first.normal.astype(np.float64), np.array([0, 0, -1.0])).max() < 0.05
    assert 0.5 < np.nanmax(np.abs(first.flow)) < 100
    assert first.occluded.mean() < 0.05
