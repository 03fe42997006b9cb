"""TUM's form: the miniature against the renderer, real recordings against the figures measured on them, bad input."""

import io
import itertools
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from ncbench.datasets.formats.tum import associate, read_file_list, read_trajectory, rotations
from ncbench.datasets.mini.clip_scene import clip_scene
from ncbench.datasets.mini.layout_tum import FIELD_OF_VIEW, TumLayoutSettings, write_tum_layout
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.readers.rgbd_tum import TumReader
from ncbench.errors import CardError, NcbenchError, SourceError
from ncbench.geometry.rigid_flow import rigid_flow
from ncbench.geometry.warp import backward_warp

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "real"
MINI = {
    "seed": 1,
    "frames": 3,
    "height": 48,
    "width": 64,
    "lost_depth": 1,
    "sequences": [{"name": "room", "kind": "room"}, {"name": "toys", "kind": "objects"}],
}
FOCAL = 32 / np.tan(np.radians(30))
SETTINGS = {"intrinsics": [FOCAL, FOCAL, 31.5, 23.5], "normals_from": "plane_fit"}


@pytest.fixture(scope="module")
def mini_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tum")
    write_tum_layout(root, MINI)
    return root


@pytest.fixture
def mini(mini_root, tmp_path):
    """A copy of the miniature that a test may spoil."""
    for path in mini_root.rglob("*"):
        if path.is_file():
            copy = tmp_path / "mini" / path.relative_to(mini_root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path / "mini"


def rendered(name, index):
    settings = TumLayoutSettings.parse(MINI, "test")
    (sequence,) = (item for item in settings.sequences if item.name == name)
    return render_frame(clip_scene(settings, sequence, FIELD_OF_VIEW), index)


@pytest.mark.parametrize("name", ["room", "toys"])
def test_the_miniature_comes_back(mini_root, name):
    reader = TumReader(mini_root, SETTINGS)
    assert reader.sequences() == {"room": (0, 2), "toys": (0, 2)}
    assert reader.normal_source == "plane_fit"
    for frame in reader.read(name, [0, 2]):
        truth = rendered(name, frame.frame)
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(frame.image))), truth.rgb)
        np.testing.assert_allclose(frame.intrinsics, truth.intrinsics, rtol=1e-12)
        seen = truth.valid & (truth.depth < 5.5)
        # half a unit of 1/5000 m, and float32
        np.testing.assert_allclose(frame.depth[seen], truth.depth[seen], atol=0.5 / 5000 + 1e-6)
        assert (frame.depth[~seen] == 0).all()
        np.testing.assert_allclose(frame.cam_to_world, truth.cam_to_world, atol=1e-7)
        assert frame.extra["timestamp"] == pytest.approx(1305031452.79172 + frame.frame / 30, abs=1e-6)
        assert frame.extra["distortion"] is None
        assert not frame.valid[~seen].any()
        # on a plane, depth is off by 0.1 mm at most: over a window of 5 pixels, 4 z / f wide, the slope is off by less
        # than 0.1 mm / (z / f) at the nearest surface; edges, where planes mix, are left out
        cross = np.linalg.norm(np.cross(frame.normal, truth.normal), axis=-1)
        angle = np.degrees(np.arctan2(cross, (frame.normal * truth.normal).sum(-1)))
        window = np.ones((5, 5))
        ids = truth.ids.astype(np.float32)
        flat = (cv2.erode(seen.astype(np.uint8), window) > 0) & (cv2.erode(ids, window) == cv2.dilate(ids, window))
        for channel in np.moveaxis(truth.normal, -1, 0):
            spread = cv2.dilate(channel, window) - cv2.erode(channel, window)
            flat &= spread < 1e-6
        bound = np.degrees(np.arctan(1e-4 * FOCAL / truth.depth[flat].min()))
        assert flat.sum() > 200
        assert angle[flat].max() < bound


