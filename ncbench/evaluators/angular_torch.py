"""Angular errors on torch tensors, on any device: the same state as ``AngularState.score`` gives.

Everything stays on the device until the end, when sums and histogram come back in one copy. Errors are float64
``atan2``. They differ from the numba kernel's by rounding: by at most one unit (a millionth of a degree) a pixel in the
sums, and in the histogram only for errors within 1e-12 degrees of the edge of a bin.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from ncbench.errors import ScoreError
from ncbench.evaluators import angular_kernel as kernel
from ncbench.evaluators.angular import INVALID_ERROR, THRESHOLDS, AngularState
from ncbench.evaluators.angular_checks import check_target, check_thresholds, to_charge

_CPU_PIXELS, _GPU_PIXELS = 1 << 16, 1 << 24
_SPREAD = 1024  # places for pixels outside the mask: one shared place would make a GPU's atomic additions queue
_HALF = 14  # an error is below 2^28 units; products of its halves can be summed over 2^35 pixels
_Sums = tuple[Tensor, Tensor]


def angular_state_torch(
    preds: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    invalid_error: float = INVALID_ERROR,
    *,
    compiled: bool = False,
) -> AngularState:
    """Compare predictions with the truth where they are; see ``AngularState.score`` for what counts how.

    Args:
        preds: (..., 3) float tensor of vectors of any length, in the same axes as ``target``.
        target: (..., 3) float tensor on the same device.
        mask: (...) bool tensor on the same device; None means everywhere.
        thresholds: Degrees, ascending, whole multiples of 0.001.
        invalid_error: Degrees charged where a prediction has no direction.
        compiled: Fuse the arithmetic with ``torch.compile``: fewer passes over memory for a first call of seconds.

    Returns:
        The state, on the host.

    Raises:
        ScoreError: Shapes, devices or the mask do not match, thresholds or ``invalid_error`` are not as described, or
            the truth has no direction somewhere inside the mask.
    """
    _check(preds, target, mask)
    checked, charge = check_thresholds(thresholds), to_charge(invalid_error)
    a, b = preds.reshape(-1, 3), target.reshape(-1, 3)
    inside = torch.ones(len(a), dtype=torch.bool, device=a.device) if mask is None else mask.reshape(-1)
    step = _CPU_PIXELS if a.device.type == "cpu" else _GPU_PIXELS
    reduce = _compiled() if compiled else _reduce
    sums = torch.zeros(7, dtype=torch.int64, device=a.device)
    histogram = torch.zeros(kernel.BINS, dtype=torch.int64, device=a.device)
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        part, counts = reduce(a[rows], b[rows], inside[rows], charge)
        sums += part
        histogram += counts
    values = torch.cat([sums, histogram]).cpu().numpy()
    total, high, mixed, low, count, invalid, bad_target = (int(value) for value in values[:7])
    check_target(bad_target)
    squared = (high << 2 * _HALF) + (mixed << _HALF + 1) + low
    return AngularState(checked, values[7:].copy(), total, squared, count, invalid)


def _reduce(preds: Tensor, target: Tensor, inside: Tensor, charge: int) -> _Sums:
    """Sums (total, three of squares, count, invalid, bad target) and histogram of some pixels."""
    a, b = _components(preds), _components(target)
    sound_a, sound_b = _has_direction(a), _has_direction(b)
    (ax, ay, az), (bx, by, bz) = a, b
    cx, cy, cz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    error = torch.rad2deg(torch.atan2((cx * cx + cy * cy + cz * cz).sqrt(), ax * bx + ay * by + az * bz))
    error = torch.where(sound_a & sound_b, error, 0.0)
    units = (error * kernel.UNITS + 0.5).to(torch.int32)
    units = torch.where(sound_b & inside, torch.where(sound_a, units, charge), 0)
    place = units >> kernel.SHIFT
    above = (units == place << kernel.SHIFT) & (error < place.to(torch.float64) / kernel.BINS_PER_DEGREE) & sound_a
    outside = kernel.BINS + torch.arange(len(units), device=units.device) % _SPREAD
    places = torch.where(inside, (place - above.to(torch.int32)).to(torch.int64), outside)
    counts = torch.zeros(kernel.BINS + _SPREAD, dtype=torch.int32, device=units.device)
    counts = counts.scatter_add(0, places, torch.ones_like(units))
    high, low = units >> _HALF, units & (1 << _HALF) - 1
    terms = (units, high * high, high * low, low * low, inside, inside & ~sound_a, inside & ~sound_b)
    return torch.stack([term.sum(dtype=torch.int64) for term in terms]), counts[: kernel.BINS]


@functools.cache
def _compiled() -> Callable[[Tensor, Tensor, Tensor, int], _Sums]:
    return cast("Callable[[Tensor, Tensor, Tensor, int], _Sums]", torch.compile(_reduce, dynamic=True))


def _components(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Float64 x, y, z; squares of lengths neither over- nor underflow."""
    wide = vectors.to(torch.float64)
    if vectors.dtype == torch.float64:  # in float64 no float32 can do so
        wide = wide / wide.abs().amax(-1, keepdim=True)
    x, y, z = wide.unbind(-1)
    return x, y, z


def _has_direction(components: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    x, y, z = components
    square = x * x + y * y + z * z
    return (square > 0) & (square < torch.inf)


def _check(preds: Tensor, target: Tensor, mask: Tensor | None) -> None:
    if preds.shape != target.shape or preds.ndim == 0 or preds.shape[-1] != 3:
        raise ScoreError(
            f"expected two (..., 3) tensors of equal shape, found preds {tuple(preds.shape)} and target "
            f"{tuple(target.shape)}. Channels come last here: permute (B, 3, H, W) first."
        )
    if mask is not None and (mask.shape != preds.shape[:-1] or mask.dtype != torch.bool):
        raise ScoreError(
            f"expected a bool mask of shape {tuple(preds.shape[:-1])}, found {mask.dtype} {tuple(mask.shape)}"
        )
    devices = {str(tensor.device) for tensor in (preds, target, mask) if tensor is not None}
    if len(devices) > 1:
        raise ScoreError(f"expected tensors on one device, found {', '.join(sorted(devices))}")
