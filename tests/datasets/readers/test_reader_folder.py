"""A user's own frames: layouts, decoders, axes, cameras, and every way in which files may contradict each other."""

import shutil
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from ncbench.datasets.formats.sintel import write_dpt, write_flo
from ncbench.datasets.readers.folder import FolderReader
from ncbench.datasets.readers.patterns import PathPattern
from ncbench.errors import CardError, SourceError

REAL = Path(__file__).resolve().parents[4] / "shared" / "real"
H, W = 16, 22
K = np.array([[30.0, 0, 10.5], [0, 30.0, 7.5], [0, 0, 1]])
NORMAL = np.array([0.4, -0.3, -0.85]) / np.linalg.norm([0.4, -0.3, -0.85])
SIGNS = {"opencv": (1, 1, 1), "opengl": (1, -1, -1), "dsine": (-1, -1, -1), "ldf": (-1, 1, 1)}


def plane_depth(offset=-2.0):
    y, x = np.mgrid[:H, :W]
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones((H, W))], -1)
    return offset / (rays @ NORMAL)


def sphere_normals():
    """Unit normals that face the camera, OpenCV axes; the last row has none."""
    y, x = np.mgrid[:H, :W]
    nx, ny = (x - 10.5) / 20, (y - 7.5) / 20
    normals = np.stack([nx, ny, -np.sqrt(1 - nx**2 - ny**2)], -1)
    normals[-1] = 0
    return normals


