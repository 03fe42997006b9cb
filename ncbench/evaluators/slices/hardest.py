"""The sequences and frames that a model finds hardest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ncbench.errors import ScoreError
from ncbench.evaluators.statistics.ranks import lower_is_better
from ncbench.settings import suggest

_NOT_METRICS = {"sequence", "frame", "status", "error", "pixels", "invalid"}


class Hardest(NamedTuple):
    """Worst first.

    Attributes:
        sequences: ``sequence``, ``frames``, ``pixels`` and the metric.
        frames: ``sequence``, ``frame``, ``pixels`` and the metric.
    """

    sequences: pd.DataFrame
    frames: pd.DataFrame


def hardest(frames: pd.DataFrame, n: int, by: str = "mean") -> Hardest:
    """Pick the worst sequences and frames.

    Args:
        frames: A result's rows, one a frame: ``sequence``, ``frame``, ``pixels`` and metrics; ``status`` where some may
            have failed.
        n: How many of each.
        by: A metric. Over a sequence, ``mean``, ``rmse`` and ``within_*`` are those of all its pixels; any other is
            the plain mean of its frames' values.

    Returns:
        Up to ``n`` of each. A sequence with a frame that failed is not among them: its numbers would be of a part of
        it. Equally hard ones stay in the order of ``frames``.

    Raises:
        ScoreError: No such metric or column, or ``n`` below 1.
    """
    known = [column for column in frames.columns if column not in _NOT_METRICS]
    if by not in known:
        raise ScoreError(f"no metric '{by}' to sort by. {suggest(by, known)}")
    missing = {"sequence", "frame", "pixels"} - set(frames.columns)
    if missing or n < 1:
        raise ScoreError(f"expected n of 1 or more and the columns sequence, frame, pixels; n is {n}, no {missing}")
    scored = frames[frames["pixels"] > 0]
    failed = set(frames.loc[frames["status"] != "scored", "sequence"]) if "status" in frames else set()
    whole = scored[~scored["sequence"].isin(failed)]
    rows = [
        {"sequence": name, "frames": len(group), "pixels": int(group["pixels"].sum()), by: _over_sequence(group, by)}
        for name, group in whole.groupby("sequence", sort=False)
    ]
    sequences = pd.DataFrame(rows, columns=["sequence", "frames", "pixels", by])
    return Hardest(_worst(sequences, by, n), _worst(scored[["sequence", "frame", "pixels", by]], by, n))


def _over_sequence(group: pd.DataFrame, by: str) -> float:
    values, pixels = group[by].to_numpy(np.float64), group["pixels"].to_numpy(np.float64)
    if by == "rmse":
        return float(np.sqrt(np.average(values**2, weights=pixels)))
    if by == "mean" or by.startswith("within_"):
        return float(np.average(values, weights=pixels))
    return float(values.mean())


def _worst(table: pd.DataFrame, by: str, n: int) -> pd.DataFrame:
    ordered = table.sort_values(by, ascending=not lower_is_better(by), kind="stable", na_position="last")
    return ordered.head(n).reset_index(drop=True)
