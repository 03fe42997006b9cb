"""PNG, NPY, NPZ and EXR decoding against hand-made bytes and independent writers; damage of every kind."""

import contextlib
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ncbench.datasets.formats.arrays import read_npy, read_npz
from ncbench.datasets.formats.exr import read_exr
from ncbench.errors import SourceError

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "exr"
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(shape, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2", "u1", "?", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_and_npz_hold_what_numpy_wrote(tmp_path, dtype, order):
    values = np.asarray(noise((3, 4, 5), np.uint8).astype(dtype), order=order)
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), values)
    np.savez(tmp_path / "a.npz", values)
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz"), values)
    np.savez_compressed(tmp_path / "b.npz", n=values, other=np.zeros(2))
    np.testing.assert_array_equal(read_npz(tmp_path / "b.npz", "n"), values)


def test_every_truncation_of_npy_and_npz_is_refused(tmp_path):
    for name, save, read in (("a.npy", np.save, read_npy), ("a.npz", np.savez_compressed, read_npz)):
        save(tmp_path / name, np.arange(12.0).reshape(3, 4))
        content = (tmp_path / name).read_bytes()
        for length in range(0, len(content), 3):
            (tmp_path / name).write_bytes(content[:length])
            with pytest.raises(SourceError):
                read(tmp_path / name)


def npy_with_header(text):
    body = text.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (0,)}",
        "{'descr': '<U4', 'fortran_order': False, 'shape': (0,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (0,)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (0,)}",
        "{'shape': (0,)}",
        "((((",
        "\0",
    ],
)
def test_npy_headers_that_lie(tmp_path, header):
    path = tmp_path / "a.npy"
    path.write_bytes(npy_with_header(header))
    with pytest.raises(SourceError):
        read_npy(path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("arr_0.npy", npy_with_header(header))
    with pytest.raises(SourceError):
        read_npz(tmp_path / "a.npz")


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match="numbers"):
        read_npy(tmp_path / "a.npy")


def test_npz_keys(tmp_path):
    np.savez(tmp_path / "a.npz", first=np.zeros(1), second=np.zeros(1))
    with pytest.raises(SourceError, match=r"found \['first', 'second'\]"):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(SourceError, match="named 'third'"):
        read_npz(tmp_path / "a.npz", "third")


def test_npz_member_that_claims_more_than_deflate_can_hold(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("arr_0.npy", b"x" * 10)
    content = stream.getvalue().replace(struct.pack("<II", 10, 10), struct.pack("<II", 10, 2**31))
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(SourceError, match="claims 2147483648 bytes"):
        read_npz(tmp_path / "a.npz")


@QUICK
@given(st.sampled_from(["npy", "npz", "exr"]), st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_give_an_array_or_a_source_error(tmp_path, kind, content, with_magic):
    magic = {"npy": b"\x93NUMPY\x01\x00", "npz": b"PK\x03\x04", "exr": b"\x76\x2f\x31\x01"}[kind]
    path = tmp_path / f"a.{kind}"
    path.write_bytes(magic + content if with_magic else content)
    read = {"npy": read_npy, "npz": read_npz, "exr": lambda p: read_exr(p, list)}[kind]
    with contextlib.suppress(SourceError):
        read(path)


@QUICK
@given(st.sampled_from(["npy", "npz", "exr"]), st.data())
def test_flipped_bytes_give_an_array_or_a_source_error(tmp_path, kind, data):
    path = tmp_path / f"a.{kind}"
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    if kind == "npy":
        np.save(path, values)
    elif kind == "npz":
        np.savez_compressed(path, values)
    else:
        write_exr(path, {"Z": values})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    read = {"npy": read_npy, "npz": read_npz, "exr": lambda p: read_exr(p, list)}[kind]
    with contextlib.suppress(SourceError):
        read(path)


def write_exr(path, channels, header=None):
    full = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage} | (header or {})
    OpenEXR.File(full, channels).write(str(path))


def test_exr_channels_by_name_and_dtype(tmp_path):
    red, depth = np.arange(12, dtype=np.float16).reshape(3, 4), np.full((3, 4), 1e9, np.float32)
    write_exr(tmp_path / "a.exr", {"R": red, "Z": depth})
    found = read_exr(tmp_path / "a.exr", list)
    assert set(found) == {"R", "Z"}
    assert all(values.dtype == np.float32 for values in found.values())
    np.testing.assert_array_equal(found["R"], red)
    np.testing.assert_array_equal(found["Z"], depth)


def test_exr_data_window_is_placed_in_the_display_window(tmp_path):
    header = {
        "displayWindow": (np.array([0, 0], np.int32), np.array([4, 3], np.int32)),
        "dataWindow": (np.array([2, -1], np.int32), np.array([5, 1], np.int32)),
    }
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_exr(tmp_path / "a.exr", {"Z": values}, header)
    found = read_exr(tmp_path / "a.exr", list)["Z"]
    expected = np.full((4, 5), np.nan)
    for y in range(3):
        for x in range(4):
            if 0 <= y - 1 < 4 and 0 <= x + 2 < 5:
                expected[y - 1, x + 2] = values[y, x]
    np.testing.assert_array_equal(found, expected)


def test_truncated_exr(tmp_path):
    write_exr(tmp_path / "a.exr", {"Z": np.random.default_rng(0).random((40, 50), dtype=np.float32)})
    content = (tmp_path / "a.exr").read_bytes()
    for length in (0, 10, 200, len(content) // 2, len(content) - 1):
        (tmp_path / "a.exr").write_bytes(content[:length])
        with pytest.raises(SourceError):
            read_exr(tmp_path / "a.exr", list)
    with pytest.raises(SourceError, match="found none"):
        read_exr(tmp_path / "missing.exr", list)


@pytest.mark.parametrize("window", [b"dataWindow", b"displayWindow"])
@pytest.mark.parametrize("corner", [2**30, -5])
def test_exr_with_an_absurd_window(tmp_path, window, corner):
    path = tmp_path / "a.exr"
    write_exr(path, {"Z": np.zeros((2, 2), np.float32)})
    content = bytearray(path.read_bytes())
    start = content.index(window + b"\0box2i\0") + len(window) + 1 + 6 + 4
    content[start : start + 16] = struct.pack("<4i", 0, 0, corner, corner)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.exr"):
        read_exr(path, list)


def test_exr_says_which_channels_there_are(tmp_path):
    write_exr(tmp_path / "a.exr", {"R": np.zeros((2, 2), np.float32)})

    def choose(_names):
        raise LookupError("expected something else")

    with pytest.raises(SourceError, match=r"expected something else; its channels are \['R'\]"):
        read_exr(tmp_path / "a.exr", choose)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="real EXR files are not here")
def test_real_exr_files():
    depth = read_exr(REAL / "habitat_van-gogh-room.depth_ndc.exr", list)
    assert list(depth) == ["Z"]
    assert depth["Z"].shape == (240, 320)
    assert 0.97 < depth["Z"].min() <= depth["Z"].max() <= 1
    assert read_exr(REAL / "habitat_ReplayBatchRendererTest_env0.exr", list)["R"].shape == (512, 384)
    ball = read_exr(REAL / "openexr_beachball_multipart.0001.exr", lambda _names: ["depth_left/Z", "rgba_left/G"])
    assert ball["depth_left/Z"].shape == (1556, 2048)
    inside = np.isfinite(ball["rgba_left/G"])
    assert inside.sum() == 876 * 877
    assert inside[245:1121, 688:1565].all()
