"""Marigold's evaluation archive."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from ncbench.datasets.mini.layout_marigold_eval import MarigoldEvalMiniSettings, write_marigold_eval_layout
from ncbench.datasets.mini.layout_scannet import scene_of
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.readers.marigold_eval import MarigoldEvalReader
from ncbench.errors import CardError, SourceError

MINI = {
    "frames": 2,
    "height": 24,
    "width": 32,
    "sequences": [{"name": "b", "kind": "room"}, {"name": "a", "kind": "outdoor"}],
}
SETTINGS = {"folder": "scannet", "axes": "opengl"}


@pytest.fixture
def root(tmp_path):
    write_marigold_eval_layout(tmp_path, MINI)
    return tmp_path


def angles(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


@pytest.mark.parametrize("layout", ["(H, W, 3)", "(3, H, W)"])
def test_normals(root, layout):
    checked = MarigoldEvalMiniSettings.parse(MINI, "test")
    if layout == "(3, H, W)":
        for path in (root / "scannet").rglob("*.npy"):
            np.save(path, np.load(path).transpose(2, 0, 1))
    reader = MarigoldEvalReader(root, SETTINGS)
    for clip in checked.sequences:
        for index in range(2):
            (frame,) = reader.read(f"{clip.name}-{20 * index:06d}", [0])
            seen = render_frame(scene_of(checked, clip), index)
            np.testing.assert_array_equal(frame.valid, seen.valid)
            assert angles(frame.normal[seen.valid], seen.normal[seen.valid]).max() < 1e-5
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(frame.image))), seen.rgb)


def test_lists_give_the_pictures_and_their_order(root):
    assert list(MarigoldEvalReader(root, SETTINGS).sequences()) == ["a-000000", "a-000020", "b-000000", "b-000020"]
    listed = MarigoldEvalReader(root, SETTINGS | {"pairs": "scannet.txt", "count": 4})
    assert list(listed.sequences()) == ["b-000000", "b-000020", "a-000000", "a-000020"]
    for path in (root / "scannet").rglob("*_img.png"):  # as DIODE calls its pictures
        path.rename(path.with_name(path.name.replace("_img", "")))
    assert len(MarigoldEvalReader(root, SETTINGS).sequences()) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found none"),
        ("one\n", "two paths"),
        ("../x /etc/passwd\n", "two paths"),
        ("a_img.png x_normal.npy\n", "a_img.png: expected a file, found none"),
        ("b/000000_img.png b/000000_normal.npy\n" * 2, "twice"),
    ],
)
def test_wrong_lists(root, text, words):
    (root / "scannet.txt").write_text(text)
    with pytest.raises(SourceError, match=words):
        MarigoldEvalReader(root, SETTINGS | {"pairs": "scannet.txt"})


def test_what_is_refused(root):
    with pytest.raises(SourceError, match="expected 300 pictures, found 4"):
        MarigoldEvalReader(root, SETTINGS | {"count": 300})
    with pytest.raises(SourceError, match="facing the camera"):
        list(MarigoldEvalReader(root, SETTINGS | {"axes": "opencv"}).read("a-000000", [0]))
    with pytest.raises(CardError, match="a path inside the archive"):
        MarigoldEvalReader(root, SETTINGS | {"folder": "../scannet"})
    with pytest.raises(SourceError, match="expected a folder"):
        MarigoldEvalReader(root, SETTINGS | {"folder": "nyuv2/test"})
    reader = MarigoldEvalReader(root, SETTINGS)
    before = reader.fingerprint("a-000000", [0])
    path = root / "scannet" / "a" / "000000_normal.npy"
    for bad in (path.read_bytes()[:-4], b"", b"?" * 300):
        path.write_bytes(bad)
        assert reader.fingerprint("a-000000", [0]) != before
        with pytest.raises(SourceError, match=r"a/000000_normal\.npy"):
            list(reader.read("a-000000", [0]))
    np.save(path, np.ones((24, 31, 3), np.float32))
    with pytest.raises(SourceError, match="expected 32 x 24 pixels"):
        list(reader.read("a-000000", [0]))
    shutil.rmtree(root / "scannet" / "a")
    shutil.rmtree(root / "scannet" / "b")
    with pytest.raises(SourceError, match="found none"):
        MarigoldEvalReader(root, SETTINGS)
