"""Resizing of maps against exact references: replicated pixels for the footprints, a renderer for the geometry."""

import math
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.geometry.cameras import pinhole_rays, scale_intrinsics
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.geometry.resize import fit_within, resize_flow, resize_nearest, resize_normals

ROUNDING = math.degrees(4e-7)  # two float32 unit vectors


def degrees(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1)))


def rendered(kind, height, width, seed=0):
    return render_frame(make_scene(kind, seed, 2, height, width), 0)


def blocks(values, times):
    """(H, W, ...) -> (H / times, W / times, times * times, ...)."""
    height, width = (side // times for side in values.shape[:2])
    cut = values.reshape(height, times, width, times, *values.shape[2:]).swapaxes(1, 2)
    return cut.reshape(height, width, times * times, *values.shape[2:])


def by_replication(normal, valid, depth, size):
    """The definition, on a grid so fine that every footprint is whole cells; weights are counts."""
    height, width = valid.shape
    fine = [
        np.repeat(np.repeat(part, size[0], axis=0), size[1], axis=1)
        for part in (normal.astype(np.float64), valid, depth)
    ]
    resized, kept = np.zeros((*size, 3)), np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            place = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
            n, v, d = (part[place] for part in fine)
            y = math.floor((row + Fraction(1, 2)) * height / size[0])
            x = math.floor((column + Fraction(1, 2)) * width / size[1])
            centre = depth[y, x]
            unknown = (d <= 0) | (centre <= 0)
            use = v & (unknown | (np.abs(d - centre) < 0.05 * centre))
            total = n[use].sum(axis=0)
            length = np.linalg.norm(total)
            if 2 * v.sum() >= v.size and use.any() and length > 1e-3 * use.sum():
                resized[row, column], kept[row, column] = total / length, True
    return resized, kept


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 11),
    st.integers(1, 11),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_any_sizes_against_the_definition(height, width, new_height, new_width, seed, has_depth):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(height, width, 3))
    normal[..., 2] = -1 - np.abs(normal[..., 2])  # never cancelling, where rounding would decide
    normal = (normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float32)
    valid = rng.random((height, width)) < 0.7
    depth = rng.choice([0, 1, 1.02, 2], size=(height, width)).astype(np.float32)
    size = (new_height, new_width)
    found, kept = resize_normals(normal, valid, depth if has_depth else None, size)
    wanted, wanted_kept = by_replication(normal, valid, depth if has_depth else depth * 0, size)
    np.testing.assert_array_equal(kept, wanted_kept)
    np.testing.assert_allclose(found, wanted, atol=3e-7)
    assert (found.dtype, kept.dtype) == (np.float32, np.bool_)
    same, same_kept = resize_normals(normal, valid, depth, (height, width))
    np.testing.assert_array_equal(same_kept, valid)
    np.testing.assert_allclose(same, np.where(valid[..., None], normal, 0), atol=2e-7)


def test_cancelling_normals_are_none():
    normal = np.array([[[1.0, 0, 0], [-1.0, 0, 0]]])
    found, kept = resize_normals(normal, np.ones((1, 2), bool), None, (1, 1))
    assert not kept.any()
    assert not found.any()


def test_nearest_takes_the_pixel_under_the_centre():
    line = np.arange(7)[None]
    np.testing.assert_array_equal(resize_nearest(line, (1, 3)), [[1, 3, 5]])  # centres 0.67, 3, 5.33
    np.testing.assert_array_equal(resize_nearest(line[:, :4], (1, 2)), [[1, 3]])  # ties fall to the right
    np.testing.assert_array_equal(resize_nearest(line[:, :2], (2, 4)), [[0, 0, 1, 1]] * 2)
    flow = np.array([[[4.0, 6.0], [np.nan, np.nan]]])
    found = resize_flow(np.repeat(flow, 3, axis=0), (1, 2))
    np.testing.assert_array_equal(found, [[[4.0, 2.0], [np.nan, np.nan]]])
    assert found.dtype == np.float32


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 4000))
def test_fit_within(height, width, longest):
    found = fit_within((height, width), longest)
    if max(height, width) <= longest:
        assert found == (height, width)
        return
    assert max(found) == longest
    for side, exact in zip(found, (height, width), strict=True):
        assert side == 1 or abs(side - Fraction(exact * longest, max(height, width))) <= Fraction(1, 2)


