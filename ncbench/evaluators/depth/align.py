"""Fit predicted disparity to the truth by least squares, frame after frame, without keeping any.

Affine-invariant depth models answer up to a scale and a shift of disparity (1 / depth). DepthCrafter (Hu et al., CVPR
2025) and all who compare with it fit one pair to all valid pixels of a clip, so that flicker of either is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError

BoolMap = NDArray[np.bool_]
DoubleMap = NDArray[np.float64]

LEAST_DISPARITY = 1e-3
"""Predicted disparity is clipped from below to this before the fit and again after it, as in DepthCrafter's code."""

LEAST_DEPTH = 1e-3
"""Metres that aligned depth is clipped to from below, likewise."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Sufficient statistics of a line fit; ``a + b`` are those of the union.

    They are centred, since the plain sums of a prediction with a large offset cancel (Chan et al., 1983).

    Attributes:
        count: Number of pixels.
        mean_pred: Mean prediction.
        mean_target: Mean truth.
        pred_pred: Sum of squared deviations of the prediction from its mean.
        pred_target: Sum of the products of both deviations.
    """

    count: int = 0
    mean_pred: float = 0.0
    mean_target: float = 0.0
    pred_pred: float = 0.0
    pred_target: float = 0.0

    @classmethod
    def of(cls, pred: NDArray[np.floating[Any]], target: NDArray[np.floating[Any]]) -> Moments:
        """Take the statistics of (N,) predictions and truths; all must be finite."""
        if pred.size == 0:
            return cls()
        x, y = pred.astype(np.float64), target.astype(np.float64)
        mean_x, mean_y = float(x.mean()), float(y.mean())
        x -= mean_x
        return cls(x.size, mean_x, mean_y, float(x @ x), float(x @ (y - mean_y)))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if count == 0:
            return self
        step_x, step_y = other.mean_pred - self.mean_pred, other.mean_target - self.mean_target
        share = other.count / count
        between = self.count * share
        return Moments(
            count,
            self.mean_pred + share * step_x,
            self.mean_target + share * step_y,
            self.pred_pred + other.pred_pred + between * step_x * step_x,
            self.pred_target + other.pred_target + between * step_x * step_y,
        )


@dataclass(frozen=True, slots=True)
class Alignment:
    """``scale * prediction + shift`` approximates the truth, in disparity."""

    scale: float = 1.0
    shift: float = 0.0


def solve(moments: Moments, kind: Literal["affine", "scale"]) -> Alignment:
    """Minimise the squared error over the pixels behind the moments.

    Args:
        moments: At least one pixel.
        kind: ``affine`` fits scale and shift, ``scale`` the scale alone.

    Returns:
        The minimum; for a constant prediction, whose scale nothing determines, scale 0 and the truth's mean as shift.

    Raises:
        ScoreError: There is no pixel.
    """
    if moments.count == 0:
        raise ScoreError(
            "no pixel to fit a prediction to: the truth is unknown or out of range, or nothing is answered"
        )
    if kind == "scale":
        # back to the sums about zero
        product = moments.pred_target + moments.count * moments.mean_pred * moments.mean_target
        square = moments.pred_pred + moments.count * moments.mean_pred**2
        return Alignment(product / square)
    # what rounding leaves of the spread of a constant
    floor = moments.count * (np.finfo(np.float64).eps * moments.mean_pred) ** 2
    scale = moments.pred_target / moments.pred_pred if moments.pred_pred > floor else 0.0
    return Alignment(scale, moments.mean_target - scale * moments.mean_pred)


def predicted_disparity(
    pred: NDArray[np.floating[Any]], prediction: Literal["disparity", "depth"]
) -> tuple[DoubleMap, BoolMap]:
    """Read a prediction as disparity.

    Args:
        pred: (H, W) what the model answers. No answer is what is not finite, and of ``depth`` what is not positive.
        prediction: Which of the two it is.

    Returns:
        (H, W) float64 disparity, at least ``LEAST_DISPARITY``, that value where there is no answer; and (H, W) bool,
        true where there is one.
    """
    values = pred.astype(np.float64)
    answered: BoolMap = np.isfinite(values)
    if prediction == "depth":
        answered &= values > 0
        values = 1 / np.where(answered, values, 1)
    return np.where(answered, np.maximum(values, LEAST_DISPARITY), LEAST_DISPARITY), answered


def aligned_depth(disparity: DoubleMap, answered: BoolMap, alignment: Alignment, max_depth: float) -> DoubleMap:
    """Turn a prediction into depth in the truth's units.

    Args:
        disparity: (H, W) as ``predicted_disparity`` gives it.
        answered: (H, W) bool; what has no answer is put at the largest depth.
        alignment: The fit.
        max_depth: Metres.

    Returns:
        (H, W) float64 metres, from ``LEAST_DEPTH`` to ``max_depth``.
    """
    fitted = np.maximum(alignment.scale * disparity + alignment.shift, LEAST_DISPARITY)
    return np.where(answered, np.clip(1 / fitted, LEAST_DEPTH, max_depth), max_depth)
