"""The renderer against closed forms and independent arithmetic."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from ncbench.datasets.mini.primitives import Box, Cone, Cylinder, Plane, Sphere
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import KINDS, make_scene
from ncbench.datasets.mini.scene import Body, Camera, Path3, Scene

HEIGHT, WIDTH = 48, 64


@cache
def scene_of(kind, seed=1):
    return make_scene(kind, seed, 8, HEIGHT, WIDTH)


@cache
def frame_of(kind, index, seed=1):
    return render_frame(scene_of(kind, seed), index)


def rays(frame):
    """Camera-space rays with z = 1 at the pixel centres, (H, W, 3)."""
    height, width = frame.depth.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(frame.intrinsics).T


def stage(*bodies, frames=2, camera=None):
    """A scene of given bodies before a camera at the origin that looks along +y of the world."""
    borrowed = make_scene("room", 0, frames, HEIGHT, WIDTH)
    camera = camera or Camera(Path3((0.0, 0.0, 0.0)), Path3((0.0, 1.0, 0.0)), math.radians(60.0))
    return Scene("stage", tuple(bodies), camera, borrowed.light, frames, HEIGHT, WIDTH)


def body(solid, path, **motion):
    return Body(solid, make_scene("room", 0, 1, 8, 8).bodies[0].texture, path, **motion)


def test_camera_of_the_stage_is_opencv():
    pose = render_frame(stage(body(Sphere(0.1), Path3((0, 5, 0)))), 0).cam_to_world
    np.testing.assert_allclose(pose[:3, :3], [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-15)


def test_wall_floor_and_sphere_in_closed_form():
    wall = render_frame(stage(body(Plane(), Path3((0, 3, 0)), turn=(math.pi / 2, 0, 0))), 0)
    np.testing.assert_allclose(wall.depth, 3.0, rtol=1e-12)
    np.testing.assert_allclose(wall.normal, np.broadcast_to([0, 0, -1], wall.normal.shape), atol=1e-12)

    floor = render_frame(stage(body(Plane(), Path3((0, 0, -1.5)))), 0)
    below = np.arange(HEIGHT) > 0.5 * (HEIGHT - 1)
    np.testing.assert_array_equal(floor.valid, np.repeat(below[:, None], WIDTH, 1))
    expected = 1.5 / rays(floor)[..., 1]
    np.testing.assert_allclose(floor.depth[floor.valid], expected[floor.valid], rtol=1e-12)
    np.testing.assert_allclose(floor.normal[floor.valid] - [0, -1, 0], 0, atol=1e-12)
    assert not floor.normal[~floor.valid].any()
    assert not floor.depth[~floor.valid].any()

    ball = render_frame(stage(body(Sphere(1.0), Path3((0.5, 4, 0.25)))), 0)
    v, centre = rays(ball), np.array([0.5, -0.25, 4.0])
    a, b, c = (v * v).sum(-1), v @ centre, centre @ centre - 1.0
    with np.errstate(invalid="ignore"):
        z = (b - np.sqrt(b * b - a * c)) / a
    np.testing.assert_array_equal(ball.valid, np.isfinite(z))
    np.testing.assert_allclose(ball.depth[ball.valid], z[ball.valid], rtol=1e-12)
    np.testing.assert_allclose(ball.normal[ball.valid], (z[..., None] * v - centre)[ball.valid], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_normals_are_unit_and_face_the_camera(kind):
    frame = frame_of(kind, 2)
    n = frame.normal[frame.valid]
    np.testing.assert_allclose(np.linalg.norm(n, axis=-1), 1.0, atol=1e-12)
    assert ((n * rays(frame)[frame.valid]).sum(-1) < 0).all()
    np.testing.assert_array_equal(frame.valid, frame.ids > 0)
    np.testing.assert_array_equal(frame.valid, frame.depth > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_normals_agree_with_finite_differences_of_depth(kind):
    """On one flat side 1 / z is affine in the pixel, and its slope gives the normal."""
    frame = frame_of(kind, 2)
    flat = [k + 1 for k, b in enumerate(scene_of(kind).bodies) if isinstance(b.solid, Plane | Box)]
    inverse = np.where(frame.valid, 1.0 / np.where(frame.valid, frame.depth, 1.0), np.nan)
    core = (slice(1, -1), slice(1, -1))
    same = np.isin(frame.ids[core], flat)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        same &= np.roll(frame.ids, (dy, dx), (0, 1))[core] == frame.ids[core]
        same &= (np.roll(frame.normal, (dy, dx), (0, 1))[core] * frame.normal[core]).sum(-1) > 1 - 1e-9
    gx = 0.5 * (inverse[1:-1, 2:] - inverse[1:-1, :-2])
    gy = 0.5 * (inverse[2:, 1:-1] - inverse[:-2, 1:-1])
    x, y = np.meshgrid(np.arange(1, WIDTH - 1), np.arange(1, HEIGHT - 1))
    k = frame.intrinsics
    # 1/z = a . ray for the plane a . P = 1, so that gx = a_x / f and gy = a_y / f
    ax, ay = gx * k[0, 0], gy * k[1, 1]
    az = inverse[core] - ax * (x - k[0, 2]) / k[0, 0] - ay * (y - k[1, 2]) / k[1, 1]
    a = np.stack([ax, ay, az], -1)
    expected = -a / np.linalg.norm(a, axis=-1, keepdims=True)
    assert same.sum() > 500
    np.testing.assert_allclose(frame.normal[core][same], expected[same], atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("index", [0, 5])
def test_flow_is_unproject_move_project(kind, index):
    frame, after = frame_of(kind, index), frame_of(kind, index + 1)
    points = (frame.depth[..., None] * rays(frame)) @ frame.cam_to_world[:3, :3].T + frame.cam_to_world[:3, 3]
    motion = frame.motions[np.maximum(frame.ids - 1, 0)]
    moved = np.einsum("hwij,hwj->hwi", motion[..., :3, :3], points) + motion[..., :3, 3]
    world_to_cam = np.linalg.inv(after.cam_to_world)
    seen = (moved @ world_to_cam[:3, :3].T + world_to_cam[:3, 3]) @ after.intrinsics.T
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    with np.errstate(invalid="ignore"):
        expected = seen[..., :2] / seen[..., 2:] - np.stack([x, y], -1)
    ok = frame.valid & (seen[..., 2] > 1e-3)
    np.testing.assert_allclose(frame.flow[ok], expected[ok], atol=1e-8)
    assert np.isnan(frame.flow[~frame.valid]).all()
    assert frame.occluded[~frame.valid].all()
    moving = np.array([b.spin != (0, 0, 0) or any(b.path.amplitude) for b in scene_of(kind).bodies])
    still = np.abs(frame.motions - np.eye(4)).max((1, 2)) < 1e-12
    np.testing.assert_array_equal(still, ~moving)
    assert moving.sum() >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_flow_brings_the_next_picture_back(kind):
    scene = replace(scene_of(kind), height=96, width=128)
    frame, after = render_frame(scene, 4), render_frame(scene, 5)
    use = ~frame.occluded
    x, y = np.meshgrid(np.arange(128), np.arange(96))
    at = np.stack([y + frame.flow[..., 1], x + frame.flow[..., 0]])
    at = np.where(use, at, 0.0)
    warped = np.stack([map_coordinates(after.rgb[..., c].astype(float), at, order=1) for c in range(3)], -1)
    error = np.abs(warped - frame.rgb)[use].mean()
    unwarped = np.abs(after.rgb.astype(float) - frame.rgb)[use].mean()
    assert error < 0.5 * unwarped
    assert error < 4.0
    beside = np.abs(np.roll(warped, 1, axis=1) - frame.rgb)[use].mean()  # one pixel off must be worse
    assert error < 0.6 * beside


@pytest.mark.parametrize("kind", KINDS)
def test_visible_points_are_where_the_next_frame_sees_them(kind):
    """A visible point has the depth and the id that the next frame shows at its place, away from edges."""
    frame, after = frame_of(kind, 3), frame_of(kind, 4)
    y, x = np.nonzero(~frame.occluded)
    u, v = x + frame.flow[y, x, 0], y + frame.flow[y, x, 1]
    assert (u >= -1e-5).all()
    assert (u <= WIDTH - 1 + 1e-5).all()
    assert (v >= -1e-5).all()
    assert (v <= HEIGHT - 1 + 1e-5).all()
    corners = [
        after.ids[np.clip(f(v), 0, HEIGHT - 1).astype(int), np.clip(g(u), 0, WIDTH - 1).astype(int)]
        for f in (np.floor, np.ceil)
        for g in (np.floor, np.ceil)
    ]
    own = frame.ids[y, x]
    shown = np.any([corner == own for corner in corners], axis=0)
    assert shown.mean() > 0.99


def test_occlusion_by_a_moving_sphere_in_closed_form():
    """Still camera, still wall, a ball that moves: hidden wall pixels are those whose own ray meets the next ball."""
    wall = body(Plane(), Path3((0, 4, 0)), turn=(math.pi / 2, 0, 0))
    ball = body(Sphere(0.5), Path3((0.0, 2.0, 0.1), (0.4, 0.0, 0.0), period=16.0))
    scene = stage(wall, ball)
    frame = render_frame(scene, 0)
    v = rays(frame)
    now, after = (np.array([x, -0.1, 2.0]) for x in (0.0, 0.4 * math.sin(2 * math.pi / 16)))

    def meets(centre):
        return (v @ centre) ** 2 > (v * v).sum(-1) * (centre @ centre - 0.25)

    on_wall = frame.ids == 1
    np.testing.assert_array_equal(~on_wall, meets(now))
    np.testing.assert_array_equal(frame.occluded[on_wall], meets(after)[on_wall])
    np.testing.assert_allclose(frame.flow[on_wall], 0.0, atol=1e-9)
    # the ball only slides, so that a point of it is hidden when the ball itself turns it away from the camera
    points = (frame.depth[..., None] * v)[~on_wall]
    outward = points - now
    turned_away = (outward * (points + after - now)).sum(-1) > 0
    np.testing.assert_array_equal(frame.occluded[~on_wall], turned_away)


def inside(solid, p):
    x, y, z = np.moveaxis(p, -1, 0)
    if isinstance(solid, Box):
        return (abs(x) < solid.half_x) & (abs(y) < solid.half_y) & (abs(z) < solid.half_z)
    if isinstance(solid, Sphere):
        return x * x + y * y + z * z < solid.radius**2
    if isinstance(solid, Cylinder):
        return (np.hypot(x, y) < solid.radius) & (abs(z) < solid.half_height)
    assert isinstance(solid, Cone)
    share = 0.5 * (z / solid.half_height + 1)
    return (np.hypot(x, y) < solid.base + share * (solid.top - solid.base)) & (abs(z) < solid.half_height)


@pytest.mark.parametrize("kind", ["objects", "outdoor"])
def test_occlusion_against_points_along_the_line_of_sight(kind):
    scene = scene_of(kind, 2)
    frame, after = render_frame(scene, 3), render_frame(scene, 4)
    target = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1) + frame.flow
    edge = np.array([WIDTH - 1, HEIGHT - 1])
    in_frame = ((target >= 0) & (target <= edge)).all(-1)  # False for NaN
    assert frame.occluded[~in_frame].all()
    points = (frame.depth[..., None] * rays(frame)) @ frame.cam_to_world[:3, :3].T + frame.cam_to_world[:3, 3]
    motion = frame.motions[np.maximum(frame.ids - 1, 0)]
    moved = (np.einsum("hwij,hwj->hwi", motion[..., :3, :3], points) + motion[..., :3, 3])[in_frame]
    eye = after.cam_to_world[:3, 3]
    share = np.linspace(0.0, 1.0, 1500)[1:-1]
    covered = np.zeros(len(moved), dtype=bool)
    for one, pose in zip(scene.bodies, scene.body_poses(4), strict=True):
        if isinstance(one.solid, Plane):
            continue
        start, end = (eye - pose[:3, 3]) @ pose[:3, :3], (moved - pose[:3, 3]) @ pose[:3, :3]
        nearest = start + np.clip(-(start * (end - start)).sum(-1) / ((end - start) ** 2).sum(-1), 0, 1)[:, None] * (
            end - start
        )
        near = np.linalg.norm(nearest, axis=-1) <= one.solid.bound()
        along = start + share[:, None] * (end[near] - start)[:, None]
        covered[near] |= inside(one.solid, along).any(-1)
    hidden = frame.occluded[in_frame]
    assert hidden.sum() >= 10
    assert not (covered & ~hidden).any()  # what stands in the way hides
    assert (hidden & ~covered).sum() <= 0.1 * hidden.sum()  # a chord shorter than a step can slip through the samples


@pytest.mark.parametrize("kind", KINDS)
def test_last_frame_has_no_successor(kind):
    scene = replace(scene_of(kind), frames=3)
    frame = render_frame(scene, 2)
    assert np.isnan(frame.flow).all()
    assert frame.occluded.all()
    np.testing.assert_array_equal(frame.motions, np.tile(np.eye(4), (len(scene.bodies), 1, 1)))
    for bad in (-1, 3):
        with pytest.raises(IndexError, match="0 to 2"):
            render_frame(scene, bad)


def test_point_behind_the_next_camera_has_no_flow():
    camera = Camera(Path3((0.0, 0.0, 0.0), (0.0, 3.0, 0.0), period=4.0), Path3((0.0, 9.0, 0.0)), math.radians(60.0))
    frame = render_frame(stage(body(Sphere(0.5), Path3((0.0, 2.0, 0.0))), camera=camera), 0)
    assert frame.valid.any()
    assert np.isnan(frame.flow).all()
    assert frame.occluded.all()


def test_types_and_shapes():
    frame = frame_of("room", 0)
    assert frame.rgb.shape == (HEIGHT, WIDTH, 3)
    kinds = [frame.rgb, frame.normal, frame.valid, frame.depth, frame.ids, frame.flow, frame.occluded]
    assert [str(a.dtype) for a in kinds] == ["uint8", "float64", "bool", "float64", "int32", "float64", "bool"]


def test_larger_picture_samples_the_same_scene():
    """Twice as many pixels less one put every other pixel centre on the same ray."""
    small = stage(body(Sphere(1.0), Path3((0.2, 3, 0))))
    focal = small.intrinsics[0, 0]
    large = replace(small, height=2 * HEIGHT - 1, width=2 * WIDTH - 1)
    wide = replace(
        large, camera=replace(large.camera, field_of_view=2 * math.atan(0.5 * (2 * WIDTH - 1) / (2 * focal)))
    )
    np.testing.assert_allclose(render_frame(wide, 0).depth[::2, ::2], render_frame(small, 0).depth, rtol=1e-9)
