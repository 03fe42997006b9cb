"""ScanNet stills with FrameNet's 8-bit normals."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from ncbench.datasets.mini.layout_scannet import FramenetMiniSettings, scene_of, with_focal, write_framenet_layout
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.readers.scannet_framenet import FramenetReader
from ncbench.datasets.readers.scannet_lists import read_list
from ncbench.errors import CardError, SourceError

MINI = {
    "frames": 2,
    "height": 48,
    "width": 64,
    "focal": 57.7,
    "sequences": [{"name": "scene0001_00", "kind": "room"}, {"name": "scene0002_00", "kind": "outdoor"}],
}
SETTINGS = {"axes": "opencv", "intrinsics": (57.7, 57.7, 31.5, 23.5)}
EIGHT_BITS = np.degrees(np.arcsin(np.sqrt(3) * 0.5 / 127.5))  # half a step in each of three components


@pytest.fixture
def root(tmp_path):
    write_framenet_layout(tmp_path, MINI)
    return tmp_path


def angles(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def test_frames(root):
    checked = FramenetMiniSettings.parse(MINI, "test")
    reader = FramenetReader(root, SETTINGS)
    assert list(reader.sequences()) == [f"scene000{i}_00-{n}" for i in (1, 2) for n in ("000000", "000020")]
    for clip in checked.sequences:
        scene = with_focal(scene_of(checked, clip), 57.7)
        for index in range(2):
            (frame,) = reader.read(f"{clip.name}-{20 * index:06d}", [0])
            seen = render_frame(scene, index)
            np.testing.assert_array_equal(frame.valid, seen.valid)
            assert angles(frame.normal[seen.valid], seen.normal[seen.valid]).max() <= EIGHT_BITS
            near = seen.valid & (seen.depth < 65)
            np.testing.assert_allclose(frame.depth[near], seen.depth[near], atol=0.5001e-3)
            np.testing.assert_allclose(frame.intrinsics, seen.intrinsics, rtol=1e-12)
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(frame.image))), seen.rgb)


@pytest.mark.parametrize("axes", ["opengl", "dsine", "ldf"])
def test_axes_that_contradict_the_depth_are_refused(root, axes):
    with pytest.raises(SourceError, match=r"-normal\.png: expected normals in .* median angle"):
        list(FramenetReader(root, SETTINGS | {"axes": axes}).read("scene0001_00-000000", [0]))


def test_the_orient_mask_is_optional(root):
    path = root / "scannet-frames" / "scene0001_00" / "frame-000000-orient-mask.png"
    mask = np.full((48, 64), 255, np.uint8)
    mask[10:20] = 0
    Image.fromarray(mask).save(path)
    (plain,) = FramenetReader(root, SETTINGS).read("scene0001_00-000000", [0])
    (masked,) = FramenetReader(root, SETTINGS | {"orient_mask": True}).read("scene0001_00-000000", [0])
    assert plain.valid[10:20].any()
    np.testing.assert_array_equal(masked.valid, plain.valid & (mask > 0))
    path.unlink()
    FramenetReader(root, SETTINGS)
    with pytest.raises(SourceError, match="orient-mask"):
        FramenetReader(root, SETTINGS | {"orient_mask": True})


def test_lists(root, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("scene0002_00/000020\nscene0001_00/000000\n")
    listed = FramenetReader(root, SETTINGS | {"images": str(path)})
    assert list(listed.sequences()) == ["scene0002_00-000020", "scene0001_00-000000"]
    path.write_text("scene0002_00/000040\n")
    with pytest.raises(SourceError, match=r"frame-000040-color\.png: expected a file"):
        FramenetReader(root, SETTINGS | {"images": str(path)})
    path.write_text("../../etc/passwd\n")
    with pytest.raises(CardError, match="expected a line such as"):
        FramenetReader(root, SETTINGS | {"images": str(path)})
    with pytest.raises(CardError, match="cannot be read"):
        FramenetReader(root, SETTINGS | {"images": str(tmp_path / "none.txt")})


def test_the_published_list():
    lines = [line for (line,) in read_list("scannet-dsine300")]
    assert len(set(lines)) == len(lines) == 300
    assert len({line.partition("/")[0] for line in lines}) == 260
    assert lines[0] == "scene0532_00/000000"


def test_every_damaged_file_is_named(root):
    reader = FramenetReader(root, SETTINGS)
    before = reader.fingerprint("scene0001_00-000000", [0])
    for kind in ("color", "normal", "renderdepth"):
        path = root / "scannet-frames" / "scene0001_00" / f"frame-000000-{kind}.png"
        content = path.read_bytes()
        for bad in (content[:-9], b"", b"?" * 99):
            path.write_bytes(bad)
            assert reader.fingerprint("scene0001_00-000000", [0]) != before
            with pytest.raises(SourceError, match=path.name):
                list(reader.read("scene0001_00-000000", [0]))
        Image.new("I;16" if kind == "renderdepth" else "RGB", (63, 48)).save(path)
        with pytest.raises(SourceError, match=r"expected .* pixels"):
            list(reader.read("scene0001_00-000000", [0]))
        path.write_bytes(content)
    shutil.rmtree(root / "scannet-frames")
    with pytest.raises(SourceError, match="found none"):
        FramenetReader(root, SETTINGS)
