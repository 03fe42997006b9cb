"""Angular error between normals, and its statistics as one fixed-size state that merges by addition.

The error is the angle ``atan2(|a x b|, a . b)``: float32 ``acos`` of a cosine cannot resolve angles under 0.014
degrees. Metrics are those of DSINE (Bae and Davison, CVPR 2024): mean, median, root mean square, and the share of
pixels strictly below each threshold. A state holds whole numbers only, so adding states is exact: any split of the
pixels, merged in any order by any number of processes, gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators import angular_kernel as kernel
from ncbench.evaluators.angular_checks import check_mask, check_shapes, check_target, check_thresholds, to_charge
from ncbench.evaluators.angular_colours import add_colours
from ncbench.geometry.encoding import ColourMap

THRESHOLDS = (5.0, 7.5, 11.25, 22.5, 30.0)
"""Degrees; what the field reports."""
BIN_WIDTH = 1 / kernel.BINS_PER_DEGREE
"""Degrees; the resolution of medians."""
INVALID_ERROR = 90.0
"""Degrees charged where a prediction has no direction: what the field's code gives for a zero vector."""


def angular_error(preds: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """Measure the angle between two maps of vectors; lengths do not matter.

    Args:
        preds: (..., 3) vectors in the same axes as ``target``.
        target: (..., 3) vectors.

    Returns:
        (...) float64 degrees in [0, 180]; NaN where either vector is zero, NaN or infinite.

    Raises:
        ScoreError: The shapes differ or the last axis is not 3.

    Examples:
        >>> angular_error(np.array([0.0, 0.0, -1.0]), np.array([0.0, -1.0, -1.0])).round(9).item()
        45.0
    """
    check_shapes(preds, target)
    flat = kernel.angles(_read_only(preds, np.float64).reshape(-1, 3), _read_only(target, np.float64).reshape(-1, 3))
    return flat.reshape(preds.shape[:-1])


def angular_metrics(
    preds: NDArray[np.floating],
    target: NDArray[np.floating],
    mask: NDArray[np.bool_] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    invalid_error: float = INVALID_ERROR,
) -> dict[str, float]:
    """Score one map, or several of the same size: ``AngularState.score(...).metrics()``.

    Args:
        preds: (..., 3) vectors of any length, in the same axes as ``target``.
        target: (..., 3) vectors of any length.
        mask: (...) bool, where the truth counts; None means everywhere.
        thresholds: Degrees, ascending, whole multiples of 0.001.
        invalid_error: Degrees charged where a prediction has no direction.

    Returns:
        ``mean``, ``median`` and ``rmse`` in degrees and ``within_<threshold>`` in percent; empty if the mask is.

    Raises:
        ScoreError: As ``AngularState.score``.

    Examples:
        >>> truth = np.array([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0]])
        >>> angular_metrics(np.array([[0.0, 0.0, -1.0], [0.0, 0.0, -1.0]]), truth, thresholds=[30])
        {'mean': 45.0, 'median': 45.0005, 'rmse': 63.63961030678928, 'within_30': 50.0}
    """
    return AngularState.score(preds, target, mask, thresholds, invalid_error).metrics()


@dataclass(frozen=True, eq=False)
class AngularState:
    """Sufficient statistics of a set of angular errors; ``a + b`` is the state of the union.

    Errors are rounded to units of 1/1,024,000 degree, and then summed exactly.

    Attributes:
        thresholds: Degrees, ascending, whole multiples of 0.001.
        histogram: (180001,) int64, errors in bins of 0.001 degrees. An error belongs to the bin that its float64
            ``atan2`` falls in, so counts below a multiple of 0.001 degrees are exact.
        total: Sum of the errors in units.
        total_squared: Sum of the squared errors in squared units.
        count: Number of pixels scored.
        invalid: How many of them had a prediction of no direction (zero, NaN, inf) and were charged the fixed error.
    """

    thresholds: tuple[float, ...]
    histogram: NDArray[np.int64]
    total: int
    total_squared: int
    count: int
    invalid: int

    @classmethod
    def empty(cls, thresholds: Sequence[float] = THRESHOLDS) -> AngularState:
        """Return the state of no pixel at all.

        Args:
            thresholds: Degrees, ascending, whole multiples of 0.001.

        Returns:
            The state.

        Raises:
            ScoreError: The thresholds are not as described.
        """
        return cls(check_thresholds(thresholds), np.zeros(kernel.BINS, np.int64), 0, 0, 0, 0)

    @classmethod
    def score(
        cls,
        preds: NDArray[np.floating],
        target: NDArray[np.floating],
        mask: NDArray[np.bool_] | None = None,
        thresholds: Sequence[float] = THRESHOLDS,
        invalid_error: float = INVALID_ERROR,
    ) -> AngularState:
        """Compare predictions with the truth in one pass, without temporaries and without the interpreter lock.

        C-contiguous float32 (or float64) arrays are read in place; others are copied first.

        Args:
            preds: (..., 3) vectors of any length, in the same axes as ``target``. Zero, NaN and infinite ones inside
                the mask are charged ``invalid_error`` and counted in ``invalid``.
            target: (..., 3) vectors of any length.
            mask: (...) bool, where the truth counts; None means everywhere.
            thresholds: Degrees, ascending, whole multiples of 0.001.
            invalid_error: Degrees in [0, 180].

        Returns:
            The state.

        Raises:
            ScoreError: Shapes do not match, the mask is not bool, thresholds or ``invalid_error`` are not as
                described, or the truth has no direction (zero, NaN, inf) somewhere inside the mask: a data set masks
                such pixels when it is read.
        """
        check_shapes(preds, target)
        inside = check_mask(mask, preds.shape[:-1])
        dtype = np.float32 if np.result_type(preds, target, np.float32) == np.float32 else np.float64
        fill = partial(
            kernel.add_vectors,
            _read_only(preds, dtype).reshape(-1),
            _read_only(target, dtype).reshape(-1),
            _read_only(inside, np.bool_).reshape(-1).view(np.uint8),
        )
        return cls._filled(fill, thresholds, invalid_error)

    @classmethod
    def score_colours(
        cls,
        preds: ColourMap,
        target: NDArray[np.floating],
        mask: NDArray[np.bool_] | None = None,
        thresholds: Sequence[float] = THRESHOLDS,
        invalid_error: float = INVALID_ERROR,
    ) -> AngularState:
        """Compare the pixels of a picture with the truth, without decoding them to vectors first.

        Args:
            preds: (H, W, 3) predictions. Pixels inside the mask that mean "no normal" are charged ``invalid_error`` and
                counted in ``invalid``.
            target: As for ``score``.
            mask: As for ``score``.
            thresholds: As for ``score``.
            invalid_error: As for ``score``.

        Returns:
            The state: that of ``score`` of the decoded vectors, but for what rounding these to unit length moves.

        Raises:
            ScoreError: As ``score``.
        """
        check_shapes(preds.pixels, target)
        inside = check_mask(mask, preds.pixels.shape[:-1])
        fill = partial(
            add_colours,
            _read_only(preds.pixels, preds.pixels.dtype.type).reshape(-1),
            _read_only(preds.allowed, np.bool_).reshape(-1).view(np.uint8),
            _read_only(preds.marks, preds.marks.dtype.type),
            preds.min_norm,
            preds.factors,
            _read_only(target, np.float32).reshape(-1),
            _read_only(inside, np.bool_).reshape(-1).view(np.uint8),
        )
        return cls._filled(fill, thresholds, invalid_error)

    @classmethod
    def of(cls, errors: NDArray[np.float64], thresholds: Sequence[float], invalid_error: float) -> AngularState:
        """Reduce errors that are known already.

        Args:
            errors: (N,) float64 degrees in [0, 180]; NaN marks a prediction of no direction.
            thresholds: Degrees, ascending, whole multiples of 0.001.
            invalid_error: What such a prediction is charged, in degrees.

        Returns:
            The state.

        Raises:
            ScoreError: An error is outside [0, 180], or thresholds or ``invalid_error`` are not as described.
        """
        if np.any((errors < 0) | (errors > 180)):
            raise ScoreError(f"expected errors in [0, 180] degrees, found {np.nanmin(errors)} to {np.nanmax(errors)}")
        return cls._filled(partial(kernel.add_errors, _read_only(errors, np.float64)), thresholds, invalid_error)

    @classmethod
    def _filled(cls, fill: Callable[..., None], thresholds: Sequence[float], invalid_error: float) -> AngularState:
        """Make a state of what a kernel adds, called with the charge of a missing direction, histogram and sums."""
        checked, charge = check_thresholds(thresholds), to_charge(invalid_error)
        histogram, sums = np.zeros(kernel.BINS, np.int64), np.zeros(kernel.SUMS, np.int64)
        fill(charge, histogram, sums)
        check_target(int(sums[kernel.BAD_TARGET]))
        squared = (int(sums[kernel.SQUARES_HIGH]) << kernel.LOW_BITS) + int(sums[kernel.SQUARES_LOW])
        counts = int(sums[kernel.COUNT]), int(sums[kernel.INVALID])
        return cls(checked, histogram, int(sums[kernel.TOTAL]), squared, *counts)

    def __add__(self, other: AngularState) -> AngularState:
        if self.thresholds != other.thresholds:
            raise ScoreError(f"states of different thresholds do not add: {self.thresholds} and {other.thresholds}")
        return AngularState(
            self.thresholds,
            self.histogram + other.histogram,
            self.total + other.total,
            self.total_squared + other.total_squared,
            self.count + other.count,
            self.invalid + other.invalid,
        )

    def metrics(self) -> dict[str, float]:
        """Return mean, median and rmse in degrees and ``within_<threshold>`` in percent; empty for no pixel.

        The median is within 0.0005 degrees of the exact one.
        """
        return dict(self._metrics)

    @cached_property
    def _metrics(self) -> dict[str, float]:
        if self.count == 0:
            return {}
        values = {
            "mean": self.total / (self.count * kernel.UNITS),
            "median": self._median(),
            "rmse": math.sqrt(self.total_squared / (self.count * kernel.UNITS**2)),
        }
        for threshold in self.thresholds:
            below = int(self.histogram[: round(threshold * kernel.BINS_PER_DEGREE)].sum())
            values[metric_name(threshold)] = 100 * below / self.count
        return values

    def _median(self) -> float:
        """Mean of the two middle values, each taken at its bin's centre: within half a bin of the exact median."""
        ranks = (self.count + 1) // 2, self.count // 2 + 1
        low, high = (kernel.bin_of_rank(self.histogram, rank) for rank in ranks)
        return min((low + high + 1) / 2 * BIN_WIDTH, 180.0)


def metric_name(threshold: float) -> str:
    """Name the accuracy at a threshold as result files do: 11.25 -> ``within_11_25``.

    Examples:
        >>> metric_name(11.25), metric_name(30.0)
        ('within_11_25', 'within_30')
    """
    return f"within_{threshold:.12g}".replace(".", "_")


def _read_only(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Give kernels one kind of array: numba compiles anew for every mix of writable and read-only ones."""
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view
