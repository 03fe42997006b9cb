"""Each control has the error that its name promises, by closed form."""

import numpy as np
import pytest

from ncbench.errors import CardError, ModelError
from ncbench.models.base import Clip, Truth
from ncbench.models.controls import Bias, Blur, DepthOracle, Flicker, Frontal, Frozen

H, W, T = 24, 32, 5
K = np.array([[30.0, 0, (W - 1) / 2], [0, 30.0, (H - 1) / 2], [0, 0, 1]])


def angles(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def plane(slant_degrees):
    """A plane at 3 m in front, turned about the y axis: its exact normal and z-depth."""
    s = np.radians(slant_degrees)
    normal = np.array([np.sin(s), 0, -np.cos(s)])
    x = (np.arange(W) - K[0, 2]) / K[0, 0]
    y = (np.arange(H) - K[1, 2]) / K[1, 1]
    rays = np.stack(np.broadcast_arrays(x[None, :], y[:, None], np.ones((H, W))), -1)
    return normal, (normal @ [0, 0, 3.0]) / (rays @ normal)


def clip_of(slants, frames=None, source="analytic", invalid=None, depth=True):
    normals, depths = zip(*[plane(s) for s in slants], strict=True)
    normal = np.stack([np.broadcast_to(n, (H, W, 3)) for n in normals]).astype(np.float32)
    valid = np.ones((len(slants), H, W), bool)
    if invalid is not None:
        valid[:, invalid] = False
        normal[~valid] = 0
    truth = Truth(normal, valid, np.stack(depths).astype(np.float32) if depth else None, source)
    images = np.zeros((len(slants), H, W, 3), np.uint8)
    return Clip("s", tuple(frames or range(len(slants))), images, np.stack([K] * len(slants)), truth)


def test_frontal_is_off_by_the_slant():
    clip = clip_of([0, 20, 45])
    error = angles(Frontal({}).predict(clip).astype(float), clip.truth.normal.astype(float)).mean((1, 2))
    np.testing.assert_allclose(error, [0, 20, 45], atol=1e-4)


@pytest.mark.parametrize("source", ["analytic", "plane_fit"])
def test_depth_oracle_recovers_a_plane_by_the_other_method(source):
    clip = clip_of([30, -20], source=source)
    error = angles(DepthOracle({}).predict(clip).astype(float), clip.truth.normal.astype(float))
    assert error[:, 2:-2, 2:-2].max() < 0.02


def test_depth_oracle_answers_frontal_where_it_has_no_depth():
    clip = clip_of([30])
    clip.truth.depth[0, :8, :8] = 0
    np.testing.assert_array_equal(DepthOracle({}).predict(clip)[0, 2, 2], [0, 0, -1])


def test_depth_oracle_says_what_it_lacks():
    with pytest.raises(ModelError, match="'s' has no depth"):
        DepthOracle({}).predict(clip_of([30], depth=False))


def test_bias_is_one_rotation_for_all_frames():
    clip = clip_of([0, 30, 60])
    turned = Bias({"degrees": 10.0}).predict(clip).astype(float)
    truth = clip.truth.normal.astype(float)
    # one rotation matrix maps all three normals: distances between frames are kept
    np.testing.assert_allclose(angles(turned[0], turned[1]), angles(truth[0], truth[1]), atol=1e-4)
    error = angles(turned, truth)
    assert 0 < error.max() <= 10.0001
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), 1, atol=1e-6)


def test_flicker_is_a_new_axis_each_frame_and_pure_in_seed_sequence_and_frame():
    clip = clip_of([30] * T)
    model = Flicker({"degrees": 5.0})
    whole = model.predict(clip).astype(float)
    error = angles(whole, clip.truth.normal.astype(float))[:, 0, 0]
    assert error.max() <= 5.0001
    assert len(np.unique(error.round(4))) == T
    alone = model.predict(clip_of([30], frames=[3])).astype(float)
    np.testing.assert_array_equal(whole[3], alone[0])
    assert np.abs(Flicker({"degrees": 5.0, "seed": 1}).predict(clip) - whole).max() > 1e-3


def test_flicker_of_an_angle_is_on_average_that_angle_times_the_mean_sine():
    clip = clip_of([30] * 400)
    error = angles(Flicker({"degrees": 5.0}).predict(clip).astype(float), clip.truth.normal.astype(float))[:, 0, 0]
    # axis uniform on the sphere: E[sin] = pi / 4
    assert error.mean() == pytest.approx(5 * np.pi / 4, rel=0.05)


def test_blur_keeps_constants_and_ignores_invalid_pixels():
    clip = clip_of([25])
    blurred = Blur({"sigma_pixels": 3.0}).predict(clip).astype(float)
    assert angles(blurred, clip.truth.normal.astype(float)).max() < 1e-3
    hole = np.zeros((H, W), bool)
    hole[5:15, 5:20] = True
    blurred = Blur({"sigma_pixels": 3.0}).predict(clip_of([25], invalid=hole)).astype(float)
    assert angles(blurred, clip.truth.normal.astype(float)).max() < 1e-3


def test_frozen_repeats_the_first_frame_across_clips():
    first, second = clip_of([10, 20], frames=[0, 1]), clip_of([40], frames=[2])
    answers = list(Frozen({}).stream([first, second]))
    np.testing.assert_array_equal(answers[1][0], first.truth.normal[0])
    assert [len(a) for a in answers] == [2, 1]


@pytest.mark.parametrize("control", [Flicker, Bias])
def test_invalid_truth_is_filled_not_leaked(control):
    hole = np.zeros((H, W), bool)
    hole[:4] = True
    answer = control({"degrees": 5.0}).predict(clip_of([25], invalid=hole))
    assert np.linalg.norm(answer, axis=-1).min() > 0.99


def test_settings_are_checked():
    with pytest.raises(CardError, match="unknown key 'degree'"):
        Bias({"degree": 3})
    with pytest.raises(CardError, match="degrees"):
        Flicker({"degrees": -1})
    with pytest.raises(CardError, match="unknown key"):
        Frontal({"x": 1})
