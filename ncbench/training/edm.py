"""Preconditioning, weight and noise levels of diffusion training, in the form that Stable Video Diffusion uses.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (EDM, 2022), write a denoiser as
D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (section 5, equation 7). Their c_skip, c_out and c_in (table 1, last
column) with sigma_data = 1 are those below but for the sign of c_out: a network that predicts v has the other sign
(Blattmann et al., "Stable Video Diffusion", 2023, appendix D).
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Preconditioning(NamedTuple):
    """Factors around the network, each of the shape of sigma.

    Attributes:
        skip: c_skip = 1 / (sigma^2 + 1), of the noisy latents in the answer.
        out: c_out = -sigma / sqrt(sigma^2 + 1), of the network's answer.
        into: c_in = 1 / sqrt(sigma^2 + 1), of the noisy latents that the network sees.
        noise: c_noise = ln(sigma) / 4, what the network is told of the noise level.
    """

    skip: torch.Tensor
    out: torch.Tensor
    into: torch.Tensor
    noise: torch.Tensor


def precondition(sigma: torch.Tensor) -> Preconditioning:
    """Compute the factors of a noise level.

    Args:
        sigma: Standard deviation of the noise, above 0, any shape.

    Returns:
        The factors.
    """
    variance = sigma.square() + 1
    return Preconditioning(1 / variance, -sigma / variance.sqrt(), variance.rsqrt(), sigma.log() / 4)


def denoising_weight(sigma: torch.Tensor) -> torch.Tensor:
    """Weigh the squared error of a noise level, so that all levels start out equally important.

    It is 1 / c_out^2 (EDM, section 5, equation 8): the loss is then the squared error of what the network itself says.

    Args:
        sigma: Any shape.

    Returns:
        (1 + sigma^2) / sigma^2.
    """
    return (1 + sigma.square()) / sigma.square()


def draw_sigma(
    count: int, generator: torch.Generator, *, sigma_max: float, share_at_max: float, mean: float, spread: float
) -> torch.Tensor:
    """Draw noise levels as NormalCrafter's first stage does (section 4.1): some at the maximum, the rest log-normal.

    Args:
        count: How many.
        generator: On the CPU.
        sigma_max: The fixed level.
        share_at_max: Probability of it.
        mean: Of ln(sigma) of the others.
        spread: Standard deviation of ln(sigma) of the others.

    Returns:
        (count,) float32 on the CPU.
    """
    fixed = torch.rand(count, generator=generator) < share_at_max
    drawn = torch.exp(mean + spread * torch.randn(count, generator=generator))
    return torch.where(fixed, torch.full_like(drawn, sigma_max), drawn)
