"""The iBims-1 reader on rendered stills in both official forms; plane labels check the normals independently."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat
from scipy.ndimage import maximum_filter, minimum_filter

from ncbench.datasets.mini.layout_ibims import IbimsMiniSettings, write_ibims_layout
from ncbench.datasets.mini.layout_scannet import scene_of
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.readers.ibims import PLANES, IbimsReader
from ncbench.errors import CardError, SourceError

MINI = {
    "frames": 2,
    "height": 72,
    "width": 96,
    "sequences": [{"name": "livingroom", "kind": "room"}, {"name": "lab", "kind": "objects"}],
}


@pytest.fixture(scope="module", params=["mat", "plain"])
def made(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    write_ibims_layout(root, MINI | {"form": request.param})
    return root


@pytest.fixture
def mat(tmp_path):
    write_ibims_layout(tmp_path, MINI | {"frames": 2, "height": 24, "width": 32})
    return tmp_path


def truth(name):
    checked = IbimsMiniSettings.parse(MINI, "test")
    clip, _, index = name.rpartition("_")
    (sequence,) = (found for found in checked.sequences if found.name == clip)
    return render_frame(scene_of(checked, sequence), int(index) - 1)


def angles(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def test_frames(made):
    reader = IbimsReader(made, {"count": 4})
    assert list(reader.sequences()) == ["lab_01", "lab_02", "livingroom_01", "livingroom_02"]
    plain = (made / "rgb").is_dir()
    for name in reader.sequences():
        (frame,) = reader.read(name, [0])
        seen = truth(name)
        np.testing.assert_allclose(frame.intrinsics, seen.intrinsics, atol=1e-9)  # 1 is taken off again
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(frame.image))), seen.rgb)
        hidden = np.zeros(seen.valid.shape, bool)
        hidden[18:36, :12] = hidden[18:36, -12:] = True
        assert not frame.depth[hidden].any()
        assert not frame.valid[hidden].any()
        step = 50 / 65535 / 2 if plain else 0
        np.testing.assert_allclose(frame.depth[~hidden], seen.depth[~hidden], rtol=1e-6, atol=step * 1.001)
        assert frame.valid[~hidden].mean() > 0.95
        if plain:
            assert frame.image == (made / "rgb" / f"{name}.png").read_bytes()


def test_normals_agree_with_the_labelled_planes(made):
    """The file's own plane parameters, in the script's axes (x right, y forward, z up), against fitted normals."""
    if (made / "rgb").is_dir():
        pytest.skip("the plain form's plane parameters are not documented")
    compared = 0
    for name in IbimsReader(made, {}).sequences():
        (frame,) = IbimsReader(made, {}).read(name, [0])
        data = loadmat(made / f"{name}.mat")["data"]
        for kind in PLANES:
            labels, rows = frame.extra[kind], data[f"{kind}_paras"][0][0]
            inner = minimum_filter(labels, 5) == maximum_filter(labels, 5)
            for number in range(1, labels.max() + 1):
                inside = (labels == number) & inner & frame.valid
                x, forward, up = rows[number - 1, 4:7]
                # neighbours that the masks hide only drop out of a fit; depth is float32, 6e-8 of it a sample
                errors = angles(frame.normal[inside], np.array([x, -up, forward]))
                assert inside.sum() == 0 or errors.max() < 0.02
                compared += int(inside.sum())
    assert compared > 2000


def test_plane_labels_are_columns(made):
    reader = IbimsReader(made, {})
    assert set(reader.extra_features()) == set(PLANES)
    (frame,) = reader.read("livingroom_01", [0])
    assert frame.extra["mask_wall"].dtype == np.uint8
    assert frame.extra["mask_wall"].max() >= 2
    assert not ((frame.extra["mask_wall"] > 0) & (frame.extra["mask_floor"] > 0)).any()


def test_selection_and_count(made):
    assert list(IbimsReader(made, {"images": ["livingroom_02", "lab_01"]}).sequences()) == ["livingroom_02", "lab_01"]
    with pytest.raises(SourceError, match="expected 100 pictures, found 4"):
        IbimsReader(made, {"count": 100})
    with pytest.raises(SourceError, match="Did you mean 'lab_01'"):
        IbimsReader(made, {"images": ["lab_1"]})
    with pytest.raises(CardError, match="first_pixel"):
        IbimsReader(made, {"first_pixel": 2})


def test_fingerprint(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "raw")
    before = [IbimsReader(made, {}).fingerprint(name, [0]) for name in ("lab_01", "lab_02")]
    changed = copy / "depth" / "lab_02.png" if (copy / "rgb").is_dir() else copy / "lab_02.mat"
    changed.write_bytes(changed.read_bytes() + b"\0")
    after = [IbimsReader(copy, {}).fingerprint(name, [0]) for name in ("lab_01", "lab_02")]
    assert after[0] == before[0]
    assert after[1] != before[1]


def rewrite(path, **changes):
    data = loadmat(path)["data"]
    values = {name: data[name][0][0] for name in data.dtype.names} | changes
    savemat(path, {"data": {name: value for name, value in values.items() if value is not None}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth": None}, "expected one structure 'data' with"),
        ({"depth": np.zeros((24, 31))}, "expected 32 x 24 pixels"),
        ({"depth": np.array(["x"])}, "expected numbers in 'depth'"),
        ({"rgb": np.zeros((24, 32, 3))}, "expected 8-bit 'rgb'"),
        ({"calib": np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])}, "expected a transposed camera matrix"),
        ({"calib": np.array([[0.0, 0, 0], [0, 30, 0], [16, 12, 1]])}, r"lab_01\.mat: expected \[\[fx"),
        ({"calib": np.array([[np.nan, 0, 0], [0, 30, 0], [16, 12, 1]])}, "does not read"),
        ({"mask_wall": np.full((24, 32), 0.5)}, "plane labels"),
    ],
)
def test_structures_that_are_no_ibims(mat, changes, words):
    rewrite(mat / "lab_01.mat", **changes)
    with pytest.raises(SourceError, match=words) as caught:
        list(IbimsReader(mat, {}).read("lab_01", [0]))
    assert "lab_01.mat" in str(caught.value)


def test_damaged_and_missing_files(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "raw")
    for path in sorted(copy.rglob("lab_01.*")):
        content = path.read_bytes()
        for bad in (b"", content[:-20] if len(content) > 100 else content[:7], b"?" * len(content)):
            path.write_bytes(bad)
            with pytest.raises(SourceError, match=r"lab_01\."):
                list(IbimsReader(copy, {}).read("lab_01", [0]))
        path.write_bytes(content)
    if (copy / "rgb").is_dir():
        (copy / "mask_transp" / "lab_01.png").unlink()
        with pytest.raises(SourceError, match=r"mask_transp/lab_01\.png: expected a file"):
            IbimsReader(copy, {})
        shutil.rmtree(copy / "mask_wall")  # labels may be absent
        (frame,) = IbimsReader(copy, {"images": ["lab_02"]}).read("lab_02", [0])
        assert frame.extra["mask_wall"] is None
    with pytest.raises(SourceError, match="found neither"):
        IbimsReader((tmp_path / "empty").mkdir() or tmp_path / "empty", {})
