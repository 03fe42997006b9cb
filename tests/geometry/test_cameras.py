"""Cameras against closed forms, and Hypersim's camera against its own published parameters."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ncbench.geometry.cameras import (
    crop_intrinsics,
    depth_from_distance,
    field_of_view_intrinsics,
    flip_intrinsics,
    hypersim_rays,
    invert_pose,
    pinhole_rays,
    project,
    scale_intrinsics,
    transform_points,
    unproject,
)

K = np.array([[500.0, 1.5, 310], [0, 480, 250], [0, 0, 1]])
HYPERSIM_CSV = (
    Path(__file__).resolve().parents[2].parent / "shared" / "real" / "hypersim" / "metadata_camera_parameters.csv"
)


@st.composite
def intrinsics(draw):
    focal = st.floats(50, 3000)
    centre = st.floats(-100, 1500)
    return np.array([[draw(focal), draw(st.floats(-5, 5)), draw(centre)], [0, draw(focal), draw(centre)], [0, 0, 1]])


points_in_front = st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.1, 100)).map(np.array)


def project_by_hand(point, matrix):
    homogeneous = matrix @ point
    return homogeneous[:2] / homogeneous[2]


@given(intrinsics(), points_in_front)
def test_projection(matrix, point):
    pixel, z = project(point, matrix)
    np.testing.assert_allclose(pixel, project_by_hand(point, matrix), rtol=1e-12, atol=1e-9)
    assert z == point[2]


@given(intrinsics(), points_in_front, st.floats(0.1, 4), st.floats(0.1, 4))
def test_a_resize_keeps_the_outer_edges(matrix, point, scale_x, scale_y):
    before = project_by_hand(point, matrix)
    after = project_by_hand(point, scale_intrinsics(matrix, scale_x, scale_y))
    np.testing.assert_allclose(after, (before + 0.5) * [scale_x, scale_y] - 0.5, rtol=1e-9, atol=1e-7)


def test_halving_averages_pixel_pairs():
    # pixels 0 and 1 merge into pixel 0, whose centre lies at 0.5 of the old picture
    assert scale_intrinsics([[10, 0, 0.5], [0, 10, 2.5], [0, 0, 1]], 0.5, 0.5)[:2, 2].tolist() == [0.0, 1.0]


@given(intrinsics(), points_in_front, st.integers(-20, 200), st.integers(-20, 200))
def test_a_crop_shifts_pixels(matrix, point, left, top):
    before = project_by_hand(point, matrix)
    after = project_by_hand(point, crop_intrinsics(matrix, left, top))
    np.testing.assert_allclose(after, before - [left, top], rtol=1e-9, atol=1e-7)


@given(intrinsics(), points_in_front)
def test_a_mirror_takes_column_x_to_width_minus_one_minus_x(matrix, point):
    flipped = flip_intrinsics(matrix, 640)
    before = project_by_hand(point, matrix)
    after = project_by_hand(point * [-1, 1, 1], flipped)
    np.testing.assert_allclose(after, [639 - before[0], before[1]], rtol=1e-9, atol=1e-7)
    assert flipped[0, 0] > 0


def test_rays_and_projection_undo_each_other():
    depth = np.random.default_rng(0).uniform(0.5, 9, (12, 17))
    points = unproject(depth, pinhole_rays(K, 12, 17))
    pixels, z = project(points, K)
    np.testing.assert_allclose(z, depth, rtol=1e-15)
    np.testing.assert_allclose(pixels[..., 0], np.tile(np.arange(17), (12, 1)), atol=1e-10)
    np.testing.assert_allclose(pixels[..., 1], np.tile(np.arange(12)[:, None], (1, 17)), atol=1e-10)


def test_nothing_behind_the_camera_is_projected():
    pixels, z = project([[0, 0, -1.0], [0, 0, 0], [0, 0, np.nan], [0, 0, 2]], K)
    assert np.isnan(pixels[:3]).all()
    assert pixels[3].tolist() == [310, 250]
    assert z[[0, 1, 3]].tolist() == [-1, 0, 2]


def test_the_field_of_view_spans_the_outer_edges():
    matrix = field_of_view_intrinsics(100, 200, 90)
    edges = pinhole_rays(crop_intrinsics(matrix, -0.5, 0), 1, 201)[0, [0, 200], 0]
    np.testing.assert_allclose(edges, [-1, 1], atol=1e-12)
    assert matrix[1, 2] == 49.5
    with pytest.raises(ValueError, match="field of view"):
        field_of_view_intrinsics(10, 10, 180)


def test_poses():
    rng = np.random.default_rng(3)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(rng=rng).as_matrix()
    pose[:3, 3] = [1, -2, 3]
    points = rng.standard_normal((5, 6, 3))
    moved = transform_points(points, pose)
    np.testing.assert_allclose(moved[2, 3], pose[:3, :3] @ points[2, 3] + pose[:3, 3], atol=1e-14)
    np.testing.assert_allclose(transform_points(moved, invert_pose(pose)), points, atol=1e-14)


@pytest.mark.parametrize("bad", [np.diag([2.0, 2, 2, 1]), np.diag([-1.0, 1, 1, 1]), np.full((4, 4), np.nan)])
def test_a_pose_that_is_not_rigid_is_refused(bad):
    with pytest.raises(ValueError, match="rotation"):
        invert_pose(bad)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="3 x 3 matrix, got shape \\(3, 4\\)"):
        pinhole_rays(np.zeros((3, 4)), 2, 2)
    with pytest.raises(ValueError, match="invertible"):
        pinhole_rays(np.zeros((3, 3)), 2, 2)
    with pytest.raises(ValueError, match="rays of shape"):
        unproject(np.zeros((2, 3)), np.zeros((3, 2, 3)))


def test_a_centred_hypersim_camera_is_a_pinhole():
    height, width, focal = 96, 128, 110.85
    matrix = np.diag([width / (2 * focal), height / (2 * focal), -1])
    pinhole = [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
    np.testing.assert_allclose(
        hypersim_rays(matrix, height, width), pinhole_rays(pinhole, height, width), rtol=1e-13, atol=1e-15
    )


def test_a_hypersim_matrix_in_other_axes_is_refused():
    with pytest.raises(ValueError, match="forward"):
        hypersim_rays(np.diag([1.0, 1, 1]), 4, 4)


@pytest.mark.real
@pytest.mark.skipif(not HYPERSIM_CSV.exists(), reason="real sample files are not here")
def test_real_hypersim_rays_agree_with_the_projection_matrix_of_the_same_scene():
    """M_proj is a second, independent statement of each camera: a point on a pixel's ray must project to that pixel."""
    with HYPERSIM_CSV.open() as stream:
        rows = {row["scene_name"]: row for row in csv.DictReader(stream)}
    for scene in ("ai_001_001", "ai_037_002", "ai_021_002"):
        row = rows[scene]
        from_uv = np.array([[float(row[f"M_cam_from_uv_{i}{j}"]) for j in range(3)] for i in range(3)])
        projection = np.array([[float(row[f"M_proj_{i}{j}"]) for j in range(4)] for i in range(4)])
        rays = hypersim_rays(from_uv, 6, 8) * [1, -1, -1]  # right-up-back, as M_proj wants
        clip = np.concatenate([rays, np.ones((6, 8, 1))], -1) @ projection.T
        ndc = clip[..., :2] / clip[..., 3:]
        np.testing.assert_allclose(ndc[..., 0], np.tile((2 * np.arange(8) + 1) / 8 - 1, (6, 1)), atol=1e-6)
        np.testing.assert_allclose(ndc[..., 1], np.tile(1 - (2 * np.arange(6)[:, None] + 1) / 6, (1, 8)), atol=1e-6)


def test_depth_from_distance():
    rays = pinhole_rays(K, 5, 6)
    depth = np.random.default_rng(1).uniform(1, 3, (5, 6))
    distance = np.linalg.norm(unproject(depth, rays), axis=-1)
    np.testing.assert_allclose(depth_from_distance(distance.astype(np.float16), rays), depth, rtol=1e-3)
    np.testing.assert_allclose(depth_from_distance(distance, rays), depth, rtol=1e-14)
