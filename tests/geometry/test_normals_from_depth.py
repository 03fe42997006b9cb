"""Cross-product normals against exact planes, a sphere, and the points' own differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.geometry.cameras import field_of_view_intrinsics, hypersim_rays, pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product

SIZE = 21
RAYS = pinhole_rays(field_of_view_intrinsics(SIZE, SIZE, 60), SIZE, SIZE)
TILTED = hypersim_rays([[0.6, 0.02, 0.05], [0.01, 0.5, -0.04], [0.03, 0.1, -1]], SIZE, SIZE)
INNER = (slice(1, -1), slice(1, -1))


def angles(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


@settings(deadline=None, max_examples=50)
@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.floats(1e-3, 1e4), st.sampled_from(["pinhole", "tilted"]))
def test_exact_on_planes_for_any_camera(x, y, distance, camera):
    rays = RAYS if camera == "pinhole" else TILTED
    normal = np.array([x, y, -1.6])
    normal /= np.linalg.norm(normal)
    slope = rays @ normal
    depth = np.where(slope < -1e-2, -distance / np.minimum(slope, -1e-2), 0)
    normals, valid = normals_by_cross_product(depth, rays)
    assert valid.any()
    assert angles(normals[valid].astype(np.float64), normal).max() < 1e-5


def sphere_error(size):
    rays = pinhole_rays(field_of_view_intrinsics(size, size, 60), size, size)
    centre, radius = np.array([0, 0, 3.0]), 1.0
    along, squared = rays @ centre, (rays**2).sum(-1)
    root = along**2 - squared * (centre @ centre - radius**2)
    depth = np.where(root > 0, (along - np.sqrt(np.maximum(root, 0))) / squared, np.nan)
    normals, valid = normals_by_cross_product(depth, rays)
    assert ((normals * rays).sum(-1)[valid] < 0).all()
    exact = (depth[..., None] * rays - centre) / radius
    middle = np.nan_to_num(-exact[..., 2]) > 0.8
    assert valid[middle].all()
    return angles(normals, exact)[middle].max()


def test_on_a_sphere_the_error_falls_with_the_square_of_the_pixel():
    coarse, fine = sphere_error(61), sphere_error(121)
    assert coarse < 0.3
    assert 3 < coarse / fine < 5


def test_what_is_invalid_and_nothing_else():
    depth = np.full((SIZE, SIZE), 2.0)
    for place, unknown in zip([(5, 5), (5, 12), (12, 5), (12, 12)], [0, np.nan, -3, np.inf], strict=True):
        depth[place] = unknown
    expected = np.zeros((SIZE, SIZE), bool)
    expected[INNER] = True
    for y, x in [(5, 5), (5, 12), (12, 5), (12, 12)]:
        for near in [(y, x), (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]:
            expected[near] = False
    normals, valid = normals_by_cross_product(depth, RAYS)
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(normals[valid], [[0, 0, -1]] * expected.sum())
    assert not normals[~valid].any()


def test_equals_the_definition_on_noise():
    depth = np.random.default_rng(0).uniform(1, 2, (SIZE, SIZE))
    points = depth[..., None] * RAYS
    along_row = points[1:-1, 2:] - points[1:-1, :-2]
    along_column = points[2:, 1:-1] - points[:-2, 1:-1]
    cross = np.cross(along_row, along_column)
    cross *= -np.sign((cross * points[INNER]).sum(-1, keepdims=True))
    cross /= np.linalg.norm(cross, axis=-1, keepdims=True)
    normals, valid = normals_by_cross_product(depth.astype(np.float64), RAYS)
    assert valid[INNER].all()
    np.testing.assert_allclose(normals[INNER], cross, atol=1e-7)
    assert normals.dtype == np.float32


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (0, 4)])
def test_pictures_without_inner_pixels(shape):
    normals, valid = normals_by_cross_product(np.ones(shape), np.ones((*shape, 3)))
    assert normals.shape == (*shape, 3)
    assert not valid.any()


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="expected depth"):
        normals_by_cross_product(np.ones((4, 5)), RAYS)
