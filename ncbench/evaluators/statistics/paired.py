"""Is one model better than another on the same frames?

Two models that are scored on the same frames share what is hard about them, so that their difference is far surer than
two separate intervals suggest. The interval draws the same units for both (paired bootstrap); the p-value comes from
swapping the two models' answers unit by unit, which under the null hypothesis changes nothing (for averages of per-unit
values this is the sign-flip test).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.statistics.bootstrap import Method, bootstrap_interval, check_settings, interval_note
from ncbench.evaluators.statistics.pooling import PooledUnits, Pooling, Unit, Values, pool_units
from ncbench.evaluators.statistics.ranks import lower_is_better
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.protocol_card import ClipWindows
from ncbench.settings import suggest

EXACT_UNITS = 14
"""Up to here all 2^units swaps are tried; beyond, ``permutations`` random ones."""
_BATCH_NUMBERS = 1_000_000


def compare(
    a: UnitStatistics,
    b: UnitStatistics,
    pooling: Pooling = "pixels",
    *,
    names: tuple[str, str] = ("a", "b"),
    metrics: Sequence[str] | None = None,
    unit: Unit = "sequences",
    clips: ClipWindows | None = None,
    decimals: int | None = None,
    confidence: float = 95.0,
    resamples: int = 2000,
    permutations: int = 9999,
    method: Method = "BCa",
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two models metric by metric.

    Args:
        a: One model's frames.
        b: The other's, the same frames with the same pixels.
        pooling: As the protocol pools.
        names: What to call the two.
        metrics: Which metrics; None takes all.
        unit: What is drawn and swapped as a whole; see ``pool_units``.
        clips: As the protocol has them; see ``pool_units``.
        decimals: As the protocol rounds; see ``pool_units``.
        confidence: Nominal coverage of the interval in percent.
        resamples: Of the bootstrap.
        permutations: Random swaps where there are more than ``EXACT_UNITS`` units. The least p-value that they can give
            is 2 / (permutations + 1).
        method: Of the interval.
        seed: Of draws and swaps.

    Returns:
        One row a metric: ``metric``, ``a``, ``b`` (names), ``value_a``, ``value_b``, ``difference`` (a - b), ``low``,
        ``high``, ``p`` (two-sided; NaN for fewer than two units), ``exact`` (all swaps were tried), ``better`` (a name,
        empty for equal values), ``method``, ``unit``, ``units``, ``confidence``, ``resamples``, ``seed``, ``note``.

    Raises:
        ScoreError: The two were not scored on the same frames and pixels, with the first that differs; or a setting is
            out of range.
    """
    check_settings(confidence, resamples)
    require_paired(a, b, names)
    first, second = (pool_units(one, pooling, unit, clips=clips, decimals=decimals) for one in (a, b))
    number, kept = len(first.names), _selected(first.metrics, metrics)
    chosen = [first.metrics[index] for index in kept]
    median = "median" in chosen

    def difference(weights: NDArray[Any]) -> Values:
        return first.values(weights, median=median)[:, kept] - second.values(weights, median=median)[:, kept]

    ones = np.ones((1, number))
    value_a, value_b = first.values(ones)[0, kept], second.values(ones)[0, kept]
    low, high, used = bootstrap_interval(difference, number, confidence, resamples, method, seed)
    p = _swap_test(first, second, permutations, seed, median=median)[kept]
    return pd.DataFrame(
        {
            "metric": chosen,
            "a": names[0],
            "b": names[1],
            "value_a": value_a,
            "value_b": value_b,
            "difference": value_a - value_b,
            "low": low,
            "high": high,
            "p": p,
            "exact": number <= EXACT_UNITS,
            "better": [_better(name, x, y, names) for name, x, y in zip(chosen, value_a, value_b, strict=True)],
            "method": used,
            "unit": first.unit,
            "units": number,
            "confidence": confidence,
            "resamples": resamples,
            "seed": seed,
            "note": interval_note(number, first.unit),
        }
    )


