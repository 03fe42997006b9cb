"""Bootstrap confidence intervals of pooled metrics.

What is drawn is a whole sequence, or a single picture where sequences have one frame: frames of a video repeat one
another, and drawing them one by one would promise far more certainty than there is. Intervals are percentile or BCa
(bias-corrected and accelerated: Efron, "Better Bootstrap Confidence Intervals", JASA 1987), by ``scipy.stats``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

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
    metrics = pooled(np.ones((1, units))).shape[1]
    if units < 2:
        return np.full(metrics, np.nan), np.full(metrics, np.nan), ["none"] * metrics

    def statistic(drawn: NDArray[np.intp], axis: int = -1) -> Values:
        # scipy draws along the last axis, which is the only one here
        assert axis in (-1, drawn.ndim - 1)  # noqa: S101 - a change in scipy must not pass unnoticed
        return pooled(draw_counts(np.atleast_2d(drawn), units)).T.reshape(metrics, *drawn.shape[:-1])

    settings: dict[str, Any] = {
        "vectorized": True,
        "confidence_level": confidence / 100,
        "batch": max(1, _BATCH_NUMBERS // units),
    }
    with warnings.catch_warnings():
        # where BCa is not defined scipy warns and gives NaN; those are filled in below
        warnings.simplefilter("ignore")
        found = scipy.stats.bootstrap(
            (np.arange(units),),
            statistic,
            n_resamples=resamples,
            method=method,
            rng=np.random.default_rng(seed),
            **settings,
        )
    low, high = (np.array(end, np.float64) for end in found.confidence_interval)
    undefined = ~(np.isfinite(low) & np.isfinite(high))
    tails = np.array([100 - confidence, 100 + confidence]) / 200
    low[undefined], high[undefined] = np.quantile(found.bootstrap_distribution[undefined], tails, axis=-1)
    return low, high, ["percentile" if bad else method for bad in undefined]


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
