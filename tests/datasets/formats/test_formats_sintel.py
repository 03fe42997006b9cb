"""Sintel's binary files against bytes written by ``struct``, cv2's own reader, real files, and arbitrary input."""

import contextlib
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ncbench.datasets.formats.sintel import MAX_SIDE, read_cam, read_dpt, read_flo, write_cam, write_dpt, write_flo
from ncbench.errors import SourceError

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "sintel" / "alley_1"
MAGIC = struct.pack("<f", 202021.25)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


def header(width, height):
    return MAGIC + struct.pack("<ii", width, height)


def test_flo_reads_the_documented_bytes(tmp_path):
    path = tmp_path / "a.flo"
    path.write_bytes(header(3, 2) + struct.pack("<12f", *range(12)))
    flow = read_flo(path)
    assert flow.dtype == np.float32
    assert flow.shape == (2, 3, 2)
    assert flow[1, 2].tolist() == [10.0, 11.0]  # (u, v) of the last pixel
    assert flow.flags.writeable


def test_dpt_and_cam_read_the_documented_bytes(tmp_path):
    (tmp_path / "a.dpt").write_bytes(header(2, 3) + struct.pack("<6f", *range(6)))
    assert read_dpt(tmp_path / "a.dpt").tolist() == [[0, 1], [2, 3], [4, 5]]
    (tmp_path / "a.cam").write_bytes(MAGIC + struct.pack("<21d", *range(21)))
    intrinsics, world_to_cam = read_cam(tmp_path / "a.cam")
    assert intrinsics.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert world_to_cam.tolist() == [[9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 20]]


@QUICK
@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=7).map(lambda s: (*s[:2], 2)), elements=FLOATS
    )
)
def test_flo_round_trip_and_cv2_agree(tmp_path, flow):
    path = tmp_path / "a.flo"
    write_flo(path, flow)
    np.testing.assert_array_equal(read_flo(path), flow)
    np.testing.assert_array_equal(cv2.readOpticalFlow(str(path)), flow)


@QUICK
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=FLOATS))
def test_dpt_round_trip(tmp_path, depth):
    path = tmp_path / "a.dpt"
    write_dpt(path, depth)
    assert path.stat().st_size == 12 + 4 * depth.size
    np.testing.assert_array_equal(read_dpt(path), depth)


def test_cam_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    intrinsics, outer = rng.normal(size=(3, 3)), rng.normal(size=(3, 4))
    write_cam(tmp_path / "a.cam", intrinsics, outer)
    assert (tmp_path / "a.cam").stat().st_size == 172
    again = read_cam(tmp_path / "a.cam")
    np.testing.assert_array_equal(again[0], intrinsics)
    np.testing.assert_array_equal(again[1], outer)


@QUICK
@given(
    st.sampled_from([read_flo, read_dpt, read_cam]),
    st.one_of(
        st.binary(max_size=64),
        st.binary(max_size=64).map(lambda tail: MAGIC + tail),
        st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1), st.binary(max_size=200)).map(
            lambda t: header(t[0], t[1]) + t[2]
        ),
        st.tuples(st.integers(-2, 5), st.integers(-2, 5), st.binary(max_size=200)).map(
            lambda t: header(t[0], t[1]) + t[2]
        ),
    ),
)
def test_arbitrary_bytes_give_an_array_or_a_source_error(tmp_path, read, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    with contextlib.suppress(SourceError):
        result = read(path)
        assert all(isinstance(array, np.ndarray) for array in (result if isinstance(result, tuple) else (result,)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "PIEH"),
        (b"PIEX" + struct.pack("<ii6f", 3, 1, *range(6)), "PIEH"),
        (MAGIC[::-1] + struct.pack(">ii6f", 3, 1, *range(6)), "PIEH"),  # big-endian
        (MAGIC + b"\1\0\0", "header of 12 bytes"),
        (
            header(3, 1) + struct.pack("<5f", *range(5)),
            "expected optical flow (.flo) of 3 x 1 pixels in 36 bytes, found 32",
        ),
        (header(3, 1) + struct.pack("<7f", *range(7)), "found 40 bytes"),
        (header(0, 4), "sides of 1 to"),
        (header(-3, 4), "found -3 x 4"),
        (header(MAX_SIDE + 1, 1), "sides of 1 to"),
        (header(MAX_SIDE, MAX_SIDE), f"{12 + 8 * MAX_SIDE**2} bytes, found 12"),  # would be 8 GiB
    ],
)
def test_bad_flow_is_refused_with_what_was_expected_and_found(tmp_path, content, says):
    path = tmp_path / "bad.flo"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read_flo(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "fetch it again" in str(caught.value)


@pytest.mark.parametrize("size", [0, 3, 171, 173])
def test_camera_of_wrong_length(tmp_path, size):
    path = tmp_path / "bad.cam"
    path.write_bytes((MAGIC + bytes(1000))[:size])
    with pytest.raises(SourceError, match=r"172 bytes"):
        read_cam(path)


def test_camera_with_nan(tmp_path):
    write_cam(tmp_path / "a.cam", np.full((3, 3), np.nan), np.zeros((3, 4)))
    with pytest.raises(SourceError, match="NaN"):
        read_cam(tmp_path / "a.cam")


@pytest.mark.parametrize("read", [read_flo, read_dpt, read_cam])
def test_missing_file_and_folder_in_its_place(tmp_path, read):
    with pytest.raises(SourceError, match="cannot be read"):
        read(tmp_path / "missing")
    with pytest.raises(SourceError, match="cannot be read"):
        read(tmp_path)


def test_writers_refuse_other_shapes(tmp_path):
    with pytest.raises(ValueError, match=r"\(H, W, 2\)"):
        write_flo(tmp_path / "a", np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        write_dpt(tmp_path / "a", np.zeros((2, 3, 1)))
    with pytest.raises(ValueError, match="sides"):
        write_dpt(tmp_path / "a", np.zeros((0, 3)))
    with pytest.raises(ValueError, match="world_to_cam"):
        write_cam(tmp_path / "a", np.eye(3), np.eye(4))


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="real Sintel files are not here")
def test_real_flow_equals_cv2():
    path = REAL / "flow" / "frame_0001.flo"
    flow = read_flo(path)
    assert flow.shape == (436, 1024, 2)
    np.testing.assert_array_equal(flow, cv2.readOpticalFlow(str(path)))


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="real Sintel files are not here")
def test_real_flow_warps_the_next_picture_onto_this_one():
    now, following = (cv2.imread(str(REAL / "rgb" / f"frame_000{i}.png")).astype(np.float64) for i in (1, 2))
    flow = read_flo(REAL / "flow" / "frame_0001.flo")
    y, x = np.mgrid[:436, :1024].astype(np.float32)
    warped = cv2.remap(following, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(following - now).mean() == pytest.approx(10.04, abs=0.05)
    assert np.abs(warped - now).mean() == pytest.approx(2.61, abs=0.1)