def test_without_normals_nothing_is_valid(mini_root):
    reader = TumReader(mini_root, {"intrinsics": SETTINGS["intrinsics"]})
    (frame,) = reader.read("room", [2])
    assert reader.normal_source == "none"
    assert not frame.valid.any()
    assert not frame.normal.any()


def test_one_sequence_alone_ranges_and_choice(mini_root):
    assert TumReader(mini_root / "toys", SETTINGS).sequences() == {"toys": (0, 2)}
    assert TumReader(mini_root, SETTINGS | {"frames": [1, 3]}).sequences() == {"room": (2,), "toys": (2,)}
    assert list(TumReader(mini_root, SETTINGS | {"sequences": ["toys"]}).sequences()) == ["toys"]
    with pytest.raises(SourceError, match="Did you mean 'toys'"):
        TumReader(mini_root, SETTINGS | {"sequences": ["toy"]})
    with pytest.raises(SourceError, match="no picture from 7"):
        TumReader(mini_root, SETTINGS | {"frames": [7, 9]})


@given(
    st.lists(st.floats(0, 1), max_size=12, unique=True),
    st.lists(st.floats(0, 1), max_size=12, unique=True),
    st.sampled_from([0.02, 0.2, 2.0]),
)
def test_association_is_the_greedy_one_over_all_pairs(first, second, most):
    """The published tool: all pairs within reach, the closest first, each stamp used once."""
    pairs = sorted((abs(a - b), i, j) for (i, a), (j, b) in itertools.product(enumerate(first), enumerate(second)))
    expected, used = {}, set()
    for difference, i, j in pairs:
        if difference <= most and i not in expected and j not in used:
            expected[i] = j
            used.add(j)
    assert associate(np.array(first), np.array(second), most) == expected


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_quaternions_are_scipy_s(quaternion):
    expected = Rotation.from_quat(quaternion).as_matrix()  # x, y, z, w
    np.testing.assert_allclose(rotations(np.array([quaternion]))[0], expected, atol=1e-12)


def test_a_negative_focal_length_mirrors_camera_and_world(mini_root):
    fx, fy, cx, cy = SETTINGS["intrinsics"]
    usual = next(TumReader(mini_root, SETTINGS).read("room", [2]))
    mirrored = next(TumReader(mini_root, SETTINGS | {"intrinsics": [fx, -fy, cx, cy]}).read("room", [2]))
    np.testing.assert_array_equal(mirrored.intrinsics, usual.intrinsics)
    flip = np.diag([1, -1, 1])
    # a point with y up, through the file's pose, is the mirror image of the same point with y down through ours
    point = np.array([0.3, -0.2, 2.0])
    through_file = usual.cam_to_world[:3, :3] @ (flip @ point) + usual.cam_to_world[:3, 3]
    through_ours = mirrored.cam_to_world[:3, :3] @ point + mirrored.cam_to_world[:3, 3]
    np.testing.assert_allclose(flip @ through_file, through_ours, atol=1e-12)
    assert np.linalg.det(mirrored.cam_to_world[:3, :3]) == pytest.approx(1)


BONN = [0.039903, -0.099343, -0.000730, -0.000144, 0.0]
STRONG = [-0.25, 0.06, 0.001, -0.002, 0.0]


