"""NICE-SLAM's and vMAP's renders of Replica, read back from miniatures whose truth is exact."""

import math
import shutil

import numpy as np
import pytest
from PIL import Image

from ncbench.datasets.mini.layout_replica import ReplicaRendersLayout, still_frame, write_replica_renders_layout
from ncbench.datasets.readers.replica_renders import ReplicaRendersReader
from ncbench.errors import CardError, SourceError

LAYOUT = {"seed": 5, "frames": 3, "height": 68, "width": 120, "focal": 60.0}
SEQUENCES = {"sequences": [{"name": "room_0", "kind": "room"}, {"name": "office_0", "kind": "objects"}]}
SIZE = {"intrinsics": [60.0, 60.0, 59.5, 33.5], "width": 120, "height": 68}
UNITS = {"nice_slam": 6553.5, "vmap": 1000.0}
CLIPS = {"nice_slam": "room_0", "vmap": "room_0/vmap/00"}


@pytest.fixture(scope="module", params=["nice_slam", "vmap"])
def form(request):
    return request.param


@pytest.fixture(scope="module")
def root(form, tmp_path_factory):
    out = tmp_path_factory.mktemp(form)
    write_replica_renders_layout(out, LAYOUT | SEQUENCES | {"form": form})
    return out


@pytest.fixture
def nice(tmp_path):
    write_replica_renders_layout(tmp_path, LAYOUT | {"form": "nice_slam", "sequences": SEQUENCES["sequences"][:1]})
    return tmp_path


NICE = {"form": "nice_slam", **SIZE}


def truth(form, index):
    layout = ReplicaRendersLayout.parse(LAYOUT | SEQUENCES | {"form": form}, "test")
    return still_frame(layout, layout.sequences[0], index, math.pi / 2)


