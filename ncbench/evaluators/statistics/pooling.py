"""Metrics of any weighted set of units, for all resamples at once.

Every pooling here is a ratio of weighted sums (the median is a search in weighted sums), so that a resample is a row of
weights: how often each unit was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.protocol_card import ClipWindows

Pooling = Literal["pixels", "frames", "sequences"]
Unit = Literal["sequences", "frames"]
Values = NDArray[np.float64]
_MEDIAN, _RMSE = 1, 2


@dataclass(frozen=True)
class PooledUnits:
    """Units (sequences or single pictures) that can be weighted and pooled.

    Attributes:
        metrics: Names, M in all.
        unit: What is drawn: ``sequences``, or ``frames`` where each stands alone.
        names: One for each of the U units.
        numerator: (U, M) float64.
        denominator: (U,) float64.
        cumulative: (B, U) number of errors up to the end of each bin; None where medians are averaged, not pooled.
        bin_width: Degrees.
    """

    metrics: tuple[str, ...]
    unit: Literal["sequences", "frames"]
    names: tuple[str, ...]
    numerator: Values
    denominator: Values
    cumulative: NDArray[np.integer[Any]] | None
    bin_width: float

    def values(self, weights: NDArray[Any], *, median: bool = True) -> Values:
        """Pool under each row of weights.

        Args:
            weights: (R, U) how often each unit counts.
            median: Whether a median of pooled pixels is asked for; it costs more than all other metrics together.

        Returns:
            (R, M) float64 in the order of ``metrics``; NaN where nothing has weight, or was not asked for.
        """
        wide = np.asarray(weights, np.float64)
        with np.errstate(invalid="ignore"):
            pooled = (wide @ self.numerator) / (wide @ self.denominator)[:, None]
        if self.cumulative is not None:
            pooled[:, _RMSE] = np.sqrt(pooled[:, _RMSE])
            pooled[:, _MEDIAN] = weighted_median(self.cumulative, wide, self.bin_width) if median else np.nan
        return np.asarray(pooled)


def pool_units(
    statistics: UnitStatistics,
    pooling: Pooling,
    unit: Unit = "sequences",
    *,
    clips: ClipWindows | None = None,
    decimals: int | None = None,
) -> PooledUnits:
    """Prepare the frames of a data set for resampling.

    Args:
        statistics: One row a frame. Frames without a valid pixel have no value and are left out.
        pooling: ``pixels``: all pixels alike (DSINE). ``frames``: a metric of each frame, then their mean (Marigold).
            ``sequences``: a metric over the pixels of each sequence, or of each of its clips, then their mean.
        unit: What is drawn as a whole. Neighbouring frames are no independent evidence, so that it is ``sequences``;
            where each has one frame, these are single pictures. ``frames`` is for pictures that merely share a folder.
        clips: With pooling over sequences: windows that take the place of sequences in the mean. Sequences are still
            what is drawn.
        decimals: With pooling over frames: what the values of a frame are rounded to.

    Returns:
        The units.

    Raises:
        ScoreError: No frame has a valid pixel, or sequences are to be averaged while frames are drawn.
    """
    if pooling == "sequences" and unit == "frames":
        raise ScoreError("pooling over sequences needs whole sequences: draw unit 'sequences', not 'frames'")
    used = statistics.count > 0
    if not used.any():
        raise ScoreError("no frame has a valid pixel, so that there is nothing to resample")
    members = _members(statistics, unit)
    rows = [part[used[part]] for part in members.values()]
    rows_of = {name: part for name, part in zip(members, rows, strict=True) if part.size}
    cumulative: NDArray[np.integer[Any]] | None = None
    if pooling == "frames":
        values = _frame_values(statistics, decimals)
        numerator = np.stack([values[part].sum(axis=0) for part in rows_of.values()])
        denominator = np.array([float(len(part)) for part in rows_of.values()])
    elif pooling == "sequences":
        parts = [_window_values(statistics, members[name], clips) for name in rows_of]
        numerator, denominator = (
            np.stack([part.sum(axis=0) for part in parts]),
            np.array([float(len(p)) for p in parts]),
        )
    else:
        numerator, denominator, cumulative = _summed(statistics, list(rows_of.values()))
    alone = unit == "frames" or len(rows_of) == np.count_nonzero(used)
    return PooledUnits(
        statistics.metrics,
        "frames" if alone else "sequences",
        tuple(rows_of),
        numerator,
        denominator,
        cumulative,
        statistics.bin_width,
    )


def weighted_median(cumulative: NDArray[np.integer[Any]], weights: Values, bin_width: float) -> Values:
    """Find the median of pooled histograms under many weightings, by bisection over the bins.

    Args:
        cumulative: (B, U) number of errors of unit u up to the end of bin b.
        weights: (R, U) float64, not negative.
        bin_width: Degrees; the first bin starts at 0.

    Returns:
        (R,) float64 degrees, linear within the bin; NaN where nothing has weight.
    """
    half = weights @ cumulative[-1].astype(np.float64) / 2
    low = np.zeros(len(weights), np.intp)
    high = np.full(len(weights), len(cumulative) - 1)
    while np.any(low < high):
        middle = (low + high) // 2
        reached = _reached(cumulative, weights, middle) >= half
        high, low = np.where(reached, middle, high), np.where(reached, low, np.minimum(middle + 1, high))
    upper = _reached(cumulative, weights, low)
    lower = np.where(low > 0, _reached(cumulative, weights, np.maximum(low - 1, 0)), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(half > 0, (low + (half - lower) / (upper - lower)) * bin_width, np.nan))


def _reached(cumulative: NDArray[np.integer[Any]], weights: Values, bins: NDArray[np.intp]) -> Values:
    return np.asarray(np.einsum("ru,ru->r", weights, cumulative[bins].astype(np.float64)))


def _members(statistics: UnitStatistics, unit: Unit) -> dict[str, NDArray[np.intp]]:
    """Unit -> its rows, in the order of the frames."""
    found: dict[str, list[int]] = {}
    for row, (sequence, frame) in sorted(enumerate(statistics.keys), key=lambda item: item[1]):
        found.setdefault(f"{sequence}/{frame}" if unit == "frames" else sequence, []).append(row)
    return {name: np.array(rows, np.intp) for name, rows in found.items()}


def _frame_values(statistics: UnitStatistics, decimals: int | None) -> Values:
    """(F, M) metrics of each frame; NaN where it has no pixel."""
    columns = [statistics.total, statistics.median * statistics.count, statistics.total_squared]
    sums = np.column_stack([*columns, 100.0 * statistics.below])
    with np.errstate(invalid="ignore"):
        values = sums / statistics.count[:, None]
    values[:, _RMSE] = np.sqrt(values[:, _RMSE])
    return values if decimals is None else np.round(values, decimals)


def _window_values(statistics: UnitStatistics, rows: NDArray[np.intp], clips: ClipWindows | None) -> Values:
    """(C, M) metrics over the pixels of each window of one sequence that has any."""
    windows = [rows] if clips is None else [rows[list(window)] for window in clips.windows(len(rows))]
    kept = [window for window in windows if statistics.count[window].any()]
    numerator, denominator, cumulative = _summed(statistics, kept)
    pooled = PooledUnits((), "sequences", (), numerator, denominator, cumulative, statistics.bin_width)
    return pooled.values(np.eye(len(kept)))


def _summed(
    statistics: UnitStatistics, groups: list[NDArray[np.intp]]
) -> tuple[Values, Values, NDArray[np.integer[Any]]]:
    """Sums over the pixels of each group of rows: numerators, denominators and cumulative histograms of pooling."""
    columns = [statistics.total, np.zeros(len(statistics.count)), statistics.total_squared]
    sums = np.column_stack([*columns, 100.0 * statistics.below])
    numerator = np.stack([sums[rows].sum(axis=0) for rows in groups])
    denominator = np.array([float(statistics.count[rows].sum()) for rows in groups])
    kind = np.uint32 if denominator.max() <= np.iinfo(np.uint32).max else np.uint64
    # bins along the first axis, so that a look-up reads neighbouring numbers
    cumulative = np.stack(
        [np.cumsum(statistics.histogram[rows].sum(axis=0, dtype=kind), dtype=kind) for rows in groups], axis=1
    )
    return numerator, denominator, cumulative
