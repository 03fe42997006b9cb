"""Angular errors of predictions that a picture holds as colours: decoded piece by piece, never as a whole map.

A map of float32 normals is four times as large as its picture and leaves the cache between the step that writes it and
the step that reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.normal_maps import ColourArguments, take_colours
from ncbench.errors import ScoreError
from ncbench.evaluators.angular import INVALID_ERROR, THRESHOLDS, AngularState, read_only
from ncbench.evaluators.angular_checks import check_mask, check_target, check_thresholds, to_charge
from ncbench.evaluators.angular_kernel import BAD_TARGET, BINS, SUMS, add_vectors

_PIXELS = 1 << 15
"""Pixels at a time: their normals and their truth stay in the second cache."""


def score_colours(
    preds: ColourArguments,
    target: NDArray[np.float32],
    mask: NDArray[np.bool_],
    thresholds: Sequence[float] = THRESHOLDS,
    invalid_error: float = INVALID_ERROR,
) -> AngularState:
    """Compare the normals that a picture's colours mean with the truth: the bits of ``AngularState.score``, sooner.

    Args:
        preds: What ``StoredNormals.colours`` gives of a map of H W pixels.
        target: (H, W, 3) float32 vectors.
        mask: (H, W) bool, where the truth counts.
        thresholds: As in ``AngularState.score``.
        invalid_error: As in ``AngularState.score``.

    Returns:
        The state.

    Raises:
        ScoreError: As ``AngularState.score``.
    """
    if preds[0].size != target.size or target.shape[-1:] != (3,):
        raise ScoreError(f"expected colours for truth of shape {target.shape}, found {preds[0].size} numbers")
    checked, charge = check_thresholds(thresholds), to_charge(invalid_error)
    histogram, sums = np.zeros(BINS, np.int64), np.zeros(SUMS, np.int64)
    truth = read_only(target, np.float32).reshape(-1)
    inside = read_only(check_mask(mask, target.shape[:-1]), np.bool_).reshape(-1).view(np.uint8)
    colours, scale, marks, allowed, min_norm, factors = preds
    taken, valid = np.empty(3 * _PIXELS, np.float32), np.empty(_PIXELS, np.bool_)
    normals = read_only(taken, np.float32)
    for start in range(0, len(inside), _PIXELS):
        stop = min(start + _PIXELS, len(inside))
        count, numbers = stop - start, slice(3 * start, 3 * stop)
        rules = scale, marks, allowed[start:stop], min_norm, factors
        take_colours(colours[numbers], *rules, True, taken[: 3 * count], valid[:count])
        add_vectors(normals[: 3 * count], truth[numbers], inside[start:stop], charge, histogram, sums)
    check_target(int(sums[BAD_TARGET]))
    return AngularState.from_sums(checked, histogram, sums)
