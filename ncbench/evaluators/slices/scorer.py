"""Angular errors by slice and bin, frame after frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.angular import metric_name
from ncbench.evaluators.angular_kernel import angle
from ncbench.evaluators.slices.base import NOT_APPLICABLE, Slice
from ncbench.evaluators.statistics.pooling import weighted_median
from ncbench.evaluators.statistics.units import COARSE_BIN
from ncbench.evaluators.view import View
from ncbench.jit import jit

ALL = "all"
OUTSIDE = "not applicable"
_BINS_PER_DEGREE = round(1 / COARSE_BIN)
_BINS = 180 * _BINS_PER_DEGREE + 1


@dataclass(frozen=True)
class BinSums:
    """Sums over the pixels of each bin of one slice, added to in place; the last row is for pixels outside every bin.

    Attributes:
        count: (K + 1, T + 1) int64 pixels by bin and by how many thresholds they reach.
        sums: (K + 1, 2) float64 errors and squared errors in degrees.
        histogram: (K + 1, B) int64, bins of 0.01 degrees.
        frames: (1,) int64 in how many frames the slice could be told.
        missing: (N,) int64 in how many frames each of its needs was missing.
    """

    count: NDArray[np.int64]
    sums: NDArray[np.float64]
    histogram: NDArray[np.int64]
    frames: NDArray[np.int64]
    missing: NDArray[np.int64]

    @classmethod
    def empty(cls, bins: int, thresholds: int, needs: int) -> BinSums:
        """Return the sums of no pixel."""
        return cls(
            np.zeros((bins + 1, thresholds + 1), np.int64),
            np.zeros((bins + 1, 2)),
            np.zeros((bins + 1, _BINS), np.int64),
            np.zeros(1, np.int64),
            np.zeros(needs, np.int64),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give the arrays themselves, by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class SliceScorer:
    """Scores a stream of frames by slice; scorers of parts of a data set add up to the scorer of the whole.

    Args:
        slices: What to look at, under different names.
        thresholds: Degrees, ascending; strict, as the protocol's.
        invalid_error: What a prediction of no direction is charged, in degrees.

    Raises:
        ScoreError: Two slices share a name, or one is called ``all``.
    """

    def __init__(self, slices: Sequence[Slice], thresholds: Sequence[float], invalid_error: float) -> None:
        names = [ALL, *(one.name for one in slices)]
        if len(set(names)) != len(names):
            raise ScoreError(f"expected slices of different names, none of them '{ALL}', found {names[1:]}")
        self._slices = tuple(slices)
        self._thresholds = tuple(float(threshold) for threshold in thresholds)
        self._invalid_error = float(invalid_error)
        self._sums = [BinSums.empty(len(one.bins), len(self._thresholds), len(one.needs)) for one in slices]
        self._total = BinSums.empty(1, len(self._thresholds), 0)
        self._last: View | None = None

    def add(self, preds: NDArray[np.floating], view: View) -> None:
        """Score one frame; frames of a sequence come in order, since some slices look at the frame before.

        Args:
            preds: (H, W, 3) predicted normals in the view's axes; lengths do not matter.
            view: The truth.

        Raises:
            ScoreError: The sizes differ.
        """
        if preds.shape != view.normal.shape:
            raise ScoreError(
                f"sequence '{view.sequence}', frame {view.frame}: expected predictions of shape {view.normal.shape}, "
                f"found {preds.shape}"
            )
        previous, self._last = self._previous(view), view
        pixels = _measured(preds, view, self._thresholds, self._invalid_error)
        _accumulate(
            np.zeros(view.valid.size, np.int8), *pixels, self._total.count, self._total.sums, self._total.histogram
        )
        self._total.frames[0] += 1
        for one, sums in zip(self._slices, self._sums, strict=True):
            missing = one.missing(view, previous)
            labels = np.full(view.size, NOT_APPLICABLE, np.int8) if missing else one.label(view, previous)
            _accumulate(np.ascontiguousarray(labels).ravel(), *pixels, sums.count, sums.sums, sums.histogram)
            sums.frames[0] += not missing
            sums.missing[:] += np.array([need in missing for need in one.needs], np.int64)

    def __iadd__(self, other: SliceScorer) -> SliceScorer:
        if self._settings() != other._settings():
            raise ScoreError("scorers of different slices, thresholds or invalid_error do not add")
        self.add_arrays(other.to_arrays())
        return self

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Give all sums, for a file; ``add_arrays`` of a scorer made alike takes them back."""
        every = [self._total, *self._sums]
        return {f"{number}.{name}": values for number, one in enumerate(every) for name, values in one.arrays().items()}

    def add_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take in the sums of other frames.

        Args:
            arrays: As ``to_arrays`` gave them.

        Raises:
            ValueError: They are of other slices, bins or thresholds; nothing was added.
        """
        mine = self.to_arrays()
        if {name: values.shape for name, values in mine.items()} != {name: a.shape for name, a in arrays.items()}:
            raise ValueError("these sums are of other slices, bins or thresholds")
        for name, values in mine.items():
            np.add(values, arrays[name], out=values)

    def frame(self) -> pd.DataFrame:
        """Reduce to a tidy table.

        Returns:
            One row a bin, slices in order after the row ``all``: ``slice``, ``bin``, ``pixels``, ``share`` (of all
            valid pixels, 0 to 1), ``mean``, ``median`` (within 0.01), ``rmse`` in degrees, ``within_*`` in percent,
            ``frames`` (in which the slice could be told), ``note`` (what was missing in the others). A bin without
            pixels has NaN. The pixels that a slice does not speak of are its last row, ``not applicable``, where there
            are any; so the rows of every slice add up to all pixels.
        """
        rows = self._rows(ALL, (ALL,), (), self._total)
        for one, sums in zip(self._slices, self._sums, strict=True):
            rows += self._rows(one.name, one.bins, one.needs, sums)
        return pd.DataFrame(rows)

    def _rows(self, name: str, bins: Sequence[str], needs: Sequence[str], sums: BinSums) -> list[dict[str, Any]]:
        pixels, total = sums.count.sum(axis=1), self._total.count.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            mean, square = (sums.sums / pixels[:, None]).T
            within = 100 * np.cumsum(sums.count, axis=1)[:, :-1] / pixels[:, None]
            share = pixels / total
        median = weighted_median(np.cumsum(sums.histogram, axis=1).T, np.eye(len(pixels)), COARSE_BIN)
        frames = int(self._total.frames[0])
        lacks = [
            f"no {need} in {times} of {frames} frames" for need, times in zip(needs, sums.missing, strict=True) if times
        ]
        rows = []
        for index, label in enumerate((*bins, OUTSIDE)):
            if label == OUTSIDE and pixels[index] == 0:
                continue
            row: dict[str, Any] = {"slice": name, "bin": label, "pixels": int(pixels[index]), "share": share[index]}
            row |= {"mean": mean[index], "median": median[index], "rmse": np.sqrt(square[index])}
            row |= {metric_name(t): within[index, k] for k, t in enumerate(self._thresholds)}
            rows.append(row | {"frames": int(sums.frames[0]), "note": "; ".join(lacks)})
        return rows

    def _previous(self, view: View) -> View | None:
        last = self._last
        follows = last is not None and last.sequence == view.sequence and last.flow_to == view.frame
        # flow between pictures of two sizes says nothing pixel by pixel
        return last if follows and last is not None and last.size == view.size else None

    def _settings(self) -> tuple[Any, ...]:
        return [(one.name, one.bins, one.needs) for one in self._slices], self._thresholds, self._invalid_error


def _measured(
    preds: NDArray[np.floating], view: View, thresholds: Sequence[float], invalid_error: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int8]]:
    """(N,) valid, error in degrees and number of thresholds reached, of every pixel; computed once for all slices."""
    valid = np.ascontiguousarray(view.valid).ravel()
    errors, passed = np.zeros(valid.size), np.zeros(valid.size, np.int8)
    # one dtype each, so that the kernel is compiled once
    vectors = [np.ascontiguousarray(part, np.float32).reshape(-1, 3) for part in (preds, view.normal)]
    _measure(vectors[0], vectors[1], valid, np.asarray(thresholds, np.float64), invalid_error, errors, passed)
    return valid, errors, passed


@jit()
def _measure(
    preds: NDArray[np.float32],
    target: NDArray[np.float32],
    valid: NDArray[np.bool_],
    thresholds: NDArray[np.float64],
    invalid_error: float,
    errors: NDArray[np.float64],
    passed: NDArray[np.int8],
) -> None:
    for i in range(len(valid)):
        if not valid[i]:
            continue
        # numba keeps a float32 component float32 otherwise, and the angle with it
        ax, ay, az = np.float64(preds[i, 0]), np.float64(preds[i, 1]), np.float64(preds[i, 2])
        error = angle(ax, ay, az, np.float64(target[i, 0]), np.float64(target[i, 1]), np.float64(target[i, 2]))
        errors[i] = invalid_error if math.isnan(error) else error
        for threshold in thresholds:
            passed[i] += errors[i] >= threshold


@jit()
def _accumulate(
    labels: NDArray[np.int8],
    valid: NDArray[np.bool_],
    errors: NDArray[np.float64],
    passed: NDArray[np.int8],
    count: NDArray[np.int64],
    sums: NDArray[np.float64],
    histogram: NDArray[np.int64],
) -> None:
    outside = len(count) - 1
    for i in range(len(labels)):
        if not valid[i]:
            continue
        row = labels[i] if labels[i] >= 0 else outside
        count[row, passed[i]] += 1
        sums[row, 0] += errors[i]
        sums[row, 1] += errors[i] * errors[i]
        histogram[row, int(errors[i] * _BINS_PER_DEGREE)] += 1
