"""DSINE's evaluation folder: all six sets, each in its own coding of normals, and pickles that must not run."""

import contextlib
import io
import os
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ncbench.datasets.mini.layout_dsine_eval import (
    DsineEvalMiniSettings,
    oasis_pickle,
    write_dsine_eval_layout,
    write_exr,
)
from ncbench.datasets.mini.layout_scannet import scene_of
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.readers.dsine_eval import DsineEvalReader
from ncbench.datasets.readers.dsine_eval_pickle import read_oasis_normals
from ncbench.errors import CardError, SourceError

SETS = ("nyuv2", "scannet", "ibims", "sintel", "vkitti", "oasis")
MINI = {
    "frames": 3,
    "height": 40,
    "width": 56,
    "sets": SETS,
    "sequences": [{"name": "alley_1", "kind": "room"}, {"name": "bamboo_1", "kind": "outdoor"}],
}
# a component rounded to 1 / 127.5 (8 bits) is off by half of that, a vector by sqrt(3) times as much
BOUNDS = {name: np.degrees(np.arcsin(np.sqrt(3) * 0.5 / steps)) for name, steps in (("8", 127.5), ("16", 32767.5))}
BOUND = {
    "nyuv2": BOUNDS["8"],
    "scannet": BOUNDS["8"],
    "vkitti": BOUNDS["16"],
    "ibims": 1e-5,
    "sintel": 1e-5,
    "oasis": 1e-5,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("dsine")
    write_dsine_eval_layout(root, MINI)
    return root


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "raw")


@pytest.fixture(scope="module")
def truth():
    checked = DsineEvalMiniSettings.parse(MINI, "test")
    return [render_frame(scene_of(checked, clip), index) for clip in checked.sequences for index in range(3)]


def reader(root, name, **more):
    return DsineEvalReader(root, {"set": name, "axes": "dsine", **more})


def angles(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


@pytest.mark.parametrize("name", SETS)
def test_normals_are_off_by_their_coding_alone(made, truth, name):
    found = reader(made, name, count=6)
    frames = [frame for sequence, numbers in found.sequences().items() for frame in found.read(sequence, numbers)]
    assert len(frames) == 6
    for frame, seen in zip(frames, truth, strict=True):
        inside = seen.valid.copy()
        if name == "oasis":
            inside[:5] = inside[:, :7] = inside[36:] = inside[:, 50:] = False
        np.testing.assert_array_equal(frame.valid, inside)
        assert angles(frame.normal[inside], seen.normal[inside]).max() <= BOUND[name]
        np.testing.assert_allclose(np.linalg.norm(frame.normal[inside], axis=-1), 1, atol=1e-6)
        np.testing.assert_allclose(frame.intrinsics, seen.intrinsics, rtol=1e-6)
        assert frame.depth is None
        if name != "vkitti":
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(frame.image))), seen.rgb)


def test_sintel_is_video_and_the_others_are_stills(made):
    assert dict(reader(made, "sintel").sequences()) == {"alley_1": (1, 2, 3), "bamboo_1": (1, 2, 3)}
    assert list(reader(made, "nyuv2", scenes=["test"]).sequences()) == [f"test-{index:06d}" for index in range(6)]
    stills = reader(made, "scannet").sequences()
    assert list(stills)[:4] == ["alley_1-000000", "alley_1-000001", "alley_1-000002", "bamboo_1-000003"]
    assert set(stills.values()) == {(0,)}
    one = list(reader(made, "scannet", scenes=["bamboo_1"]).sequences())
    assert one == ["bamboo_1-000003", "bamboo_1-000004", "bamboo_1-000005"]


def test_roots_and_counts(made):
    names = [
        list(reader(place, "ibims").sequences()) for place in (made, made / "dsine_eval", made / "dsine_eval" / "ibims")
    ]
    assert names[0] == names[1] == names[2]
    with pytest.raises(SourceError, match="expected 100 pictures of ibims, found 6"):
        reader(made, "ibims", count=100)
    with pytest.raises(SourceError, match="Did you mean 'test'"):
        reader(made, "nyuv2", scenes=["tests"])
    with pytest.raises(CardError, match="key 'set': .*nyuv2"):
        reader(made, "diode")


@pytest.mark.parametrize("name", SETS)
def test_axes_that_point_away_are_refused(made, name):
    found = DsineEvalReader(made, {"set": name, "axes": "opencv"})
    with pytest.raises(SourceError, match=r"_normal\..* expected normals in opencv axes, facing the camera, but"):
        list(found.read(*next(iter(found.sequences().items()))))


def test_the_rules_for_no_normal(root):
    folder = root / "dsine_eval" / "sintel" / "alley_1"
    normal = np.full((40, 56, 3), [0.0, 0.0, 1.0], dtype=np.float32)
    normal[0, :3] = [[0, 0, 0.5], [0, 0, 0.51], [0, np.nan, 1]]  # DSINE keeps a norm above 0.5, not at it
    write_exr(folder / "frame_0001_normal.exr", normal)
    (frame,) = reader(root, "sintel").read("alley_1", [1])
    assert frame.valid[0, :4].tolist() == [False, True, False, True]
    path = root / "dsine_eval" / "nyuv2" / "test" / "000000_normal.png"
    pixels = np.full((40, 56, 3), (127, 127, 255), dtype=np.uint8)
    pixels[0, :3] = [[0, 0, 0], [0, 0, 1], [128, 128, 128]]  # only black means none, not grey as elsewhere
    Image.fromarray(pixels).save(path)
    (frame,) = reader(root, "nyuv2").read("test-000000", [0])
    assert frame.valid[0, :4].tolist() == [False, True, True, True]