def distorted_wall(folder, coefficients):
    """A slanted wall seen through a lens, exact: each pixel's ray by inverting the lens model by fixed point."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    fx, fy, cx, cy = SETTINGS["intrinsics"]
    v, u = np.mgrid[:48, :64]
    x0, y0 = (u - cx) / fx, (v - cy) / fy
    k1, k2, p1, p2, k3 = coefficients
    x, y = x0.copy(), y0.copy()
    for _ in range(200):
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        x = (x0 - 2 * p1 * x * y - p2 * (r2 + 2 * x * x)) / radial
        y = (y0 - p1 * (r2 + 2 * y * y) - 2 * p2 * x * y) / radial
    n = np.array([0.48, -0.36, -0.8])
    depth = -0.8 / (x * n[0] + y * n[1] + n[2])
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 4 * u, 5 * v
    Image.fromarray(pixels).save(folder / "rgb" / "1.png")
    Image.fromarray(np.rint(depth * 20000).astype(np.uint16)).save(folder / "depth" / "1.png")
    (folder / "rgb.txt").write_text("1.0 rgb/1.png\n")
    (folder / "depth.txt").write_text("1.0 depth/1.png\n")
    return n, depth


@pytest.mark.parametrize("coefficients", [BONN, STRONG])
@pytest.mark.parametrize("undistort", [False, True])
def test_a_distorted_wall_has_the_normal_of_the_wall(tmp_path, coefficients, undistort):
    normal, _ = distorted_wall(tmp_path / "wall", coefficients)
    settings = SETTINGS | {"distortion": coefficients, "undistort": undistort, "depth_scale": 1 / 20000}
    (frame,) = TumReader(tmp_path / "wall", settings).read("wall", [0])
    assert frame.cam_to_world is None
    assert frame.extra["distortion"] == (None if undistort else coefficients)
    inner = np.zeros((48, 64), bool)
    inner[8:-8, 8:-8] = True
    cosine = frame.normal @ normal
    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(frame.normal, normal), axis=-1), cosine))
    if undistort:  # the nearest depth is up to half a pixel off, which tilts single fits; their mean must be right
        mean = frame.normal[inner & frame.valid].astype(np.float64).mean(axis=0)
        assert np.degrees(np.arccos(mean @ normal / np.linalg.norm(mean))) < 0.5
    else:
        assert frame.valid[inner].all()
        assert angle[inner].max() < 0.2
        naive = TumReader(tmp_path / "wall", settings | {"distortion": None})
        (wrong,) = naive.read("wall", [0])
        assert np.abs(wrong.normal @ normal - 1)[inner].max() > np.abs(cosine - 1)[inner].max()


def test_undistorting_puts_pixels_where_the_lens_model_says(tmp_path):
    distorted_wall(tmp_path / "wall", STRONG)
    settings = SETTINGS | {"distortion": STRONG, "undistort": True, "depth_scale": 1 / 20000}
    (frame,) = TumReader(tmp_path / "wall", settings).read("wall", [0])
    assert frame.image[:4] == b"\x89PNG"
    picture = np.array(Image.open(io.BytesIO(frame.image))).astype(float)
    fx, fy, cx, cy = SETTINGS["intrinsics"]
    k1, k2, p1, p2, k3 = STRONG
    for u, v in [(31, 23), (20, 12), (45, 30), (12, 36)]:
        x, y = (u - cx) / fx, (v - cy) / fy
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        seen_u = fx * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) + cx
        seen_v = fy * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) + cy
        # the picture holds 4 u and 5 v: it tells where a pixel came from; OpenCV interpolates in 1/32 pixel
        assert picture[v, u, 0] / 4 == pytest.approx(seen_u, abs=0.2)
        assert picture[v, u, 1] / 5 == pytest.approx(seen_v, abs=0.2)


def write(root, name, text):
    (root / "room" / name).write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rgb.txt", "", "found none"),
        ("rgb.txt", "1.0\n", "line 1: expected a time and a file name"),
        ("rgb.txt", "x a.png\n", "line 1: expected a time"),
        ("rgb.txt", "nan a.png\n", "line 1: expected a time"),
        ("rgb.txt", "2.0 a.png\n1.0 b.png\n", "line 2: expected a later time"),
        ("rgb.txt", "1.0 ../../a.png\n", "not inside"),
        ("rgb.txt", "1.0 /etc/passwd\n", "not inside"),
        ("depth.txt", "9.0 depth/1.png\n", "no picture from 0"),
        ("groundtruth.txt", "1 2 3\n", "expected t tx ty tz"),
        ("groundtruth.txt", "# nothing\n", "found none"),
        ("groundtruth.txt", "1 0 0 0 0 0 0 5\n", "unit quaternion"),
        ("groundtruth.txt", "1 0 0 0 0 0 inf 1\n", "expected t tx ty tz"),
    ],
)
def test_bad_lists(mini, name, text, message):
    write(mini, name, text)
    with pytest.raises(SourceError, match=message) as caught:
        TumReader(mini, SETTINGS)
    assert "room" in str(caught.value)


def test_bad_files(mini):
    picture = max((mini / "room" / "rgb").iterdir())
    reader = TumReader(mini, SETTINGS)
    depth = min((mini / "room" / "depth").iterdir())
    whole = depth.read_bytes()
    depth.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=depth.name):
        list(reader.read("room", [0, 2]))
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(depth)
    with pytest.raises(SourceError, match="16 bits"):
        list(reader.read("room", [0, 2]))
    Image.fromarray(np.zeros((40, 64), np.uint16)).save(depth)
    with pytest.raises(SourceError, match="expected 64 x 48"):
        list(reader.read("room", [0, 2]))
    depth.unlink()
    with pytest.raises(SourceError):
        list(reader.read("room", [0, 2]))
    with pytest.raises(SourceError):
        reader.fingerprint("room", [0, 2])
    picture.write_bytes(b"no picture")
    with pytest.raises(SourceError, match=picture.name):
        list(reader.read("room", [2]))
    with pytest.raises(SourceError, match="expected a folder"):
        TumReader(mini / "nothing", SETTINGS)
    with pytest.raises(SourceError, match="found neither"):
        TumReader(mini / "room" / "rgb", SETTINGS)


def test_bytes_that_are_no_text(mini):
    (mini / "room" / "rgb.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="expected text"):
        TumReader(mini, SETTINGS)


@pytest.mark.parametrize(
    "settings",
    [{}, SETTINGS | {"intrinsics": [0, 1, 1, 1]}, SETTINGS | {"depth": 1}, SETTINGS | {"intrinsics": [1, 0, 1, 1]}],
)
def test_bad_settings(mini_root, settings):
    with pytest.raises(CardError, match="TUM reader"):
        TumReader(mini_root, settings)


@given(st.text(alphabet="0123456789.-e # \nabc/\x00nif", max_size=80))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes(text.encode())
    for read in (read_file_list, read_trajectory):
        with suppress(SourceError):
            read(path)


def test_the_fingerprint_follows_the_files_alone(mini, tmp_path):
    reader = TumReader(mini, SETTINGS)
    before = reader.fingerprint("room", [0])
    assert reader.fingerprint("room", [2]) != before
    mini.rename(tmp_path / "moved")
    assert TumReader(tmp_path / "moved", SETTINGS).fingerprint("room", [0]) == before
    with (tmp_path / "moved" / "room" / "groundtruth.txt").open("a") as stream:
        stream.write("# changed\n")
    assert TumReader(tmp_path / "moved", SETTINGS).fingerprint("room", [0]) != before
    with pytest.raises(NcbenchError, match="not \\[1\\]"):
        reader.fingerprint("room", [1])


# ------------------------------------------------------------------------------- real recordings


def real(name):
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip("no real files")
    return folder


def link(root, folder, pictures, depths, poses=None):
    """Lay real files out in TUM's form, as links."""
    clip = root / "clip"
    lists = {"rgb": pictures, "depth": depths}
    for kind, paths in lists.items():
        (clip / kind).mkdir(parents=True)
        lines = []
        for index, path in enumerate(paths):
            (clip / kind / Path(path).name).symlink_to(folder / path)
            lines.append(f"{index}.0 {kind}/{Path(path).name}\n")
        (clip / f"{kind}.txt").write_text("".join(lines))
    if poses is not None:
        (clip / "groundtruth.txt").write_text("".join(f"{i}.0 {line}\n" for i, line in enumerate(poses)))
    return root


