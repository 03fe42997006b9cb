"""The Hypersim reader on its miniature (whose truth is exact) and on the one real frame whose geometry is public."""

import io
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from ncbench.datasets.formats.hdf5 import decode_hdf5
from ncbench.datasets.formats.hypersim import read_scene_cameras, read_split_rows
from ncbench.datasets.frame import Skipped
from ncbench.datasets.mini.layout_hypersim import HypersimLayout, cast_keyframe, write_hypersim_layout
from ncbench.datasets.readers.hypersim import HypersimReader
from ncbench.datasets.readers.hypersim_geometry import keyframe_pose
from ncbench.errors import CardError, SourceError
from ncbench.geometry.cameras import depth_from_distance, hypersim_rays, pinhole_rays, unproject
from ncbench.geometry.normals_from_depth import normals_by_cross_product

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "hypersim"
TILTED = ((0.5796, 0.0, -0.0696), (0.0, 0.4347, 0.0927), (0.0, 0.0541, -1.0039))
SCENES = [
    {"name": "ai_001_001", "kind": "room", "seed": 21},
    {"name": "ai_001_002", "kind": "outdoor", "seed": 22, "metres_per_unit": 0.01, "m_cam_from_uv": TILTED},
    {"name": "ai_001_003", "kind": "objects", "seed": 3, "split": "val"},
]
SETTINGS = {"archive": "folder", "frames": 3, "height": 48, "width": 64, "scenes": SCENES}
# float16 keeps 11 bits: a vector's error is at most 2^-11 of its length, so its direction is off by at most this
HALF_DEGREES = np.degrees(np.arcsin(2.0**-11))
BOTH = ("ai_001_001/cam_00", "ai_001_002/cam_00")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("hypersim")
    write_hypersim_layout(out, SETTINGS)
    return out


@pytest.fixture(scope="module")
def zipped(tmp_path_factory):
    out = tmp_path_factory.mktemp("hypersim_zip")
    write_hypersim_layout(out, SETTINGS | {"archive": "zip"})
    return out


@pytest.fixture
def broken(folder, tmp_path):
    """A private copy with one scene."""
    out = tmp_path / "data"
    out.mkdir()
    for table in folder.glob("*.csv"):
        shutil.copy(table, out)
    shutil.copytree(folder / "ai_001_001", out / "ai_001_001")
    return out


ONE = {"scenes": ["ai_001_001"]}
MAPS = "ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000"
COLOUR = "ai_001_001/images/scene_cam_00_final_hdf5/frame.0000.color.hdf5"


def truth(sequence, frame):
    layout = HypersimLayout.parse(SETTINGS, "test")
    scene = next(item for item in layout.scenes if item.name == sequence[:10])
    return cast_keyframe(layout, scene, 0, frame), scene


def angle(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def rewrite(path, change, key="dataset"):
    with h5py.File(path, "r") as file:
        values = file["dataset"][()]
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=change(values))


def test_sequences_follow_the_public_split(folder):
    assert dict(HypersimReader(folder, {}).sequences()) == dict.fromkeys(BOTH, (0, 2))
    assert list(HypersimReader(folder, {"split": "val"}).sequences()) == ["ai_001_003/cam_00"]
    assert len(HypersimReader(folder, {"split": "all"}).sequences()) == 3
    named = HypersimReader(folder, {"scenes": ["ai_001_002", "ai_001_001"], "broken": ["ai_001_001/cam_00/2"]})
    assert dict(named.sequences()) == {BOTH[1]: (0, 2), BOTH[0]: (0,)}
    assert list(HypersimReader(folder, {"broken": [BOTH[0]]}).sequences()) == [BOTH[1]]


def test_frame_list_keeps_what_it_names(broken):
    lines = "train/ai_001_001/rgb_cam_00_fr0002.png train/ai_001_001/normal_cam_cam_00_fr0002.npy\n"
    (broken / "list.txt").write_text(lines)
    assert dict(HypersimReader(broken, {**ONE, "frame_list": "list.txt"}).sequences()) == {BOTH[0]: (2,)}
    (broken / "list.txt").write_text("nothing here\n")
    with pytest.raises(SourceError, match=r"list\.txt"):
        HypersimReader(broken, {**ONE, "frame_list": "list.txt"})


