"""Ray hits and normals against implicit functions that are written here on their own."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ncbench.datasets.mini.primitives import (
    Box,
    Cone,
    Cylinder,
    Plane,
    Solids,
    Sphere,
    blocked,
    first_hit,
    surface_normal,
    to_object,
    to_world,
)

SOLIDS = [Box(0.5, 0.3, 0.8), Sphere(0.7), Cylinder(0.4, 0.6), Cone(0.6, 0.0, 0.5), Cone(0.3, 0.7, 0.4)]


def implicit(solid, p):
    """Positive outside, negative inside, zero on the surface; slope 1 across the surface. p: (..., 3)."""
    x, y, z = p[..., 0], p[..., 1], p[..., 2]
    if isinstance(solid, Sphere):
        return np.sqrt(x * x + y * y + z * z) - solid.radius
    if isinstance(solid, Box):
        return np.maximum.reduce([abs(x) - solid.half_x, abs(y) - solid.half_y, abs(z) - solid.half_z])
    rho = np.sqrt(x * x + y * y)
    if isinstance(solid, Cylinder):
        return np.maximum(rho - solid.radius, abs(z) - solid.half_height)
    run, rise = solid.top - solid.base, 2 * solid.half_height
    radius = solid.base + (z + solid.half_height) / rise * run
    return np.maximum((rho - radius) * rise / math.hypot(rise, run), abs(z) - solid.half_height)


def packed(solids, poses):
    items = [solid.packed() for solid in solids]
    return Solids(
        np.array([code for code, _ in items]),
        np.array([size for _, size in items]),
        np.ascontiguousarray(poses[:, :3, :3]),
        np.ascontiguousarray(poses[:, :3, 3]),
        np.array([solid.bound() for solid in solids]),
    )


def random_pose(rng, spread):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(rng=rng).as_matrix()
    pose[:3, 3] = rng.uniform(-spread, spread, 3)
    return pose


@pytest.fixture(scope="module", params=SOLIDS, ids=lambda s: f"{type(s).__name__}-{s.packed()[1][1]}")
def shots(request):
    """Rays at one solid in a random pose: (solid, pose, table, [(origin, direction, t)]) with t = inf for a miss."""
    solid, rng = request.param, np.random.default_rng(3)
    pose = random_pose(rng, 2.0)
    table = packed([solid], pose[None])
    rays = []
    for _ in range(300):
        away = rng.normal(size=3)
        origin = pose[:3, 3] + 3.0 * away / np.linalg.norm(away)
        aim = pose[:3, 3] + rng.normal(scale=0.45, size=3) - origin
        direction = aim / np.linalg.norm(aim)
        t, index = first_hit(table, tuple(origin), tuple(direction), math.inf)
        assert (index == 0) == (t < math.inf)
        rays.append((origin, direction, t))
    return solid, pose, table, rays


def local(pose, points):
    return (points - pose[:3, 3]) @ pose[:3, :3]


def test_hit_lies_on_the_surface_and_is_the_first(shots):
    solid, pose, _, rays = shots
    assert 100 < sum(t < math.inf for _, _, t in rays) < 300
    for origin, direction, t in rays:
        if t < math.inf:
            assert abs(implicit(solid, local(pose, origin + t * direction))) < 1e-9
        steps = np.linspace(0.0, min(t - 1e-6, 6.0), 800)
        before = implicit(solid, local(pose, origin + steps[:, None] * direction))
        assert before.min() > -1e-9  # a miss never enters, a hit not earlier


def test_normal_is_the_gradient(shots):
    solid, pose, table, rays = shots
    step, checked = 1e-5, 0
    for origin, direction, t in rays:
        if t == math.inf:
            continue
        p = local(pose, origin + t * direction)
        axes = step * np.eye(3)
        gradient = (implicit(solid, p + axes) - implicit(solid, p - axes)) / (2 * step)
        one_side = (implicit(solid, p + axes) - implicit(solid, p)) / step
        if not np.allclose(gradient, one_side, atol=1e-4):
            continue  # within a step of an edge, where there is no gradient
        normal = surface_normal(table.code[0], tuple(table.size[0]), tuple(p))
        np.testing.assert_allclose(normal, gradient / np.linalg.norm(gradient), atol=1e-6)
        assert np.dot(pose[:3, :3] @ normal, direction) < 1e-6
        checked += 1
    assert checked > 90


def test_from_inside_the_far_side_is_hit(shots):
    solid, pose, table, _ = shots
    rng = np.random.default_rng(4)
    centre = pose[:3, 3] + pose[:3, :3] @ np.array([0.0, 0.0, -0.1])
    for _ in range(50):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        t, _ = first_hit(table, tuple(centre), tuple(direction), math.inf)
        assert abs(implicit(solid, local(pose, centre + t * direction))) < 1e-9
        assert (implicit(solid, local(pose, centre + np.linspace(0, t - 1e-6, 100)[:, None] * direction)) < 0).all()


def test_rays_along_the_axes_of_a_box_and_a_cylinder():
    for solid, depth in ((Box(0.5, 0.3, 0.8), 0.8), (Cylinder(0.4, 0.6), 0.6)):
        table = packed([solid], np.eye(4)[None])
        assert first_hit(table, (0.1, 0.1, 5.0), (0.0, 0.0, -1.0), math.inf) == (pytest.approx(5.0 - depth), 0)
        assert first_hit(table, (2.0, 0.1, 5.0), (0.0, 0.0, -1.0), math.inf) == (math.inf, -1)


def test_ray_parallel_to_the_side_of_a_cone():
    cone = Cone(1.0, 0.0, 1.0)  # side: rho = (1 - z) / 2
    table = packed([cone], np.eye(4)[None])
    slope = np.array([1.0, 0.0, -2.0]) / math.sqrt(5.0)
    origin = np.array([-1.5, 0.0, 3.0])  # |s - 1.5| = s - 1 at s = 1.25
    t, _ = first_hit(table, tuple(origin), tuple(slope), math.inf)
    assert t == pytest.approx(1.25 * math.sqrt(5.0))
    assert abs(implicit(cone, origin + t * slope)) < 1e-9


def test_plane_bounded_infinite_and_edge_on():
    pose = np.eye(4)[None]
    small, endless = packed([Plane(1.0, 0.5)], pose), packed([Plane()], pose)
    down = (0.0, 0.0, -1.0)
    assert first_hit(small, (0.9, 0.4, 2.0), down, math.inf) == (2.0, 0)
    assert first_hit(small, (0.9, 0.6, 2.0), down, math.inf)[1] == -1
    assert first_hit(endless, (1e6, 0.6, 2.0), down, math.inf) == (2.0, 0)
    assert first_hit(endless, (0.0, 0.0, 2.0), (1.0, 0.0, 0.0), math.inf)[1] == -1


def test_first_of_many_blocked_and_far():
    rng = np.random.default_rng(5)
    solids = [*SOLIDS, *SOLIDS, Plane(1.0, 1.0)]
    poses = np.stack([random_pose(rng, 2.5) for _ in solids])
    table = packed(solids, poses)
    alone = [packed([solid], pose[None]) for solid, pose in zip(solids, poses, strict=True)]
    hits = 0
    for _ in range(300):
        origin, target = rng.uniform(-6, 6, 3), rng.uniform(-2, 2, 3)
        direction = tuple((target - origin) / np.linalg.norm(target - origin))
        distances = [first_hit(one, tuple(origin), direction, math.inf)[0] for one in alone]
        t, index = first_hit(table, tuple(origin), direction, math.inf)
        assert t == min(distances)
        if t == math.inf:
            assert not blocked(table, tuple(origin), direction, math.inf)
            continue
        hits += 1
        assert distances[index] == t
        assert first_hit(table, tuple(origin), direction, t) == (t, -1)
        assert not blocked(table, tuple(origin), direction, t)
        assert blocked(table, tuple(origin), direction, t * (1 + 1e-12))
    assert hits > 100


def test_object_and_world_coordinates():
    rng = np.random.default_rng(6)
    pose = random_pose(rng, 3.0)
    table = packed([Sphere(1.0)], pose[None])
    point = rng.normal(size=3)
    np.testing.assert_allclose(to_world(table, 0, tuple(point)), (pose @ [*point, 1.0])[:3], atol=1e-14)
    np.testing.assert_allclose(to_object(table, 0, to_world(table, 0, tuple(point))), point, atol=1e-13)
