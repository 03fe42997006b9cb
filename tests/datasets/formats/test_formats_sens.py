"""ScanNet's .sens container, written here byte by byte with struct and read back."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ncbench.datasets.formats.sens import SensFile
from ncbench.datasets.mini.layout_scannet import SensFrame, write_sens
from ncbench.errors import SourceError

K_COLOR = np.array([[50.5, 0, 9.5], [0, 51.0, 7.25], [0, 0, 1]])
K_DEPTH = np.array([[25.5, 0, 4.5], [0, 25.0, 3.25], [0, 0, 1]])


def frames(count=3):
    rng = np.random.default_rng(0)
    poses = [np.eye(4), np.full((4, 4), -np.inf), np.eye(4)][:count]
    rgb = rng.integers(0, 255, (count, 16, 20, 3), dtype=np.uint8)
    depth = rng.integers(0, 65535, (count, 8, 10), dtype=np.uint16)
    return [SensFrame(pose, *pair) for pose, *pair in zip(poses, rgb, depth, strict=True)]


def handwritten(version=4, colour=0, depth=0, size=(20, 16, 10, 8), count=1, shift=1000.0, name=b"ab", trailer=b""):
    """A file spelled out from the published structure, not through the package's writer."""
    out = struct.pack("<I", version) + struct.pack("<Q", len(name)) + name
    for matrix in (np.eye(4) * 2, np.eye(4), np.eye(4) * 3, np.eye(4)):
        out += struct.pack("<16f", *matrix.ravel())
    out += struct.pack("<2i", colour, depth) + struct.pack("<4I", *size) + struct.pack("<f", shift)
    out += struct.pack("<Q", count)
    picture, grid = bytes(range(256)) * 3 + bytes(192), np.arange(80, dtype="<u2").tobytes()
    blob = zlib.compress(grid) if depth == 1 else grid
    pose = np.arange(16, dtype="<f4").tobytes()
    return (
        out + pose + struct.pack("<4Q", 5, 6, len(picture), len(blob)) + picture + blob + struct.pack("<Q", 0) + trailer
    )


@pytest.mark.parametrize("depth", [0, 1])
def test_a_file_spelled_out_by_hand(tmp_path, depth):
    path = tmp_path / "a.sens"
    path.write_bytes(handwritten(depth=depth))
    file = SensFile(path)
    header = file.header
    assert (header.sensor, header.color_size, header.depth_size, header.frames) == ("ab", (16, 20), (8, 10), 1)
    assert (header.color_compression, header.depth_compression) == ("raw", "zlib" if depth else "raw")
    assert header.intrinsic_depth[0, 0] == 3
    np.testing.assert_array_equal(file.pose(0), np.arange(16).reshape(4, 4))
    np.testing.assert_array_equal(file.depth(0), np.arange(80).reshape(8, 10))
    assert file.color(0) == bytes(range(256)) * 3 + bytes(192)


@pytest.mark.parametrize(("colour", "depth"), [("raw", "raw"), ("png", "zlib"), ("jpeg", "zlib")])
def test_round_trip_in_any_order(tmp_path, colour, depth):
    path, made = tmp_path / "a.sens", frames()
    write_sens(path, made, K_COLOR, K_DEPTH, colour=colour, depth=depth)
    file = SensFile(path)
    for index in (2, 0, 1):
        np.testing.assert_array_equal(file.depth(index), made[index].depth)
    assert file.pose(1) is None
    assert file.pose(2) is not None
    np.testing.assert_allclose(file.header.intrinsic_color[:3, :3], K_COLOR, rtol=1e-7)
    assert file.color(0).startswith({"raw": made[0].rgb.tobytes(), "png": b"\x89PNG", "jpeg": b"\xff\xd8"}[colour])
    assert file.head() + b"".join(file.record(index) for index in range(3)) == path.read_bytes()[:-8]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected 12 more bytes"),
        (handwritten(version=3), "expected version 4"),
        (handwritten(name=b"x" * 5000), "name of at most"),
        (handwritten(colour=-1), "compression"),
        (handwritten(depth=2), "compression"),
        (handwritten(size=(0, 16, 10, 8)), "expected pictures of 1"),
        (handwritten(size=(20, 16, 1 << 31, 1 << 31)), "expected pictures of 1"),
        (handwritten(count=1 << 40), "claims"),
        (handwritten(shift=0.0), "depth shift"),
        (handwritten(shift=float("nan")), "depth shift"),
    ],
)
def test_headers_that_cannot_be_true(tmp_path, content, words):
    path = tmp_path / "a.sens"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=words) as caught:
        SensFile(path)
    assert str(path) in str(caught.value)


def test_blobs_that_cannot_be_true(tmp_path):
    path = tmp_path / "a.sens"
    path.write_bytes(handwritten(size=(21, 16, 10, 9)))
    with pytest.raises(SourceError, match="bytes of depth"):
        SensFile(path).depth(0)
    with pytest.raises(SourceError, match="bytes of RGB"):
        SensFile(path).color(0)
    path.write_bytes(handwritten(depth=1, size=(20, 16, 10, 7)))
    with pytest.raises(SourceError, match="longer than 140"):  # a blob that inflates to more than it should
        SensFile(path).depth(0)
    path.write_bytes(handwritten()[:-200])
    with pytest.raises(SourceError, match="frame 0 ends at byte"):
        SensFile(path).pose(0)
    path.write_bytes(handwritten())
    for frame in (-1, 1):
        with pytest.raises(SourceError, match="has frames 0 to 0"):
            SensFile(path).pose(frame)
    with pytest.raises(SourceError, match="cannot be read"):
        SensFile(tmp_path / "none.sens")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_gives_a_source_error_or_numbers(tmp_path, data):
    content = bytearray(handwritten(depth=1))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 420))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzz.sens"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        file = SensFile(path)
        file.pose(0), file.color(0)
        assert file.depth(0).shape == file.header.depth_size
    except SourceError:
        pass
