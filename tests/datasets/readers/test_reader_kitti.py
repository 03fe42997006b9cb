"""KITTI: both miniatures against the renderer, and bad input. No real file of the set may be passed on."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from ncbench.datasets.formats.kitti import read_flow_png, read_rectified_camera
from ncbench.datasets.mini.clip_scene import clip_scene
from ncbench.datasets.mini.layout_kitti import write_kitti_depth_layout, write_kitti_flow_layout
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.readers.kitti import KittiDepthReader, KittiFlowReader
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
        assert frame.cam_to_world is None


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