@pytest.mark.parametrize("sequence", BOTH)
def test_geometry_matches_the_exact_scene(folder, sequence):
    for frame in HypersimReader(folder, {}).read(sequence, [0, 2]):
        exact, scene = truth(sequence, frame.frame)
        pose, rays = exact.pose, exact.rays
        np.testing.assert_allclose(frame.cam_to_world, pose, atol=1e-12)
        hit = exact.cast.ids > 0
        if frame.frame == 0:
            hit[24, 32] = False  # its stored normal is zero
        np.testing.assert_array_equal(frame.valid, hit)
        normal = exact.cast.normal @ pose[:3, :3]
        unit = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        # float16 positions turn the way to the camera a little: where the surface is seen edge-on, facing is not sure
        clear = hit & ((normal * unit).sum(-1) < -0.02)
        assert clear.sum() > 0.98 * hit.sum()
        error = angle(frame.normal[clear].astype(np.float64), normal[clear])
        assert error.max() < HALF_DEGREES + 1e-4
        z = exact.cast.distance / np.linalg.norm(rays, axis=-1)
        np.testing.assert_allclose(frame.depth[exact.cast.ids > 0], z[exact.cast.ids > 0], rtol=2.0**-11 + 1e-6)
        assert not frame.depth[exact.cast.ids == 0].any()
        np.testing.assert_allclose(frame.extra["ray_matrix"], np.ravel(scene.m_cam_from_uv))
        assert frame.extra["incomplete"] == bool((exact.cast.ids == 0).any())
        assert (frame.flow, frame.occluded) == (None, None)
        points = unproject(frame.depth, rays) @ pose[:3, :3].T + pose[:3, 3]
        wrong = np.linalg.norm(points - exact.position, axis=-1)[hit]
        assert (wrong < 1e-3 * exact.cast.distance[hit]).all()


def test_the_tilted_scene_has_sky_and_inward_normals(folder):
    """The defects that the fix is for are there, or the tests above show nothing."""
    exact, _ = truth(BOTH[1], 0)
    assert (exact.cast.ids == 0).sum() > 50
    stored = decode_hdf5((folder / f"{MAPS}.normal_cam.hdf5").read_bytes(), "normal_cam")
    assert stored.dtype == np.float16
    length = np.linalg.norm(stored.astype(float), axis=-1)
    assert (length < 0.6).mean() > 0.05
    first, _ = truth(BOTH[0], 0)
    in_camera = first.cast.normal @ first.pose[:3, :3] * [1, -1, -1]
    assert ((stored * in_camera).sum(-1) < 0).mean() > 0.05


def test_intrinsics_only_for_a_true_pinhole(folder):
    reader = HypersimReader(folder, {})
    (plain,), (tilted,) = reader.read(BOTH[0], [0]), reader.read(BOTH[1], [0])
    assert tilted.intrinsics is None
    exact, _ = truth(BOTH[0], 0)
    np.testing.assert_allclose(pinhole_rays(plain.intrinsics, 48, 64), exact.rays, atol=1e-12)


def test_picture_is_the_official_tonemap(folder):
    (frame,) = HypersimReader(folder, {}).read(BOTH[1], [2])
    base = folder / "ai_001_002/images"
    colour = decode_hdf5((base / "scene_cam_00_final_hdf5/frame.0002.color.hdf5").read_bytes(), "").astype(np.float64)
    entity = decode_hdf5((base / "scene_cam_00_geometry_hdf5/frame.0002.render_entity_id.hdf5").read_bytes(), "")
    brightness = 0.3 * colour[..., 0] + 0.59 * colour[..., 1] + 0.11 * colour[..., 2]
    scale = 0.8**2.2 / np.percentile(brightness[entity != -1], 90)
    wanted = np.clip(np.maximum(scale * colour, 0) ** (1 / 2.2), 0, 1) * 255
    pixels = np.asarray(Image.open(io.BytesIO(frame.image)))
    assert pixels.dtype == np.uint8
    assert np.abs(pixels - (wanted - 0.5)).max() <= 0.5 + 1e-3  # rounded down
    (again,) = HypersimReader(folder, {}).read(BOTH[1], [2])
    assert frame.image == again.image


