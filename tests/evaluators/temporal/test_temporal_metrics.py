"""The formulas against closed forms and plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ncbench.errors import ScoreError
from ncbench.evaluators.temporal.metrics import (
    CHARGES,
    accel_error,
    charged,
    dtheta_error,
    opw_error,
    rc_error,
    rotation_between,
    tge_error,
)
from ncbench.evaluators.temporal.tracks import CHARGED_SQUARES, TrackSums, bias_flicker, sample

angles = st.floats(0.1, 60)
axes = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1)


def sphere(count=20_000):
    """Directions spread evenly over the sphere (Fibonacci's spiral)."""
    k = np.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, math.pi * (1 + math.sqrt(5)) * k
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=-1)


def rotation(axis, degrees):
    return Rotation.from_rotvec(np.radians(degrees) * np.asarray(axis) / np.linalg.norm(axis)).as_matrix()


def drawn(rng, *shape):
    vectors = rng.normal(size=(*shape, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(axes, angles)
def test_opw_of_the_truth_under_rotation_is_half_the_row_lengths(axis, degrees):
    """Each component of (R - I) n is uniform within plus or minus the row's length when n is uniform."""
    turned, n = rotation(axis, degrees), sphere()
    expected = np.linalg.norm(turned - np.eye(3), axis=1).sum() / 2
    assert opw_error(n, n @ turned.T).mean() == pytest.approx(expected, rel=2e-3)


def test_vectors_of_different_shapes_are_refused():
    with pytest.raises(ScoreError, match="one shape"):
        opw_error(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(ScoreError, match="one shape"):
        rc_error(np.zeros((4, 2)), np.zeros((4, 2)), np.eye(3))


def test_opw_sums_over_the_components_and_does_not_normalise():
    assert opw_error(np.array([0.1, -0.2, 0.3]), np.array([0.0, 0.2, 0.0])) == pytest.approx(0.8)


@settings(max_examples=30, deadline=None)
@given(axes, angles)
def test_rc_takes_the_rotation_out_and_ignores_lengths(axis, degrees):
    turned, n = rotation(axis, degrees), sphere(500)
    seen = 0.3 * n @ turned  # the other camera's axes: R^T n
    assert rc_error(n, seen, turned).max() < 1e-6
    tilt = rotation((1, 2, 3), 7.0)
    across = np.cross(n, (1, 2, 3))
    expected = np.degrees(2 * np.arcsin(np.sin(np.radians(3.5)) * np.linalg.norm(across, axis=1) / np.sqrt(14)))
    np.testing.assert_allclose(rc_error(n @ tilt.T, seen, turned), expected, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(axes, angles, axes, angles, axes, angles)
def test_tge_of_two_global_rotations(axis_a, angle_a, axis_b, angle_b, camera_axis, camera_angle):
    """|(A - B) n| averages to 2 sin(phi / 2) pi / 4 over the sphere, phi the angle of B^T A; the camera drops out."""
    a, b, camera = rotation(axis_a, angle_a), rotation(axis_b, angle_b), rotation(camera_axis, camera_angle)
    n = sphere()
    other = n @ camera  # the truth as camera k + 1 sees it
    # B acts in the axes of camera k, so that camera k + 1 sees R^T B n
    got = tge_error(n @ a.T, n @ b.T @ camera, n, other, camera).mean()
    phi = Rotation.from_matrix(b.T @ a).magnitude()
    assert got == pytest.approx(math.degrees(2 * math.sin(phi / 2) * math.pi / 4), rel=2e-3, abs=1e-9)


def test_tge_of_the_truth_and_of_an_error_carried_with_the_surface_is_zero():
    rng = np.random.default_rng(0)
    n, camera = drawn(rng, 100), rotation((1, 0, 2), 20)
    wrong = drawn(rng, 100)
    assert tge_error(n, n @ camera, n, n @ camera, camera).max() < 1e-12
    assert tge_error(wrong, wrong @ camera, n, n @ camera, camera).max() < 1e-12


def test_dtheta_sees_a_change_of_size_but_not_of_side():
    n = np.array([[0.0, 0.0, -1.0]])
    right, left, far = (n @ rotation((0, 1, 0), degrees).T for degrees in (10, -10, 25))
    assert dtheta_error(right, left, n, n) == pytest.approx(0, abs=1e-9)
    assert dtheta_error(right, far, n, n) == pytest.approx(15)


@settings(max_examples=30, deadline=None)
@given(angles)
def test_accel_of_a_steady_turn_and_of_a_jitter(degrees):
    turn, n = rotation((0, 1, 0), degrees), np.array([[0.0, 0.0, -1.0]])
    steady = accel_error(n, n @ turn.T, np.eye(3), n @ turn, np.eye(3))
    assert steady == pytest.approx(math.degrees(2 - 2 * math.cos(math.radians(degrees))))
    jitter = accel_error(n, n @ turn.T, np.eye(3), n @ turn.T, np.eye(3))
    assert jitter == pytest.approx(math.degrees(4 * math.sin(math.radians(degrees) / 2)))
    compensated = accel_error(n, n @ turn, turn, n @ turn.T, turn.T)
    assert compensated == pytest.approx(0, abs=1e-9)


def test_rotation_between_takes_axes_of_b_to_those_of_a():
    pose_a, pose_b = np.eye(4), np.eye(4)
    pose_a[:3, :3], pose_b[:3, :3] = rotation((1, 2, 3), 40), rotation((0, 1, -1), 70)
    world = np.array([0.3, -0.5, 0.8])
    in_a, in_b = pose_a[:3, :3].T @ world, pose_b[:3, :3].T @ world
    np.testing.assert_allclose(rotation_between(pose_a, pose_b) @ in_b, in_a)


def test_no_answer_costs_what_guessing_anew_in_every_frame_costs():
    rng = np.random.default_rng(1)
    n, (u, v, w), camera = sphere(), drawn(rng, 3, 20_000), rotation((3, 1, 2), 33)
    guessing = {
        "opw": opw_error(u, v),
        "rc_deg": rc_error(u, v, camera),
        "tge_deg": tge_error(u, v, n, n @ camera, camera),
        "dtheta_deg": dtheta_error(u, v, n, n @ camera),
        "accel_deg": accel_error(u, v, camera, w, camera.T),
    }
    assert guessing.keys() == CHARGES.keys()
    for name, errors in guessing.items():
        assert errors.mean() == pytest.approx(CHARGES[name], abs=4 * errors.std() / math.sqrt(len(n))), name
    sums = TrackSums(20_000)
    for _ in range(12):
        sums.add(drawn(rng, 20_000) - n)
    np.testing.assert_allclose(sums.squares(np.ones(20_000, bool)), CHARGED_SQUARES, atol=0.02)


@pytest.mark.parametrize("nothing", [0.0, np.nan])
def test_a_vector_without_direction_is_nan_and_then_charged(nothing):
    n, none = np.array([[0.0, 0.0, -1.0]]), np.full((1, 3), nothing)
    for errors in (rc_error(none, n, np.eye(3)), tge_error(n, none, n, n, np.eye(3)), dtheta_error(none, n, n, n)):
        assert charged(errors, 90.0) == 90.0


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_the_split_agrees_with_its_definition(frames, tracks, seed):
    errors = np.random.default_rng(seed).normal(0, 0.2, (frames, tracks, 3)) + 0.3
    mse = (errors**2).sum(-1).mean()
    spread = ((errors - errors.mean(0)) ** 2).sum(-1).mean()
    flicker = spread * frames / (frames - 1)
    fast = (np.diff(errors, axis=0) ** 2).sum(-1).mean() / 2
    expected = np.degrees(np.sqrt([mse, max(mse - flicker, 0), flicker, fast]))
    np.testing.assert_allclose(list(bias_flicker(errors).values()), expected, atol=1e-5)


def test_white_flicker_leaves_no_bias_however_short_the_tracks():
    rng = np.random.default_rng(2)
    for frames in (2, 3, 12):
        sums = TrackSums(50_000)
        for _ in range(frames):
            sums.add(rng.normal(0, 0.05, (50_000, 3)))
        squares = sums.squares(np.ones(50_000, bool))
        np.testing.assert_allclose(squares, [0.0075, 0, 0.0075, 0.0075], atol=3e-4)


def test_a_drift_is_flicker_that_is_not_fast():
    ramp = np.linspace(-0.2, 0.2, 12)[:, None, None] * np.array([1.0, 0, 0])
    values = bias_flicker(ramp)
    assert values["bfd_fast"] < 0.3 * values["bfd_flicker"]


def test_tracks_without_an_answer_are_charged_and_dead_ones_are_not_counted():
    sums = TrackSums(3)
    for _ in range(4):
        sums.add(np.array([[0.0, 0, 0], [np.nan] * 3, [1.0, 0, 0]]))
    np.testing.assert_allclose(sums.squares(np.array([True, True, False])), CHARGED_SQUARES / 2)
    assert np.isnan(sums.squares(np.zeros(3, bool))).all()


def test_one_frame_has_no_flicker():
    with pytest.raises(ScoreError, match="at least two frames"):
        bias_flicker(np.zeros((1, 5, 3)))


def test_sampling_between_pixels():
    image = np.arange(12.0).reshape(3, 4, 1) ** 2
    image[0, 3] = np.nan
    at = np.array([[1.0, 1.0], [0.5, 0.25], [3.0, 2.0], [2.5, 0.0], [2.0, 0.0]])
    expected = [25.0, 0.75 * 0.5 * (0 + 1) + 0.25 * 0.5 * (16 + 25), 121.0, np.nan, 4.0]
    np.testing.assert_allclose(sample(image, at)[:, 0], expected)