def angle(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def flat(ids, normal, radius=2):
    """Pixels whose window shows one body and one normal: only there is a fitted plane the surface itself."""
    height, width = ids.shape
    same = np.zeros_like(ids, dtype=bool)
    for y in range(radius, height - radius):
        for x in range(radius, width - radius):
            window = (slice(y - radius, y + radius + 1), slice(x - radius, x + radius + 1))
            same[y, x] = (ids[window] == ids[y, x]).all() and np.ptp(normal[window], axis=(0, 1)).max() < 1e-9
    return same


def test_frames_match_the_exact_scene(root, form):
    reader = ReplicaRendersReader(root, {"form": form, **SIZE})
    assert reader.normal_source == "plane_fit"
    assert dict(reader.sequences())[CLIPS[form]] == (0, 1, 2)
    assert len(reader.sequences()) == 2
    for frame in reader.read(CLIPS[form], [0, 1, 2]):
        exact = truth(form, frame.frame)
        np.testing.assert_allclose(frame.cam_to_world, exact.cam_to_world, atol=1e-12)
        np.testing.assert_allclose(frame.intrinsics, exact.intrinsics, atol=1e-12)
        near = exact.depth * UNITS[form] < 65535
        assert np.abs(frame.depth - exact.depth)[near].max() <= 0.5 / UNITS[form] + 1e-6
        plane = flat(exact.ids, exact.normal) & frame.valid & near
        assert plane.sum() > 0.3 * plane.size
        error = angle(frame.normal[plane].astype(np.float64), exact.normal[plane])
        # half a unit at either end of a window of 4 pixels' extent: the most that rounding can tilt a plane there
        slope = np.degrees(np.arctan(1.0 / UNITS[form] / (4 * exact.depth[plane] / 60.0)))
        facing = -(exact.normal[plane] * unit_rays()[plane]).sum(-1)
        assert (error < 2 * slope / np.maximum(facing, 0.05) + 0.01).mean() > 0.999
        assert error.mean() < {"nice_slam": 0.1, "vmap": 0.6}[form]


def unit_rays():
    y, x = np.mgrid[:68, :120]
    rays = np.stack([(x - 59.5) / 60.0, (y - 33.5) / 60.0, np.ones((68, 120))], -1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def test_flow_and_occlusion_match_the_exact_scene(root, form):
    first, second, last = ReplicaRendersReader(root, {"form": form, **SIZE}).read(CLIPS[form], [0, 1, 2])
    assert last.flow is None
    assert last.occluded is None
    for frame in (first, second):
        exact = truth(form, frame.frame)
        known = np.isfinite(frame.flow).all(-1)
        assert known.mean() > 0.95
        wrong = np.abs(frame.flow - exact.flow)[known]
        assert wrong.max() < {"nice_slam": 0.01, "vmap": 0.05}[form]
        assert (frame.occluded == exact.occluded).mean() > 0.98
        assert frame.occluded.any()


def test_a_shard_that_starts_in_the_middle_sees_the_same(root, form):
    reader = ReplicaRendersReader(root, {"form": form, **SIZE})
    whole = list(reader.read(CLIPS[form], [0, 1, 2]))
    (alone,) = reader.read(CLIPS[form], [1])
    np.testing.assert_array_equal(alone.flow, whole[1].flow)
    np.testing.assert_array_equal(alone.occluded, whole[1].occluded)
    assert alone.image == whole[1].image


def test_cross_product_and_no_flow(nice):
    reader = ReplicaRendersReader(nice, {**NICE, "normals": "cross_product", "flow": False})
    (frame,) = reader.read("room_0", [0])
    assert reader.normal_source == "cross_product"
    assert frame.flow is None
    assert frame.valid.mean() > 0.9
    assert ((frame.normal.astype(float) * unit_rays()).sum(-1)[frame.valid] < 0).all()


def test_fingerprint_includes_the_next_depth(nice):
    reader = ReplicaRendersReader(nice, NICE)
    before, still = reader.fingerprint("room_0", [0]), reader.fingerprint("room_0", [2])
    with Image.open(nice / "room_0/results/depth000001.png") as picture:
        changed = np.asarray(picture) + 1
    Image.fromarray(changed.astype(np.uint16)).save(nice / "room_0/results/depth000001.png")
    assert reader.fingerprint("room_0", [0]) != before
    assert reader.fingerprint("room_0", [2]) == still


def test_pose_axes_are_checked_against_depth(nice):
    """Poses written for a camera with y up fail as OpenCV and pass under their own name."""
    path = nice / "room_0/traj.txt"
    poses = np.loadtxt(path).reshape(-1, 4, 4)
    right = poses.copy()
    poses[:, :3, 1:3] *= -1
    np.savetxt(path, poses.reshape(-1, 16))
    strict = {**NICE, "min_agreement": 0.95, "occlusion_tolerance": 0.005}  # the miniature's camera moves little
    assert len(list(ReplicaRendersReader(nice, {**strict, "pose_axes": "opengl"}).read("room_0", [0, 1, 2]))) == 3
    with pytest.raises(SourceError, match="pose_axes"):
        list(ReplicaRendersReader(nice, strict).read("room_0", [0]))
    (frame,) = ReplicaRendersReader(nice, {**NICE, "pose_axes": "opengl"}).read("room_0", [0])
    np.testing.assert_allclose(frame.cam_to_world, right[0], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r / "traj.txt").unlink(), "traj"),
        (lambda r: (r / "traj.txt").write_text(""), "traj"),
        (lambda r: (r / "traj.txt").write_text("1 2 3\n" * 3), "traj"),
        (lambda r: (r / "traj.txt").write_text(("1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n") * 2), "pose for each frame"),
        (lambda r: (r / "traj.txt").write_text(("2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n") * 3), "rigid"),
        (lambda r: (r / "results/frame000001.jpg").write_bytes(b"no"), "frame000001"),
        (lambda r: (r / "results/depth000001.png").write_bytes(b"no"), "depth000001"),
        (lambda r: shutil.copy(r / "results/frame000001.jpg", r / "results/depth000001.png"), "depth000001"),
        (lambda r: Image.new("RGB", (20, 10)).save(r / "results/frame000001.jpg"), "frame000001"),
        (lambda r: Image.fromarray(np.full((68, 120), 9, np.uint16)).save(r / "results/depth000001.png"), "median"),
        (lambda r: (r / "results/depth000001.png").unlink(), "depth000001"),
        (lambda r: shutil.rmtree(r / "results"), "found none"),
        (lambda r: [path.unlink() for path in (r / "results").glob("*.jpg")], "found none"),
    ],
)
def test_bad_sources(nice, change, message):
    change(nice / "room_0")
    with pytest.raises(SourceError, match=message):
        list(ReplicaRendersReader(nice, NICE).read("room_0", [0, 1, 2]))


@pytest.mark.parametrize("settings", [{}, {"form": "other"}, {**NICE, "depth_scale": 1}])
def test_bad_settings(nice, settings):
    with pytest.raises(CardError):
        ReplicaRendersReader(nice, settings)
    with pytest.raises(SourceError):
        ReplicaRendersReader(nice / "nothing", NICE)
