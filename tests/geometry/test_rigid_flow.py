"""Flow and occlusion against closed forms, ray-cast scenes and a real pair of frames."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.rigid_flow import occluded_by_depth, rigid_flow
from ncbench.geometry.warp import backward_warp

ICL = Path(__file__).resolve().parents[2].parent / "shared" / "real" / "icl_nuim_slambook"
HEIGHT, WIDTH = 48, 64
K = np.array([[60.0, 0, 30], [0, 55, 25], [0, 0, 1]])
RAYS = pinhole_rays(K, HEIGHT, WIDTH)
COLUMNS, ROWS = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))


def pose(rotation=(0, 0, 0), translation=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def test_a_camera_at_rest_sees_no_flow():
    depth = np.random.default_rng(0).uniform(1, 5, (HEIGHT, WIDTH))
    where = pose((0.3, -0.2, 0.5), (3, 2, 1))
    flow, z = rigid_flow(depth, K, where, where, K)
    assert flow.dtype == z.dtype == np.float32
    np.testing.assert_allclose(flow, 0, atol=1e-5)
    np.testing.assert_allclose(z, depth, rtol=1e-6)
    assert not occluded_by_depth(depth, flow, z).any()


def test_sideways_in_front_of_a_wall():
    """u = -f t / z everywhere."""
    flow, z = rigid_flow(np.full((HEIGHT, WIDTH), 2.5), K, pose(), pose(translation=(0.2, -0.1, 0)), K)
    np.testing.assert_allclose(flow, np.broadcast_to([-60 * 0.2 / 2.5, 55 * 0.1 / 2.5], flow.shape), rtol=1e-6)
    np.testing.assert_array_equal(z, np.float32(2.5))


def test_forward_to_a_wall_expands_from_the_principal_point():
    flow, z = rigid_flow(np.full((HEIGHT, WIDTH), 2.0), K, pose(), pose(translation=(0, 0, 0.5)), K)
    expected = np.stack([COLUMNS - 30, ROWS - 25], -1) * (2.0 / 1.5 - 1)
    np.testing.assert_allclose(flow, expected, atol=1e-5)
    np.testing.assert_allclose(z, 1.5, rtol=1e-7)


def test_a_pure_rotation_is_a_homography():
    """x_b ~ K_b R_b^T R_a K_a^-1 x_a whatever the depth."""
    depth = np.random.default_rng(1).uniform(0.5, 20, (HEIGHT, WIDTH))
    a, b = pose((0.1, 0.2, -0.1), (5, 6, 7)), pose((0.15, 0.12, -0.05), (5, 6, 7))
    other = np.array([[80.0, 0.5, 33], [0, 82, 20], [0, 0, 1]])
    flow, _ = rigid_flow(depth, K, a, b, other)
    homography = other @ b[:3, :3].T @ a[:3, :3] @ np.linalg.inv(K)
    pixels = np.stack([COLUMNS, ROWS, np.ones_like(ROWS)], -1) @ homography.T
    np.testing.assert_allclose(flow, pixels[..., :2] / pixels[..., 2:] - np.stack([COLUMNS, ROWS], -1), atol=1e-4)


small = st.floats(-0.15, 0.15)


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(small, small, small),
    st.tuples(small, small, small),
    st.tuples(small, small, small),
    st.floats(40, 120),
    st.floats(25, 35),
)
def test_a_plane_seen_by_random_cameras(rotation, translation, tilt, focal, centre):
    """A plane induces the homography K_b (R - t n^T / d) K_a^-1, and going back undoes the flow."""
    other = np.array([[focal, 0, centre], [0, focal, 24], [0, 0, 1]])
    a, b = pose((0.4, -1, 0.3), (1, 2, 3)), pose((0.4, -1, 0.3), (1, 2, 3)) @ pose(rotation, translation)
    normal = np.array([tilt[0], tilt[1], -1.0])
    depth = 2 / -(RAYS @ normal)  # the plane n . p = -2
    flow, z = rigid_flow(depth, RAYS, a, b, other)
    b_from_a = np.linalg.inv(b) @ a
    homography = other @ (b_from_a[:3, :3] - np.outer(b_from_a[:3, 3], normal) / 2) @ np.linalg.inv(K)
    pixels = np.stack([COLUMNS, ROWS, np.ones_like(ROWS)], -1) @ homography.T
    expected = pixels[..., :2] / pixels[..., 2:] - np.stack([COLUMNS, ROWS], -1)
    np.testing.assert_allclose(flow, expected, atol=2e-3, rtol=1e-5)

    # a camera b whose pixels are those that frame a lands on returns each point to where it came from
    landed = np.concatenate([np.stack([COLUMNS, ROWS], -1) + flow.astype(np.float64), np.ones((HEIGHT, WIDTH, 1))], -1)
    back, z_back = rigid_flow(z, landed @ np.linalg.inv(other).T, b, a, K)
    arrived = back.astype(np.float64) + np.stack([COLUMNS, ROWS], -1)
    np.testing.assert_allclose(arrived, np.stack([COLUMNS, ROWS], -1), atol=2e-3)
    np.testing.assert_allclose(z_back, depth, rtol=1e-4)


def test_a_round_trip_through_warping():
    """Flow a to b plus flow b to a sampled there is zero, away from the picture's border."""
    normal = np.array([0.2, -0.4, -1.0])
    a, b = pose(), pose((0.02, 0.03, -0.05), (0.05, 0.02, -0.03))
    depth_a = 2 / -(RAYS @ normal)
    normal_b = normal @ b[:3, :3]
    depth_b = (2 + normal @ b[:3, 3]) / -(RAYS @ normal_b)
    there, z = rigid_flow(depth_a, K, a, b, K)
    back, _ = rigid_flow(depth_b, K, b, a, K)
    returned, inside = backward_warp(back, there)
    assert inside.mean() > 0.8
    assert np.abs(there + returned)[inside].max() < 0.02  # bilinear interpolation of a projective map
    occluded = occluded_by_depth(depth_b, there, z, tolerance=1e-4)
    np.testing.assert_array_equal(occluded, ~inside)


