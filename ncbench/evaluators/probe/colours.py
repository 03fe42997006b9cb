"""Vectors that are still colours, or that were decoded twice: p ~ S n + b with a known b.

A picture holds c = (n + 1) / 2. Taken for a vector it points along n + (1, 1, 1); decoded a second time, along
n - (1, 1, 1) / 2. Where the file's own numbers are known, their lengths tell either at once. Where only directions were
kept, a line has to be met with the sphere that the colours (or the vectors decoded twice) lie on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ncbench.evaluators.probe.sample import Doubles

Coding = Literal["colours", "decoded_twice"]
CODINGS: tuple[Coding, ...] = ("colours", "decoded_twice")

_OFFSET: dict[Coding, float] = {"colours": 1.0, "decoded_twice": -0.5}
_UNIT_SLACK = 0.1
_MOST, _MORE = 0.8, 0.3
_BYTE, _WORD = 255.0, 65535.0


def decode(vectors: Doubles, coding: Coding) -> Doubles:
    """Undo a coding on vectors whose length is known.

    Args:
        vectors: (N, 3) numbers as the file holds them, in its own axes; colours in [0, 1], [0, 255] or [0, 65535].
        coding: What they are.

    Returns:
        (N, 3) vectors, not normalised.
    """
    if coding == "decoded_twice":
        return (vectors + 1) / 2
    largest = float(vectors.max(initial=0.0))
    scale = 1.0 if largest <= 1.01 else _BYTE if largest <= _BYTE else _WORD
    return 2 * vectors / scale - 1


def certain_coding(raw: Doubles) -> Coding | None:
    """Tell from the numbers of a file alone whether they are colours or were decoded twice.

    Args:
        raw: (N, 3) as the file holds them.

    Returns:
        The coding under which most vectors have unit length, and many more than as they stand; None otherwise.
    """
    possible = [coding for coding in CODINGS if coding == "decoded_twice" or raw.min(initial=0.0) >= 0]
    needed = max(_MOST, _share_of_unit(raw) + _MORE)
    return next((coding for coding in possible if _share_of_unit(decode(raw, coding)) >= needed), None)


def solutions(directions: Doubles, coding: Coding) -> Doubles:
    """Undo a coding on vectors of which only the direction is known.

    Args:
        directions: (N, 3) unit vectors in the axes of the file.
        coding: What they are.

    Returns:
        (K, N, 3) unit vectors: both places where a line meets the sphere of the colours (the nearest point of the
        sphere where it misses), the farther first; the single one for vectors decoded twice.
    """
    along = directions.sum(-1, keepdims=True)
    if coding == "decoded_twice":
        length = -along + np.sqrt(along**2 + 1)
        return _unit((length * directions + 1) / 2)[None]
    # |2 s u - 1| = 1 for s
    root = np.sqrt(np.maximum(along**2 - 2, 0))
    return np.stack([_unit(s * directions * 2 - 1) for s in ((along + root) / 2, (along - root) / 2)])


@dataclass(frozen=True)
class Offset:
    """How far predictions are pushed aside: p ~ n + b.

    Attributes:
        size: The least-squares b along the expected one, as a share of the expected: 1 if the coding holds, 0 if
            nothing is wrong.
        across: Length of what is left of b, as the same share.
    """

    size: float
    across: float

    @property
    def holds(self) -> bool:
        """Whether it looks like the coding, give or take what a model's own errors do to it."""
        return 0.6 <= self.size <= 1.7 and self.across <= 0.5 * self.size


def offset(directions: Doubles, normals: Doubles, coding: Coding) -> Offset:
    """Measure b of p ~ n + b by least squares of |p x (n + b)|.

    Args:
        directions: (N, 3) unit predictions.
        normals: (N, 3) what they should be, in the same axes.
        coding: Which b to compare with.

    Returns:
        The offset as a share of the expected one.
    """
    across = normals - directions * np.einsum("ni,ni->n", directions, normals)[:, None]
    moment = len(directions) * np.eye(3) - directions.T @ directions
    found = -np.linalg.lstsq(moment, across.sum(0), rcond=1e-6)[0]
    expected = np.full(3, _OFFSET[coding])
    size = float(found @ expected / (expected @ expected))
    return Offset(size, float(np.linalg.norm(found - size * expected) / np.linalg.norm(expected)))


def _share_of_unit(vectors: Doubles) -> float:
    length = np.linalg.norm(vectors, axis=-1)
    return float(np.mean(np.abs(length - 1) <= _UNIT_SLACK)) if len(vectors) else 0.0


def _unit(vectors: Doubles) -> Doubles:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))
