"""Preconditioning against EDM's algebra, Euler's scheduler and the distribution of its noise levels."""

import math

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from scipy import stats

from ncbench.training.edm import denoising_weight, draw_sigma, precondition

LEVELS = torch.tensor([0.002, 0.1, 1.0, math.e, 80.0, 700.0], dtype=torch.float64)


def test_factors_are_the_closed_forms() -> None:
    found = precondition(LEVELS)
    for i, s in enumerate(LEVELS.tolist()):
        assert found.skip[i].item() == pytest.approx(1 / (s * s + 1), rel=1e-14)
        assert found.out[i].item() == pytest.approx(-s / math.sqrt(s * s + 1), rel=1e-14)
        assert found.into[i].item() == pytest.approx(1 / math.sqrt(s * s + 1), rel=1e-14)
        assert found.noise[i].item() == pytest.approx(0.25 * math.log(s), rel=1e-14)
        assert denoising_weight(LEVELS)[i].item() == pytest.approx((1 + s * s) / (s * s), rel=1e-14)


def test_input_and_target_of_the_network_have_unit_variance() -> None:
    """EDM's first two requirements (appendix B.6), exactly: x and noise are independent, of variance 1 and sigma^2."""
    skip, out, into, _ = precondition(LEVELS)
    torch.testing.assert_close(into**2 * (1 + LEVELS**2), torch.ones(6, dtype=torch.float64))
    target = ((1 - skip) ** 2 + skip**2 * LEVELS**2) / out**2  # variance of (x - skip (x + n)) / out
    torch.testing.assert_close(target, torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(denoising_weight(LEVELS) * out**2, torch.ones(6, dtype=torch.float64))


def test_denoised_equals_what_the_scheduler_of_svd_makes_of_v() -> None:
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        timestep_type="continuous",
        sigma_min=0.002,
        sigma_max=700.0,
    )
    scheduler.set_timesteps(5)
    drawn = torch.Generator().manual_seed(0)
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        noisy, said = torch.randn(2, 3, 4, generator=drawn) * sigma, torch.randn(2, 3, 4, generator=drawn)
        scaled = scheduler.scale_model_input(noisy, timestep)
        skip, out, into, noise = precondition(sigma)
        torch.testing.assert_close(into * noisy, scaled)
        assert noise.item() == pytest.approx(timestep.item(), rel=1e-5)
        expected = scheduler.step(said, timestep, noisy).pred_original_sample
        torch.testing.assert_close(skip * noisy + out * said, expected, rtol=1e-5, atol=1e-5)


def test_half_of_the_levels_are_the_maximum_and_the_rest_log_normal() -> None:
    drawn = draw_sigma(20000, torch.Generator().manual_seed(0), sigma_max=700.0, share_at_max=0.5, mean=0.7, spread=1.6)
    fixed = drawn == 700.0
    assert abs(fixed.double().mean().item() - 0.5) < 4 * math.sqrt(0.25 / 20000)
    rest = np.log(drawn[~fixed].numpy())
    assert stats.kstest(rest, stats.norm(0.7, 1.6).cdf).pvalue > 1e-3


def test_levels_depend_on_the_generator_alone() -> None:
    def draw() -> torch.Tensor:
        return draw_sigma(4, torch.Generator().manual_seed(3), sigma_max=700, share_at_max=0.0, mean=0, spread=1)

    torch.manual_seed(1)
    first = draw()
    torch.manual_seed(2)
    assert torch.equal(first, draw())