def test_unknown_and_behind():
    depth = np.full((HEIGHT, WIDTH), 2.0)
    depth[3, 4], depth[5, 6], depth[7, 8] = 0, np.nan, -1
    flow, z = rigid_flow(depth, K, pose(), pose(), K)
    unknown = np.zeros(depth.shape, bool)
    unknown[[3, 5, 7], [4, 6, 8]] = True
    np.testing.assert_array_equal(np.isnan(flow).all(-1), unknown)
    np.testing.assert_array_equal(np.isnan(z), unknown)
    np.testing.assert_array_equal(occluded_by_depth(np.full(depth.shape, 2.0), flow, z), unknown)
    flow, z = rigid_flow(depth, K, pose(), pose(translation=(0, 0, 3)), K)
    assert np.isnan(flow).all()
    assert np.isnan(z).all()


def test_moving_objects():
    """Object 7 moves by its own; object 9 has no motion and stands still; the camera moves too."""
    depth = np.full((HEIGHT, WIDTH), 2.0)
    ids = np.zeros((HEIGHT, WIDTH), np.int32)
    ids[10:20, 10:20], ids[30:40, 30:40] = 7, 9
    a = pose((0, 0, 0), (0, 0, 1))
    b = pose((0, 0, 0), (0.1, 0, 1))
    turn = pose((0, 0, 0.2), (0.3, 0.1, -0.2))
    flow, z = rigid_flow(depth, K, a, b, K, ids, {7: turn, 8: pose(translation=(9, 9, 9))})
    still = np.broadcast_to([-60 * 0.1 / 2, 0], flow.shape)
    np.testing.assert_allclose(flow[ids != 7], still[ids != 7], atol=1e-5)
    for y, x in [(10, 10), (15, 18)]:
        world = turn @ a @ [*(2 * RAYS[y, x]), 1]
        in_b = (world - b[:, 3])[:3]
        pixel = K @ in_b / in_b[2]
        np.testing.assert_allclose(flow[y, x], pixel[:2] - [x, y], atol=1e-5)
        np.testing.assert_allclose(z[y, x], 1.8, rtol=1e-6)


def cast(camera, centre=(0, 0, 2), radius=0.4, wall=4.0):
    """Depth of a sphere in front of the plane z = wall, seen by a camera that only translates."""
    offset = np.asarray(centre) - camera[:3, 3]
    along, squared = RAYS @ offset, (RAYS**2).sum(-1)
    root = along**2 - squared * (offset @ offset - radius**2)
    hit = root > 0
    return np.where(hit, (along - np.sqrt(np.maximum(root, 0))) / squared, wall - camera[2, 3]), hit


def test_a_sphere_hides_part_of_a_wall():
    a, b = pose(), pose(translation=(0.5, 0.1, 0.2))
    (depth_a, _), (depth_b, ball_b) = cast(a), cast(b)
    flow, z = rigid_flow(depth_a, K, a, b, K)
    occluded = occluded_by_depth(depth_b, flow, z)

    # closed form: walk from the point towards camera b and see whether the sphere is in the way
    points = depth_a[..., None] * RAYS
    towards = b[:3, 3] - points
    offset = np.array([0, 0, 2.0]) - points
    closest = np.clip((offset * towards).sum(-1) / (towards**2).sum(-1), 0, 1)
    inside_sphere = np.linalg.norm(offset - closest[..., None] * towards, axis=-1) < 0.4 - 1e-9
    places = np.stack([COLUMNS, ROWS], -1) + flow
    outside = (places < 0).any(-1) | (places[..., 0] > WIDTH - 1) | (places[..., 1] > HEIGHT - 1)
    expected = inside_sphere | outside

    assert (inside_sphere & ~outside).sum() > 100
    # at the sphere's outline in b, where a sample straddles two surfaces, either answer is one of half a pixel
    outline = binary_dilation(ball_b) & binary_dilation(~ball_b)
    near_outline = backward_warp(outline.astype(np.float64), flow)[0] > 0
    differs = occluded != expected
    assert not (differs & ~near_outline).any()
    assert differs.mean() < 0.02
    # no pixel of the wall that is really hidden passes as visible
    assert not (inside_sphere & ~occluded & (depth_a == 4)).any()


