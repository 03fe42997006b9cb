"""KITTI: both miniatures against the renderer, and bad input. No real file of the set may be passed on."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from ncbench.datasets.formats.kitti import Oxts, read_camera_from_camera0, read_flow_png, read_rectified_camera
from ncbench.datasets.mini.clip_scene import clip_scene
from ncbench.datasets.mini.layout_kitti import write_kitti_depth_layout, write_kitti_flow_layout
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.readers.kitti import KittiDepthReader, KittiFlowReader
from ncbench.datasets.readers.kitti_poses import imu_to_earth
from ncbench.errors import CardError, SourceError

MINI = {
    "seed": 4,
    "frames": 3,
    "height": 36,
    "width": 120,
    "sequences": [{"name": "one", "kind": "outdoor"}, {"name": "two", "kind": "outdoor"}],
}
DRIVE = "2011_09_26_drive_0001_sync_image_02"


@pytest.fixture
def depth_root(tmp_path):
    write_kitti_depth_layout(tmp_path / "kitti", MINI)
    return tmp_path / "kitti"


@pytest.fixture
def flow_root(tmp_path):
    write_kitti_flow_layout(tmp_path / "kitti", MINI)
    return tmp_path / "kitti"


def rendered(number, index, field_of_view=80.0):
    settings = LayoutSettings.parse(MINI, "test")
    return render_frame(clip_scene(settings, settings.sequences[number], field_of_view), index)


def test_depth_comes_back(depth_root):
    reader = KittiDepthReader(depth_root, {})
    assert reader.sequences() == {DRIVE: (6, 7), DRIVE.replace("0001", "0002"): (6, 7)}
    for frame in reader.read(DRIVE, [6, 7]):
        truth = rendered(0, frame.frame - 5)
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(frame.image))), truth.rgb)
        np.testing.assert_allclose(frame.intrinsics, truth.intrinsics, rtol=1e-12)
        known = frame.depth > 0
        np.testing.assert_allclose(frame.depth[known], truth.depth[known], atol=0.5 / 256 + 1e-5)
        assert not known[:12].any()
        assert 0.02 < known.mean() < 0.2
        assert not frame.valid.any()


def test_poses_are_the_paths_of_the_rendered_cameras(depth_root):
    reader = KittiDepthReader(depth_root, {})
    for number, name in enumerate(reader.sequences()):
        first, second = (frame.cam_to_world for frame in reader.read(name, [6, 7]))
        start, one, two = (rendered(number, index).cam_to_world for index in (0, 1, 2))
        # the world is another one, so what is compared is where the camera goes, as it sees it itself
        np.testing.assert_allclose(np.linalg.inv(first) @ second, np.linalg.inv(one) @ two, atol=1e-8)
        assert np.linalg.norm(two[:3, 3] - one[:3, 3]) > 0.05
        # and the world is the unit's own frame at the drive's first measurement
        unit = first @ np.linalg.inv(one) @ start @ MOUNTED
        np.testing.assert_allclose(unit, np.eye(4), atol=1e-8)
        (alone,) = reader.read(name, [7])
        np.testing.assert_array_equal(alone.cam_to_world, second)
    assert [frame.cam_to_world for frame in KittiDepthReader(depth_root, {"poses": False}).read(DRIVE, [6])] == [None]


def turn(axis, degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    one, other = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(4)
    matrix[one, one] = matrix[other, other] = cos
    matrix[other, one], matrix[one, other] = sin, -sin
    return matrix


def mounted(x, y, z, shift):
    matrix = turn(2, z) @ turn(1, y) @ turn(0, x)
    matrix[:3, 3] = shift
    return matrix


MOUNTED = (  # inertial unit to camera 2, as the miniature mounts them
    mounted(0, 0, 0, (0.06, 0, 0))
    @ mounted(0.4, 0.5, -0.2, (0, 0, 0))
    @ mounted(-90.3, 0.6, -90.2, (-0.004, -0.076, -0.272))
    @ mounted(0.1, -0.04, 0.9, (-0.81, 0.32, -0.80))
)


def test_the_map():
    """On a sphere of 6378137 m: a metre north, east and up, and the meaning of the angles."""
    here = Oxts(49.0, 8.4, 110.0, 0.0, 0.0, 0.0)
    metre = np.degrees(1 / 6378137.0)
    place = imu_to_earth(here, 49.0)[:3, 3]
    shifts = {
        here._replace(latitude=49.0 + metre): (0, 1, 0),
        here._replace(longitude=8.4 + metre / np.cos(np.radians(49))): (1, 0, 0),
        here._replace(altitude=111.0): (0, 0, 1),
    }
    for there, shift in shifts.items():
        np.testing.assert_allclose(imu_to_earth(there, 49.0)[:3, 3] - place, shift, atol=1e-5)
    np.testing.assert_array_equal(imu_to_earth(here, 49.0)[:3, :3], np.eye(3))  # forward is east
    forward, left, up = imu_to_earth(here._replace(yaw=np.pi / 2), 49.0)[:3, :3].T
    np.testing.assert_allclose([forward, left, up], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-15)
    assert imu_to_earth(here._replace(pitch=0.1), 49.0)[2, 0] < 0  # the front is down
    assert imu_to_earth(here._replace(roll=0.1), 49.0)[2, 1] > 0  # the left side is up
    both = imu_to_earth(here._replace(yaw=0.5, pitch=0.2, roll=0.1), 49.0)
    yaw, pitch, roll = (turn(axis, np.degrees(angle)) for axis, angle in ((2, 0.5), (1, 0.2), (0, 0.1)))
    np.testing.assert_allclose(both[:3, :3], (yaw @ pitch @ roll)[:3, :3], atol=1e-15)


def test_missing_and_damaged_measurements(depth_root):
    reader, date = KittiDepthReader(depth_root, {}), depth_root / "2011_09_26"
    before = reader.fingerprint(DRIVE, [6])
    others = reader.fingerprint(DRIVE, [7])
    measured = date / DRIVE[:-9] / "oxts" / "data"
    words = (measured / "0000000006.txt").read_text().split()
    broken = {
        "": "expected 30 numbers",
        " ".join(words[:-1]): "expected 30 numbers",
        " ".join(["north", *words[1:]]): "expected 30 numbers",
        " ".join(["90.5", *words[1:]]): "expected latitude and longitude",
        " ".join([words[0], "nan", *words[2:]]): "expected 30 numbers",
    }
    for text, problem in broken.items():
        (measured / "0000000006.txt").write_text(text)
        with pytest.raises(SourceError, match=problem) as caught:
            list(reader.read(DRIVE, [6]))
        assert "0000000006.txt" in str(caught.value)
    assert reader.fingerprint(DRIVE, [6]) != before
    assert reader.fingerprint(DRIVE, [7]) == others
    (measured / "0000000000.txt").write_text((measured / "0000000007.txt").read_text())
    assert reader.fingerprint(DRIVE, [7]) != others  # the world begins there
    (measured / "0000000000.txt").unlink()
    with pytest.raises(SourceError, match=r"0000000000\.txt"):
        list(reader.read(DRIVE, [7]))
    (date / "calib_imu_to_velo.txt").write_text("R: 1 0 0 0 1 0 0 0 2\nT: 0 0 0\n")
    with pytest.raises(SourceError, match=r"calib_imu_to_velo\.txt: R: expected a rotation"):
        list(reader.read(DRIVE, [7]))
    (date / "calib_imu_to_velo.txt").write_text("R: 1 0 0 0 1 0 0 0 -1\nT: 0 0 0\n")
    with pytest.raises(SourceError, match="expected a rotation"):
        list(reader.read(DRIVE, [7]))
    (date / "calib_velo_to_cam.txt").unlink()
    with pytest.raises(SourceError, match="calib_velo_to_cam"):
        list(reader.read(DRIVE, [7]))


def test_flow_comes_back(flow_root):
    reader = KittiFlowReader(flow_root, {})
    assert reader.sequences() == {"000000": (10, 11), "000001": (10, 11)}
    first, second = reader.read("000001", [10, 11])
    truth = rendered(1, 0)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(first.image))), truth.rgb)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(second.image))), rendered(1, 1).rgb)
    known = np.isfinite(truth.flow[..., 0])
    np.testing.assert_array_equal(np.isfinite(first.flow[..., 0]), known)
    np.testing.assert_allclose(first.flow[known], truth.flow[known], atol=0.5 / 64 + 1e-4)
    np.testing.assert_array_equal(first.occluded, known & truth.occluded)
    assert first.occluded.any()
    assert second.flow is None
    assert second.occluded is None
    np.testing.assert_allclose(first.intrinsics, truth.intrinsics, rtol=1e-12)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_flow_of_a_png_written_byte_by_byte(tmp_path):
    """Two pixels: (u, v) = (1, -2) known, and one unknown; red, green, blue in file order, big endian."""
    row = struct.pack(">B6H", 0, 32768 + 64, 32768 - 128, 1, 5, 5, 0)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "f.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    flow = read_flow_png(tmp_path / "f.png")
    np.testing.assert_array_equal(flow, [[[1, -2], [np.nan, np.nan]]])
    cv2.imwrite(str(tmp_path / "g.png"), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(SourceError, match="16 bits"):
        read_flow_png(tmp_path / "g.png")


def test_a_published_calibration(tmp_path):
    """The lines of a real drive, as its devkit spells them."""
    text = (
        "calib_time: 09-Jan-2012 13:57:47\nS_rect_02: 1.242000e+03 3.750000e+02\n"
        "P_rect_02: 7.215377e+02 0.000000e+00 6.095593e+02 4.485728e+01 0.000000e+00 7.215377e+02 1.728540e+02 "
        "2.163791e-01 0.000000e+00 0.000000e+00 1.000000e+00 2.745884e-03\n"
    )
    (tmp_path / "c.txt").write_text(text)
    matrix, size = read_rectified_camera(tmp_path / "c.txt", 2)
    np.testing.assert_array_equal(matrix, [[721.5377, 0, 609.5593], [0, 721.5377, 172.8540], [0, 0, 1]])
    assert size == (375, 1242)
    rectified = (
        "R_rect_00: 9.999239e-01 9.837760e-03 -7.445048e-03 -9.869795e-03 9.999421e-01 -4.278459e-03 "
        "7.402527e-03 4.351614e-03 9.999631e-01\n"
    )
    (tmp_path / "c.txt").write_text(text + rectified)
    motion = read_camera_from_camera0(tmp_path / "c.txt", 2)
    # six centimetres to the left: 43.183501 of 721.5377 pixels, after the shift along the line of sight
    np.testing.assert_allclose(motion[:3, 3], [0.0598493, -0.000358, 0.0027459], atol=1e-6)
    np.testing.assert_allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(motion[0, :3], [9.999239e-01, 9.837760e-03, -7.445048e-03], atol=1e-6)
    for broken in ("", text.replace("P_rect_02", "P_rect_03"), text.replace("7.215377e+02", "x"), text[:-40]):
        (tmp_path / "c.txt").write_text(broken)
        with pytest.raises(SourceError, match=r"c\.txt"):
            read_rectified_camera(tmp_path / "c.txt", 2)


def test_missing_and_damaged_depth_files(depth_root):
    reader = KittiDepthReader(depth_root, {})
    before = reader.fingerprint(DRIVE, [6])
    depth = next((depth_root / "val").rglob("0000000006.png"))
    picture = depth_root / "2011_09_26" / DRIVE[:-9] / "image_02" / "data" / "0000000006.png"
    depth.write_bytes(depth.read_bytes()[:-20])
    assert reader.fingerprint(DRIVE, [6]) != before
    with pytest.raises(SourceError, match=r"0000000006\.png"):
        list(reader.read(DRIVE, [6]))
    Image.fromarray(np.zeros((36, 100), np.uint16)).save(depth)
    with pytest.raises(SourceError, match="expected 120 x 36"):
        list(reader.read(DRIVE, [6]))
    Image.fromarray(np.zeros((30, 120, 3), np.uint8)).save(picture)
    with pytest.raises(SourceError, match=r"calib_cam_to_cam\.txt, found 120 x 30"):
        list(reader.read(DRIVE, [6]))
    picture.unlink()
    with pytest.raises(SourceError, match=r"data/0000000006\.png"):
        list(reader.read(DRIVE, [6]))
    with pytest.raises(SourceError, match="not \\[5\\]"):
        list(reader.read(DRIVE, [5]))
    (depth_root / "2011_09_26" / "calib_cam_to_cam.txt").unlink()
    with pytest.raises(SourceError, match="calib_cam_to_cam"):
        list(reader.read(DRIVE, [7]))


def test_missing_folders(depth_root, tmp_path):
    with pytest.raises(SourceError, match="data_depth_annotated"):
        KittiDepthReader(depth_root, {"splits": ["train"]})
    with pytest.raises(SourceError, match="image_03"):
        KittiDepthReader(depth_root, {"cameras": [2, 3]})
    (tmp_path / "empty" / "val").mkdir(parents=True)
    with pytest.raises(SourceError, match="found none"):
        KittiDepthReader(tmp_path / "empty", {})
    with pytest.raises(SourceError, match="data_scene_flow"):
        KittiFlowReader(depth_root, {})
    with pytest.raises(CardError, match="cameras"):
        KittiDepthReader(depth_root, {"cameras": [1]})


def test_damaged_flow_files(flow_root):
    reader = KittiFlowReader(flow_root / "training", {})
    before = reader.fingerprint("000000", [10, 11])
    noc = flow_root / "training" / "flow_noc" / "000000_10.png"
    cv2.imwrite(str(noc), np.zeros((20, 20, 3), np.uint16))
    assert reader.fingerprint("000000", [10, 11]) != before
    assert reader.fingerprint("000000", [11])
    with pytest.raises(SourceError, match="expected 120 x 36"):
        list(reader.read("000000", [10]))
    noc.unlink()
    with pytest.raises(SourceError, match="flow_noc"):
        list(reader.read("000000", [10]))
    for path in (flow_root / "training" / "flow_occ").iterdir():
        path.unlink()
    with pytest.raises(SourceError, match="found none"):
        KittiFlowReader(flow_root, {})
