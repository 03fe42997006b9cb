"""8-bit pictures that were truncated instead of rounded: a bias of 0.34 degrees towards (-1, -1, -1).

Truncation takes on average 1/255 off each component, so that a vector pointing along (1, 1, 1) comes out too short and
one pointing against it too long, however wrong the model is: the lengths in the file tell, and no truth is needed.
Where only unit vectors were kept, the lengths come back from the lattice of the 8-bit values: the three components are
odd multiples of 1/255 for one length near 1 alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.evaluators.probe.sample import Doubles

STEP = 2.0 / 255.0
"""Distance between neighbouring 8-bit values in [-1, 1]."""
_LENGTH_SLACK = 0.016  # a corner of a lattice cell is 2 / 255 * sqrt(3) = 0.0136 away
_ON_LATTICE = 0.03  # steps; the store's octahedral coding moves a component by under 0.006
_MOST = 0.8
_LEAST_PIXELS = 200


@dataclass(frozen=True)
class Rounding:
    """How the components of an 8-bit file came about.

    Attributes:
        slope: Loss of length along (1, 1, 1) in units of 1/255: 1 for truncation, 0 for rounding.
        error: Its standard error.
        pixels: On how many pixels it was measured.
    """

    slope: float
    error: float
    pixels: int

    @property
    def truncated(self) -> bool:
        """Whether it is truncation beyond doubt."""
        return abs(self.slope - 1) <= 0.35 and self.error <= 0.1


def rounding(vectors: Doubles) -> Rounding | None:
    """Measure the rounding of 8-bit normals.

    Args:
        vectors: (N, 3) in the axes of the file; of unit length, or as the file holds them.

    Returns:
        The measure; None where the values are not on the 8-bit lattice, or tell too little.
    """
    vectors = vectors[np.isfinite(vectors).all(-1)]
    if len(vectors) < _LEAST_PIXELS:
        return None
    length, on_lattice = _lattice_lengths(vectors)
    if on_lattice.mean() < _MOST:
        return None
    unit = vectors[on_lattice] / np.linalg.norm(vectors[on_lattice], axis=-1, keepdims=True)
    along = unit.sum(-1)
    lost = (1 - length[on_lattice]) * 255
    power = float(along @ along)
    if power < _LEAST_PIXELS / 10:
        return None
    slope = float(along @ lost) / power
    rest = lost - slope * along
    return Rounding(slope, float(np.sqrt(rest @ rest / len(rest) / power)), len(rest))


def _lattice_lengths(vectors: Doubles) -> tuple[Doubles, NDArray[np.bool_]]:
    """Find the length near 1 at which all components are 8-bit values.

    Returns:
        Lengths (N,), and (N,) bool, true where there is one.
    """
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    largest = np.abs(unit).max(-1)
    least = np.floor((1 - _LENGTH_SLACK) * largest / STEP)
    # values are half-odd multiples of the step; the largest component passes at most five of them
    values = least[:, None] + 0.5 + np.arange(6)
    lengths = values * STEP / largest[:, None]
    steps = lengths[..., None] * unit[:, None] / STEP - 0.5
    off = np.abs(steps - np.rint(steps)).max(-1)
    off[np.abs(lengths - 1) > _LENGTH_SLACK] = np.inf
    best = off.argmin(1)
    rows = np.arange(len(unit))
    return lengths[rows, best], off[rows, best] <= _ON_LATTICE
