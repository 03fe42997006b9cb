"""HDF5 out of bytes, members of folders and archives, Hypersim's tonemap and cameras."""

import contextlib
import io
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ncbench.datasets.formats.archived_members import open_zip
from ncbench.datasets.formats.hdf5 import decode_hdf5
from ncbench.datasets.formats.hypersim import SceneCamera, tonemap
from ncbench.datasets.formats.members import FolderMembers
from ncbench.datasets.formats.trajectories import read_trajectory
from ncbench.errors import SourceError
from ncbench.geometry.cameras import hypersim_rays, pinhole_rays


def hdf5(values, key="dataset", **options):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset(key, data=values, **options)
    return buffer.getvalue()


def test_hdf5_round_trip():
    values = np.arange(24, dtype=np.float16).reshape(2, 4, 3)
    content = hdf5(values, chunks=(1, 4, 1), compression="gzip", compression_opts=9)
    found = decode_hdf5(content, "x")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89HDF\r\n\x1a\n", hdf5(np.zeros(3))[:-100], hdf5(np.zeros(3), "other"), hdf5(np.array([b"a", b"b"]))],
)
def test_hdf5_bad(content):
    with pytest.raises(SourceError, match=r"x\.hdf5"):
        decode_hdf5(content, "x.hdf5")


def test_hdf5_group_and_bomb():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("dataset")
    with pytest.raises(SourceError, match="named 'dataset'"):
        decode_hdf5(buffer.getvalue(), "x")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("dataset", shape=(1 << 20, 1 << 20), dtype="f2", chunks=(64, 64), compression="gzip")
    with pytest.raises(SourceError, match="picture's size"):
        decode_hdf5(buffer.getvalue(), "x")


CONTENT = hdf5(np.arange(64, dtype=np.float16).reshape(8, 8), chunks=(4, 4), compression="gzip")


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, len(CONTENT) - 1))
def test_hdf5_truncated(cut):
    with pytest.raises(SourceError):
        decode_hdf5(CONTENT[:cut], "x")


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, len(CONTENT) - 1), value=st.integers(0, 255))
def test_hdf5_flipped_byte(place, value):
    content = bytearray(CONTENT)
    content[place] = value
    with contextlib.suppress(SourceError):
        decode_hdf5(bytes(content), "x")


def test_members_of_a_folder_and_a_zip(tmp_path):
    (tmp_path / "s" / "a").mkdir(parents=True)
    (tmp_path / "s" / "a" / "b.bin").write_bytes(b"content" * 9)
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "s" / "a" / "b.bin", "s/a/b.bin")
        archive.writestr("other/c.bin", b"")
    for members in (FolderMembers(tmp_path / "s"), open_zip(tmp_path / "s.zip", "s")):
        assert members.read("a/b.bin") == b"content" * 9
        assert members.identity("a/b.bin") == members.identity("a/b.bin")
        assert members.where("a/b.bin").endswith("s/a/b.bin")
        for method in (members.read, members.identity):
            with pytest.raises(SourceError, match=r"a/none\.bin"):
                method("a/none.bin")


def test_zip_that_lies_about_a_size(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/a", b"z" * 100)
    content = bytearray((tmp_path / "x.zip").read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (1 << 31).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(SourceError, match="claims"):
        open_zip(tmp_path / "x.zip", "x").read("a")


def reference_tonemap(colour, entity):
    """The formula of the official tool, in float64 and pixel by pixel."""
    shown = entity != -1
    if not shown.any():
        scale = 1.0
    else:
        brightness = 0.3 * colour[..., 0] + 0.59 * colour[..., 1] + 0.11 * colour[..., 2]
        current = np.percentile(brightness[shown], 90)
        scale = 0.0 if current < 1e-4 else 0.8**2.2 / current
    return np.clip(np.maximum(scale * colour, 0) ** (1 / 2.2), 0, 1) * 255


@settings(max_examples=60, deadline=None)
@given(
    colour=arrays(np.float16, (4, 5, 3), elements=st.floats(0, 1000, width=16)),
    entity=arrays(np.int16, (4, 5), elements=st.sampled_from([-1, 1, 7])),
)
def test_tonemap_follows_the_formula(colour, entity):
    wanted = reference_tonemap(colour.astype(np.float64), entity)
    for found in (tonemap(colour, entity), tonemap(colour.astype(np.float32), entity)):
        assert found.dtype == np.uint8
        assert (found <= wanted + 1e-2).all()  # cut off, not rounded; brightness is float32
        assert (found > wanted - 1 - 1e-2).all()


def test_tonemap_special_cases():
    colour = np.full((2, 2, 3), 0.5, np.float16)
    none = np.full((2, 2), -1, np.int16)
    assert (tonemap(colour, none) == int(0.5 ** (1 / 2.2) * 255)).all()
    assert not tonemap(colour * 0, none + 2).any()
    colour[0, 0], colour[0, 1] = np.inf, np.nan
    found = tonemap(colour, none + 2)
    assert (found[0, 0] == 255).all()
    assert (found[0, 1] == 0).all()
    assert (found[1] == int(0.8 * 255)).all()
    assert not tonemap(np.full((2, 2, 3), np.nan, np.float16), none + 2).any()


def test_intrinsics_of_shifted_and_tilted_lenses():
    shifted = np.array([[0.5, 0, -0.07], [0, 0.4, 0.09], [0, 0, -1.0]])
    model = SceneCamera(48, 64, shifted, 0.01)
    np.testing.assert_allclose(pinhole_rays(model.intrinsics(), 48, 64), hypersim_rays(shifted, 48, 64), atol=1e-12)
    for row, column in ((2, 1), (2, 0), (1, 0)):
        bent = shifted.copy()
        bent[row, column] += 1e-3
        assert SceneCamera(48, 64, bent, 0.01).intrinsics() is None


def test_trajectories(tmp_path):
    path = tmp_path / "traj.txt"
    path.write_text("# a comment\n\n1 0 0 5 0 1 0 6 0 0 1 7 0 0 0 1\n1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n")
    poses = read_trajectory(path)
    assert poses.shape == (2, 4, 4)
    assert poses[0, :3, 3].tolist() == [5, 6, 7]
    for wrong in ("", "1 2\n", "1 0 0 5 0 1 0 6 0 0 1 7 0 0 0 x\n", "\xff"):
        path.write_text(wrong)
        with pytest.raises(SourceError, match=r"traj\.txt"):
            read_trajectory(path)
