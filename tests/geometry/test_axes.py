"""Axis conventions against vectors known from the field, and flips and turns against a rendered slope."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ncbench.errors import CardError
from ncbench.geometry.axes import AXES, axes_matrix, convert_axes, flip_horizontal, flip_vertical, rotate_quarter
from ncbench.geometry.cameras import field_of_view_intrinsics, flip_intrinsics, pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product

# a wall seen head-on, a floor under a level camera, and a wall at the left that faces right
WALL, FLOOR, LEFT_WALL = 0, 1, 2
KNOWN = {
    "opencv": [(0, 0, -1), (0, -1, 0), (1, 0, 0)],
    "opengl": [(0, 0, 1), (0, 1, 0), (1, 0, 0)],
    "dsine": [(0, 0, 1), (0, 1, 0), (-1, 0, 0)],
    "ldf": [(0, 0, -1), (0, -1, 0), (-1, 0, 0)],
}
pairs = pytest.mark.parametrize(("source", "target"), [(a, b) for a in KNOWN for b in KNOWN])


def test_the_names_are_exactly_the_documented_ones():
    assert set(AXES) == set(KNOWN)


@pairs
def test_known_surfaces(source, target):
    given_normals = np.array(KNOWN[source], dtype=np.float64)
    np.testing.assert_array_equal(convert_axes(given_normals, source, target), KNOWN[target])
    np.testing.assert_array_equal(given_normals @ axes_matrix(source, target).T, KNOWN[target])


@pairs
@given(normals=arrays(np.float32, (4, 5, 3), elements=st.floats(-1, 1, width=32)))
def test_there_and_back_changes_no_bit(source, target, normals):
    back = convert_axes(convert_axes(normals, source, target), target, source)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back.view(np.uint32), normals.view(np.uint32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_dtype_and_agree_with_arrays(dtype):
    values = np.random.default_rng(0).standard_normal((2, 6, 7, 3))
    tensor = torch.from_numpy(values).to(dtype)
    reference = tensor.double().numpy()
    for function in (
        lambda n: convert_axes(n, "opencv", "dsine"),
        flip_horizontal,
        flip_vertical,
        lambda n: rotate_quarter(n, 1),
        lambda n: rotate_quarter(n, 2),
        lambda n: rotate_quarter(n, -1),
    ):
        result = function(tensor)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result.double().numpy(), function(reference))


def test_gradients_flow_through_a_conversion():
    tensor = torch.ones(2, 3, requires_grad=True)
    convert_axes(tensor, "opengl", "dsine").sum().backward()
    torch.testing.assert_close(tensor.grad, torch.tensor([[-1.0, 1.0, 1.0]] * 2))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(CardError, match=r"'openg'.*Did you mean 'opengl'"):
        convert_axes(np.zeros((1, 3)), "openg", "opencv")
    with pytest.raises(CardError, match="Valid: dsine, ldf, opencv, opengl"):
        axes_matrix("opencv", "xyz")


def test_encoded_pictures_and_wrong_shapes_are_refused():
    with pytest.raises(TypeError, match="Decode"):
        convert_axes(np.zeros((2, 3), np.uint8), "opencv", "opengl")
    with pytest.raises(TypeError, match="Decode"):
        flip_horizontal(torch.zeros((2, 2, 3), dtype=torch.uint8))
    with pytest.raises(ValueError, match="last axis"):
        convert_axes(np.zeros((3, 2)), "opencv", "opengl")
    with pytest.raises(ValueError, match="normal map"):
        flip_vertical(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="normal map"):
        rotate_quarter(np.zeros((2, 3)), 1)


def bumpy_depth(size):
    x = np.arange(size) / size
    return 2 + 0.3 * np.sin(5 * x)[None, :] + 0.2 * x[:, None] ** 2 + 0.1 * x[:, None] * x[None, :]


def normals_of(depth):
    """Normals of a square picture whose camera is centred, so that flips and turns of the picture keep the camera."""
    rays = pinhole_rays(field_of_view_intrinsics(*depth.shape, 60), *depth.shape)
    return normals_by_cross_product(depth, rays)[0]


@pytest.mark.parametrize(
    ("turn_normals", "turn_picture"),
    [
        (flip_horizontal, np.fliplr),
        (flip_vertical, np.flipud),
        (lambda n: rotate_quarter(n, 0), lambda d: d),
        (lambda n: rotate_quarter(n, 1), lambda d: np.rot90(d, 1)),
        (lambda n: rotate_quarter(n, 2), lambda d: np.rot90(d, 2)),
        (lambda n: rotate_quarter(n, 3), lambda d: np.rot90(d, 3)),
        (lambda n: rotate_quarter(n, -1), lambda d: np.rot90(d, -1)),
        (lambda n: rotate_quarter(n, 5), lambda d: np.rot90(d, 5)),
    ],
)
def test_turned_normals_are_those_of_the_turned_scene(turn_normals, turn_picture):
    depth = bumpy_depth(24)
    expected = normals_of(np.ascontiguousarray(turn_picture(depth)))
    np.testing.assert_allclose(turn_normals(normals_of(depth)), expected, atol=2e-6)


def test_a_picture_that_is_not_square_exchanges_its_sides():
    normals = np.zeros((4, 7, 3), np.float32)
    assert rotate_quarter(normals, 1).shape == (7, 4, 3)
    assert rotate_quarter(normals, 2).shape == (4, 7, 3)


def test_a_mirrored_off_centre_camera_sees_the_mirrored_normals():
    depth = bumpy_depth(24)
    intrinsics = np.array([[30.0, 0.7, 9], [0, 28, 13], [0, 0, 1]])
    seen = normals_by_cross_product(depth, pinhole_rays(intrinsics, 24, 24))[0]
    mirrored_rays = pinhole_rays(flip_intrinsics(intrinsics, 24), 24, 24)
    mirrored = normals_by_cross_product(np.ascontiguousarray(depth[:, ::-1]), mirrored_rays)[0]
    np.testing.assert_allclose(flip_horizontal(seen), mirrored, atol=2e-6)
