"""What angular metrics hold whatever was scored, so that a bug or an edited file never reaches a table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from ncbench.errors import ScoreError


def angular_only(metrics: Mapping[str, float]) -> dict[str, float]:
    """Keep what ``AngularState.metrics`` gives; a result also holds temporal metrics, which have other bounds."""
    return {
        name: value
        for name, value in metrics.items()
        if name in ("mean", "median", "rmse") or name.startswith("within_")
    }


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