def compare_all(
    models: Mapping[str, UnitStatistics],
    pooling: Pooling = "pixels",
    *,
    baseline: str | None = None,
    **settings: Any,  # noqa: ANN401 - the keywords of ``compare``
) -> pd.DataFrame:
    """Compare several models and correct for having asked so often.

    Args:
        models: Name -> frames; at least two.
        pooling: As the protocol pools.
        baseline: Compare every other model with this one; None compares every pair.
        **settings: As for ``compare``. Choose ``metrics`` beforehand: every row counts as one question.

    Returns:
        The rows of ``compare``, with ``p_holm``: p-values corrected over all rows of this table (Holm).

    Raises:
        ScoreError: Fewer than two models, an unknown baseline, or as ``compare``.
    """
    if len(models) < 2:
        raise ScoreError(f"expected at least two models to compare, found {len(models)}")
    if baseline is not None and baseline not in models:
        raise ScoreError(f"no model '{baseline}' to compare with. {suggest(baseline, models)}")
    pairs = (
        list(itertools.combinations(models, 2))
        if baseline is None
        else [(name, baseline) for name in models if name != baseline]
    )
    parts = [compare(models[one], models[other], pooling, names=(one, other), **settings) for one, other in pairs]
    table = pd.concat(parts, ignore_index=True)
    table.insert(list(table.columns).index("p") + 1, "p_holm", holm(table["p"].to_numpy()))
    return table


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Correct p-values for their number (Holm, Scandinavian Journal of Statistics 1979), step down.

    Args:
        p: (N,) p-values; NaN is no question and stays NaN.

    Returns:
        (N,) corrected p-values: where one is below alpha, the chance of any false finding among all is below alpha.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    given = np.asarray(p, np.float64)
    corrected = np.full(given.shape, np.nan)
    asked = np.flatnonzero(~np.isnan(given))
    order = asked[np.argsort(given[asked], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return corrected


def require_paired(a: UnitStatistics, b: UnitStatistics, names: tuple[str, str] = ("a", "b")) -> None:
    """Refuse two models that were not scored on the same pixels.

    Args:
        a: One model's frames.
        b: The other's.
        names: What to call the two.

    Raises:
        ScoreError: Naming the first frame that only one has, or whose pixel counts differ; or other thresholds or bins.
    """
    if (a.thresholds, a.bin_width) != (b.thresholds, b.bin_width):
        raise ScoreError(f"'{names[0]}' and '{names[1]}' were scored with different thresholds or bins; evaluate again")
    counts = tuple(dict(zip(one.keys, one.count.tolist(), strict=True)) for one in (a, b))
    for key in sorted(counts[0].keys() | counts[1].keys()):
        found = [count.get(key) for count in counts]
        where = f"sequence '{key[0]}', frame {key[1]}"
        if None in found:
            there, missing = (names[0], names[1]) if found[1] is None else (names[1], names[0])
            raise ScoreError(
                f"{where}: '{there}' was scored on it, '{missing}' was not; a paired comparison needs the same frames. "
                "Evaluate both under one protocol."
            )
        if found[0] != found[1]:
            raise ScoreError(
                f"{where}: '{names[0]}' was scored on {found[0]} pixels, '{names[1]}' on {found[1]}; a paired "
                "comparison needs the same pixels. Evaluate both against the same data."
            )


def _swap_test(a: PooledUnits, b: PooledUnits, permutations: int, seed: int, *, median: bool) -> Values:
    """(M,) two-sided p-values: how often does swapping units give a difference as large?"""
    number, metrics = len(a.names), len(a.metrics)
    if number < 2:
        return np.full(metrics, np.nan)
    both = _side_by_side(a, b)

    def difference(swapped: NDArray[np.bool_]) -> Values:
        mixed = np.hstack([~swapped, swapped])
        return both.values(mixed, median=median) - both.values(~mixed, median=median)

    observed = np.abs(difference(np.zeros((1, number), np.bool_)))
    # rounding: a swap that gives the observed difference again must count
    bar = observed * (1 - 1e-12)
    exact = number <= EXACT_UNITS
    tries = 2**number if exact else permutations
    extreme = np.zeros(metrics, np.int64)
    for swaps in _swaps(number, tries, exact, np.random.default_rng(seed)):
        extreme += np.count_nonzero(np.abs(difference(swaps)) >= bar, axis=0)
    # the observed order is one of all, so that a random test is never surer than it can know (Phipson and Smyth 2010)
    return extreme / tries if exact else (extreme + 1) / (tries + 1)


def _swaps(number: int, tries: int, exact: bool, rng: np.random.Generator) -> Iterator[NDArray[np.bool_]]:
    """Yield which units are swapped, (R, U) at a time: every pattern once, or random ones."""
    step = max(1, _BATCH_NUMBERS // number)
    for start in range(0, tries, step):
        patterns = np.arange(start, min(start + step, tries))
        if exact:
            yield (patterns[:, None] >> np.arange(number) & 1).astype(np.bool_)
        else:
            yield rng.integers(0, 2, (len(patterns), number), dtype=np.bool_)


def _side_by_side(a: PooledUnits, b: PooledUnits) -> PooledUnits:
    """The units of both models in one table, so that any mixture of the two can be pooled."""
    cumulative = None
    if a.cumulative is not None and b.cumulative is not None:
        cumulative = np.hstack([a.cumulative, b.cumulative])
    return dataclasses.replace(
        a,
        names=a.names + b.names,
        numerator=np.vstack([a.numerator, b.numerator]),
        denominator=np.concatenate([a.denominator, b.denominator]),
        cumulative=cumulative,
    )


def _selected(known: Sequence[str], wanted: Sequence[str] | None) -> list[int]:
    for name in wanted or ():
        if name not in known:
            raise ScoreError(f"no metric '{name}' to compare. {suggest(name, known)}")
    return [known.index(name) for name in (known if wanted is None else wanted)]


def _better(metric: str, value_a: float, value_b: float, names: tuple[str, str]) -> str:
    if value_a == value_b:
        return ""
    return names[0] if (value_a < value_b) == lower_is_better(metric) else names[1]