def test_a_grazing_floor_does_not_hide_itself():
    """Depth of a floor changes by more than the tolerance from one row to the next near the horizon."""
    floor = np.where(RAYS[..., 1] > 0.03, 1.0 / np.maximum(RAYS[..., 1], 0.03), 0)
    flow, z = rigid_flow(floor, K, pose(), pose((0, 0.01, 0), (0.011, 0, 0.013)), K)
    camera_b = pose((0, 0.01, 0), (0.011, 0, 0.013))
    down_b = (RAYS @ camera_b[:3, :3].T)[..., 1]
    floor_b = np.where(down_b > 0.03, 1.0 / np.maximum(down_b, 0.03), 0)
    steepest = floor[:-1] / np.maximum(floor[1:], 1e-9)
    assert steepest[floor[:-1] > 0].max() > 1.2
    y, x = ROWS + flow[..., 1], COLUMNS + flow[..., 0]
    framed = (floor > 0) & (x >= 0) & (x <= WIDTH - 1) & (y <= HEIGHT - 1) & (down_b > 0.06)
    assert framed.sum() > 500
    assert not occluded_by_depth(floor_b, flow, z)[framed].any()


def test_a_sample_mixed_with_a_nearer_surface_counts_as_occluded_and_the_nearer_surface_itself_does_not():
    depth_b = np.full((4, 6), 4.0)
    depth_b[:, :3] = 2.0
    flow = np.zeros((4, 6, 2))
    flow[..., 0] = 0.5
    far = occluded_by_depth(depth_b, flow, np.full((4, 6), 4.0))
    near = occluded_by_depth(depth_b, flow, np.full((4, 6), 2.0))
    assert far[0].tolist() == [True, True, True, False, False, True]  # the last lands outside
    assert near[0].tolist() == [False, False, False, True, True, True]  # b shows the wall where the object was


def test_unknown_depth_of_b():
    depth_b = np.full((4, 6), 2.0)
    depth_b[1:3, 2:4] = [[0, np.nan], [-1, np.inf]]
    flow = np.full((4, 6, 2), 0.5)
    occluded = occluded_by_depth(depth_b, flow, np.full((4, 6), 2.0))
    assert occluded[1, 2]  # all four unknown
    assert not occluded[:-1, :-1][np.arange(15).reshape(3, 5) != 7].any()


def test_bad_arguments_are_named():
    depth = np.ones((HEIGHT, WIDTH))
    with pytest.raises(ValueError, match="both ids and motions"):
        rigid_flow(depth, K, pose(), pose(), K, ids=np.zeros((HEIGHT, WIDTH), int))
    with pytest.raises(ValueError, match="ids of shape"):
        rigid_flow(depth, K, pose(), pose(), K, np.zeros((2, 2), int), {})
    with pytest.raises(ValueError, match="expected depth"):
        rigid_flow(np.ones(3), K, pose(), pose(), K)
    with pytest.raises(ValueError, match="rotation"):
        rigid_flow(depth, K, pose(), 2 * np.eye(4), K)
    with pytest.raises(ValueError, match="rays of shape"):
        rigid_flow(depth, RAYS[:-1], pose(), pose(), K)
    with pytest.raises(ValueError, match=r"expected \(H, W\)"):
        occluded_by_depth(depth, np.zeros((2, 2, 2)), depth)


@pytest.mark.real
@pytest.mark.skipif(not ICL.exists(), reason="real sample files are not here")
def test_a_real_pair_of_frames_matches_after_warping():
    """ICL-NUIM frames 1 and 2 with exact poses; its camera has a negative fy (y up)."""
    matrix = np.array([[481.2, 0, 319.5], [0, -480.0, 239.5], [0, 0, 1]])
    pictures = [cv2.imread(str(ICL / "color" / f"{i}.png")).astype(np.float32) for i in (1, 2)]
    depth_a, depth_b = (cv2.imread(str(ICL / "depth" / f"{i}.png"), cv2.IMREAD_UNCHANGED) / 5000.0 for i in (1, 2))
    poses = []
    for line in (ICL / "pose.txt").read_text().splitlines()[:2]:
        values = np.array(line.split(), dtype=np.float64)
        matrix_44 = np.eye(4)
        matrix_44[:3, :3] = Rotation.from_quat(values[3:7]).as_matrix()
        matrix_44[:3, 3] = values[:3]
        poses.append(matrix_44)
    flow, z = rigid_flow(depth_a, matrix, poses[0], poses[1], matrix)
    visible = ~occluded_by_depth(depth_b, flow, z)
    warped, inside = backward_warp(pictures[1], flow)
    assert not (visible & ~inside).any()
    assert visible.mean() > 0.1
    assert np.abs(warped - pictures[0])[visible].mean() < 3
    assert np.abs(pictures[1] - pictures[0])[visible].mean() > 20
    hidden = inside & ~visible
    assert np.abs(warped - pictures[0])[hidden].mean() > 2 * np.abs(warped - pictures[0])[visible].mean()