def reprojection(a, b):
    """Mean absolute difference of pictures before and after warping b to a, and median difference of depth."""
    one, two = (np.array(Image.open(io.BytesIO(frame.image)).convert("RGB")).astype(np.float32) for frame in (a, b))
    flow, z = rigid_flow(a.depth, a.intrinsics, a.cam_to_world, b.cam_to_world, b.intrinsics)
    warped, inside = backward_warp(two, flow)
    depth, _ = backward_warp(b.depth[..., None], flow)
    same = inside & (np.abs(depth[..., 0] - z) < 0.05)
    return (
        np.abs(warped - one)[same].mean(),
        np.abs(two - one)[same].mean(),
        np.median(np.abs(depth[..., 0] - z)[same]),
        same.mean(),
    )


@pytest.mark.real
def test_icl_nuim_with_its_negative_focal_length(tmp_path):
    folder = real("icl_nuim_slambook")
    poses = (folder / "pose.txt").read_text().splitlines()
    names = [f"{index}.png" for index in range(1, 6)]
    link(tmp_path, folder, [f"color/{n}" for n in names], [f"depth/{n}" for n in names], poses)
    settings = {"intrinsics": [481.2, -480.0, 319.5, 239.5], "normals_from": "plane_fit"}
    a, b = TumReader(tmp_path, settings).read("clip", [0, 1])
    warped, unwarped, _, share = reprojection(a, b)
    assert warped < 2.2
    assert unwarped > 30
    assert share > 0.15  # the pair overlaps by 30 %, and the depth of these files is off by centimetres
    a, b = TumReader(tmp_path, settings).read("clip", [4, 0])
    warped, unwarped, depth, share = reprojection(a, b)
    assert warped < 3
    assert unwarped > 20
    assert depth < 0.02
    assert share > 0.8
    wrong = {"intrinsics": [481.2, 480.0, 319.5, 239.5]}
    assert reprojection(*TumReader(tmp_path, wrong).read("clip", [4, 0]))[3] < 0.5 * share


