"""The one warp convention: shifts that must be exact, and peers that must agree."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from ncbench.geometry.warp import backward_warp, backward_warp_torch

HEIGHT, WIDTH = 13, 17


def constant_flow(u, v, shape=(HEIGHT, WIDTH)):
    return np.broadcast_to(np.array([u, v], dtype=np.float64), (*shape, 2)).copy()


def torch_warp(image, flow):
    warped, inside = backward_warp_torch(torch.from_numpy(np.asarray(image)), torch.from_numpy(np.asarray(flow)))
    return warped.numpy(), inside.numpy()


both = pytest.mark.parametrize("warp", [backward_warp, torch_warp])


@settings(deadline=None, max_examples=40)
@given(st.integers(-WIDTH, WIDTH), st.integers(-HEIGHT, HEIGHT))
def test_integer_shifts_copy_pixels(u, v):
    image = np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, 3))
    expected, expected_inside = np.zeros_like(image), np.zeros((HEIGHT, WIDTH), bool)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            if 0 <= x + u < WIDTH and 0 <= y + v < HEIGHT:
                expected[y, x] = image[y + v, x + u]
                expected_inside[y, x] = True
    warped, inside = backward_warp(image, constant_flow(u, v))
    np.testing.assert_array_equal(warped, expected)
    np.testing.assert_array_equal(inside, expected_inside)
    warped, inside = torch_warp(image, constant_flow(u, v))
    np.testing.assert_allclose(warped, expected, atol=1e-13)
    np.testing.assert_array_equal(inside, expected_inside)


@both
@pytest.mark.parametrize(("u", "v"), [(0.5, 0), (0, 0.5), (-0.5, -0.5), (2.25, -3.75)])
def test_a_ramp_stays_a_ramp(warp, u, v):
    """A wrong pixel convention shifts the ramp by up to half a pixel, most at the picture's border."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    ramp = np.stack([x, y, 3 * x - 2 * y], -1)
    warped, inside = warp(ramp, constant_flow(u, v))
    moved = np.stack([x + u, y + v, 3 * (x + u) - 2 * (y + v)], -1)
    np.testing.assert_allclose(warped[inside], moved[inside], atol=1e-12)
    expected = (x + u >= 0) & (x + u <= WIDTH - 1) & (y + v >= 0) & (y + v <= HEIGHT - 1)
    np.testing.assert_array_equal(inside, expected)
    assert not warped[~inside].any()


def random_case(dtype, smooth):
    rng = np.random.default_rng(5)
    image = rng.standard_normal((90, 120, 3))
    if smooth:
        image = cv2.GaussianBlur(image, (0, 0), 3)
    return image.astype(dtype), rng.uniform(-9, 9, (90, 120, 2)).astype(dtype)


def test_agrees_with_scipy_interpolation():
    image, flow = random_case(np.float64, smooth=False)
    y, x = np.mgrid[:90, :120] + np.moveaxis(flow[..., ::-1], -1, 0)
    warped, inside = backward_warp(image, flow)
    for channel in range(3):
        expected = map_coordinates(image[..., channel], [y, x], order=1, mode="nearest")
        np.testing.assert_allclose(warped[..., channel][inside], expected[inside], atol=1e-12)


@pytest.mark.parametrize(("dtype", "smooth", "tolerance"), [(np.float64, False, 1e-12), (np.float32, True, 1e-5)])
def test_agrees_with_grid_sample_of_aligned_corners(dtype, smooth, tolerance):
    image, flow = random_case(dtype, smooth)
    y, x = np.mgrid[:90, :120].astype(dtype)
    grid = np.stack([2 * (x + flow[..., 0]) / 119 - 1, 2 * (y + flow[..., 1]) / 89 - 1], -1).astype(dtype)
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(grid)[None], align_corners=True
    )[0].permute(1, 2, 0)
    warped, inside = backward_warp(image, flow)
    assert warped.dtype == dtype
    np.testing.assert_allclose(warped[inside], expected.numpy()[inside], atol=tolerance)
    ours, ours_inside = torch_warp(image, flow)
    np.testing.assert_array_equal(ours_inside, inside)
    np.testing.assert_allclose(ours, warped, atol=tolerance)


