"""Ray-cast meshes against boxes in closed form: an independent slab test in float64."""

import contextlib
import io
import itertools
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ncbench.datasets.formats.ply import read_quad_mesh
from ncbench.datasets.mini.layout_replica_mesh import ReplicaMeshLayout, room_blocks, write_replica_mesh_layout
from ncbench.datasets.readers.replica_mesh import ReplicaMeshReader
from ncbench.errors import CardError, SourceError

LAYOUT = {"seed": 5, "scenes": ["room_0", "office_1"], "cells": 6}
SMALL = {"intrinsics": [40.0, 40.0, 39.5, 29.5], "width": 80, "height": 60, "path": {"frames": 4, "seed": 2}}
H, W = 60, 80


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("mesh")
    write_replica_mesh_layout(out, LAYOUT)
    return out


def directions(pose):
    y, x = np.mgrid[:H, :W]
    rays = np.stack([(x - 39.5) / 40.0, (y - 29.5) / 40.0, np.ones((H, W))], -1)
    return rays @ pose[:3, :3].T


def cast(scene, origin, ray):
    """Distance (as a multiple of the ray) and world normal by slabs; the room is the box that one leaves."""
    best = np.full(ray.shape[:-1], np.inf)
    normal = np.zeros(ray.shape)
    for block in room_blocks(ReplicaMeshLayout.parse(LAYOUT, "test"), scene):
        cos, sin = np.cos(block.yaw), np.sin(block.yaw)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        o, d = (origin - block.centre) @ turn, ray @ turn
        with np.errstate(divide="ignore"):
            low, high = (-block.half - o) / d, (block.half - o) / d
        enter, leave = np.minimum(low, high), np.maximum(low, high)
        if block.inside:
            t, axis = leave.min(-1), leave.argmin(-1)
            side = np.take_along_axis(np.sign(d), axis[..., None], -1)[..., 0]
        else:
            t, axis = enter.max(-1), enter.argmax(-1)
            t = np.where((t > 0) & (t <= leave.min(-1)), t, np.inf)
            side = np.take_along_axis(np.sign(d), axis[..., None], -1)[..., 0]
        closer = t < best
        best = np.where(closer, t, best)
        normal[closer] = (-side[..., None] * turn.T[axis])[closer]
    return best, normal


