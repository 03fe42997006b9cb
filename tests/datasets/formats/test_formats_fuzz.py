"""Damaged and arbitrary bytes: a value or an error of ours, never another exception."""

import io

import h5py
import numpy as np
import OpenEXR
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from ncbench.datasets.formats.hdf5 import decode_hdf5
from ncbench.datasets.formats.images import read_depth_file
from ncbench.datasets.formats.matlab import read_mat5
from ncbench.datasets.formats.normal_maps import read_normal_file
from ncbench.errors import NcbenchError

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(content):
    """The file cut short, with bytes changed, with bits flipped, or nothing but its first bytes and then noise."""
    place = st.integers(0, len(content) - 1)
    # headers are short against the pixels, and hold all that can be contradicted
    near = st.one_of(place, st.integers(0, min(len(content), 400) - 1))

    def change(edits):
        changed = bytearray(content)
        for at, value in edits:
            changed[at] = value
        return bytes(changed)

    def flip(edits):
        return change((at, content[at] ^ 1 << bit) for at, bit in edits)

    return st.one_of(
        place.map(lambda end: content[:end]),
        st.lists(st.tuples(near, st.integers(0, 255)), min_size=1, max_size=6).map(change),
        st.lists(st.tuples(near, st.integers(0, 7)), min_size=1, max_size=3, unique_by=lambda edit: edit[0]).map(flip),
        st.tuples(st.integers(4, 200), st.binary(max_size=400)).map(lambda pair: content[: pair[0]] + pair[1]),
        st.binary(max_size=600),
    )


def value_or_ours(read):
    """Run a reader; nothing but an error of ours may leave it."""
    try:
        return read()
    except NcbenchError:
        return None


def exr(channels, compression):
    out = {"compression": compression, "type": OpenEXR.scanlineimage}
    rng = np.random.default_rng(0)
    pixels = {name: rng.normal(size=(9, 7)).astype(np.float32) for name in channels}
    return OpenEXR.File(out, pixels)


@pytest.fixture(scope="module")
def exr_files(tmp_path_factory):
    folder, contents = tmp_path_factory.mktemp("exr"), []
    for index, (channels, kind) in enumerate([("RGB", OpenEXR.ZIP_COMPRESSION), ("Z", OpenEXR.NO_COMPRESSION)]):
        exr(channels, kind).write(str(folder / f"{index}.exr"))
        contents.append((folder / f"{index}.exr").read_bytes())
    return contents


@pytest.mark.parametrize("which", [0, 1])
@QUICK
@given(data=st.data())
def test_exr(which, exr_files, tmp_path, data):
    path = tmp_path / "a.exr"
    path.write_bytes(data.draw(damaged(exr_files[which])))
    found = value_or_ours(lambda: read_normal_file(path))
    if found is not None:
        normal, valid = found
        assert normal.shape == (*valid.shape, 3)
        assert np.isfinite(normal).all()
    depth = value_or_ours(lambda: read_depth_file(path))
    assert depth is None or (np.isfinite(depth).all() and depth.min() >= 0)


def hdf5(**layout):
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.create_dataset("dataset", data=np.arange(60, dtype=np.float16).reshape(5, 4, 3), **layout)
    return out.getvalue()


@pytest.mark.parametrize("content", [hdf5(), hdf5(compression="gzip", chunks=(5, 2, 3))], ids=["plain", "gzip"])
@QUICK
@given(data=st.data())
def test_hdf5(content, data):
    found = value_or_ours(lambda: decode_hdf5(data.draw(damaged(content)), "a.hdf5"))
    assert found is None or found.dtype.kind in "iuf"


def mat5(compressed):
    out = io.BytesIO()
    values = {"a": np.arange(12.0).reshape(3, 4), "data": {"rgb": np.eye(3, dtype=np.uint8), "name": "text"}}
    savemat(out, values, do_compression=compressed)
    return out.getvalue()


def mat5_holds(path, content):
    path.write_bytes(content)
    found = value_or_ours(lambda: read_mat5(path, ["a", "data"]))
    assert found is None or set(found) == {"a", "data"}


@pytest.mark.parametrize("compressed", [True, False])
@QUICK
@given(data=st.data())
def test_mat5(compressed, data, tmp_path):
    mat5_holds(tmp_path / "a.mat", data.draw(damaged(mat5(compressed))))


@pytest.mark.parametrize("end", range(0, len(mat5(False)), 6))
def test_mat5_cut_short(end, tmp_path):
    mat5_holds(tmp_path / "a.mat", mat5(False)[:end])


def test_whole_files_are_read(exr_files, tmp_path):
    """The fuzz starts from files that are accepted, so that its damage is what is refused."""
    path = tmp_path / "a.exr"
    path.write_bytes(exr_files[0])
    assert read_normal_file(path)[0].shape == (9, 7, 3)
    path.write_bytes(exr_files[1])
    assert read_depth_file(path).shape == (9, 7)
    np.testing.assert_array_equal(decode_hdf5(hdf5(), "a"), np.arange(60).reshape(5, 4, 3))
    path.write_bytes(mat5(True))
    assert read_mat5(path, ["a"])["a"].shape == (3, 4)
