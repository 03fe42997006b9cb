"""MATLAB files of both versions."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from ncbench.datasets.formats.matlab import Mat73, numbers, read_mat5
from ncbench.datasets.mini.layout_nyuv2 import write_mat5, write_mat73
from ncbench.errors import SourceError

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "nyuv2" / "splits.mat"


@pytest.mark.real
def test_the_real_splits():
    if not REAL.is_file():
        pytest.skip("no real sample")
    found = read_mat5(REAL, ["trainNdxs", "testNdxs"])
    train, test = (found[name].ravel().astype(int) for name in ("trainNdxs", "testNdxs"))
    assert (train.size, test.size) == (795, 654)
    assert sorted({*train, *test}) == list(range(1, 1450))


def test_version_5(tmp_path):
    path = tmp_path / "a.mat"
    write_mat5(path, {"data": {"depth": np.eye(3)}, "b": np.arange(3)})
    found = read_mat5(path, ["data", "b"])
    np.testing.assert_array_equal(found["data"]["depth"][0][0], np.eye(3))
    assert sorted(name for name in loadmat(path) if name[0] != "_") == ["b", "data"]
    before = path.read_bytes()
    write_mat5(path, {"data": {"depth": np.eye(3)}, "b": np.arange(3)})
    assert path.read_bytes() == before  # no time of day inside
    with pytest.raises(SourceError, match=r"expected variables \['c'\]"):
        read_mat5(path, ["c"])
    with pytest.raises(SourceError, match="expected numbers in 'x'"):
        numbers(np.array(["text"]), path, "x")


def test_damaged_version_5(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"a": np.arange(5000.0), "data": {"x": np.eye(9)}}, do_compression=True)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[:size] for size in (0, 3, 100, 128, 140, 200, len(content) - 3)]
    for _ in range(120):
        bad = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            bad[place] = rng.integers(0, 256)
        damaged.append(bytes(bad))
    messages = []
    for bad in damaged:
        path.write_bytes(bad)
        try:
            read_mat5(path, ["a", "data"])
        except SourceError as error:
            messages.append(str(error))
    assert len(messages) > 60
    assert all(message.startswith(str(path)) for message in messages)
    write_mat73(path, {"a": np.zeros((2, 2))})
    with pytest.raises(SourceError, match="version 5"):
        read_mat5(path, ["a"])
    with pytest.raises(SourceError, match=r"missing\.mat"):
        read_mat5(tmp_path / "missing.mat", ["a"])


def test_version_73_answers_in_matlab_order(tmp_path):
    path, values = tmp_path / "a.mat", np.random.default_rng(0).random((4, 5, 3, 2)).astype(np.float32)
    write_mat73(path, {"x": values})
    with h5py.File(path) as file:
        assert file["x"].shape == (2, 3, 5, 4)
        assert file.userblock_size == 512
    assert path.read_bytes()[:20] == b"MATLAB 7.3 MAT-file,"
    with pytest.raises(NotImplementedError):  # SciPy recognises it as version 7.3
        loadmat(path)
    array = Mat73(path, "x", (4, 5, 3, None))
    assert array.shape == (4, 5, 3, 2)
    for index in range(2):
        np.testing.assert_array_equal(array.read(index), values[..., index])
    for index in (-1, 2):
        with pytest.raises(SourceError, match="slices 0 to 1"):
            array.read(index)


def test_version_73_refuses(tmp_path):
    path = tmp_path / "a.mat"
    write_mat73(path, {"x": np.zeros((4, 5, 2))})
    with pytest.raises(SourceError, match=r"expected 'x' of MATLAB shape \(5, 'any', 'any'\), found \(4, 5, 2\)"):
        Mat73(path, "x", (5, None, None))
    with pytest.raises(SourceError, match="MATLAB shape"):
        Mat73(path, "x", (None, None))
    with pytest.raises(SourceError, match=r"expected an array 'y', found \['x'\]"):
        Mat73(path, "y", (None, None, None))
    content = path.read_bytes()
    for bad in (b"", content[:600], content[:-300], b"x" * 5000):
        path.write_bytes(bad)
        with pytest.raises(SourceError, match=r"a\.mat"):
            Mat73(path, "x", (None, None, None)).read(0)
    with h5py.File(path, "w") as file:
        file["x"] = np.array([b"text"])
    with pytest.raises(SourceError, match="expected numbers"):
        Mat73(path, "x", (None,))
