"""Losses against closed forms and plain numpy; what is not valid counts nowhere."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from skimage.metrics import peak_signal_noise_ratio

from ncbench.training.losses import (
    HIGHEST_PSNR,
    SHORTEST,
    angles,
    angular_loss,
    denoising_loss,
    distance,
    fill_invalid,
    latent_valid,
    mean_angle,
    psnr,
)

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
LOSSES: dict[str, Loss] = {
    "angle": angular_loss,
    "cosine": lambda a, b, v: angular_loss(a, b, v, "cosine"),
    "l1": distance,
    "l2": lambda a, b, v: distance(a, b, v, "l2"),
    "denoising": lambda a, b, v: denoising_loss(a, b, torch.full((len(a),), 2.0, dtype=a.dtype), v),
}


def pair(degrees: list[float], length: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors that enclose known angles, made by rotating about a perpendicular axis: (1, 3, 1, N)."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(len(degrees), 3))
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    axis = np.cross(target, rng.normal(size=target.shape))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    turned = Rotation.from_rotvec(axis * np.radians(degrees)[:, None]).apply(target) * length
    return tuple(torch.from_numpy(v.T[None, :, None].copy()) for v in (turned, target))


@pytest.mark.parametrize("length", [0.01, 1.0, 30.0])
def test_angles_are_those_the_vectors_were_turned_by(length: float) -> None:
    degrees = [1e-6, 0.01, 1.0, 45.0, 90.0, 135.0, 179.99, 180 - 1e-6]
    predicted, target = pair(degrees, length)
    found = torch.rad2deg(angles(predicted, target))[0, 0]
    np.testing.assert_allclose(found.numpy(), degrees, rtol=1e-8, atol=1e-10)


def test_half_precision_is_computed_in_float32() -> None:
    predicted, target = pair([3.0, 90.0])
    found = angles(predicted.bfloat16(), target.bfloat16())
    assert found.dtype == torch.float32


@pytest.mark.parametrize("kind", ["angle", "cosine"])
def test_gradients_are_finite_where_the_angle_is_0_or_pi_and_at_no_length(kind: str) -> None:
    target = torch.tensor([[0.0, 0.0, 1.0]] * 4).T[None, :, None]
    predicted = torch.tensor([[0, 0, 1.0], [0, 0, -1.0], [0, 0, 0], [1e-20, 0, 0]]).T[None, :, None].requires_grad_()
    angular_loss(predicted, target, torch.ones(1, 1, 4, dtype=torch.bool), kind).backward()
    assert torch.isfinite(predicted.grad).all()


def test_gradient_of_the_angle_has_length_1_over_length_and_leads_away_from_the_target() -> None:
    for degrees in (0.1, 60.0, 179.0):
        predicted, target = pair([degrees], length=2.5)
        predicted.requires_grad_()
        angles(predicted, target).sum().backward()
        gradient = predicted.grad[0, :, 0, 0]
        assert gradient.norm().item() == pytest.approx(1 / 2.5, rel=1e-9)
        assert abs((gradient @ predicted[0, :, 0, 0]).item()) < 1e-9
        assert (gradient @ target[0, :, 0, 0]).item() == pytest.approx(-math.sin(math.radians(degrees)) / 2.5)


def test_vectors_without_direction_cost_a_right_angle_and_are_not_followed() -> None:
    predicted = torch.full((1, 3, 1, 1), SHORTEST / 4, requires_grad=True)
    loss = angular_loss(predicted, torch.tensor([0, 0, 1.0])[None, :, None, None], torch.ones(1, 1, 1).bool())
    loss.backward()
    assert loss.item() == pytest.approx(math.pi / 2)
    assert torch.equal(predicted.grad, torch.zeros_like(predicted))


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 3, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    b = torch.nn.functional.normalize(torch.randn(2, 3, 2, 3, generator=generator, dtype=torch.float64), dim=1)
    valid = torch.rand(2, 2, 3, generator=generator) > 0.3
    for loss in LOSSES.values():
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, b, valid), a)


def test_values_equal_plain_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 3, 5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    b = torch.nn.functional.normalize(b, dim=1)
    valid = torch.rand(2, 5, 7, generator=generator) > 0.4
    m = valid.numpy()
    x, y = (np.moveaxis(v.numpy(), 1, -1)[m] for v in (a, b))
    cosine = (x * y).sum(-1) / np.linalg.norm(x, axis=-1)
    expected = {
        "angle": np.arccos(cosine).mean(),
        "cosine": (1 - cosine).mean(),
        "l1": np.abs(x - y).mean(),
        "l2": ((x - y) ** 2).mean(),
        "denoising": (1 + 4) / 4 * ((x - y) ** 2).mean(),
    }
    for name, loss in LOSSES.items():
        assert loss(a, b, valid).item() == pytest.approx(expected[name], rel=1e-9), name
    assert mean_angle(a, b, valid).item() == pytest.approx(np.degrees(expected["angle"]), rel=1e-9)
    assert psnr(a, b, valid).item() == pytest.approx(peak_signal_noise_ratio(y, x, data_range=2), rel=1e-9)


def test_denoising_weighs_each_frame_by_its_own_level() -> None:
    a, b = torch.ones(2, 4, 2, 2), torch.zeros(2, 4, 2, 2)
    sigma = torch.tensor([0.5, 700.0])
    found = denoising_loss(a, b, sigma, torch.ones(2, 2, 2).bool())
    assert found.item() == pytest.approx(((1 + 0.25) / 0.25 + (1 + 700**2) / 700**2) / 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from(sorted(LOSSES)), st.sampled_from([0.0, 7.0, math.nan, math.inf]))
def test_what_is_not_valid_changes_nothing(seed: int, name: str, rubbish: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2))
    valid = torch.rand(2, 4, 4, generator=generator) > 0.5
    results = []
    for value in (None, rubbish):
        first, second = a.clone(), b.clone()
        if value is not None:
            first = torch.where(valid[:, None], first, value)
            second = torch.where(valid[:, None], second, value)
        first.requires_grad_()
        loss = LOSSES[name](first, second, valid)
        loss.backward()
        results.append((loss.detach(), first.grad))
    (plain, gradient), (spoilt, spoilt_gradient) = results
    assert torch.equal(plain, spoilt)
    assert torch.equal(gradient, spoilt_gradient)
    assert not gradient[~valid[:, None].expand_as(gradient)].any()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_nothing_valid_costs_nothing_and_has_a_gradient(name: str) -> None:
    a = torch.full((1, 3, 2, 2), math.nan, requires_grad=True)
    loss = LOSSES[name](a, torch.full((1, 3, 2, 2), math.nan), torch.zeros(1, 2, 2).bool())
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(a.grad, torch.zeros_like(a))


def test_psnr_is_a_number_where_nothing_differs_or_nothing_is_valid() -> None:
    """An infinite one would end a run as a gradient that is no number does."""
    a = torch.rand(1, 3, 2, 2)
    for other, valid in ((a, torch.ones(1, 2, 2).bool()), (a + 1, torch.zeros(1, 2, 2).bool())):
        assert psnr(a, other, valid).item() == HIGHEST_PSNR


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_cells_of_latents_count_by_share_of_valid_pixels(share: float) -> None:
    valid = torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(0)) > 0.2
    valid[0, :8] = True
    found = latent_valid(valid, 8, share)
    for n, i, j in np.ndindex(3, 2, 3):
        cell = valid[n, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
        assert found[n, i, j].item() == (int(cell.sum()) >= share * 64)


def test_filling_leaves_normals_alone() -> None:
    normal = torch.randn(1, 3, 2, 2)
    valid = torch.tensor([[[True, False], [False, True]]])
    found = fill_invalid(normal, valid, (0.0, 0.0, 1.0))
    assert torch.equal(found[0, :, 0, 0], normal[0, :, 0, 0])
    assert found[0, :, 0, 1].tolist() == [0, 0, 1]
