"""Average rank, as NormalCrafter's tables (Bin et al., ICCV 2025) print it.

Each metric ranks the models by their values as printed; equal ones share the best of their places and leave a gap
behind (1, 2, 2, 4). That rule gives all 54 average ranks of the paper's Tables 1 to 3 again from the numbers beside
them; with tied models sharing the average of their places, or leaving no gap, Table 1 already comes out otherwise.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ncbench.errors import ScoreError

OVERALL = "overall"
_RISING = ("within_", "delta1", "sharpness")
_KEYS = ["protocol", "metric", "model"]


def lower_is_better(metric: str) -> bool:
    """Tell a metric's direction: errors fall; accuracies (``within_*``, ``delta1``) and sharpness rise."""
    return not metric.startswith(_RISING)


def average_rank(values: pd.DataFrame, decimals: int = 1) -> pd.DataFrame:
    """Rank models over metrics, in each protocol and over all of them.

    A model that lacks a value has no average rank there (NaN), and takes no place among the others: an average over a
    part of the metrics says nothing. ``overall`` compares the models that are complete in every protocol, ranked among
    themselves.

    Args:
        values: One row a value: ``protocol``, ``model``, ``metric``, ``value``. A value that is missing may be NaN or
            have no row.
        decimals: How the values are printed; the paper prints 1.

    Returns:
        One row a model (index ``model``, in the order of appearance), one float column a protocol, and ``overall``
        last.

    Raises:
        ScoreError: A column is missing, a value comes twice, or a protocol is called ``overall``.

    Examples:
        >>> rows = [("p", "a", "mean", 16.21), ("p", "b", "mean", 16.24), ("p", "c", "mean", 18.0)]
        >>> average_rank(pd.DataFrame(rows, columns=["protocol", "model", "metric", "value"]))["p"].to_dict()
        {'a': 1.0, 'b': 1.0, 'c': 3.0}
    """
    missing = {*_KEYS, "value"} - set(values.columns)
    if missing:
        raise ScoreError(f"expected the columns protocol, model, metric and value, found no {sorted(missing)}")
    repeated = values[values.duplicated(_KEYS)]
    if len(repeated):
        raise ScoreError(f"the value of {dict(repeated.iloc[0][_KEYS])} comes twice; ranks need one")
    models = values["model"].unique()
    protocols = values["protocol"].unique()
    if OVERALL in protocols:
        raise ScoreError(f"a protocol is called '{OVERALL}', which is the name of the average over all of them")
    printed = values.assign(value=[_printed(value, decimals) for value in values["value"]])
    wide = printed.pivot(index="model", columns=["protocol", "metric"], values="value").reindex(models)
    ranks = {name: _mean_rank(wide.loc[:, wide.columns.get_level_values(0) == name]) for name in protocols}
    return pd.DataFrame(ranks | {OVERALL: _mean_rank(wide)}, index=pd.Index(models, name="model"))


def _mean_rank(wide: pd.DataFrame) -> pd.Series[float]:
    """Mean over the columns (protocol, metric) of the ranks among the complete rows."""
    complete = wide.dropna()
    ranks = [
        complete[column].rank(method="min", ascending=lower_is_better(str(column[1]))) for column in complete.columns
    ]
    return pd.concat(ranks, axis=1).mean(axis=1).reindex(wide.index)


def _printed(value: float, decimals: int) -> float:
    """The number that the printed text stands for; ``round`` and printing differ in the last digit now and then."""
    return np.nan if pd.isna(value) else float(f"{value:.{decimals}f}")
