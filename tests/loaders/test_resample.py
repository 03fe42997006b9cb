import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.geometry.resize import resize_normals
from ncbench.loaders.resample import area_taps, linear_taps, resample_normals


def degrees(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1)))


def naive(normal, size):
    """Bilinear interpolation and normalisation, as most training code does it."""
    resized = cv2.resize(normal, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return resized / np.maximum(np.linalg.norm(resized, axis=-1, keepdims=True), 1e-6)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_shrinking_agrees_with_the_float64_reference(data):
    height, width = data.draw(st.integers(2, 12)), data.draw(st.integers(2, 12))
    size = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    normal = rng.normal(size=(height, width, 3))
    normal[..., 2] = -20 - abs(normal[..., 2])  # all within 30 degrees, so that direction leaves nothing out
    normal = (normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float32)
    valid = data.draw(hnp.arrays(np.bool_, (height, width)))
    normal[~valid] = 0
    depth = rng.choice(np.array([0, 1, 1.01, 2], np.float32), (height, width))
    for surfaces in (depth, None):
        found, kept = resample_normals(normal, valid, surfaces, size)
        expected, known = resize_normals(normal, valid, surfaces, size)
        np.testing.assert_array_equal(kept, known)
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("taps", [area_taps, linear_taps])
@pytest.mark.parametrize(("source", "target"), [(7, 3), (8, 4), (5, 5), (4, 1)])
def test_weights_sum_to_the_footprint(taps, source, target):
    first, weights, centres = taps(source, target)
    whole = source / target if taps is area_taps else 1
    np.testing.assert_allclose(weights.sum(axis=1), whole, rtol=1e-6)
    used = first[:, None] + np.arange(weights.shape[1])
    assert used[weights > 0].max() < source
    assert ((centres >= first) & (centres <= used.max(axis=1))).all()


def test_enlarging_interpolates_like_opencv_where_nothing_is_in_the_way():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(9, 11, 3)).astype(np.float32) * 0.1 - np.array([0, 0, 1], np.float32)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    found, kept = resample_normals(normal, np.ones((9, 11), bool), None, (16, 23))
    np.testing.assert_allclose(found, naive(normal, (16, 23)), atol=1e-4)  # OpenCV rounds its weights
    assert kept.all()


@pytest.mark.parametrize("size", [(60, 80), (90, 120), (102, 136), (150, 200), (180, 240)])
@pytest.mark.parametrize("kind", ["room", "objects", "outdoor"])
def test_nearer_to_the_analytic_truth_than_naive_bilinear(kind, size):
    """The truth at the new size is rendered there; from 120 x 160 down and up."""
    before = render_frame(make_scene(kind, 3, 1, 120, 160), 0)
    truth = render_frame(make_scene(kind, 3, 1, *size), 0)
    normal = before.normal.astype(np.float32)
    ours, kept = resample_normals(normal, before.valid, before.depth.astype(np.float32), size)
    both = kept & truth.valid
    error, rival = degrees(ours, truth.normal)[both], degrees(naive(normal, size), truth.normal)[both]
    for invented in (1, 5, 11.25):
        assert (error > invented).mean() < 0.75 * (rival > invented).mean()
    if size != (60, 80):  # half: the centre lies between four pixels, and the lower right one's surface is taken
        assert error.mean() < rival.mean()
    assert (kept != truth.valid).mean() < 0.02
    np.testing.assert_allclose(np.linalg.norm(ours[kept], axis=-1), 1, atol=1e-6)
    assert (ours[~kept] == 0).all()


def test_nothing_bleeds_across_a_mask_or_a_depth_edge():
    left, right = np.array([0, 0, -1], np.float32), np.array([0.28, 0, -0.96], np.float32)
    normal = np.tile(left, (8, 9, 1))
    normal[:, 4:] = right
    depth = np.where(np.arange(9) < 4, 1, 3).astype(np.float32) * np.ones((8, 1), np.float32)
    for size in ((5, 7), (12, 17)):
        found, kept = resample_normals(normal, np.ones((8, 9), bool), depth, size)
        assert kept.all()
        assert {tuple(np.round(vector.astype(np.float64), 5)) for vector in found.reshape(-1, 3)} == {
            (0, 0, -1),
            (0.28, 0, -0.96),
        }
        hidden = normal.copy()
        hidden[:, 4:] = 0
        found, kept = resample_normals(hidden, depth < 2, None, size)
        np.testing.assert_allclose(found[kept], np.broadcast_to(left, found[kept].shape), atol=1e-6)


def test_the_two_walls_of_a_corner_stay_two():
    normal = np.tile(np.array([0.8, 0, -0.6], np.float32), (6, 9, 1))
    normal[:, 4:] = np.array([-0.8, 0, -0.6], np.float32)
    for size in ((4, 6), (9, 14)):
        found, _ = resample_normals(normal, np.ones((6, 9), bool), None, size)
        np.testing.assert_allclose(abs(found), np.broadcast_to([0.8, 0, 0.6], found.shape), atol=1e-6)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="expected normals"):
        resample_normals(np.zeros((2, 3, 3), np.float32), np.ones((2, 2), bool), None, (1, 1))
    with pytest.raises(ValueError, match="at least 1 pixel"):
        resample_normals(np.zeros((2, 2, 3), np.float32), np.ones((2, 2), bool), None, (0, 1))