@pytest.mark.parametrize("kind", ["room", "objects", "outdoor"])
def test_half_size_agrees_with_a_direct_rendering(kind):
    full, half = rendered(kind, 96, 128), rendered(kind, 48, 64)
    found, kept = resize_normals(full.normal, full.valid, full.depth, (48, 64))
    four, ids = blocks(full.normal, 2), blocks(full.ids, 2)
    inside = (ids == half.ids[..., None]).all(axis=-1) & (half.ids > 0)
    # the direct normal lies amid the four around it, and so does their mean: both within the largest angle among them
    spread = np.max([degrees(four[..., a, :], four[..., b, :]) for a in range(4) for b in range(a)], axis=0)
    smooth = inside & (spread < 10)
    error = degrees(found, half.normal)
    assert kept[smooth].all()
    assert smooth.mean() > 0.4
    assert (error[smooth] <= spread[smooth] + ROUNDING).all()
    flat = inside & (spread < 1e-6)
    assert flat.mean() > 0.4
    assert error[flat].max() < ROUNDING


@pytest.mark.parametrize("kind", ["room", "objects", "outdoor"])
def test_beats_a_plain_mean_beside_edges(kind):
    full, third = rendered(kind, 144, 192), rendered(kind, 48, 64)  # of each nine pixels the middle one is the truth
    found, kept = resize_normals(full.normal, full.valid, full.depth, (48, 64))
    naive = cv2.resize(full.normal, (64, 48), interpolation=cv2.INTER_AREA)
    depth, sky = blocks(full.depth, 3), (blocks(full.ids, 3) == 0).any(axis=-1)
    jump = (np.abs(depth - depth[..., 4:5]) > 0.05 * depth[..., 4:5]).any(axis=-1)
    edge = (jump | sky) & kept & third.valid
    assert edge.sum() > 100
    # measured: 9.5 against 25.0 (room), 2.7 against 17.0 (objects), 4.7 against 18.2 degrees (outdoor)
    assert degrees(found, third.normal)[edge].mean() < 0.5 * degrees(naive, third.normal)[edge].mean()


@pytest.mark.parametrize("kind", ["room", "objects", "outdoor"])
def test_beats_bilinear_beside_edges(kind):
    """At a half the truth between four pixels may be any of them; a mixture of surfaces is none of them."""
    full = rendered(kind, 96, 128)
    found, kept = resize_normals(full.normal, full.valid, full.depth, (48, 64))
    naive = cv2.resize(full.normal, (64, 48), interpolation=cv2.INTER_LINEAR)
    four, depth, there = blocks(full.normal, 2), blocks(full.depth, 2), blocks(full.ids, 2) > 0
    edge = kept & (~there.all(axis=-1) | (np.ptp(depth, axis=-1) > 0.1 * depth.max(axis=-1)))
    assert edge.sum() > 80

    def made_up(normal):
        """Mean angle to the nearest true normal."""
        return np.where(there, degrees(four, normal[..., None, :]), 180).min(axis=-1)[edge].mean()

    # measured: 2.7 against 27.6 (room), 2.0 against 23.6 (objects), 2.6 against 21.5 degrees (outdoor)
    assert made_up(found) < 0.2 * made_up(naive)


@pytest.mark.parametrize(("times", "shift"), [(3, 0.0), (2, 0.25)])
def test_resized_depth_and_intrinsics_give_the_resized_normals(times, shift):
    full = rendered("room", 48 * times, 64 * times)
    size = (48, 64)
    found, kept = resize_normals(full.normal, full.valid, full.depth, size)
    depth = resize_nearest(full.depth, size)  # float64
    intrinsics = scale_intrinsics(full.intrinsics, 1 / times, 1 / times)
    intrinsics[:2, 2] -= shift  # even reductions sample half a source pixel to the lower right
    derived, known = normals_by_cross_product(depth, pinhole_rays(intrinsics, *size))
    flat = np.ptp(blocks(full.normal, times), axis=2).max(axis=-1) < 1e-9
    plane = resize_nearest(full.ids, size)
    alike = flat.copy()
    alike[1:-1, 1:-1] &= np.all(
        [
            (np.roll(plane, (dy, dx), (0, 1)) == plane) & (degrees(np.roll(found, (dy, dx), (0, 1)), found) < 1e-4)
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
        ],
        axis=0,
    )[1:-1, 1:-1]
    use = alike & known & kept
    assert use.mean() > 0.3
    assert degrees(found, derived)[use].max() < 2 * ROUNDING


def test_bad_shapes():
    normal, valid = np.zeros((2, 3, 3)), np.zeros((2, 3), bool)
    with pytest.raises(ValueError, match="expected normals"):
        resize_normals(normal, valid, np.zeros((3, 2)), (1, 1))
    with pytest.raises(ValueError, match="at least 1"):
        resize_normals(normal, valid, None, (0, 1))
    with pytest.raises(ValueError, match="at least 1"):
        resize_nearest(valid, (1, 0))
    with pytest.raises(ValueError, match="at least 1"):
        fit_within((0, 3), 3)
