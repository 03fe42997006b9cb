"""Ways to read the components of a normal: the 48 signed permutations, their names and the words for them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.geometry.axes import AXES, axes_matrix

Doubles = NDArray[np.float64]

_LETTERS = "xyz"
_BGR = np.eye(3)[::-1]


def _signed_permutations() -> Doubles:
    signs = list(itertools.product((1.0, -1.0), repeat=3))
    matrices = [np.diag(sign) @ np.eye(3)[list(order)] for order in itertools.permutations(range(3)) for sign in signs]
    return np.array(matrices)


READINGS: Doubles = _signed_permutations()
"""(48, 3, 3) float64: all orders and signs of three components as matrices; the first is the identity, and the first
eight keep the order."""
AS_DECLARED = 0
"""Index of the identity in ``READINGS``."""


@dataclass(frozen=True)
class FileAxes:
    """What a reading says of the files.

    Attributes:
        name: The convention that they are in, one of ``AXES``; None where none has these axes.
        bgr: Whether their channels are in the order z, y, x.
        steps: What has to be done to them, in words: ``x and y swapped; then z negated``.
        code: The same in numpy, for an array ``n`` of (..., 3) that is to come out in the declared axes.
    """

    name: str | None
    bgr: bool
    steps: str
    code: str


def file_axes(reading: int, declared: str) -> FileAxes:
    """Say which axes files are in, given what makes their canonical form right.

    Args:
        reading: Index into ``READINGS``: what to multiply the canonical normals with.
        declared: The axes that the files were read in, one of ``AXES``.

    Returns:
        The axes of the files, and how to bring them into the declared ones.

    Examples:
        >>> mirror_x = int(np.flatnonzero((READINGS == np.diag([-1, 1, 1])).all((1, 2)))[0])
        >>> file_axes(mirror_x, "opengl")
        FileAxes(name='dsine', bgr=False, steps='x negated', code='n * [-1, 1, 1]')
    """
    signs = axes_matrix(declared, "opencv")
    to_canonical = READINGS[reading] @ signs
    name, bgr = _convention(to_canonical, declared)
    steps, code = _spell(signs @ to_canonical)
    return FileAxes(name, bgr, steps, code)


def named_readings(declared: str) -> dict[str, int]:
    """Give the reading that stands for each convention.

    Args:
        declared: The axes that the files were read in, one of ``AXES``.

    Returns:
        Name -> index into ``READINGS``: what makes the canonical normals right if the files are in that convention.
    """
    undo = axes_matrix("opencv", declared)
    wanted = {name: axes_matrix(name, "opencv") @ undo for name in AXES}
    return {name: int(np.flatnonzero((matrix == READINGS).all((1, 2)))[0]) for name, matrix in wanted.items()}


def complexity(reading: int, declared: str) -> int:
    """Order readings by how little they assume: 0 as declared, 1 a named convention, 2 BGR, 3 any other."""
    if reading == AS_DECLARED:
        return 0
    axes = file_axes(reading, declared)
    if axes.name is None:
        return 3
    return 2 if axes.bgr else 1


def _convention(to_canonical: Doubles, declared: str) -> tuple[str | None, bool]:
    names = sorted(AXES, key=lambda name: name != declared)
    for bgr in (False, True):
        for name in names:
            expected = axes_matrix(name, "opencv") @ (_BGR if bgr else np.eye(3))
            if np.array_equal(expected, to_canonical):
                return name, bgr
    return None, False


def _spell(matrix: Doubles) -> tuple[str, str]:
    """Put a signed permutation into words and into numpy."""
    order = [int(column) for column in np.argmax(np.abs(matrix), axis=1)]
    signs = [int(matrix[row, column]) for row, column in enumerate(order)]
    moved = [letter for letter, source in zip(_LETTERS, order, strict=True) if _LETTERS[source] != letter]
    steps = []
    if len(moved) == 2:
        steps.append(f"{moved[0]} and {moved[1]} swapped")
    elif moved:
        steps.append(f"x, y, z taken from {', '.join(_LETTERS[source] for source in order)}")
    negated = [letter for letter, sign in zip(_LETTERS, signs, strict=True) if sign < 0]
    if negated:
        steps.append(f"{', '.join(negated)} negated")
    code = ("n[..., " + str(order) + "]" if moved else "n") + (f" * {signs}" if negated else "")
    return "; then ".join(steps) or "unchanged", code
