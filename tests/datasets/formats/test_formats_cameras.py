"""Camera numbers in text and arrays, and Middlebury's calibration."""

import numpy as np
import pytest

from ncbench.datasets.formats.camera_files import read_intrinsics, read_poses
from ncbench.datasets.formats.middlebury import read_calibration
from ncbench.errors import SourceError

MATRIX = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])


@pytest.mark.parametrize(
    "text",
    [
        "500 510 320 240",
        "# fx, fy, cx, cy\n500, 510, 320, 240\n",
        "500 0 320\n0 510 240\n0 0 1",
        "5e2,0,320\n0,510,240 # row\n0,0,1\n",
    ],
)
def test_intrinsics_as_text(tmp_path, text):
    (tmp_path / "k.txt").write_text(text)
    np.testing.assert_array_equal(read_intrinsics(tmp_path / "k.txt"), MATRIX)


def test_intrinsics_as_arrays(tmp_path):
    np.save(tmp_path / "k.npy", MATRIX)
    np.savez(tmp_path / "k.npz", K=MATRIX.astype(np.float32))
    for name in ("k.npy", "k.npz"):
        np.testing.assert_array_equal(read_intrinsics(tmp_path / name), MATRIX)


@pytest.mark.parametrize("content", [b"", b"1 2 3", b"a b c d", b"1 2 3 nan", b"\xff\xfe\x00", b"1 2 3 4 5"])
def test_intrinsics_that_are_none(tmp_path, content):
    (tmp_path / "k.txt").write_bytes(content)
    with pytest.raises(SourceError, match=r"k\.txt"):
        read_intrinsics(tmp_path / "k.txt")


def poses():
    quarter = np.array([[0.0, 0, 1, 5], [0, 1, 0, 6], [-1, 0, 0, 7], [0, 0, 0, 1]])
    return np.stack([np.eye(4), quarter])


@pytest.mark.parametrize("numbers", [12, 16])
def test_poses_by_row(tmp_path, numbers):
    np.savetxt(tmp_path / "p.txt", poses().reshape(2, 16)[:, :numbers])
    np.testing.assert_array_equal(read_poses(tmp_path / "p.txt", 2), poses())


def test_pose_of_one_frame(tmp_path):
    np.save(tmp_path / "p.npy", poses()[1])
    np.testing.assert_array_equal(read_poses(tmp_path / "p.npy", 1), poses()[1:])


@pytest.mark.parametrize("what", ["count", "scaled", "mirrored", "nan", "row"])
def test_bad_poses(tmp_path, what):
    bad = poses()
    if what == "count":
        bad = bad[:1]
    elif what == "scaled":
        bad[1, :3, :3] *= 2
    elif what == "mirrored":
        bad[1, 0] *= -1
    elif what == "nan":
        bad[1, 0, 3] = np.nan
    else:
        bad[1, 3, 0] = 1
    np.savetxt(tmp_path / "p.txt", bad.reshape(len(bad), 16))
    expected = "expected 2 pose" if what == "count" else "pose 1 is no rigid motion"
    with pytest.raises(SourceError, match=expected):
        read_poses(tmp_path / "p.txt", 2)


CALIBRATION = """cam0=[1000 0 300; 0 1000 250; 0 0 1]
cam1=[1000 0 330; 0 1000 250; 0 0 1]
doffs=30
baseline=200
width=640
height=480
ndisp=70
"""


def test_middlebury_calibration(tmp_path):
    (tmp_path / "calib.txt").write_text(CALIBRATION)
    calibration = read_calibration(tmp_path / "calib.txt")
    assert calibration.baseline == 0.2
    assert calibration.shape == (480, 640)
    assert calibration.right[0, 2] == 330
    depth = calibration.depth(np.array([[70.0, np.nan, -30.0, -31.0]]))
    np.testing.assert_allclose(depth, [[2.0, 0, 0, 0]])  # 0.2 m * 1000 px / (70 + 30) px


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("baseline=200", "", "baseline="),
        ("doffs=30", "doffs=x", "could not convert"),
        ("doffs=30", "doffs=-30", "doffs = cx"),
        ("0 0 1]\ncam1", "0 0]\ncam1", "nine numbers"),
        ("baseline=200", "baseline=nan", "positive baseline"),
        ("width=640", "width=0", "positive"),
    ],
)
def test_damaged_calibration(tmp_path, old, new, says):
    (tmp_path / "calib.txt").write_text(CALIBRATION.replace(old, new, 1))
    with pytest.raises(SourceError, match=says):
        read_calibration(tmp_path / "calib.txt")
    with pytest.raises(SourceError, match="cannot be read"):
        read_calibration(tmp_path / "missing.txt")
