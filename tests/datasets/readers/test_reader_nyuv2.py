"""The NYUv2 reader on rendered stills in the set's own MATLAB files."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ncbench.datasets.mini.layout_nyuv2 import Nyuv2MiniSettings, render_stills, write_mat73, write_nyuv2_layout
from ncbench.datasets.readers.nyuv2 import Nyuv2Reader
from ncbench.errors import CardError, SourceError

MINI = {
    "frames": 3,
    "height": 48,
    "width": 64,
    "focal": 52.0,
    "sequences": [{"name": "room", "kind": "room"}, {"name": "objects", "kind": "objects"}],
}
SETTINGS = {"axes": "dsine", "intrinsics": (52.0, 52.0, 31.5, 23.5)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("nyuv2")
    write_nyuv2_layout(root, MINI)
    return root


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "raw")


@pytest.fixture(scope="module")
def truth():
    return render_stills(Nyuv2MiniSettings.parse(MINI, "test"), 52.0)


def angles(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def test_pictures_normals_depth_and_crop(made, truth):
    reader = Nyuv2Reader(made, SETTINGS)
    assert dict(reader.sequences()) == {"000000": (0,), "000002": (0,), "000004": (0,)}
    for name in reader.sequences():
        (frame,) = reader.read(name, [0])
        seen = truth[int(name)]
        errors = angles(frame.normal[frame.valid], seen.normal[frame.valid])
        assert errors.max() < 1e-5  # float32: half a unit in the last place of each component
        assert not frame.valid[:4].any()  # the protocol's crop, 45 of 480 rows
        assert frame.valid[6:-6, 8:-8].all()
        np.testing.assert_array_equal(frame.depth, seen.depth.astype(np.float32))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(frame.image))), seen.rgb)
        np.testing.assert_allclose(frame.intrinsics, seen.intrinsics, rtol=1e-12)
        assert frame.flow is None


def test_the_other_split(made):
    assert list(Nyuv2Reader(made, SETTINGS | {"split": "train"}).sequences()) == ["000001", "000003", "000005"]


@pytest.mark.parametrize("axes", ["opencv", "opengl", "ldf"])
def test_axes_that_contradict_the_depth_are_refused(made, axes):
    with pytest.raises(SourceError, match=r"norm_gt_l\.mat: expected normals in .* signs of \(x, y, z\) multiplied by"):
        list(Nyuv2Reader(made, SETTINGS | {"axes": axes}).read("000000", [0]))
    assert list(Nyuv2Reader(made, SETTINGS | {"axes": axes, "axes_slack": None}).read("000000", [0]))


def test_signs_stand_for_axes_without_a_name(made):
    mirrored = SETTINGS | {"axes": "opengl", "signs": (-1, 1, 1)}
    (one,), (other,) = (list(Nyuv2Reader(made, s).read("000000", [0])) for s in (SETTINGS, mirrored))
    np.testing.assert_array_equal(one.normal, other.normal)


def test_fingerprint_covers_its_own_pictures_alone(made, root):
    before = {name: Nyuv2Reader(made, SETTINGS).fingerprint(name, [0]) for name in ("000000", "000002")}
    assert before["000000"] != before["000002"]
    import h5py

    with h5py.File(root / "masks.mat", "r+") as file:
        file["masks"][2, 30, 20] = 0
    reader = Nyuv2Reader(root, SETTINGS)
    assert reader.fingerprint("000000", [0]) == before["000000"]
    assert reader.fingerprint("000002", [0]) != before["000002"]


@pytest.mark.parametrize("name", ["nyu_depth_v2_labeled.mat", "norm_gt_l.mat", "masks.mat", "splits.mat"])
def test_every_damaged_file_is_named(root, name):
    path = root / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=name):
        list(Nyuv2Reader(root, SETTINGS).read("000000", [0]))
    path.unlink()
    with pytest.raises(SourceError, match=f"{name}: expected a MATLAB file, found none"):
        Nyuv2Reader(root, SETTINGS)


def test_arrays_that_do_not_belong_together(root):
    savemat(root / "splits.mat", {"testNdxs": np.array([[0], [3]], dtype=np.uint16)})
    with pytest.raises(SourceError, match="different indices from 1 to 6"):  # counted from 0
        Nyuv2Reader(root, SETTINGS)
    write_mat73(root / "masks.mat", {"masks": np.zeros((64, 48, 6), np.uint8)})  # transposed
    with pytest.raises(SourceError, match=r"expected 'masks' of MATLAB shape \(48, 64, 6\), found \(64, 48, 6\)"):
        Nyuv2Reader(root, SETTINGS)


def test_wrong_settings_and_requests(made):
    with pytest.raises(CardError, match="axes"):
        Nyuv2Reader(made, {})
    with pytest.raises(SourceError, match="there is no sequence '000001'"):
        list(Nyuv2Reader(made, SETTINGS).read("000001", [0]))
