"""Frames of other readers at another size, against scenes rendered at that size."""

import io
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ncbench.datasets.frame import Frame, Skipped
from ncbench.datasets.mini.layouts import write_folder_layout
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.datasets.prepare import prepare
from ncbench.datasets.readers.folder import FolderReader
from ncbench.datasets.readers.resized import ResizedReader, resize_frame, resized_recipe
from ncbench.datasets.recipe import Recipe
from ncbench.datasets.store import Store
from ncbench.errors import CardError, SourceError
from ncbench.geometry.cameras import hypersim_rays

FOLDER = "ncbench.datasets.readers.folder:FolderReader"
SHAPE, SMALL = (72, 96), (24, 32)  # a third, where the centre of a footprint is the centre of a source pixel
LAYOUT = {"seed": 5, "frames": 3, "height": 72, "width": 96, "sequences": [{"name": "one", "kind": "room", "seed": 1}]}
SETTINGS = {
    "image": "{sequence}/rgb/{frame}.png",
    "normal": "{sequence}/normal/{frame}.npy",
    "axes": "opengl",
    "depth": "{sequence}/depth/{frame}.npy",
    "depth_scale": 1.0,
    "flow": "{sequence}/flow/{frame}.npy",
    "occluded": "{sequence}/occluded/{frame}.png",
    "intrinsics": "{sequence}/intrinsics.txt",
    "poses": "{sequence}/poses.txt",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("resized")
    write_folder_layout(folder, LAYOUT)
    return folder


def opened(root, reader=FOLDER, inner=SETTINGS, **resize):
    return ResizedReader(root, {"reader": reader, "settings": inner, **resize})


def picture(mode="RGB", size=(6, 4), **save):
    out = io.BytesIO()
    values = np.arange(size[0] * size[1] * len(mode), dtype=np.uint8).reshape(size[1], size[0], -1).squeeze()
    Image.fromarray(values).save(out, **({"format": "PNG"} | save))
    return out.getvalue()


def plain(image=None, **parts):
    normal = np.tile(np.float32([0, 0, -1]), (4, 6, 1))
    return Frame("s", 3, picture() if image is None else image, normal, np.ones((4, 6), bool), **parts)


def test_a_third_agrees_with_a_direct_rendering(root):
    scene = make_scene("room", 1, 3, *SMALL)
    for frame in opened(root, size=SMALL).read("one", (0, 1, 2)):
        true = render_frame(scene, frame.frame)
        assert frame.size == SMALL
        np.testing.assert_allclose(frame.intrinsics, true.intrinsics, atol=1e-9)
        np.testing.assert_allclose(frame.cam_to_world, true.cam_to_world, atol=1e-9)
        np.testing.assert_allclose(frame.depth, true.depth, rtol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(frame.normal[frame.valid], axis=-1), 1, atol=1e-6)
        np.testing.assert_array_equal(frame.normal[~frame.valid], 0)
        if frame.frame == 2:
            assert frame.flow is None
            assert frame.occluded is None
            continue
        known = np.isfinite(true.flow).all(axis=-1)
        np.testing.assert_array_equal(np.isfinite(frame.flow).all(axis=-1), known)
        # float32 at three times the size; places up to about 100 pixels
        np.testing.assert_allclose(frame.flow[known], true.flow[known], atol=1e-5)
        y, x = np.mgrid[: SMALL[0], : SMALL[1]]
        u, v = x + true.flow[..., 0], y + true.flow[..., 1]
        # the outermost pixel centres lie a third of a pixel further out in the large picture
        within = (u >= 0) & (u <= SMALL[1] - 1) & (v >= 0) & (v <= SMALL[0] - 1)
        np.testing.assert_array_equal(frame.occluded[within], true.occluded[within])
        assert true.occluded[~within].all()


def test_picture_is_the_mean_of_each_footprint(root):
    (large,) = FolderReader(root, SETTINGS).read("one", (0,))
    (small,) = opened(root, max_size=32).read("one", (0,))
    assert small.image.startswith(b"\x89PNG")
    before, after = (np.asarray(Image.open(io.BytesIO(frame.image)), np.float64) for frame in (large, small))
    means = before.reshape(24, 3, 32, 3, 3).mean(axis=(1, 3))
    assert np.abs(after - means).max() <= 1.0  # rounded after each of two passes


def test_unchanged_size_passes_bytes_through(root):
    inner = FolderReader(root, SETTINGS)
    for resize in ({"size": SHAPE}, {"max_size": 96}, {"max_size": 4000}):
        reader = opened(root, **resize)
        (frame,), (wanted,) = reader.read("one", (1,)), inner.read("one", (1,))
        assert frame.image == (root / "one" / "rgb" / "0001.png").read_bytes()
        np.testing.assert_array_equal(frame.normal, wanted.normal)
        np.testing.assert_array_equal(frame.flow, wanted.flow)
    frame = plain()
    assert resize_frame(frame, (4, 6)) is frame


def test_forwards_everything_else(root):
    reader, inner = opened(root, max_size=40), FolderReader(root, SETTINGS)
    assert reader.sequences() == inner.sequences()
    assert reader.fingerprint("one", (0, 1)) == inner.fingerprint("one", (0, 1))
    assert reader.extra_features() == {}
    assert reader.normal_source == "file"
    (frame,) = reader.read("one", (0,))
    assert frame.size == (30, 40)


def test_reading_is_pure(root):
    first = list(opened(root, size=(31, 45)).read("one", (0, 1)))
    (second,) = opened(root, size=(31, 45)).read("one", (1,))
    assert first[1].image == second.image
    for name in ("normal", "valid", "depth", "flow", "occluded", "intrinsics", "cam_to_world"):
        np.testing.assert_array_equal(getattr(first[1], name), getattr(second, name))


def recipe(root):
    return Recipe("tiny", FOLDER, SETTINGS, root, 2, "name: tiny\n", "0" * 64)


def test_stores_of_a_recipe(root, tmp_path):
    small = resized_recipe(recipe(root), SMALL, None)
    assert (small.name, small.card_text, small.root) == ("tiny", "name: tiny\n", root)
    changed = [recipe(root), small, resized_recipe(recipe(root), None, 32), resized_recipe(recipe(root), None, 33)]
    assert len({each.digest for each in changed}) == len({each.card_digest for each in changed}) == 4
    made = [prepare(small, tmp_path / name, jobs=jobs) for name, jobs in (("a", 1), ("b", 2))]
    assert made[0].shards == made[1].shards
    (frame,) = opened(root, size=SMALL).read("one", (1,))
    stored = Store(tmp_path / "a").read("one", 1)
    assert stored.image == frame.image
    np.testing.assert_array_equal(stored.depth, frame.depth)
    np.testing.assert_array_equal(stored.flow, frame.flow)


class Odd:
    """A reader that leaves a frame out and has columns of its own."""

    columns: ClassVar = {"ray_matrix": pa.list_(pa.float64()), "incomplete": pa.bool_(), "view": pa.string()}
    ray_matrix = (np.diag([0.6, 0.45, -1.0]) + 0.01 * np.eye(3)[[1, 0, 2]]).ravel().tolist()

    def __init__(self, root, settings):
        self.settings = settings

    def sequences(self):
        return {"s": (3, 4)}

    def read(self, sequence, frames):
        for frame in frames:
            made = plain(extra={"ray_matrix": self.ray_matrix, "incomplete": True, "view": "l"})
            yield made if frame == 3 else Skipped("s", 4, "broken")

    def fingerprint(self, sequence, frames):
        return "f"

    def extra_features(self):
        return self.columns


def test_skipped_frames_and_columns_pass(root, monkeypatch):
    monkeypatch.setattr("ncbench.datasets.readers.base.load_attribute", lambda _: Odd)
    reader = opened(root, "odd:Odd", {}, max_size=3)
    frame, skipped = reader.read("s", (3, 4))
    assert skipped == Skipped("s", 4, "broken")
    assert frame.extra == {"ray_matrix": Odd.ray_matrix, "incomplete": True, "view": "l"}
    assert reader.normal_source is None
    # the same matrix gives the rays of the resized pixels: at half the size, the mean of the four on the plane z = 1
    matrix = np.reshape(Odd.ray_matrix, (3, 3))
    large, small = hypersim_rays(matrix, 4, 6), hypersim_rays(matrix, *frame.size)
    np.testing.assert_allclose(small, large.reshape(2, 2, 3, 2, 3).mean(axis=(1, 3)), atol=1e-12)
    for kind in (pa.large_binary(), pa.list_(pa.float64())):
        monkeypatch.setattr(Odd, "columns", {"planes": kind})
        with pytest.raises(CardError, match=r"column 'planes' of odd:Odd .* array per pixel"):
            opened(root, "odd:Odd", {}, max_size=3)


@pytest.mark.parametrize(
    ("resize", "words"),
    [
        ({}, "exactly one of size and max_size"),
        ({"size": SMALL, "max_size": 3}, "exactly one of size and max_size"),
        ({"size": (0, 5)}, "size"),
        ({"size": (5,)}, "size"),
        ({"max_size": 0}, "max_size"),
        ({"maxsize": 3}, "Did you mean 'max_size'"),
    ],
)
def test_bad_settings(root, resize, words):
    with pytest.raises(CardError, match=words):
        opened(root, **resize)
    if set(resize) <= {"size", "max_size"}:
        with pytest.raises(CardError, match=words):
            resized_recipe(recipe(root), resize.get("size"), resize.get("max_size"))


def test_bad_pictures():
    for image in (b"", b"nonsense", picture()[:45]):
        with pytest.raises(SourceError, match="sequence 's' frame 3: expected a picture"):
            resize_frame(plain(image), (2, 3))
    with pytest.raises(SourceError, match=r"\(4, 6\) pixels like its maps, found \(2, 3\)"):
        resize_frame(plain(picture(size=(3, 2))), (2, 2))
    assert resize_frame(replace(plain(), image=None), (2, 3)).image is None


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (picture("L"), "L"),
        (picture("RGBA"), "RGBA"),
        (picture("RGB", format="JPEG"), "RGB"),
        (picture("L", transparency=7), "RGBA"),
        (picture("L", bits=4), "L"),
    ],
)
@pytest.mark.parametrize("size", [(2, 3), (8, 12), (2, 12)])
def test_kinds_of_pictures(image, mode, size):
    with Image.open(io.BytesIO(resize_frame(plain(image), size).image)) as found:
        assert (found.format, found.mode, (found.height, found.width)) == ("PNG", mode, size)


def test_sixteen_bits_and_palettes():
    deep, out = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((4, 6), 40000, np.uint16)).save(deep, format="PNG")
    with Image.open(io.BytesIO(resize_frame(plain(deep.getvalue()), (2, 3)).image)) as found:
        assert (np.asarray(found) == 40000).all()
    Image.new("RGB", (6, 4), (9, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE).save(out, format="PNG")
    with Image.open(io.BytesIO(resize_frame(plain(out.getvalue()), (2, 3)).image)) as found:
        assert (np.asarray(found) == (9, 200, 30)).all()
