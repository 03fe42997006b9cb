"""The iBims-1 reader on rendered stills in both official forms; plane labels check the normals independently."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat
from scipy.ndimage import maximum_filter, minimum_filter

from ncbench.datasets.mini.layout_ibims import IbimsMiniSettings, planes_of, write_ibims_layout
from ncbench.datasets.mini.layout_scannet import scene_of
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.readers.ibims import IbimsReader
from ncbench.datasets.readers.ibims_planes import PLANES, normals_column, plane_normals, read_parameters
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


def table(root, name, kind):
    """The file's own plane parameters, read without the package."""
    if (root / "rgb").is_dir():
        path = root / kind / f"{name}.txt"
        return np.loadtxt(path, delimiter=",", ndmin=2) if path.is_file() else np.zeros((0, 7))
    return loadmat(root / f"{name}.mat")["data"][f"{kind}_paras"][0][0]


def test_normals_agree_with_the_labelled_planes(made):
    """The official plane parameters, in the script's axes (x right, y forward, z up), against fitted normals."""
    # whole units of the plain form's depth (0.76 mm) are visible in small windows
    most = 3 if (made / "rgb").is_dir() else 0.02
    compared = 0
    for name in IbimsReader(made, {}).sequences():
        (frame,) = IbimsReader(made, {}).read(name, [0])
        for kind in PLANES:
            labels, rows = frame.extra[kind], table(made, name, kind)
            inner = minimum_filter(labels, 5) == maximum_filter(labels, 5)
            for number in range(1, labels.max() + 1):
                inside = (labels == number) & inner & frame.valid
                x, forward, up = rows[number - 1, 4:7]
                # neighbours that the masks hide only drop out of a fit; depth is float32, 6e-8 of it a sample
                errors = angles(frame.normal[inside], np.array([x, -up, forward]))
                assert inside.sum() == 0 or np.median(errors) < most / 3
                assert inside.sum() == 0 or errors.max() < most
                compared += int(inside.sum())
    assert compared > 2000


def test_plane_normals_are_columns_that_face_the_camera(made):
    reader, found = IbimsReader(made, {}), 0
    for name in reader.sequences():
        (frame,) = reader.read(name, [0])
        seen = truth(name)
        for kind, planes in planes_of(seen).items():
            normals = frame.extra[normals_column(f"mask_{kind}")]
            if normals is None:  # the plain form has no table where there are no planes
                assert len(planes.rows) == 0
                continue
            assert len(normals) == len(planes.rows)
            for number, normal in enumerate(normals, 1):
                rendered = seen.normal[planes.labels == number].mean(axis=0)
                np.testing.assert_allclose(normal, rendered, atol=1e-5)
                found += 1
    assert found > 4


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_a_plane_normal_is_ours(mat, sign):
    data = loadmat(mat / "livingroom_01.mat")["data"]
    rows = data["mask_wall_paras"][0][0]
    rewrite(mat / "livingroom_01.mat", mask_wall_paras=np.concatenate([rows * 7 * sign, rows[:1] * sign]))
    (frame,) = IbimsReader(mat, {}).read("livingroom_01", [0])
    *normals, unseen = np.array(frame.extra["mask_wall_normals"])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    x, forward, up = rows[0, 4:7]
    np.testing.assert_allclose(normals[0], [x, -up, forward], atol=1e-6)  # the mini's own faces the camera
    np.testing.assert_allclose(unseen, np.array([x, -up, forward]) * sign, atol=1e-6)  # on no pixel


def test_pictures_without_planes(mat):
    rewrite(mat / "lab_01.mat", mask_wall_paras=np.zeros((0, 0)))
    (frame,) = IbimsReader(mat, {}).read("lab_01", [0])
    assert frame.extra["mask_wall_normals"] == []


@pytest.mark.parametrize(
    ("text", "normals"),
    [("0,0,0,0,0,1,0\n 0, 0,0,0,0,0,2 \n\n", [[0, 0, 1], [0, -1, 0]]), ("", []), ("0,0,0,0,0,0,0", [[0, 0, 0]])],
)
def test_tables_of_the_plain_form(tmp_path, text, normals):
    path = tmp_path / "t.txt"
    path.write_text(text)
    found = plane_normals(read_parameters(path), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3)))
    assert found == normals


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5,6,x", "1,2,3,4,5,6,nan", "1,2,3,4,5,6,7\n1", "1 2 3 4 5 6 7"])
def test_damaged_tables(tmp_path, text):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(SourceError, match=r"t\.txt: expected .*7 numbers"):
        read_parameters(tmp_path / "t.txt")


def test_the_archive_s_own_folder(made, tmp_path):
    name = "ibims1_core_raw" if (made / "rgb").is_dir() else "ibims1_core_mat"
    (tmp_path / name).symlink_to(made)
    inside, direct = IbimsReader(tmp_path, {}), IbimsReader(made, {})
    assert inside.sequences() == direct.sequences()
    assert inside.fingerprint("lab_01", [0]) == direct.fingerprint("lab_01", [0])


def test_plane_labels_are_columns(made):
    reader = IbimsReader(made, {})
    assert set(reader.extra_features()) == {*PLANES, *map(normals_column, PLANES)}
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
        ({"mask_wall_paras": None}, "expected one structure 'data' with"),
        ({"mask_wall_paras": np.zeros((2, 4))}, "expected rows of 7 numbers in 'mask_wall_paras'"),
        ({"mask_floor_paras": np.full((1, 7), np.inf)}, "expected rows of 7 numbers in 'mask_floor_paras'"),
        ({"mask_table_paras": np.array(["x"])}, "expected rows of 7 numbers in 'mask_table_paras'"),
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
        if path.suffix == ".txt" and path.parent.name in PLANES:
            continue  # a shortened number is still one; their own tests are above
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
