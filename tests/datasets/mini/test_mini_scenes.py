"""The families of scenes: pure, varied, never trivial."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ncbench.datasets.mini.primitives import Box, Cone, Cylinder, Plane, Sphere
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import KINDS, make_scene
from ncbench.datasets.mini.scene import Body, Camera, Path3
from ncbench.datasets.mini.textures import cell_hash, fractal_noise, value_noise


def digest(frame):
    arrays = [frame.rgb, frame.normal, frame.depth, frame.ids, frame.flow, frame.occluded, frame.cam_to_world]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 7, 2**40])
def test_facing_the_camera_everywhere_is_a_bad_guess(kind, seed):
    for index in (0, 6):
        frame = render_frame(make_scene(kind, seed, 8, 48, 64), index)
        n = frame.normal[frame.valid]
        error = np.degrees(np.arctan2(np.linalg.norm(n[:, :2], axis=-1), -n[:, 2]))
        assert 25.0 < error.mean() < 60.0


@pytest.mark.parametrize("kind", KINDS)
def test_contents(kind):
    scene = make_scene(kind, 5, 8, 48, 64)
    frame = render_frame(scene, 1)
    solids = {type(body.solid) for body in scene.bodies}
    assert solids == {Plane, Box, Sphere, Cylinder, Cone}
    assert len(np.unique(frame.ids)) > 8
    assert frame.valid.mean() == 1.0 if kind != "outdoor" else 0.5 < frame.valid.mean() < 1.0
    assert frame.rgb.std() > 30
    assert 60 < frame.rgb.mean() < 200
    assert 0.2 < np.nanmedian(np.linalg.norm(render_frame(scene, 1).flow, axis=-1)) < 8.0


@pytest.mark.parametrize("kind", KINDS)
def test_pure_and_seeded(kind):
    def render(seed, frames=4):
        return digest(render_frame(make_scene(kind, seed, frames, 24, 32), 2))

    assert render(11) == render(11)
    assert render(11) == render(11, frames=9)  # a longer clip continues the shorter one
    assert len({render(seed) for seed in range(5)}) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_stable_over_time(kind):
    """A visible point carries the same id in the next frame where all four neighbours of its place agree."""
    scene = make_scene(kind, 4, 4, 48, 64)
    frame, after = render_frame(scene, 0), render_frame(scene, 1)
    y, x = np.nonzero(~frame.occluded)
    u, v = x + frame.flow[y, x, 0], y + frame.flow[y, x, 1]
    i, j = np.clip(np.floor(v), 0, 46).astype(int), np.clip(np.floor(u), 0, 62).astype(int)
    block = np.stack([after.ids[i, j], after.ids[i, j + 1], after.ids[i + 1, j], after.ids[i + 1, j + 1]])
    uniform = (block == block[0]).all(0)
    assert uniform.mean() > 0.6
    assert (block[0] == frame.ids[y, x])[uniform].mean() > 0.995


def test_bad_requests():
    with pytest.raises(ValueError, match="Did you mean 'outdoor'"):
        make_scene("outdor", 0, 2, 8, 8)
    for bad in ((-1, 2, 8, 8), (0, 0, 8, 8), (0, 2, 1, 8), (0, 2, 8, 1)):
        with pytest.raises(ValueError, match="expected seed"):
            make_scene("room", *bad)


coordinate = st.floats(-3, 3)


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(coordinate, coordinate, coordinate),
    st.tuples(coordinate, coordinate, coordinate),
    st.floats(-0.5, 0.5),
    st.floats(0.0, 50.0),
)
def test_camera_poses_are_rigid_and_look_at_the_target(position, target, roll, frame):
    forward = np.subtract(target, position)
    if np.linalg.norm(np.cross(forward, [0, 0, 1])) < 1e-2:
        return  # straight up or down: not a view that the scenes use
    pose = Camera(Path3(position), Path3(target), 1.0, roll).pose(frame)
    np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-9)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
    local = pose[:3, :3].T @ forward
    np.testing.assert_allclose(local, [0, 0, np.linalg.norm(forward)], atol=1e-9)
    up = pose[:3, :3].T @ [0, 0, 1]
    assert math.atan2(-up[0], -up[1]) == pytest.approx(roll, abs=1e-6)


def test_body_pose_turns_and_travels():
    room = make_scene("room", 0, 2, 8, 8)
    path = Path3((1.0, 2.0, 3.0), (0.5, 0.0, 0.0), (math.pi / 2, 0.0, 0.0), 8.0)
    body = Body(Sphere(1.0), room.bodies[0].texture, path, turn=(0.3, 0.0, 0.0), spin=(0.0, 0.0, 0.1))
    scene = replace(room, bodies=(room.bodies[0], body))
    np.testing.assert_allclose(scene.body_poses(2)[1, :3, 3], [1.0, 2.0, 3.0], atol=1e-12)
    np.testing.assert_allclose(scene.body_poses(0)[1, :3, 3], [1.5, 2.0, 3.0], atol=1e-12)
    expected = Rotation.from_euler("z", 0.3).as_matrix() @ Rotation.from_euler("x", 0.3).as_matrix()
    np.testing.assert_allclose(scene.body_poses(3)[1, :3, :3], expected, atol=1e-12)
    np.testing.assert_array_equal(scene.body_poses(3)[:, 3], np.tile([0, 0, 0, 1], (2, 1)))


def test_noise_is_continuous_and_spread():
    values = np.array([cell_hash(i, j, 3, 9) for i in range(-40, 40) for j in range(-40, 40)])
    counts, _ = np.histogram(values, 10, (0, 1))
    assert counts.min() > 500  # 640 expected in each tenth
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.05
    points = np.random.default_rng(0).uniform(-5, 5, (300, 3))
    for x, y, z in points:
        assert abs(value_noise(x, y, z, 1) - value_noise(x + 1e-7, y, z, 1)) < 1e-6
    sums = [fractal_noise(tuple(p), 2.0, 0.0, 1) for p in points]
    assert abs(np.mean(sums)) < 0.15
    assert np.std(sums) > 0.2
    assert fractal_noise((0.3, 0.2, 0.1), 2.0, 10.0, 1) == 0.0  # finer than a pixel: nothing left
