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


def test_instances_are_the_bodies_that_move(root):
    reader = DavisReader(root, {})
    assert [str(kind) for kind in reader.extra_features().values()] == ["large_binary"]
    settings, labelled = LayoutSettings.parse(MINI, "test"), 0
    for number, name in enumerate(reader.sequences()):
        scene = clip_scene(settings, settings.sequences[number])
        moving = [
            place + 1
            for place, (one, two) in enumerate(zip(scene.body_poses(0), scene.body_poses(1), strict=True))
            if np.abs(one - two).max() > 0
        ]
        for frame in reader.read(name, [0, 1]):
            instances, ids = frame.extra["instances"], render_frame(scene, frame.frame).ids
            assert instances.dtype == np.uint8
            for label, body in enumerate(moving, 1):
                np.testing.assert_array_equal(instances == label, ids == body)
            np.testing.assert_array_equal(instances == 0, ~np.isin(ids, moving))
            labelled += (instances > 0).sum()
    assert labelled > 20


def test_which_frames_have_labels(root):
    labels = root / "DAVIS" / "Annotations" / "480p" / "one"
    both = DavisReader(root, {})
    before = both.fingerprint("one", [0, 1])
    (labels / "00001.png").unlink()
    with pytest.raises(SourceError, match=r"00001\.png: expected the labels .*set instances: first"):
        DavisReader(root, {})
    first, second = DavisReader(root, {"instances": "first", "sequences": ["one"]}).read("one", [0, 1])
    assert first.extra["instances"] is not None
    assert second.extra["instances"] is None
    reader = DavisReader(root, {"instances": "first", "sequences": ["one"]})
    assert reader.fingerprint("one", [0, 1]) != before
    (frame,) = DavisReader(root, {"instances": "none"}).read("one", [0])
    assert frame.extra == {"instances": None}
    assert reader.fingerprint("one", [1]) == DavisReader(root, {"instances": "none"}).fingerprint("one", [1])


def test_bad_labels(root):
    path = root / "DAVIS" / "Annotations" / "480p" / "one" / "00000.png"
    reader = DavisReader(root, {})
    content = path.read_bytes()
    for bad in (b"", content[:-20], content[:60] + b"?" + content[61:], b"x" * 99):
        path.write_bytes(bad)
        with pytest.raises(SourceError, match=r"00000\.png"):
            list(reader.read("one", [0]))
    Image.fromarray(np.zeros((32, 40), np.uint8)).save(path)
    with pytest.raises(SourceError, match="expected 48 x 32 pixels like its picture"):
        list(reader.read("one", [0]))
    for mode in ("RGB", "I;16", "1"):
        Image.new(mode, (48, 32)).save(path)
        with pytest.raises(SourceError, match="expected labels with a palette"):
            list(reader.read("one", [0]))
    grey = np.where(np.arange(48) < 9, 255, 0).astype(np.uint8)[None].repeat(32, axis=0)
    Image.fromarray(grey).save(path)  # the masks of 2016
    (frame,) = reader.read("one", [0])
    np.testing.assert_array_equal(frame.extra["instances"], grey)


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
    reader = DavisReader(tmp_path, {"sequences": ["lady-running"], "instances": "none"})
    assert reader.sequences() == {"lady-running": tuple(range(10))}
    sizes = {frame.size for frame in reader.read("lady-running", range(10))}
    assert sizes == {(480, 854)}
