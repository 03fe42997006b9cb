"""What a slice is: ordered bins, and a pure function that labels the pixels of a view."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.view import View

LabelMap = NDArray[np.int8]
NOT_APPLICABLE = -1
MOST_BINS = 127


@dataclass(frozen=True)
class Slice:
    """A way to sort the pixels of a view into bins.

    Attributes:
        name: As protocols and tables have it.
        bins: Labels in order; bin k has the number k in the label map.
        needs: What a view must have: a field of ``View``, ``extra.<column>``, ``previous.<field>`` of the frame before;
            ``a|b`` where either will do.
        label: (view, the frame before or None) -> (H, W) int8, -1 where the slice says nothing about a pixel.
    """

    name: str
    bins: tuple[str, ...]
    needs: tuple[str, ...]
    label: Callable[[View, View | None], LabelMap]

    def __post_init__(self) -> None:
        if not 1 <= len(self.bins) <= MOST_BINS or len(set(self.bins)) != len(self.bins):
            raise ScoreError(
                f"slice '{self.name}': expected 1 to {MOST_BINS} bins of different names, found {self.bins}"
            )

    def missing(self, view: View, previous: View | None) -> tuple[str, ...]:
        """Name what this view lacks; empty where ``label`` can be called.

        Args:
            view: The frame.
            previous: The frame just before it, whose flow leads to it; None where there is none.

        Returns:
            Those of ``needs`` that are not there.
        """
        return tuple(need for need in self.needs if not any(_has(view, previous, choice) for choice in need.split("|")))


def digitized(values: NDArray[np.floating], edges: Sequence[float]) -> LabelMap:
    """Sort numbers into half-open bins.

    Args:
        values: Numbers of any shape.
        edges: Ascending; bin k is edges[k] <= value < edges[k + 1], the last bin has no upper end.

    Returns:
        int8 labels, -1 below the first edge and for NaN.
    """
    labels = np.full(values.shape, -1, np.int8)
    for edge in edges:
        labels += values >= edge
    return labels


def range_labels(edges: Sequence[float], unit: str) -> tuple[str, ...]:
    """Spell half-open bins.

    Examples:
        >>> range_labels([0, 2, 5], "px")
        ('0-2 px', '2-5 px', '5+ px')
    """
    ends = [f"{low:g}-{high:g} {unit}" for low, high in itertools.pairwise(edges)]
    return (*ends, f"{edges[-1]:g}+ {unit}")


def _has(view: View, previous: View | None, need: str) -> bool:
    owner, _, name = need.rpartition(".")
    if owner == "extra":
        return view.extra.get(name) is not None
    if owner == "previous":
        return previous is not None and getattr(previous, name) is not None
    return getattr(view, name) is not None