def test_differs_from_grid_sample_of_the_other_convention():
    image, flow = random_case(np.float64, smooth=False)
    y, x = np.mgrid[:90, :120]
    grid = np.stack([2 * (x + flow[..., 0]) / 119 - 1, 2 * (y + flow[..., 1]) / 89 - 1], -1)
    other = torch.nn.functional.grid_sample(
        torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(grid)[None], align_corners=False
    )[0].permute(1, 2, 0)
    warped, inside = backward_warp(image, flow)
    assert np.abs(warped - other.numpy())[inside].mean() > 0.05


@both
def test_unknown_flow_is_not_inside_and_spreads_nowhere(warp):
    image = np.random.default_rng(1).standard_normal((HEIGHT, WIDTH, 2))
    flow = constant_flow(0.25, 0.25)
    flow[3, 4, 0] = np.nan
    flow[5, 6, 1] = np.inf
    warped, inside = warp(image, flow)
    assert not inside[3, 4]
    assert not inside[5, 6]
    assert inside[:-1, :-1].sum() == (HEIGHT - 1) * (WIDTH - 1) - 2
    assert np.isfinite(warped).all()
    assert not warped[3, 4].any()


def test_a_nan_beside_an_exactly_hit_pixel_is_not_read():
    image = np.ones((HEIGHT, WIDTH, 1))
    image[4, 5] = np.nan
    warped, _ = backward_warp(image, constant_flow(1, 0))
    assert np.isnan(warped).sum() == 1
    assert np.isnan(warped[4, 4, 0])


@both
def test_rounding_at_the_border_does_not_lose_it(warp):
    image = np.random.default_rng(1).standard_normal((HEIGHT, WIDTH, 2))
    for tiny in (-1e-9, 1e-9):
        warped, inside = warp(image, constant_flow(tiny, tiny))
        assert inside.all()
        np.testing.assert_allclose(warped, image, atol=1e-8)


def test_kinds_of_images():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, 5:] = True
    warped, _ = backward_warp(mask, constant_flow(0.5, 0))
    assert warped.shape == mask.shape
    assert warped.dtype == np.float32
    assert warped[0, [3, 4, 5]].tolist() == [0, 0.5, 1]
    picture = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    assert (backward_warp(picture, constant_flow(0.3, 0.3).astype(np.float16))[0][:-1, :-1] == 200).all()


@both
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_pictures_one_pixel_wide_or_high(warp, shape):
    image = np.random.default_rng(2).standard_normal((*shape, 3))
    warped, inside = warp(image, constant_flow(0, 0, shape))
    assert inside.all()
    np.testing.assert_allclose(warped, image, atol=1e-14)
    assert not warp(image, constant_flow(9, 9, shape))[1].any()


def test_tensors_in_batches_and_gradients():
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.standard_normal((2, 3, 6, 7, 4))).requires_grad_()
    flows = torch.from_numpy(rng.uniform(-2, 2, (2, 3, 6, 7, 2))).requires_grad_()
    warped, inside = backward_warp_torch(images, flows)
    assert warped.shape == images.shape
    assert inside.shape == (2, 3, 6, 7)
    single, _ = backward_warp(images[1, 2].detach().numpy(), flows[1, 2].detach().numpy())
    np.testing.assert_allclose(warped[1, 2].detach().numpy(), single, atol=1e-13)
    assert torch.autograd.gradcheck(lambda i, f: backward_warp_torch(i, f)[0], (images[0, :1], flows[0, :1]))


def test_an_unknown_flow_gives_no_gradient_and_no_nan():
    image = torch.ones(3, 3, 1, requires_grad=True)
    flow = torch.full((3, 3, 2), torch.nan, requires_grad=True)
    backward_warp_torch(image, flow)[0].sum().backward()
    assert image.grad.abs().sum() == 0
    assert torch.isfinite(flow.grad).all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="expected an image"):
        backward_warp(np.zeros((3, 4, 3)), np.zeros((4, 3, 2)))
    with pytest.raises(ValueError, match="expected an image"):
        backward_warp(np.zeros(3), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="expected an image"):
        backward_warp_torch(torch.zeros(3, 4, 3), torch.zeros(3, 4, 3))