def test_zip_gives_the_same_frames(folder, zipped):
    plain, packed = HypersimReader(folder, {}), HypersimReader(zipped, {"archive": "zip"})
    assert plain.sequences() == packed.sequences()
    for a, b in zip(plain.read(BOTH[1], [0, 2]), packed.read(BOTH[1], [0, 2]), strict=True):
        assert a.image == b.image
        for name in ("normal", "valid", "depth", "cam_to_world"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert packed.fingerprint(BOTH[0], [0]) == packed.fingerprint(BOTH[0], [0])
    assert packed.fingerprint(BOTH[0], [0]) != packed.fingerprint(BOTH[0], [2])


def test_zip_packed_without_the_scene_folder(folder, tmp_path):
    for table in folder.glob("*.csv"):
        shutil.copy(table, tmp_path)
    shutil.make_archive(str(tmp_path / "ai_001_001"), "zip", folder / "ai_001_001")
    (frame,) = HypersimReader(tmp_path, {**ONE, "archive": "zip"}).read(BOTH[0], [0])
    assert frame.valid.any()


def test_fingerprint_follows_every_file(broken):
    before = HypersimReader(broken, ONE).fingerprint(BOTH[0], [0])
    other = HypersimReader(broken, ONE).fingerprint(BOTH[0], [2])
    for name in (COLOUR, *(f"{MAPS}.{kind}.hdf5" for kind in ("normal_cam", "position", "depth_meters"))):
        content = (broken / name).read_bytes()
        (broken / name).write_bytes(content + b"\0")
        assert HypersimReader(broken, ONE).fingerprint(BOTH[0], [0]) != before, name
        (broken / name).write_bytes(content)
    assert HypersimReader(broken, ONE).fingerprint(BOTH[0], [0]) == before != other


class RangeServer(BaseHTTPRequestHandler):
    """Answers range requests and counts the bytes of what it sends."""

    root: Path
    sent: list[int]
    ranges = True

    def do_GET(self):
        path = self.root / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        if not self.ranges:
            self.send_response(200)
            self.end_headers()
            return
        start, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
        first, last = (int(start), int(end or len(content) - 1)) if start else (max(0, len(content) - int(end)), -1)
        last = len(content) - 1 if last < 0 else min(last, len(content) - 1)
        body = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.sent.append(len(body))
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (RangeServer,), {"sent": []})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    handler.url = f"http://127.0.0.1:{httpd.server_port}"
    yield handler
    httpd.shutdown()
    httpd.server_close()


def test_remote_zip_fetches_only_the_members(folder, tmp_path, server):
    """At the official size the members are large: what is fetched is under 1.1 times the members' own bytes."""
    layout = SETTINGS | {"archive": "zip", "height": 384, "width": 512, "scenes": SCENES[:1]}
    write_hypersim_layout(tmp_path, layout)
    archive = tmp_path / "ai_001_001.zip"
    with zipfile.ZipFile(archive, "a") as file:  # what nobody asked for
        file.writestr("ai_001_001/images/other.bin", np.random.default_rng(0).bytes(4_000_000))
    server.root = tmp_path
    reader = HypersimReader(tmp_path, {"archive": server.url + "/{scene}.zip"})
    (remote,) = reader.read(BOTH[0], [2])
    with zipfile.ZipFile(archive) as file:
        used = [i.compress_size for i in file.infolist() if "frame.0002" in i.filename or "_keyframe" in i.filename]
    total = sum(used)
    fetched = sum(server.sent)
    assert fetched < 1.1 * total
    (local,) = HypersimReader(tmp_path, {"archive": "zip"}).read(BOTH[0], [2])
    np.testing.assert_array_equal(remote.normal, local.normal)
    assert remote.image == local.image
    assert reader.fingerprint(BOTH[0], [2]) == HypersimReader(tmp_path, {"archive": "zip"}).fingerprint(BOTH[0], [2])
    assert sum(server.sent) == fetched  # a fingerprint fetches nothing more