def angle(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def test_geometry_matches_slabs(root):
    reader = ReplicaMeshReader(root, SMALL)
    assert dict(reader.sequences()) == {"office_1": (0, 1, 2, 3), "room_0": (0, 1, 2, 3)}
    assert reader.normal_source == "analytic"
    for scene in ("room_0", "office_1"):
        for frame in reader.read(scene, range(4)):
            pose = frame.cam_to_world
            depth, normal = cast(scene, pose[:3, 3], directions(pose))
            assert frame.valid.mean() > 0.999
            # float32 vertices: on a silhouette a pixel may belong to either surface
            same = frame.valid & (np.abs(frame.depth / depth - 1) < 1e-5)
            assert same.mean() > 0.995
            error = angle(frame.normal[same].astype(np.float64), (normal @ pose[:3, :3])[same])
            # vertices are float32 (1e-7 of some metres) on quads of at least 5 cm
            assert np.quantile(error, 0.999) < 1e-3
            rays = directions(pose) @ pose[:3, :3]
            assert ((frame.normal * rays).sum(-1)[frame.valid] < 0).all()


def test_flow_and_occlusion_match_slabs(root):
    frames = list(
        ReplicaMeshReader(root, {**SMALL, "path": {"frames": 4, "seed": 2, "turn_degrees": 4}}).read("room_0", range(4))
    )
    assert frames[-1].flow is None
    seen_occlusion = 0
    for frame, following in itertools.pairwise(frames):
        pose, after = frame.cam_to_world, following.cam_to_world
        depth, _ = cast("room_0", pose[:3, 3], directions(pose))
        points = pose[:3, 3] + depth[..., None] * directions(pose)
        local = (points - after[:3, 3]) @ after[:3, :3]
        u, v = (40 * local[..., i] / local[..., 2] + c for i, c in ((0, 39.5), (1, 29.5)))
        y, x = np.mgrid[:H, :W]
        same = np.abs(frame.depth / depth - 1) < 1e-5
        np.testing.assert_allclose(frame.flow[same], np.stack([u - x, v - y], -1)[same], atol=2e-3)
        reach, _ = cast("room_0", after[:3, 3], points - after[:3, 3])
        outside = ~((u >= 0) & (u <= W - 1) & (v >= 0) & (v <= H - 1) & (local[..., 2] > 0))
        hidden = outside | (reach < 1 - 1e-4)
        assert (frame.occluded == hidden)[same].mean() > 0.998
        seen_occlusion += int((hidden & ~outside).sum())
    assert seen_occlusion > 0


def test_colours_are_the_vertices(root, tmp_path):
    """Seen straight on from close by, the picture shows the colours between a quad's own corners."""
    mesh = read_quad_mesh(root / "room_0/mesh.ply")
    (frame, *_) = ReplicaMeshReader(root, SMALL).read("room_0", [0])
    pixels = np.asarray(Image.open(io.BytesIO(frame.image))).astype(float)
    pose = frame.cam_to_world
    points = pose[:3, 3] + frame.depth[..., None] * directions(pose)
    for y, x in ((30, 40), (10, 10), (50, 70), (5, 60)):
        centres = mesh.vertices[mesh.quads].mean(1)
        corners = mesh.colours[mesh.quads[np.linalg.norm(centres - points[y, x], axis=-1).argmin()]].astype(float)
        assert (pixels[y, x] >= corners.min(0) - 40).all()
        assert (pixels[y, x] <= corners.max(0) + 40).all()


def test_same_bytes_every_time_and_in_any_order(root):
    first = list(ReplicaMeshReader(root, SMALL).read("room_0", [0, 1]))
    (again,) = ReplicaMeshReader(root, SMALL).read("room_0", [1])
    assert again.image == first[1].image
    np.testing.assert_array_equal(again.normal, first[1].normal)
    np.testing.assert_array_equal(again.flow, first[1].flow)


def test_generated_path_is_smooth_and_inside(root):
    wanted = {**SMALL, "width": 8, "height": 8, "path": {"frames": 60, "seed": 7}, "flow": False}
    poses = np.stack([f.cam_to_world for f in ReplicaMeshReader(root, wanted).read("room_0", range(60))])
    blocks = room_blocks(ReplicaMeshLayout.parse(LAYOUT, "test"), "room_0")
    assert (np.abs(poses[:, :3, 3] - blocks[0].centre) < blocks[0].half).all()
    for block in blocks[1:]:
        away = np.linalg.norm(poses[:, :2, 3] - block.centre[:2], axis=-1)
        assert (away > min(block.half[:2])).all()
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1, atol=1e-12)
    assert np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=-1).max() < 0.1
    turns = poses[:-1, :3, 2] * poses[1:, :3, 2]
    assert np.degrees(np.arccos(turns.sum(-1).clip(-1, 1))).max() < 3
    assert (poses[:, 2, 1] < 0).all()  # the camera's y points down: upright


