"""Vectors that are still colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH_SLACK = 0.05  # an 8-bit map is off by under 0.01, a resized one by more at edges alone


@dataclass(frozen=True, slots=True, eq=False)
class ColourMap:
    """Normals as the pixels of a picture: colour c means the component 2 c / max - 1, times its sign.

    Attributes:
        pixels: (H, W, 3) uint8 or uint16.
        allowed: (H, W) bool, False where there is no normal whatever the colour.
        marks: (K, 3) colours of the same dtype that mean "no normal".
        min_norm: A shorter vector is no normal.
        signs: Of x, y and z, 1 or -1, to canonical axes.
    """

    pixels: NDArray[Any]
    allowed: NDArray[np.bool_]
    marks: NDArray[Any]
    min_norm: float
    signs: tuple[float, float, float]

    @property
    def factors(self) -> NDArray[np.float64]:
        """(2, 3) float64: what to multiply the colours with, and what to add then."""
        signs = np.array(self.signs)
        return np.stack([signs * (2 / np.iinfo(self.pixels.dtype).max), -signs])


def colour_problem(vectors: NDArray[np.floating[Any]]) -> str:
    """Recognise normals that nobody decoded: no component is negative, and lengths are not 1.

    Args:
        vectors: (..., 3) float; zero and non-finite vectors say nothing.

    Returns:
        What is wrong and what to do; empty where nothing is.

    Examples:
        >>> colour_problem(np.array([[0.5, 0.5, 1.0], [0.6, 0.4, 0.99]]))[:28]
        'no component is negative and'
        >>> colour_problem(np.array([[0.0, 0.6, 0.8]]))
        ''
    """
    length = np.linalg.norm(vectors.astype(np.float64), axis=-1)
    used = np.isfinite(length) & (length > 0)
    if not used.any() or vectors[used].min() < 0:
        return ""
    off = float(np.median(np.abs(length[used] - 1)))
    if off <= _LENGTH_SLACK:
        return ""
    return (
        f"no component is negative and lengths are off 1 by {off:.2f} (median): these look like colours in [0, 1] or "
        "[0, 255], not vectors. Decode them first (n = 2 c - 1 for c in [0, 1])"
    )