@pytest.mark.real
@pytest.mark.parametrize("first", [0, 20, 40])
def test_redwood_over_ten_frames(tmp_path, first):
    folder = real("redwood_livingroom1")
    lines = (folder / "trajectory_open3d_estimate.log").read_text().splitlines()
    poses = [np.array([line.split() for line in lines[i + 1 : i + 5]], float) for i in range(0, 60 * 5, 5)]
    written = [
        " ".join(f"{v:.9f}" for v in (*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat())) for pose in poses
    ]
    names = [f"{index:05d}" for index in range(60)]
    link(tmp_path, folder, [f"image/{n}.jpg" for n in names], [f"depth/{n}.png" for n in names], written)
    settings = {"intrinsics": [525, 525, 319.5, 239.5], "depth_scale": 0.001}
    a, b = TumReader(tmp_path, settings).read("clip", [first, first + 10])
    assert a.image == (folder / "image" / f"{first:05d}.jpg").read_bytes()
    warped, unwarped, depth, share = reprojection(a, b)
    assert warped < 5.5
    assert unwarped > 2.5 * warped
    assert depth < 0.0025
    assert share > 0.4


@pytest.mark.real
def test_a_real_kinect(tmp_path):
    folder = real("tum_rgbd_fr1")
    link(tmp_path, folder, ["1.png", "2.png"], ["1_depth.png", "2_depth.png"])
    settings = {"intrinsics": [520.9, 521.0, 325.1, 249.7], "normals_from": "plane_fit"}
    for frame in TumReader(tmp_path, settings).read("clip", [0, 1]):
        assert frame.size == (480, 640)
        assert frame.cam_to_world is None
        assert 0.33 <= (frame.depth == 0).mean() <= 0.345
        known = frame.depth[frame.depth > 0]
        assert 0.3 < known.min() < np.median(known) < 5
        assert frame.valid.mean() > 0.6
        v, u = np.mgrid[:480, :640]
        ray = np.stack([(u - 325.1) / 520.9, (v - 249.7) / 521.0, np.ones((480, 640))], axis=-1)
        assert ((frame.normal * ray).sum(-1)[frame.valid] < 0).all()