def test_trajectory_file(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    poses = np.stack([f.cam_to_world for f in ReplicaMeshReader(root, SMALL).read("room_0", [0, 2])])
    np.savetxt(tmp_path / "data/room_0/traj.txt", poses.reshape(2, 16), fmt="%.18e")
    reader = ReplicaMeshReader(tmp_path / "data", {**SMALL, "scenes": ["room_0"], "trajectory": "{scene}/traj.txt"})
    assert dict(reader.sequences()) == {"room_0": (0, 1)}
    (frame,) = reader.read("room_0", [1])
    (same,) = ReplicaMeshReader(root, SMALL).read("room_0", [2])
    np.testing.assert_array_equal(frame.normal, same.normal)
    before = reader.fingerprint("room_0", [0])
    np.savetxt(tmp_path / "data/room_0/traj.txt", poses.reshape(2, 16), fmt="%.6f")
    assert reader.fingerprint("room_0", [0]) != before
    (tmp_path / "data/room_0/traj.txt").unlink()
    with pytest.raises(SourceError, match=r"traj\.txt"):
        ReplicaMeshReader(tmp_path / "data", {**SMALL, "scenes": ["room_0"], "trajectory": "{scene}/traj.txt"})


def test_back_faces(root, tmp_path):
    """With its faces turned round, the room is seen from behind: flipped to the camera, or invalid, as asked."""
    mesh = tmp_path / "room_0" / "mesh.ply"
    mesh.parent.mkdir()
    content = (root / "room_0/mesh.ply").read_bytes()
    header, _, body = content.partition(b"end_header\n")
    count = int(header.split(b"element face ")[1].split()[0])
    faces = np.frombuffer(body[-count * 17 :], np.dtype([("n", "u1"), ("i", "<i4", (4,))])).copy()
    faces["i"] = faces["i"][:, ::-1]
    mesh.write_bytes(header + b"end_header\n" + body[: -count * 17] + faces.tobytes())
    (front,) = ReplicaMeshReader(root, SMALL).read("room_0", [0])
    (flipped,) = ReplicaMeshReader(tmp_path, SMALL).read("room_0", [0])
    # both diagonals of a quad lie in its plane
    np.testing.assert_allclose(flipped.normal, front.normal, atol=1e-5)
    (hidden,) = ReplicaMeshReader(tmp_path, {**SMALL, "back_faces": "invalid"}).read("room_0", [0])
    assert not hidden.valid.any()
    assert hidden.depth.any()


def test_official_attributes(root):
    """The release's header: quads, colours and normals, little endian."""
    header = (root / "room_0/mesh.ply").read_bytes().partition(b"end_header\n")[0].decode().split("\n")
    assert header[1] == "format binary_little_endian 1.0"
    assert [line.split()[-1] for line in header if line.startswith("property")] == [
        "x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "vertex_indices",
    ]  # fmt: skip
    mesh = read_quad_mesh(root / "room_0/mesh.ply")
    points = mesh.vertices[mesh.quads].astype(float)
    normal = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    assert mesh.quads.shape == (7 * 6 * 36, 4)
    assert (np.linalg.norm(normal, axis=-1) > 0).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b[:-5],
        lambda b: b.replace(b"property uchar red", b"property uchar rad"),
        lambda b: b.replace(b"property uchar red", b"property char red"),
        lambda b: b.replace(b"vertex_indices", b"corner_indices"),
        lambda b: b[:-4] + b"\xff\xff\xff\x7f",
        lambda b: b[:-17] + b"\x03" + b[-16:],
        lambda b: b.replace(b"element face", b"element fake"),
        lambda b: b.replace(b"element vertex ", b"element vertex 99999999999999"),
        lambda _: b"ply\nformat ascii 1.0\nend_header\n",
    ],
)
def test_damaged_meshes(root, tmp_path, change):
    (tmp_path / "room_0").mkdir()
    (tmp_path / "room_0/mesh.ply").write_bytes(change((root / "room_0/mesh.ply").read_bytes()))
    with pytest.raises(SourceError, match=r"mesh\.ply"):
        list(ReplicaMeshReader(tmp_path, SMALL).read("room_0", [0]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_meshes_read_or_say_why(root, tmp_path, data):
    content = bytearray((root / "room_0/mesh.ply").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 600))] = data.draw(st.integers(0, 255))
    path = tmp_path / "mesh.ply"
    path.write_bytes(content)
    with contextlib.suppress(SourceError):
        assert read_quad_mesh(path).quads.shape[1] == 4


def test_bad_settings(root):
    for wrong in ({"trajectory": "../x"}, {"back_faces": "keep"}, {"path": {"reach": 1.0}}):
        with pytest.raises(CardError):
            ReplicaMeshReader(root, {**SMALL, **wrong})
    with pytest.raises(SourceError, match="room_9"):
        ReplicaMeshReader(root, {**SMALL, "scenes": ["room_9"]})
    with pytest.raises(SourceError, match="found none"):
        ReplicaMeshReader(root / "room_0", SMALL)
