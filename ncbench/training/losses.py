"""Losses of normals and of latents; what is not valid counts nowhere, neither in a value nor in a gradient."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch.nn import functional

from ncbench.training.edm import denoising_weight

AngularKind = Literal["angle", "cosine"]
DistanceKind = Literal["l1", "l2"]
SHORTEST = 1e-3
"""Length below which a predicted vector has no direction: it costs a right angle and is not followed.

The gradient of an angle grows as 1 / length; without this limit a single pixel near zero outweighs a whole batch.
"""
HIGHEST_PSNR = 100.0
"""Decibels; an infinite one would be taken for a run gone wrong."""


def masked_mean(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Average over what is valid.

    Args:
        values: Any shape.
        valid: Bool, of that shape or one that broadcasts to it.

    Returns:
        Scalar; 0, with a graph, where nothing is valid.
    """
    mask = valid.expand_as(values)
    total: torch.Tensor = torch.where(mask, values, 0).sum()
    return total / mask.sum().clamp(min=1)


def angles(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Measure angles as atan2(|a x b|, a . b), which is exact near 0 and pi, and whose gradients are finite there.

    At exactly 0 and pi the direction in which the angle grows is not defined; the gradient is 0.

    Args:
        predicted: (N, 3, H, W) of any length.
        target: (N, 3, H, W) of any length above 0.

    Returns:
        (N, H, W) radians, float32 or what is wider; pi / 2 where ``predicted`` is shorter than ``SHORTEST``.
    """
    first, second = _at_least_float32(predicted), _at_least_float32(target)
    short = torch.linalg.vector_norm(first, dim=1, keepdim=True) < SHORTEST
    # the place-holder meets any target at a finite angle that is not used
    first = torch.where(short, torch.ones_like(first), first)
    sine = torch.linalg.vector_norm(torch.linalg.cross(first, second, dim=1), dim=1)
    cosine = (first * second).sum(dim=1)
    found = torch.atan2(sine, cosine)
    return torch.where(short[:, 0], torch.full_like(found, math.pi / 2), found)


def angular_loss(
    predicted: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, kind: AngularKind = "angle"
) -> torch.Tensor:
    """Average the angle between predicted and true normals (NormalCrafter, equation 5).

    Args:
        predicted: (N, 3, H, W) of any length.
        target: (N, 3, H, W), unit length where valid.
        valid: (N, H, W) bool.
        kind: ``angle`` in radians, or ``cosine``: 1 - cos(angle), whose gradient fades near 0.

    Returns:
        Scalar.
    """
    mask = valid[:, None]
    # replaced before anything is computed: what is not valid may even be NaN
    ahead = predicted.new_tensor([0.0, 0.0, 1.0])[:, None, None]
    first, second = torch.where(mask, predicted, ahead), torch.where(mask, target, ahead)
    if kind == "angle":
        return masked_mean(angles(first, second), valid)
    first, second = _at_least_float32(first), _at_least_float32(second)
    return masked_mean(1 - functional.cosine_similarity(first, second, dim=1, eps=SHORTEST), valid)


def distance(
    predicted: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, kind: DistanceKind = "l1"
) -> torch.Tensor:
    """Average the absolute or squared difference of all channels.

    Args:
        predicted: (N, C, H, W).
        target: (N, C, H, W).
        valid: (N, H, W) bool.
        kind: ``l1`` or ``l2``.

    Returns:
        Scalar.
    """
    difference = torch.where(valid[:, None], _at_least_float32(predicted) - _at_least_float32(target), 0)
    return masked_mean(difference.abs() if kind == "l1" else difference.square(), valid[:, None])


def denoising_loss(
    denoised: torch.Tensor, clean: torch.Tensor, sigma: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Average the weighted squared error of denoised latents: denoising score matching, NormalCrafter's L_DSM.

    Args:
        denoised: (N, C, h, w) float32.
        clean: (N, C, h, w) float32.
        sigma: (N,) noise level of each.
        valid: (N, h, w) bool.

    Returns:
        Scalar.
    """
    error = torch.where(valid[:, None], denoised - clean, 0).square()
    return masked_mean(denoising_weight(sigma)[:, None, None, None] * error, valid[:, None])


def latent_valid(valid: torch.Tensor, factor: int, share: float) -> torch.Tensor:
    """Say which cells of the latents are meant.

    Args:
        valid: (N, H, W) bool, both sides multiples of ``factor``.
        factor: Pixels to a cell, each way.
        share: Of a cell's pixels that must be valid.

    Returns:
        (N, H / factor, W / factor) bool.
    """
    found = functional.avg_pool2d(valid[:, None].to(torch.float32), factor)[:, 0]
    return found >= share - 0.5 / factor**2


def fill_invalid(
    normal: torch.Tensor, valid: torch.Tensor, vector: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> torch.Tensor:
    """Put one vector wherever there is no normal.

    Args:
        normal: (N, 3, H, W).
        valid: (N, H, W) bool.
        vector: What to put.

    Returns:
        (N, 3, H, W).
    """
    return torch.where(valid[:, None], normal, normal.new_tensor(vector)[:, None, None])


def psnr(predicted: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Compute the peak signal-to-noise ratio of values in -1..1.

    Args:
        predicted: (N, C, H, W).
        target: (N, C, H, W).
        valid: (N, H, W) bool.

    Returns:
        Scalar, decibels; at most ``HIGHEST_PSNR``, which it is where both are equal or nothing is valid.
    """
    ratio = 4 / distance(predicted.detach(), target, valid, "l2")
    return (10 * torch.log10(ratio)).clamp(max=HIGHEST_PSNR)


def mean_angle(predicted: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Average the angle for logs.

    Args:
        predicted: (N, 3, H, W) of any length.
        target: (N, 3, H, W), unit length where valid.
        valid: (N, H, W) bool.

    Returns:
        Scalar, degrees, without a graph.
    """
    return torch.rad2deg(angular_loss(predicted.detach(), target, valid))


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()
