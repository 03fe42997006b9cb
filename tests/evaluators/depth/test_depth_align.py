"""The streaming fit against numpy's least squares over the stacked video."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.errors import ScoreError
from ncbench.evaluators.depth.align import Alignment, Moments, aligned_depth, predicted_disparity, solve


def stacked_fit(pred, target):
    """Independent reference: one matrix for the whole video, as the published code builds it."""
    return np.linalg.lstsq(np.stack([pred, np.ones_like(pred)], -1), target, rcond=None)[0]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
    st.floats(-3, 3),
    st.sampled_from([0.0, 1.0, 100.0, 1e5]),
)
def test_chunks_fit_like_the_whole(seed, lengths, scale, offset):
    rng = np.random.default_rng(seed)
    lengths = [*lengths, 5]
    chunks = [rng.normal(size=length) + offset for length in lengths]
    targets = [scale * (chunk - offset) + 0.3 * rng.normal(size=chunk.size) + 2 for chunk in chunks]
    moments = Moments()
    for chunk, target in zip(chunks, targets, strict=True):
        moments += Moments.of(chunk, target)
    fit = solve(moments, "affine")
    # the reference is fitted about the offset, where its matrix is well conditioned
    pred, target = np.concatenate(chunks), np.concatenate(targets)
    expected_scale, about = stacked_fit(pred - offset, target)
    assert moments.count == pred.size
    assert fit.scale == pytest.approx(expected_scale, rel=1e-7, abs=1e-7)
    np.testing.assert_allclose(fit.scale * pred + fit.shift, expected_scale * (pred - offset) + about, atol=1e-6)


def test_the_order_of_chunks_does_not_matter():
    rng = np.random.default_rng(0)
    parts = [Moments.of(rng.random(size), rng.random(size)) for size in (3, 50, 0, 7)]
    forward = sum(parts, Moments())
    backward = sum(reversed(parts), Moments())
    assert solve(forward, "affine").scale == pytest.approx(solve(backward, "affine").scale, rel=1e-12)


def test_scale_alone_is_the_projection():
    rng = np.random.default_rng(1)
    pred, target = rng.random(100) + 5, rng.random(100)
    moments = Moments.of(pred[:30], target[:30]) + Moments.of(pred[30:], target[30:])
    fit = solve(moments, "scale")
    assert fit.scale == pytest.approx(np.linalg.lstsq(pred[:, None], target, rcond=None)[0][0], rel=1e-12)
    assert fit.shift == 0


@pytest.mark.parametrize("value", [0.0, 0.1, 7.3, 1e6])
def test_a_constant_becomes_the_mean(value):
    """numpy's answer of least norm predicts the same value."""
    target = np.array([0.2, 0.5, 0.8, 0.1])
    pred = np.full(4, value)
    fit = solve(Moments.of(pred[:1], target[:1]) + Moments.of(pred[1:], target[1:]), "affine")
    scale, shift = stacked_fit(pred, target)
    assert fit == Alignment(0.0, pytest.approx(0.4))
    assert scale * value + shift == pytest.approx(0.4)


def test_no_pixel_is_an_error():
    with pytest.raises(ScoreError, match="no pixel to fit"):
        solve(Moments() + Moments.of(np.empty(0), np.empty(0)), "affine")


def test_what_counts_as_an_answer():
    pred = np.array([[0.5, 0.0, -2.0], [math.nan, math.inf, 1e-9]], np.float32)
    disparity, answered = predicted_disparity(pred, "disparity")
    np.testing.assert_array_equal(answered, [[True, True, True], [False, False, True]])
    np.testing.assert_array_equal(disparity, [[0.5, 1e-3, 1e-3], [1e-3, 1e-3, 1e-3]])
    disparity, answered = predicted_disparity(pred, "depth")
    np.testing.assert_array_equal(answered, [[True, False, False], [False, False, True]])
    assert disparity[0, 0] == 2
    assert disparity[1, 2] == pytest.approx(1e9)


def test_aligned_depth_is_clipped_at_both_ends_and_far_without_an_answer():
    disparity = np.array([[0.5, 0.1, 0.9, 0.5, 2e4]])
    answered = np.array([[True, True, True, False, True]])
    depth = aligned_depth(disparity, answered, Alignment(2.0, -0.5), 10.0)
    np.testing.assert_allclose(depth, [[2, 10, 1 / 1.3, 10, 1e-3]])