def test_remote_errors(folder, zipped, tmp_path, server):
    server.root = tmp_path
    with pytest.raises(SourceError, match="404"):
        next(HypersimReader(folder, {"archive": server.url + "/{scene}.zip"}).read(BOTH[0], [0]))
    server.root, server.ranges = zipped, False
    with pytest.raises(SourceError, match="range"):
        next(HypersimReader(folder, {"archive": server.url + "/{scene}.zip"}).read(BOTH[0], [0]))


def test_incomplete_frames_can_be_left_out(folder):
    (skipped,) = HypersimReader(folder, {"on_bad_frame": "skip"}).read(BOTH[1], [2])
    assert isinstance(skipped, Skipped)
    assert (skipped.sequence, skipped.frame) == (BOTH[1], 2)
    assert "no normal" in skipped.reason


def test_incomplete_frames_can_be_refused(folder):
    reader = HypersimReader(folder, {"on_bad_frame": "error"})
    with pytest.raises(SourceError, match="no normal"):
        next(reader.read(BOTH[1], [0]))
    assert next(reader.read(BOTH[0], [2])).extra["incomplete"] is False


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (f"{MAPS}.depth_meters.hdf5", lambda x: x * np.float16(2), "times those of depth_meters"),
        (f"{MAPS}.normal_cam.hdf5", lambda x: x[:20], "shape"),
        (f"{MAPS}.normal_cam.hdf5", lambda x: x[..., :2], "shape"),
        (f"{MAPS}.render_entity_id.hdf5", lambda x: x * 0, "render entity"),
        (f"{MAPS}.render_entity_id.hdf5", lambda x: x.astype(np.float32), "whole numbers"),
        (f"{MAPS}.position.hdf5", lambda x: x[::-1], "differ by"),
        ("ai_001_001/_detail/cam_00/camera_keyframe_orientations.hdf5", lambda x: x * 2, "rigid"),
        ("ai_001_001/_detail/cam_00/camera_keyframe_orientations.hdf5", lambda x: x[::-1], "differ by"),
        ("ai_001_001/_detail/cam_00/camera_keyframe_positions.hdf5", lambda x: x[:1], "row"),
        ("ai_001_001/_detail/cam_00/camera_keyframe_positions.hdf5", lambda x: x + np.nan, "finite"),
    ],
)
def test_files_that_contradict_each_other(broken, name, change, message):
    rewrite(broken / name, change)
    with pytest.raises(SourceError, match=message):
        list(HypersimReader(broken, ONE).read(BOTH[0], [0, 2]))


@pytest.mark.parametrize("axes", ["opencv", "dsine"])
def test_wrong_axes_are_noticed(folder, axes):
    """After the fix every reading faces the camera (and ldf, which is opengl negated, reads right): depth decides."""
    assert HypersimReader(folder, {"axes": "ldf"}).normal_source == "file"
    assert list(HypersimReader(folder, {"axes": "ldf"}).read(BOTH[0], [0]))
    with pytest.raises(SourceError, match="mirrored only"):
        list(HypersimReader(folder, {"axes": axes}).read(BOTH[0], [0]))


@pytest.mark.parametrize("damage", ["missing", "truncated", "key", "garbage", "empty"])
def test_damaged_files(broken, damage):
    path = broken / COLOUR
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "key":
        rewrite(path, lambda x: x, key="data")
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "garbage": b"x" * 500, "empty": b""}[damage])
    with pytest.raises(SourceError, match=r"frame\.0000\.color\.hdf5"):
        list(HypersimReader(broken, ONE).read(BOTH[0], [0]))


def test_damaged_archives(zipped, tmp_path):
    for table in zipped.glob("*.csv"):
        shutil.copy(table, tmp_path)
    archive = tmp_path / "ai_001_001.zip"
    content = bytearray((zipped / "ai_001_001.zip").read_bytes())
    archive.write_bytes(content[:1000])
    settings = {**ONE, "archive": "zip"}
    with pytest.raises(SourceError, match="zip archive"):
        list(HypersimReader(tmp_path, settings).read(BOTH[0], [0]))
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        start = file.getinfo(COLOUR).header_offset
    content[start + 200 : start + 300] = b"\0" * 100
    archive.write_bytes(content)
    with pytest.raises(SourceError, match="member does not read"):
        list(HypersimReader(tmp_path, settings).read(BOTH[0], [0]))
    archive.unlink()
    with pytest.raises(SourceError, match="missing"):
        HypersimReader(tmp_path, settings)