def save_picture(path, seed=0, size=(H, W)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Sequences a (frames 1, 2, 5) and b (frame 7); normals, depth, flow, cameras."""
    for sequence, numbers in (("a", (1, 2, 5)), ("b", (7,))):
        folder = tmp_path / sequence
        for kind in ("normal", "depth", "flow"):
            (folder / kind).mkdir(parents=True)
        for number in numbers:
            save_picture(folder / "rgb" / f"{number:04d}.png", number)
            np.save(folder / "normal" / f"{number}.npy", sphere_normals() * [1, -1, -1] * 1.03)
            np.save(folder / "depth" / f"{number}.npy", plane_depth() * 1000)
            np.save(folder / "flow" / f"{number}.npy", np.full((H, W, 2), 0.5))
        (folder / "flow" / f"{numbers[-1]}.npy").unlink()
        np.savetxt(folder / "camera.txt", K)
        poses = np.tile(np.eye(4), (len(numbers), 1, 1))
        poses[:, 0, 3] = numbers
        np.savetxt(folder / "poses.txt", poses.reshape(-1, 16))
    return tmp_path


FULL = {
    "image": "{sequence}/rgb/{frame}.png",
    "normal": "{sequence}/normal/{frame}.npy",
    "depth": "{sequence}/depth/{frame}.npy",
    "depth_scale": 0.001,
    "flow": "{sequence}/flow/{frame}.npy",
    "intrinsics": "{sequence}/camera.txt",
    "poses": "{sequence}/poses.txt",
    "axes": "opengl",
}


def angle(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def test_everything_at_once(root):
    reader = FolderReader(root, FULL)
    assert dict(reader.sequences()) == {"a": (1, 2, 5), "b": (7,)}
    assert reader.normal_source == "file"
    assert dict(reader.extra_features()) == {}
    frames = list(reader.read("a", [1, 2, 5]))
    for frame in frames:
        truth = sphere_normals()
        assert frame.image == (root / "a" / "rgb" / f"{frame.frame:04d}.png").read_bytes()
        assert frame.valid[:-1].all()
        assert not frame.valid[-1].any()
        np.testing.assert_allclose(frame.normal, truth, atol=1e-7)
        np.testing.assert_allclose(frame.depth, plane_depth(), rtol=1e-6)
        np.testing.assert_array_equal(frame.intrinsics, K)
        assert frame.cam_to_world[0, 3] == frame.frame
    assert frames[0].flow.tolist() == frames[1].flow.tolist() == np.full((H, W, 2), 0.5).tolist()
    assert frames[2].flow is None
    (alone,) = reader.read("a", [5])
    assert alone.cam_to_world[0, 3] == 5


@pytest.mark.parametrize("axes", list(SIGNS))
@pytest.mark.parametrize("kind", ["png8", "png16", "exr", "npy-first", "npz"])
def test_every_kind_of_file_in_every_convention(tmp_path, axes, kind):
    save_picture(tmp_path / "rgb" / "3.png")
    truth = sphere_normals()
    stored = truth * SIGNS[axes]
    suffix, tolerance = {
        "png8": ("png", 0.5),
        "png16": ("png", 0.002),
        "exr": ("exr", 1e-5),
        "npy-first": ("npy", 1e-5),
        "npz": ("npz", 1e-5),
    }[kind]
    path = tmp_path / f"n3.{suffix}"
    valid = np.linalg.norm(truth, axis=-1) > 0
    if kind == "png8":
        Image.fromarray((np.rint((stored + 1) / 2 * 255) * valid[..., None]).astype(np.uint8)).save(path)
    elif kind == "png16":
        import cv2

        pixels = (np.rint((stored + 1) / 2 * 65535) * valid[..., None]).astype(np.uint16)
        cv2.imwrite(str(path), np.ascontiguousarray(pixels[..., ::-1]))
    elif kind == "exr":
        channels = {name: stored[..., i].astype(np.float32) for i, name in enumerate("RGB")}
        OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, channels).write(str(path))
    elif kind == "npy-first":
        np.save(path, stored.transpose(2, 0, 1).astype(np.float32))
    else:
        np.savez_compressed(path, normal=stored, other=np.zeros(3))
    settings = {"image": "rgb/{frame}.png", "normal": f"n{{frame}}.{suffix}", "axes": axes, "sequence_name": "mine"}
    (frame,) = FolderReader(tmp_path, settings | ({"normal_key": "normal"} if kind == "npz" else {})).read("mine", [3])
    np.testing.assert_array_equal(frame.valid, valid)
    assert angle(frame.normal[valid].astype(np.float64), truth[valid]).max() < tolerance
    np.testing.assert_allclose(np.linalg.norm(frame.normal[valid], axis=-1), 1, atol=1e-6)
    assert frame.depth is None
    assert frame.intrinsics is None
    assert frame.cam_to_world is None


def test_stored_normals_are_not_improved(root):
    """A normal that looks away from the camera stays as it is."""
    away = -sphere_normals()
    away[0, 0], away[0, 1] = np.nan, [0.1, 0, 0]
    np.save(root / "b" / "normal" / "7.npy", away)
    (frame,) = FolderReader(root, FULL | {"axes": "opencv"}).read("b", [7])
    assert not frame.valid[0, :2].any()
    np.testing.assert_allclose(frame.normal[frame.valid], away[frame.valid], atol=1e-7)
    assert frame.valid.sum() == (H - 1) * W - 2


@pytest.mark.parametrize("source", ["plane_fit", "cross_product"])
@pytest.mark.parametrize("kind", ["npy", "dpt", "exr", "png"])
def test_normals_from_depth(tmp_path, source, kind):
    save_picture(tmp_path / "1.jpg")
    depth = plane_depth()
    depth[3, 4] = 0
    path, scale = tmp_path / f"d1.{kind}", 1.0
    if kind == "npy":
        np.save(path, depth)
    elif kind == "dpt":
        write_dpt(path, depth)
    elif kind == "exr":
        full = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(full, {"Z": depth.astype(np.float32)}).write(str(path))
    else:
        scale = 1 / 20000
        Image.fromarray(np.rint(depth / scale).astype(np.uint16)).save(path)
    settings = {"image": "{frame}.jpg", "depth": f"d{{frame}}.{kind}", "intrinsics": [30, 30, 10.5, 7.5]}
    reader = FolderReader(tmp_path, settings | {"normals_from": source, "depth_scale": scale})
    assert reader.normal_source == source
    (frame,) = reader.read("sequence", [1])
    np.testing.assert_allclose(frame.depth, depth, atol=1e-4)
    assert not frame.valid[3, 4]
    assert frame.valid.mean() > 0.75
    limit = 0.6 if kind == "png" else 0.01  # a step of the PNG is 0.05 mm
    assert angle(frame.normal[frame.valid].astype(np.float64), NORMAL).max() < limit


@pytest.mark.parametrize(
    "camera",
    [
        {"intrinsics": [30, 30, 10.5, 7.5]},
        {"intrinsics": [30, 0, 10.5, 0, 30, 7.5, 0, 0, 1]},
        {"intrinsics": "{sequence}/camera.txt"},
        {"intrinsics": "{sequence}/{frame}.txt"},
        {"intrinsics": "shared.npy"},
        {"fov_degrees": 2 * np.degrees(np.arctan(11 / 30))},
    ],
)
def test_ways_to_say_the_camera(root, camera):
    np.save(root / "shared.npy", K)
    np.savetxt(root / "b" / "7.txt", K)
    for number in (1, 2, 5):
        np.savetxt(root / "a" / f"{number}.txt", K)
    (frame,) = FolderReader(root, {k: v for k, v in FULL.items() if k != "intrinsics"} | camera).read("b", [7])
    np.testing.assert_allclose(frame.intrinsics, K, atol=1e-12)


def test_poses_per_frame_and_flo(root):
    for number in (1, 2, 5):
        pose = np.eye(4)
        pose[1, 3] = number
        np.savetxt(root / "a" / f"pose_{number}.txt", pose[:3])
        flow = np.full((H, W, 2), number, np.float32)
        flow[2, 3, 0] = np.inf
        write_flo(root / "a" / f"{number}.flo", flow)
    reader = FolderReader(
        root,
        {
            "image": "a/rgb/{frame}.png",
            "normal": "a/normal/{frame}.npy",
            "axes": "opengl",
            "poses": "a/pose_{frame}.txt",
            "flow": "a/{frame}.flo",
        },
    )
    first, last = reader.read("sequence", [1, 5])
    assert (first.cam_to_world[1, 3], last.cam_to_world[1, 3]) == (1, 5)
    assert np.isnan(first.flow[2, 3]).all()
    assert np.isfinite(first.flow).sum() == 2 * (H * W - 1)
    assert last.flow is None  # there is a file, but no frame that it leads to


def test_max_depth(root):
    limit = float(np.median(plane_depth()))
    (frame,) = FolderReader(root, FULL | {"max_depth": limit}).read("b", [7])
    np.testing.assert_array_equal(frame.depth > 0, plane_depth().astype(np.float32) < limit)


def test_fingerprint_follows_the_files_that_are_used(root):
    reader = FolderReader(root, FULL)
    before = reader.fingerprint("a", [1])
    for name in ("rgb/0001.png", "normal/1.npy", "depth/1.npy", "flow/1.npy", "camera.txt", "poses.txt"):
        path = root / "a" / name
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert reader.fingerprint("a", [1]) != before, name
        path.write_bytes(content)
    for name in ("a/rgb/0002.png", "a/normal/2.npy", "b/camera.txt"):
        (root / name).write_bytes(b"changed")
    assert reader.fingerprint("a", [1]) == before


@pytest.mark.parametrize("key", ["normal", "depth", "flow"])
def test_missing_partner(root, key):
    (root / "a" / key / "2.npy").unlink()
    with pytest.raises(SourceError, match=rf"0002\.png: no file matches .*\(key '{key}'\) for sequence 'a', frame 2"):
        FolderReader(root, FULL)


def test_missing_camera_and_poses(root):
    (root / "b" / "poses.txt").unlink()
    with pytest.raises(SourceError, match="key 'poses'"):
        FolderReader(root, FULL)


def test_wrong_number_of_poses(root):
    np.savetxt(root / "a" / "poses.txt", np.eye(4).reshape(1, 16))
    with pytest.raises(SourceError, match=r"poses\.txt: expected 3 pose"):
        next(FolderReader(root, FULL).read("a", [1]))


@pytest.mark.parametrize("key", ["rgb", "normal", "depth", "flow"])
def test_another_size(root, key):
    if key == "rgb":
        save_picture(root / "a" / "rgb" / "0002.png", size=(H, W - 2))
    else:
        channels = {"normal": (3,), "depth": (), "flow": (2,)}[key]
        np.save(root / "a" / key / "2.npy", np.ones((H, W - 2, *channels)))
    with pytest.raises(SourceError, match=rf"a/{key}/0*2\.\w+: expected 22 x 16 pixels .* found 20 x 16"):
        list(FolderReader(root, FULL).read("a", [2]))


@pytest.mark.parametrize("key", ["rgb/0001.png", "normal/1.npy", "depth/1.npy", "flow/1.npy"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage"])
def test_damaged_files_are_named(root, key, damage):
    path = root / "a" / key
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-3], "empty": b"", "garbage": b"x" * 200}[damage])
    with pytest.raises(SourceError, match=f"a/{key}"):
        list(FolderReader(root, FULL).read("a", [1]))


def test_flow_of_another_kind(root):
    np.save(root / "a" / "flow" / "1.npy", np.zeros((H, W)))
    with pytest.raises(SourceError, match=r"flow/1\.npy: expected flow \(H, W, 2\)"):
        list(FolderReader(root, FULL).read("a", [1]))


@pytest.mark.parametrize("fy", [-30.0, 0.0])
def test_camera_with_y_up_is_refused(root, fy):
    with pytest.raises(SourceError, match="x right, y down"):
        next(FolderReader(root, FULL | {"intrinsics": [30, fy, 10.5, 7.5]}).read("a", [1]))


def test_nothing_matches(root):
    with pytest.raises(SourceError, match=r"key 'image'\); the folder holds a/camera\.txt, a/depth/1\.npy"):
        FolderReader(root, FULL | {"image": "{sequence}/images/{frame}.png"})
    (root / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no files"):
        FolderReader(root / "empty", FULL)
    (root / "file").write_bytes(b"")
    for name, found in (("file", "a file"), ("none", "nothing")):
        with pytest.raises(SourceError, match=f"found {found}"):
            FolderReader(root / name, FULL)


def test_two_files_for_one_frame(root):
    save_picture(root / "a" / "rgb" / "1.png")
    with pytest.raises(SourceError, match=r"same sequence and frame as 0001\.png"):
        FolderReader(root, FULL)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"axes": None}, "needs 'normal' .* and 'axes'"),
        ({"axes": "openg"}, "Did you mean 'opengl'"),
        ({"normal": None}, "needs 'normal'"),
        ({"normals_from": "plane_fit"}, "would not read it"),
        ({"normals_from": "plane_fit", "normal": None, "intrinsics": None}, "needs 'depth', and 'intrinsics'"),
        ({"intrinsics": [1, 2, 3]}, "4 .* or 9"),
        ({"fov_degrees": 60}, "not both"),
        ({"depth": "{sequence}/{frame}.png", "depth_scale": None}, "depth_scale"),
        ({"image": "{sequence}/{number}.png"}, "unknown placeholder '{number}'"),
        ({"image": "{sequence}/{frame.png"}, "brace"),
        ({"image": "/absolute/{frame}.png"}, "inside the data set"),
        ({"image": "../{frame}.png"}, "inside the data set"),
        ({"normal": "{sequence}/normal.npy"}, r"expected a pattern with \{frame\}"),
        ({"image": "a/rgb/{frame}.png"}, "has {sequence}, but key 'image' has not"),
        ({"colour": "x"}, "unknown key 'colour'"),
    ],
)
def test_wrong_settings(root, change, says):
    with pytest.raises(CardError, match=says):
        FolderReader(root, FULL | change)


def test_unknown_sequence_and_frame(root):
    reader = FolderReader(root, FULL)
    with pytest.raises(SourceError, match="no sequence 'c'"):
        next(reader.read("c", [1]))
    with pytest.raises(SourceError, match=r"not \[3\]"):
        reader.fingerprint("a", [3])


def test_patterns_with_special_characters_and_repeats(tmp_path):
    for name in ("s[1]/s[1]_007.png", "s[1]/other_007.png", "s[1]/s[1]_x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    pattern = PathPattern("{sequence}/{sequence}_{frame}.png", "image")
    assert pattern.find(tmp_path) == {("s[1]", 7): tmp_path / "s[1]" / "s[1]_007.png"}
    assert list(PathPattern("s[1]/other_{frame}.png", "image").find(tmp_path)) == [(None, 7)]


ICL, TUM = REAL / "icl_nuim_slambook", REAL / "tum_rgbd_fr1"


@pytest.mark.real
@pytest.mark.skipif(not ICL.is_dir(), reason="real ICL-NUIM files are not here")
def test_real_icl_nuim():
    """Synthetic living room without noise: walls, floor and ceiling give few directions."""
    settings = {
        "image": "color/{frame}.png",
        "depth": "depth/{frame}.png",
        "depth_scale": 1 / 5000,
        "intrinsics": [481.2, 480.0, 319.5, 239.5],
        "normals_from": "plane_fit",
    }
    reader = FolderReader(ICL, settings)
    assert dict(reader.sequences()) == {"sequence": (1, 2, 3, 4, 5)}
    (frame,) = reader.read("sequence", [1])
    assert frame.size == (480, 640)
    assert (frame.depth > 0).all()
    assert 0.3 < frame.depth.min() < frame.depth.max() < 10
    assert frame.valid.mean() > 0.95
    unit = np.linalg.norm(frame.normal[frame.valid].astype(np.float64), axis=-1)
    np.testing.assert_allclose(unit, 1, atol=1e-6)
    # the camera looks along the room's axes: back wall towards it, ceiling down, floor up, left wall to the right
    directions = np.concatenate([np.eye(3), -np.eye(3)])
    nearest = np.stack([angle(frame.normal[frame.valid], axis) for axis in directions]).min(0)
    assert np.mean(nearest < 5) > 0.8
    assert np.mean(angle(frame.normal[:, :130], np.array([1, 0, 0])) < 5) > 0.6  # the left wall looks right


@pytest.mark.real
@pytest.mark.skipif(not TUM.is_dir(), reason="real TUM files are not here")
def test_real_tum():
    settings = {
        "image": "{frame}.png",
        "depth": "{frame}_depth.png",
        "depth_scale": 1 / 5000,
        "intrinsics": [520.9, 521.0, 325.1, 249.7],
        "normals_from": "plane_fit",
        "plane_fit": {"window": 9, "min_neighbours": 20},
    }
    reader = FolderReader(TUM, settings)
    assert dict(reader.sequences()) == {"sequence": (1, 2)}
    for frame in reader.read("sequence", [1, 2]):
        assert 0.32 < (frame.depth == 0).mean() < 0.35
        known = frame.depth[frame.depth > 0]
        assert 0.4 < known.min() < known.max() < 11
        assert not (frame.valid & (frame.depth == 0)).any()
        assert frame.valid.mean() > 0.6
        y, x = np.mgrid[:480, :640]
        rays = np.stack([(x - 325.1) / 520.9, (y - 249.7) / 521.0, np.ones((480, 640))], -1)
        assert ((frame.normal * rays).sum(-1)[frame.valid] < 0).all()


def test_colours_are_not_taken_for_normals(root):
    np.save(root / "b" / "normal" / "7.npy", sphere_normals() * [1, -1, -1] * 0.5 + 0.5)
    with pytest.raises(SourceError, match=r"b/normal/7.npy: expected unit normals, found lengths that are off"):
        list(FolderReader(root, FULL).read("b", [7]))


@pytest.mark.parametrize("kind", ["normal", "depth", "flow"])
def test_a_map_whose_picture_is_lost_is_named(root, kind):
    (root / "a" / "rgb" / "0002.png").unlink()
    np.savetxt(root / "a" / "poses.txt", np.tile(np.eye(4).ravel(), (2, 1)))
    for other in {"normal", "depth", "flow"} - {kind}:
        (root / "a" / other / "2.npy").unlink(missing_ok=True)
    with pytest.raises(SourceError, match=rf"a/{kind}/2.npy: has no picture"):
        FolderReader(root, FULL)


def test_occlusion_masks_and_padded_frame_numbers(root):
    (root / "a" / "hidden").mkdir()
    mask = np.zeros(sphere_normals().shape[:2], np.uint8)
    mask[2, 3] = 255
    for frame in (1, 2):
        Image.fromarray(mask).save(root / "a" / "hidden" / f"{frame:04d}.png")
    shutil.rmtree(root / "b")
    first, last = FolderReader(root, FULL | {"occluded": "{sequence}/hidden/{frame:04d}.png"}).read("a", [1, 5])
    assert (np.argwhere(first.occluded) == [[2, 3]]).all()
    assert last.occluded is None


def test_a_picture_that_exif_turns_is_refused(root):
    path = root / "b" / "rgb" / "0007.png"
    picture = Image.open(path)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.convert("RGB").save(root / "b" / "rgb" / "0007.jpg", exif=exif)
    path.unlink()
    shutil.rmtree(root / "a")
    settings = FULL | {"image": "{sequence}/rgb/{frame}.jpg", "flow": None}
    with pytest.raises(SourceError, match="EXIF data ask to turn it"):
        list(FolderReader(root, settings).read("b", [7]))
