"""Angular error between unit normals, and its pooled statistics.

The error is the angle ``atan2(|a x b|, a . b)``: float32 ``acos`` of a cosine cannot resolve angles under 0.014
degrees. Pooled statistics follow the DSINE protocol (Bae and Davison, CVPR 2024): over all valid pixels of all frames,
with strict ``<`` thresholds. The state is a fixed-size histogram plus exact sums, so it merges by addition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.jit import jit

BIN_WIDTH = 0.001
_BINS = 180_001


def angular_error(preds: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """Measure the angle between two maps of vectors; lengths do not matter.

    Args:
        preds: (..., 3) vectors in the same axes as ``target``.
        target: (..., 3) vectors.

    Returns:
        (...) float64 degrees in [0, 180]; NaN where either vector is zero, NaN or infinite.

    Raises:
        ScoreError: The shapes differ or the last axis is not 3.

    Example:
        >>> angular_error(np.array([0.0, 0.0, -1.0]), np.array([0.0, -1.0, -1.0])).round(9).item()
        45.0
    """
    if preds.shape != target.shape or preds.ndim == 0 or preds.shape[-1] != 3:
        raise ScoreError(
            f"expected two (..., 3) arrays of equal shape, found preds {preds.shape} and target {target.shape}"
        )
    flat = _angles(
        np.ascontiguousarray(preds, np.float64).reshape(-1, 3), np.ascontiguousarray(target, np.float64).reshape(-1, 3)
    )
    return flat.reshape(preds.shape[:-1])


@jit()
def _angles(preds: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.empty(len(preds))
    for i in range(len(preds)):
        ax, ay, az = preds[i, 0], preds[i, 1], preds[i, 2]
        bx, by, bz = target[i, 0], target[i, 1], target[i, 2]
        # scaled by the largest component, so that tiny and huge vectors neither underflow nor overflow
        sa = max(abs(ax), abs(ay), abs(az))
        sb = max(abs(bx), abs(by), abs(bz))
        if not (0.0 < sa < math.inf and 0.0 < sb < math.inf) or math.isnan(ax + ay + az + bx + by + bz):
            out[i] = math.nan
            continue
        ax, ay, az = ax / sa, ay / sa, az / sa
        bx, by, bz = bx / sb, by / sb, bz / sb
        cx, cy, cz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        sine = math.sqrt(cx * cx + cy * cy + cz * cz)
        out[i] = math.degrees(math.atan2(sine, ax * bx + ay * by + az * bz))
    return out


@dataclass(frozen=True)
class AngularState:
    """Sufficient statistics of a set of angular errors; ``a + b`` is the state of the union.

    Attributes:
        thresholds: Degrees, ascending.
        below: (len(thresholds),) int64, number of errors strictly below each threshold (exact).
        histogram: (180001,) int64, errors in bins of 0.001 degrees (for the median).
        total: Sum of the errors in degrees.
        total_squared: Sum of the squared errors.
        count: Number of pixels scored.
        invalid: How many of them had a prediction of no direction (zero, NaN, inf) and were charged the fixed error.
    """

    thresholds: tuple[float, ...]
    below: NDArray[np.int64]
    histogram: NDArray[np.int64]
    total: float
    total_squared: float
    count: int
    invalid: int

    @classmethod
    def empty(cls, thresholds: Sequence[float]) -> AngularState:
        """Return the state of no pixel at all."""
        zeros = np.zeros(len(thresholds), np.int64)
        return cls(tuple(thresholds), zeros, np.zeros(_BINS, np.int64), 0.0, 0.0, 0, 0)

    @classmethod
    def of(cls, errors: NDArray[np.float64], thresholds: Sequence[float], invalid_error: float) -> AngularState:
        """Reduce the errors of the pixels that count.

        Args:
            errors: (N,) float64 degrees; NaN marks a prediction of no direction.
            thresholds: Degrees, ascending.
            invalid_error: What such a prediction is charged, in degrees.

        Returns:
            The state.
        """
        bad = np.isnan(errors)
        charged = np.where(bad, invalid_error, errors)
        return cls(
            tuple(thresholds),
            np.array([np.count_nonzero(charged < threshold) for threshold in thresholds], np.int64),
            np.bincount((charged / BIN_WIDTH).astype(np.int64), minlength=_BINS),
            float(charged.sum()),
            float(charged @ charged),
            charged.size,
            int(bad.sum()),
        )

    def __add__(self, other: AngularState) -> AngularState:
        if self.thresholds != other.thresholds:
            raise ScoreError(f"states of different thresholds do not add: {self.thresholds} and {other.thresholds}")
        return AngularState(
            self.thresholds,
            self.below + other.below,
            self.histogram + other.histogram,
            self.total + other.total,
            self.total_squared + other.total_squared,
            self.count + other.count,
            self.invalid + other.invalid,
        )

    def metrics(self) -> dict[str, float]:
        """Return mean, median and rmse in degrees and ``within_<threshold>`` in percent; empty for no pixel."""
        if self.count == 0:
            return {}
        values = {
            "mean": self.total / self.count,
            "median": self._median(),
            "rmse": math.sqrt(self.total_squared / self.count),
        }
        for threshold, below in zip(self.thresholds, self.below, strict=True):
            values[metric_name(threshold)] = 100.0 * int(below) / self.count
        return values

    def _median(self) -> float:
        """Mean of the two middle values, each taken at its bin's centre: within half a bin of the exact median."""
        cumulative = np.cumsum(self.histogram)
        ranks = ((self.count - 1) // 2 + 1, self.count // 2 + 1)
        low, high = (int(np.searchsorted(cumulative, rank)) for rank in ranks)
        return min((low + high + 1) / 2 * BIN_WIDTH, 180.0)


def metric_name(threshold: float) -> str:
    """Name the accuracy at a threshold as result files do: 11.25 -> ``within_11_25``.

    Example:
        >>> metric_name(11.25), metric_name(30.0)
        ('within_11_25', 'within_30')
    """
    return f"within_{threshold:.12g}".replace(".", "_")


def check_invariants(metrics: dict[str, float], where: str) -> None:
    """Refuse numbers that contradict one another, so that a bug or an edited file never reaches a table.

    Args:
        metrics: As ``AngularState.metrics`` gives them.
        where: Whose numbers, for the message.

    Raises:
        ScoreError: An angle outside [0, 180], an accuracy outside [0, 100], rmse below the mean, or accuracies that
            fall as the threshold grows.
    """
    for name, value in metrics.items():
        limit = 100.0 if name.startswith("within_") else 180.0
        if not 0.0 <= value <= limit:
            raise ScoreError(f"{where}: {name} is {value}, outside [0, {limit:g}]")
    # a hair of slack: the mean and the rmse of equal errors are rounded on different paths
    if metrics["rmse"] < metrics["mean"] - 1e-9:
        raise ScoreError(f"{where}: rmse {metrics['rmse']} is below the mean {metrics['mean']}")
    names = [name for name in metrics if name.startswith("within_")]
    ordered = sorted(names, key=lambda name: float(name.removeprefix("within_").replace("_", ".")))
    for lower, higher in itertools.pairwise(ordered):
        if metrics[lower] > metrics[higher]:
            raise ScoreError(f"{where}: {lower} ({metrics[lower]}) exceeds {higher} ({metrics[higher]})")
