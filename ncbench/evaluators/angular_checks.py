"""What angular metrics ask of their input, in numpy and in torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators import angular_kernel as kernel


def check_target(bad: int) -> None:
    """Refuse truth without a direction where the mask says that it counts.

    Args:
        bad: Number of such pixels.

    Raises:
        ScoreError: There is one.
    """
    if bad:
        raise ScoreError(
            f"the truth is zero, NaN or infinite at {bad} pixels inside the mask. Mask them, or prepare the data set "
            "again: preparing masks them."
        )


def check_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    """Refuse thresholds that are not edges of bins: below those, and only those, counts are exact.

    Args:
        thresholds: Degrees.

    Returns:
        The thresholds.

    Raises:
        ScoreError: They are not ascending, not whole multiples of 0.001, or outside (0, 180].
    """
    checked = tuple(float(threshold) for threshold in thresholds)
    fine = all(0 < t <= 180 and t == round(t * kernel.BINS_PER_DEGREE) / kernel.BINS_PER_DEGREE for t in checked)
    if not fine or any(low >= high for low, high in itertools.pairwise(checked)):
        raise ScoreError(
            f"thresholds must be ascending whole multiples of 1/{kernel.BINS_PER_DEGREE} degree in (0, 180], "
            f"found {checked}"
        )
    return checked


def to_charge(invalid_error: float) -> int:
    """Convert the error charged to invalid predictions to the kernels' units.

    Args:
        invalid_error: Degrees.

    Returns:
        Units of 1/1,024,000 degree.

    Raises:
        ScoreError: It is outside [0, 180].
    """
    if not 0 <= invalid_error <= 180:
        raise ScoreError(f"the error charged to invalid predictions must be in [0, 180] degrees, found {invalid_error}")
    return int(kernel.to_units(float(invalid_error)))


def check_shapes(preds: NDArray[Any], target: NDArray[Any]) -> None:
    """Refuse anything but two (..., 3) arrays of equal shape.

    Args:
        preds: Predictions.
        target: Truth.

    Raises:
        ScoreError: The shapes differ or the last axis is not 3.
    """
    if preds.shape != target.shape or preds.ndim == 0 or preds.shape[-1] != 3:
        raise ScoreError(
            f"expected two (..., 3) arrays of equal shape, found preds {preds.shape} and target {target.shape}"
        )


def check_mask(mask: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Refuse a mask that does not fit the maps.

    Args:
        mask: Mask; None means everywhere.
        shape: Shape of the maps without their last axis.

    Returns:
        The mask, of that shape.

    Raises:
        ScoreError: The mask has another shape or is not bool.
    """
    if mask is None:
        return np.ones(shape, np.bool_)
    if mask.shape != shape or mask.dtype != np.bool_:
        raise ScoreError(f"expected a mask of shape {shape} and dtype bool, found {mask.shape} and {mask.dtype}")
    return mask
