"""Bootstrap confidence intervals of pooled metrics.

What is drawn is a whole sequence, or a single picture where sequences have one frame: frames of a video repeat one
another, and drawing them one by one would promise far more certainty than there is. Intervals are percentile or BCa
(bias-corrected and accelerated: Efron, "Better Bootstrap Confidence Intervals", JASA 1987). Draws and numbers are
those of ``scipy.stats.bootstrap``, which is not called because its import takes 0.4 s of every evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from ncbench.errors import ScoreError
from ncbench.evaluators.statistics.pooling import Pooling, Unit, Values, pool_units
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.protocol_card import ClipWindows

Method = Literal["percentile", "BCa"]
FEW_UNITS = 10
"""Below this the resamples are few distinct ones, and intervals come out too narrow."""
_BATCH_NUMBERS = 4_000_000
"""How many weights are held at a time: 32 MB in float64."""


def intervals(
    statistics: UnitStatistics,
    pooling: Pooling = "pixels",
    *,
    unit: Unit = "sequences",
    clips: ClipWindows | None = None,
    decimals: int | None = None,
    confidence: float = 95.0,
    resamples: int = 2000,
    method: Method = "BCa",
    seed: int = 0,
) -> pd.DataFrame:
    """Say how far each metric could move with other sequences of the same kind.

    Args:
        statistics: One row a frame of the whole protocol; never of a part of it.
        pooling: As the protocol pools; see ``pool_units``.
        unit: What is drawn as a whole; see ``pool_units``.
        clips: As the protocol has them; see ``pool_units``.
        decimals: As the protocol rounds; see ``pool_units``.
        confidence: Nominal coverage in percent.
        resamples: How many times the units are drawn.
        method: ``BCa``, or ``percentile``. Where BCa is not defined (every resample on one side of the value) the
            interval is the percentile one and says so.
        seed: Of the draws.

    Returns:
        One row a metric: ``metric``, ``value``, ``low``, ``high`` (degrees or percent), ``confidence``, ``method``,
        ``unit`` (``sequences`` or ``frames``), ``units``, ``resamples``, ``seed``, and ``note`` (empty; or that there
        is no interval; or that it is rough). ``low`` and ``high`` are NaN where there is no interval. Pooled medians
        are taken from bins of ``statistics.bin_width``.

    Raises:
        ScoreError: Nothing to resample, or a setting out of range.
    """
    check_settings(confidence, resamples)
    units = pool_units(statistics, pooling, unit, clips=clips, decimals=decimals)
    number = len(units.names)
    value = units.values(np.ones((1, number)))[0]
    low, high, used = bootstrap_interval(units.values, number, confidence, resamples, method, seed)
    return pd.DataFrame(
        {
            "metric": units.metrics,
            "value": value,
            "low": low,
            "high": high,
            "confidence": confidence,
            "method": used,
            "unit": units.unit,
            "units": number,
            "resamples": resamples,
            "seed": seed,
            "note": interval_note(number, units.unit),
        }
    )


def bootstrap_interval(
    pooled: Callable[[NDArray[Any]], Values], units: int, confidence: float, resamples: int, method: Method, seed: int
) -> tuple[Values, Values, list[str]]:
    """Resample units for any metrics that can be pooled from weights.

    Args:
        pooled: (R, U) weights -> (R, M) metrics.
        units: U.
        confidence: Nominal coverage in percent.
        resamples: How many times the units are drawn.
        method: ``BCa`` or ``percentile``.
        seed: Of the draws.

    Returns:
        Lower and upper ends, (M,) each, NaN for fewer than two units; and the method that gave each.
    """
    value = pooled(np.ones((1, units)))
    if units < 2:
        return np.full(value.size, np.nan), np.full(value.size, np.nan), ["none"] * value.size
    rng, batch = np.random.default_rng(seed), max(1, _BATCH_NUMBERS // units)
    sizes = [min(batch, resamples - start) for start in range(0, resamples, batch)]
    drawn = np.concatenate([pooled(draw_counts(rng.integers(0, units, (size, units)), units)) for size in sizes])
    plain = np.tile([(100 - confidence) / 200, (100 + confidence) / 200], (value.size, 1))
    tails = plain
    if method == "BCa":
        left_out = np.concatenate([pooled(rows) for rows in _leaving_one_out(units, batch)])
        tails = _bca_tails(value[0], drawn, left_out, plain)
    undefined = np.isnan(tails).any(axis=1)
    tails = np.where(undefined[:, None], plain, tails)
    ends = np.array([np.quantile(column, ends) for column, ends in zip(drawn.T, tails, strict=True)])
    return ends[:, 0], ends[:, 1], ["percentile" if bad else method for bad in undefined]


def _leaving_one_out(units: int, batch: int) -> Iterator[NDArray[np.intp]]:
    """Weights of all units but one, in batches."""
    for start in range(0, units, batch):
        rows = np.arange(start, min(start + batch, units))
        weights = np.ones((len(rows), units), np.intp)
        weights[np.arange(len(rows)), rows] = 0
        yield weights


def _bca_tails(value: Values, drawn: Values, left_out: Values, tails: Values) -> Values:
    """Correct the tails for bias and acceleration (Efron 1987, section 3; acceleration by the jackknife).

    Args:
        value: (M,) metrics of the data.
        drawn: (R, M) metrics of the resamples.
        left_out: (U, M) metrics without one unit.
        tails: (M, 2) shares below the ends of the plain interval.

    Returns:
        (M, 2) shares; NaN where every resample is on one side of the value, or no unit matters.
    """
    influence = left_out.mean(axis=0) - left_out
    with np.errstate(invalid="ignore", divide="ignore"):
        acceleration = (influence**3).sum(axis=0) / (6 * (influence**2).sum(axis=0) ** 1.5)
        bias = ndtri(((drawn < value).mean(axis=0) + (drawn <= value).mean(axis=0)) / 2)[:, None]
        shifted = bias + ndtri(tails)
        return np.asarray(ndtr(bias + shifted / (1 - acceleration[:, None] * shifted)))


def draw_counts(drawn: NDArray[np.intp], units: int) -> NDArray[np.intp]:
    """Count how often each unit was drawn: (R, n) indices -> (R, U)."""
    offset = np.arange(len(drawn))[:, None] * units
    return np.bincount((drawn + offset).ravel(), minlength=len(drawn) * units).reshape(len(drawn), units)


def check_settings(confidence: float, resamples: int) -> None:
    """Refuse settings that give no interval.

    Raises:
        ScoreError: Confidence outside [1, 100), or fewer than 100 resamples.
    """
    if not 1 <= confidence < 100:
        raise ScoreError(f"expected a confidence in percent, 1 or more and below 100, such as 95, found {confidence}")
    if resamples < 100:
        raise ScoreError(f"expected at least 100 resamples, found {resamples}: the ends of an interval are rare draws")


def interval_note(units: int, unit: str) -> str:
    """Say what a reader must know about an interval from so many units; empty where nothing."""
    if units < 2:
        return f"no interval: only {units} of {unit}"
    return f"rough: only {units} {unit}" if units < FEW_UNITS else ""
