"""Plane fits against exact planes and against a brute-force singular value decomposition per pixel."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ncbench.geometry.cameras import depth_from_distance, field_of_view_intrinsics, hypersim_rays, pinhole_rays
from ncbench.geometry.plane_fit import normals_by_plane_fit

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "real"
HEIGHT, WIDTH = 24, 70  # wider than one block of the kernel, and not a multiple of it
RAYS = pinhole_rays(field_of_view_intrinsics(HEIGHT, WIDTH, 60), HEIGHT, WIDTH)


def angles(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def plane_normal(slant, azimuth):
    slant, azimuth = np.radians(slant), np.radians(azimuth)
    return np.array([np.sin(slant) * np.cos(azimuth), np.sin(slant) * np.sin(azimuth), -np.cos(slant)])


def plane_depth(normal, rays=RAYS, distance=2.0):
    """Depth of the plane n . p = -distance; 0 where the ray misses it."""
    slope = rays @ normal
    return np.where(slope < -1e-3, -distance / np.where(slope < -1e-3, slope, 1), 0)


def brute_force(depth, rays, window, gamma, min_neighbours):
    """One SVD per pixel of the centred points, written from the definition."""
    radius = window // 2
    points = depth[..., None] * rays
    height, width = depth.shape
    normals, valid = np.zeros_like(rays), np.zeros(depth.shape, bool)
    for y in range(height):
        for x in range(width):
            if not depth[y, x] > 0:
                continue
            around = points[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1].reshape(-1, 3)
            z = around[:, 2]
            around = around[(z > 0) & (np.abs(z - depth[y, x]) < gamma * depth[y, x])]
            if len(around) < min_neighbours:
                continue
            _, sizes, directions = np.linalg.svd(around - around.mean(0), full_matrices=False)
            normal = directions[2]
            if sizes[1] < 1e-4 * sizes[0] or abs(normal @ points[y, x]) < 1e-4 * np.linalg.norm(points[y, x]):
                continue
            normals[y, x] = -normal * np.sign(normal @ points[y, x])
            valid[y, x] = True
    return normals, valid


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 89.5), st.floats(0, 360), st.floats(1e-3, 1e5), st.sampled_from([3, 5, 7]))
@example(0, 0, 2, 5)  # head-on: the two large eigenvalues meet
@example(1e-7, 45, 2, 5)
@example(1e-3, 45, 2, 3)
@example(89.5, 90, 2, 5)
def test_a_clean_plane_is_right_to_a_millionth_of_a_degree(slant, azimuth, distance, window):
    normal = plane_normal(slant, azimuth)
    depth = plane_depth(normal, distance=distance)
    normals, valid = normals_by_plane_fit(depth, RAYS, window, dtype="float64")
    assert not valid[depth == 0].any()
    assert angles(normals[valid], normal).max(initial=0) < 1e-8
    if slant < 45:
        assert valid.all()


@pytest.mark.parametrize("noise", [1e-5, 1e-3, 1e-2, 0.03])
@pytest.mark.parametrize(("window", "gamma", "least"), [(3, 0.05, 4), (5, 0.05, 4), (5, 0.02, 7), (7, np.inf, 3)])
def test_agrees_with_a_brute_force_decomposition(noise, window, gamma, least):
    rng = np.random.default_rng(7)
    columns, rows = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    depth = 2 + 0.3 * np.sin(columns / 9) + 0.2 * np.cos(rows / 7) + 0.8 * (columns > 33)
    depth *= 1 + noise * rng.standard_normal(depth.shape)
    depth[rng.random(depth.shape) < 0.2] = 0
    normals, valid = normals_by_plane_fit(depth, RAYS, window, gamma, least, dtype="float64")
    expected, expected_valid = brute_force(depth, RAYS, window, gamma, least)
    np.testing.assert_array_equal(valid, expected_valid)
    assert valid.mean() > 0.4
    off = angles(normals[valid], expected[valid])
    # where the two least spreads are within a percent of each other, the answer itself hangs on the last digits
    assert np.quantile(off, 0.995) < 1e-9
    assert off.max() < 0.1


def test_normals_are_unit_length_and_face_the_camera():
    depth = np.random.default_rng(0).uniform(1, 1.1, (HEIGHT, WIDTH))
    normals, valid = normals_by_plane_fit(depth, RAYS)
    assert normals.dtype == np.float32
    assert ((normals * RAYS).sum(-1)[valid] < 0).all()
    np.testing.assert_allclose(np.linalg.norm(normals[valid], axis=-1), 1, atol=2e-7)
    assert not normals[~valid].any()


def test_a_float32_result_is_the_rounded_float64_result():
    depth = plane_depth(plane_normal(40, 20))
    rounded, _ = normals_by_plane_fit(depth, RAYS)
    exact, _ = normals_by_plane_fit(depth, RAYS, dtype="float64")
    np.testing.assert_array_equal(rounded, exact.astype(np.float32))


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 3e-4), (np.float16, 6)])
def test_the_depths_own_rounding_is_all_that_is_lost(dtype, limit):
    normal = plane_normal(30, 100)
    depth = plane_depth(normal).astype(dtype)
    normals, valid = normals_by_plane_fit(depth, RAYS, dtype="float64")
    assert valid.all()
    assert angles(normals, normal).max() < limit
    same, _ = normals_by_plane_fit(depth.astype(np.float64), RAYS, dtype="float64")
    np.testing.assert_array_equal(normals, same)


def test_the_depth_test_keeps_planes_apart():
    left, right = plane_normal(20, 0), plane_normal(20, 180)
    half = WIDTH // 2
    depth = np.where(np.arange(WIDTH) < half, plane_depth(left), plane_depth(right, distance=3.0))
    normals, valid = normals_by_plane_fit(depth, RAYS, dtype="float64")
    assert valid.all()
    assert angles(normals[:, :half], left).max() < 1e-8
    assert angles(normals[:, half:], right).max() < 1e-8
    bridged, _ = normals_by_plane_fit(depth, RAYS, gamma=None)
    assert angles(bridged[:, half], right).max() > 10


@pytest.mark.parametrize("unknown", [0, -1, np.nan, np.inf, -np.inf])
def test_unknown_depth_takes_no_part(unknown):
    normal = plane_normal(25, 70)
    depth = plane_depth(normal)
    hole = np.random.default_rng(2).random(depth.shape) < 0.3
    depth[hole] = unknown
    for gamma in (0.05, None):
        normals, valid = normals_by_plane_fit(depth, RAYS, gamma=gamma, dtype="float64")
        assert not valid[hole].any()
        assert valid[~hole].mean() > 0.99
        assert angles(normals[valid], normal).max() < 1e-8


def only(*pixels):
    """A wall seen head-on of which only some pixels are known."""
    depth = np.zeros((9, 9))
    for y, x in pixels:
        depth[y, x] = 2
    return depth


@pytest.mark.parametrize(
    "depth",
    [
        only((4, 4)),
        only((4, 4), (4, 5), (3, 4)),  # three points, four are asked for
        only(*[(4, x) for x in range(9)]),  # a row
        only(*[(i, i) for i in range(9)]),  # a diagonal
        np.zeros((9, 9)),
        np.full((9, 9), np.nan),
    ],
)
def test_degenerate_neighbourhoods_are_invalid(depth):
    rays = pinhole_rays(field_of_view_intrinsics(9, 9, 60), 9, 9)
    normals, valid = normals_by_plane_fit(depth, rays)
    assert not valid.any()
    assert not normals.any()


def test_points_of_one_row_do_not_make_a_plane_even_when_their_depths_bend():
    depth = np.zeros((9, 9))
    depth[4] = 2 + 0.01 * np.arange(9) ** 1.5
    rays = pinhole_rays(field_of_view_intrinsics(9, 9, 60), 9, 9)
    assert not normals_by_plane_fit(depth, rays)[1].any()
    assert not normals_by_plane_fit(depth.astype(np.float32), rays.astype(np.float32))[1].any()


def test_three_points_are_enough_when_asked_for():
    rays = pinhole_rays(field_of_view_intrinsics(9, 9, 60), 9, 9)
    normals, valid = normals_by_plane_fit(only((4, 4), (4, 5), (3, 4)), rays, min_neighbours=3)
    assert valid.sum() == 3
    np.testing.assert_allclose(normals[valid], [[0, 0, -1]] * 3, atol=1e-7)


@pytest.mark.parametrize("row_step", [2, 5, 16, 100])
def test_some_rows_are_those_of_all(row_step):
    rng = np.random.default_rng(4)
    depth = plane_depth(plane_normal(40, 70)) * (1 + 0.01 * rng.random((HEIGHT, WIDTH)))
    normals, valid = normals_by_plane_fit(depth, RAYS, 7, row_step=row_step)
    every, all_valid = normals_by_plane_fit(depth, RAYS, 7)
    np.testing.assert_array_equal(normals, every[::row_step])
    np.testing.assert_array_equal(valid, all_valid[::row_step])


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (2, 3), (5, 64), (3, 65), (6, 129)])
def test_any_size(shape):
    rays = pinhole_rays(field_of_view_intrinsics(*shape, 50), *shape)
    normal = plane_normal(10, 30)
    normals, valid = normals_by_plane_fit(plane_depth(normal, rays), rays, gamma=None, dtype="float64")
    assert valid.all() == (min(shape) > 1)
    assert angles(normals[valid], normal).max(initial=0) < 1e-8


def test_the_scene_can_have_any_scale():
    for distance in (1e-12, 1e-3, 1e30):
        normal = plane_normal(35, 200)
        normals, valid = normals_by_plane_fit(plane_depth(normal, distance=distance), RAYS, dtype="float64")
        assert valid.all()
        assert angles(normals, normal).max() < 1e-8


def test_inputs_may_be_views():
    normal = plane_normal(35, 200)
    depth = np.asfortranarray(plane_depth(normal))
    rays = np.concatenate([RAYS, RAYS], axis=-1)[..., 3:]
    assert angles(normals_by_plane_fit(depth, rays)[0], normal).max() < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 4}, "odd window"),
        ({"window": 1}, "odd window"),
        ({"gamma": 0}, "positive gamma"),
        ({"gamma": float("nan")}, "positive gamma"),
        ({"min_neighbours": 2}, "at least 3"),
        ({"row_step": 0}, "row_step of at least 1"),
        ({"depth": np.ones((3, 3))}, "rays"),
        ({"depth": np.ones((1, HEIGHT, WIDTH))}, "rays"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    depth = arguments.pop("depth", np.ones((HEIGHT, WIDTH)))
    with pytest.raises(ValueError, match=message):
        normals_by_plane_fit(depth, RAYS, **arguments)


@pytest.mark.real
@pytest.mark.skipif(not (REAL / "hypersim").exists(), reason="real sample files are not here")
def test_the_floor_of_a_real_hypersim_frame_points_up():
    """Scene ai_037_002 has a tilted sensor: an ordinary pinhole puts its floor about five degrees off."""
    import h5py

    scene = REAL / "hypersim" / "ai_037_002"
    with h5py.File(scene / "images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5") as file:
        distance = file["dataset"][:].astype(np.float64)
    with h5py.File(scene / "_detail/cam_00/camera_keyframe_orientations.hdf5") as file:
        world_from_rub = file["dataset"][0]
    with (REAL / "hypersim" / "metadata_camera_parameters.csv").open() as stream:
        row = next(row for row in csv.DictReader(stream) if row["scene_name"] == "ai_037_002")
    matrix = np.array([[float(row[f"M_cam_from_uv_{i}{j}"]) for j in range(3)] for i in range(3)])
    rays = hypersim_rays(matrix, *distance.shape)
    normals, valid = normals_by_plane_fit(depth_from_distance(distance, rays), rays, window=7)
    upward = (normals * [1, -1, -1]) @ world_from_rub.T @ [0, 0, 1]
    tilt = np.degrees(np.arccos(np.clip(upward[valid], -1, 1)))
    floor = tilt[tilt < 20]
    assert len(floor) > 0.05 * valid.size
    assert np.median(floor) < 1.5
