import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ncbench.datasets.mini.clip_scene import clip_scene
from ncbench.datasets.mini.layout_davis import write_davis_layout
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.readers.davis import DavisReader
from ncbench.errors import CardError, SourceError

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "real" / "davis"
MINI = {
    "seed": 4,
    "frames": 2,
    "height": 32,
    "width": 48,
    "sequences": [{"name": "one", "kind": "room"}, {"name": "two", "kind": "objects"}],
}


@pytest.fixture
def root(tmp_path):
    write_davis_layout(tmp_path / "raw", MINI)
    return tmp_path / "raw"


@pytest.fixture
def pictures(root):
    return root / "DAVIS" / "JPEGImages" / "480p"


def test_pictures_come_back_as_they_are(root, pictures):
    reader = DavisReader(root, {})
    assert reader.sequences() == {"one": (0, 1), "two": (0, 1)}
    assert reader.normal_source == "none"
    settings = LayoutSettings.parse(MINI, "test")
    for frame in reader.read("two", [0, 1]):
        assert frame.image == (pictures / "two" / f"{frame.frame:05d}.jpg").read_bytes()
        shown = np.array(Image.open(io.BytesIO(frame.image))).astype(int)
        truth = render_frame(clip_scene(settings, settings.sequences[1]), frame.frame).rgb.astype(int)
        assert np.abs(shown - truth).mean() < 8  # JPEG, with colours at half the resolution
        assert frame.size == (32, 48)
        assert not frame.valid.any()
        assert frame.depth is frame.flow is frame.intrinsics is frame.cam_to_world is None


def test_lists_and_choice(root, pictures):
    assert list(DavisReader(root, {"split": "train"}).sequences()) == ["one"]
    assert list(DavisReader(root / "DAVIS", {"split": "val"}).sequences()) == ["two"]
    assert list(DavisReader(root, {"sequences": ["two", "one"]}).sequences()) == ["two", "one"]
    with pytest.raises(SourceError, match=r"the settings ask for 'one'.*Did you mean|the settings ask for 'one'"):
        DavisReader(root, {"split": "val", "sequences": ["one"]})
    with pytest.raises(SourceError, match=r"test-dev\.txt"):
        DavisReader(root, {"split": "test-dev"})
    (root / "DAVIS" / "ImageSets" / "2017" / "val.txt").write_text("three\n")
    with pytest.raises(SourceError, match="the list names 'three'"):
        DavisReader(root, {"split": "val"})
    (root / "DAVIS" / "ImageSets" / "2017" / "val.txt").write_text("\n")
    with pytest.raises(SourceError, match="found none"):
        DavisReader(root, {"split": "val"})
    with pytest.raises(CardError, match="resolution"):
        DavisReader(root, {"resolution": "720p"})
    with pytest.raises(SourceError, match="Full-Resolution"):
        DavisReader(root, {"resolution": "Full-Resolution"})


def test_bad_pictures(root, pictures):
    reader = DavisReader(root, {})
    before = reader.fingerprint("one", [1])
    path = pictures / "one" / "00001.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert reader.fingerprint("one", [1]) != before
    with pytest.raises(SourceError, match=r"00001\.jpg"):
        list(reader.read("one", [0, 1]))
    Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(path, "JPEG")
    with pytest.raises(SourceError, match="expected 48 x 32"):
        list(reader.read("one", [1]))
    path.unlink()
    with pytest.raises(SourceError, match=r"00001\.jpg"):
        list(reader.read("one", [1]))
    (pictures / "one" / "00003.jpg").write_bytes(content)
    with pytest.raises(SourceError, match=r"\[1, 2\] is missing"):
        DavisReader(root, {})
    for file in (pictures / "one").iterdir():
        file.unlink()
    with pytest.raises(SourceError, match="expected pictures"):
        DavisReader(root, {})
    for folder in pictures.iterdir():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    with pytest.raises(SourceError, match="one sub-folder a sequence"):
        DavisReader(root, {})


@pytest.mark.real
def test_a_real_video(tmp_path):
    if not REAL.is_dir():
        pytest.skip("no real files")
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "480p").symlink_to(REAL)
    reader = DavisReader(tmp_path, {"sequences": ["lady-running"]})
    assert reader.sequences() == {"lady-running": tuple(range(10))}
    sizes = {frame.size for frame in reader.read("lady-running", range(10))}
    assert sizes == {(480, 854)}