def test_missing_scenes_are_named_or_skipped(broken):
    with pytest.raises(SourceError, match="ai_001_002"):
        HypersimReader(broken, {})
    assert list(HypersimReader(broken, {"missing_scenes": "skip"}).sequences()) == [BOTH[0]]


@pytest.mark.parametrize("table", ["metadata_images_split_scene_v1.csv", "metadata_camera_parameters.csv"])
def test_damaged_tables(broken, table):
    content = (broken / table).read_bytes()
    for wrong in (b"", b"a,b\n1,2\n", b"\xff\xfe\0", content.replace(b",0,", b",x,").replace(b",0.0,", b",x,")):
        (broken / table).write_bytes(wrong)
        with pytest.raises(SourceError, match=table):
            HypersimReader(broken, ONE)
    (broken / table).unlink()
    with pytest.raises(SourceError, match=table):
        HypersimReader(broken, ONE)


def test_scale_must_agree_with_the_table(broken):
    path = broken / "ai_001_001/_detail/metadata_scene.csv"
    path.write_text(path.read_text().replace("0.0254", "0.01"))
    with pytest.raises(SourceError, match="metres per asset unit"):
        list(HypersimReader(broken, ONE).read(BOTH[0], [0]))
    path.write_text("parameter_name,parameter_value\n")
    with pytest.raises(SourceError, match="meters_per_asset_unit"):
        list(HypersimReader(broken, ONE).read(BOTH[0], [0]))


@pytest.mark.parametrize(
    "settings",
    [{"archive": "tar"}, {"archive": "http://x/y.zip"}, {"scenes": ["ai_009_009"]}, {"camera_table": "../x"}],
)
def test_bad_settings(folder, settings):
    with pytest.raises(CardError):
        HypersimReader(folder, settings)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real sample files are not here")
def test_real_frame_floor_is_level_only_with_the_ray_matrix():
    """ai_037_002 has a tilted lens: the floor is level with its matrix and 5 degrees off with the usual pinhole."""
    rows = read_split_rows(REAL / "metadata_images_split_scene_v1.csv")
    assert len(rows) == 74_619
    counts = {part: sum(row.split == part for row in rows) for part in ("train", "val", "test")}
    assert counts == {"train": 59_543, "val": 7_386, "test": 7_690}
    cameras = read_scene_cameras(REAL / "metadata_camera_parameters.csv")
    assert len(cameras) == 482
    model = cameras["ai_037_002"]
    assert model.intrinsics() is None
    np.testing.assert_allclose(cameras["ai_001_001"].intrinsics()[0], [886.81, 0, 511.5], atol=1e-3)
    scene = REAL / "ai_037_002"
    detail = scene / "_detail" / "cam_00"
    poses = [
        decode_hdf5((detail / f"camera_keyframe_{kind}.hdf5").read_bytes(), kind)
        for kind in ("orientations", "positions")
    ]
    pose = keyframe_pose(*poses, 0, model.metres_per_unit, "poses")
    path = scene / "images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5"
    distance = decode_hdf5(path.read_bytes(), str(path))
    assert (distance.dtype, distance.shape) == (np.float16, (768, 1024))
    right = hypersim_rays(model.m_cam_from_uv, 768, 1024)
    usual = pinhole_rays(cameras["ai_001_001"].intrinsics(), 768, 1024)
    off = []
    for rays in (right, usual):
        depth = depth_from_distance(np.nan_to_num(distance.astype(np.float64)), rays)
        normal, valid = normals_by_cross_product(depth, rays)
        up = (normal.astype(np.float64) @ pose[:3, :3].T)[valid]
        height = (unproject(depth, rays) @ pose[:3, :3].T + pose[:3, 3])[valid][:, 2]
        floor = (up[:, 2] > 0.9) & (height < np.percentile(height, 1) + 0.3)
        mean = np.median(up[floor], axis=0)
        off.append(float(angle(mean, np.array([0.0, 0.0, 1.0]))))
    assert off[0] < 1.0 < 4.0 < off[1]