def test_another_bit_depth_is_refused(root):
    folder = root / "dsine_eval"
    shutil.copy(folder / "nyuv2/test/000000_normal.png", folder / "vkitti/alley_1/000000_normal.png")
    with pytest.raises(SourceError, match=r"vkitti/alley_1/000000_normal\.png: expected 16 bits a channel, found 8"):
        list(reader(root, "vkitti").read("alley_1-000000", [0]))


@pytest.mark.parametrize("name", SETS)
def test_every_damaged_file_is_named(root, name):
    found = reader(root, name)
    sequence, numbers = next(iter(found.sequences().items()))
    folder = root / "dsine_eval" / name
    before = found.fingerprint(sequence, numbers[:1])
    for path in sorted(folder.rglob("*0001*" if name == "sintel" else "000000_*"))[:3]:
        content = path.read_bytes()
        for bad in (content[: len(content) // 2], b"", b"?" * len(content)):
            path.write_bytes(bad)
            with pytest.raises(SourceError, match=path.name):
                list(found.read(sequence, numbers[:1]))
            assert found.fingerprint(sequence, numbers[:1]) != before
        path.unlink()
        if "_img" not in path.name:
            with pytest.raises(SourceError, match=f"{path.name}: expected a file, found none"):
                reader(root, name)
        path.write_bytes(content)
    assert found.fingerprint(sequence, numbers[:1]) == before


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "payload",
    [
        Evil(os.system, "touch owned"),
        {"normal": Evil(eval, "open('owned', 'w')"), "min_x": 0},
        Evil(getattr, "text", "format"),
        Evil(np.load, "owned"),
        Evil(np.fromfile, "owned"),
    ],
)
def test_a_pickle_cannot_run_anything(tmp_path, monkeypatch, protocol, payload):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(payload, protocol=protocol))
    with pytest.raises(SourceError, match=r"a\.pkl: .* asks for .*, which no plain NumPy data need"):
        read_oasis_normals(path, 10, 10)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(("dtype", "order"), [("<f4", "C"), ("<f8", "F"), (">f8", "C")])
def test_honest_pickles_of_any_protocol(tmp_path, protocol, dtype, order):
    path, box = tmp_path / "a.pkl", {"min_x": 2, "max_x": np.int64(4), "min_y": 1, "max_y": 2}
    inside = np.zeros((2, 3, 3), dtype, order=order)
    inside[0, 1] = [0.6, 0.0, 0.8]
    path.write_bytes(pickle.dumps({**box, "normal": inside}, protocol=protocol))
    normal = read_oasis_normals(path, 5, 6)
    assert np.argwhere(normal.any(axis=-1)).tolist() == [[1, 3]]
    np.testing.assert_allclose(normal[1, 3], [-0.6, 0.0, 0.8], atol=1e-7)


def test_a_pickle_of_numpy_1_by_name(tmp_path):
    path = tmp_path / "a.pkl"
    made = {"min_x": 0, "max_x": 0, "min_y": 0, "max_y": 0, "normal": np.array([[[0.0, 1.0, 0.0]]])}
    path.write_bytes(pickle.dumps(made, protocol=2).replace(b"numpy._core", b"numpy.core"))
    assert read_oasis_normals(path, 1, 1)[0, 0].tolist() == [0.0, -1.0, 0.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_x": 6}, "a box inside 6 x 5 pixels"),
        ({"min_y": -1}, "a box inside"),
        ({"min_x": 2.0}, "a whole number in 'min_x'"),
        ({"max_x": True}, "a whole number in 'max_x'"),
        ({"normal": np.zeros((2, 3, 2))}, r"normals of shape \(2, 3, 3\)"),
        ({"normal": [[1]]}, "found list"),
        ({"normal": np.zeros((2, 3, 3), object)}, "no plain numbers"),
        ({"normal": np.zeros((2, 3, 3), np.int64)}, "floating-point normals"),
        ({"normal": np.zeros((2, 3, 3), ">f8")[:, :, ::-1].tolist()}, "found list"),
        ({"normal": None}, "found NoneType"),
    ],
)
def test_pickles_of_something_else(tmp_path, change, words):
    path = tmp_path / "a.pkl"
    good = {"min_x": 2, "max_x": 4, "min_y": 1, "max_y": 2, "normal": np.zeros((2, 3, 3))}
    path.write_bytes(pickle.dumps(good | change))
    with pytest.raises(SourceError, match=words):
        read_oasis_normals(path, 5, 6)
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(SourceError, match="expected a dictionary with .*, found list"):
        read_oasis_normals(path, 5, 6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_pickles_give_a_source_error_or_normals(truth, tmp_path, data):
    content = bytearray(oasis_pickle(truth[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzz.pkl"
    path.write_bytes(content)
    with contextlib.suppress(SourceError):
        assert read_oasis_normals(path, 40, 56).shape == (40, 56, 3)
