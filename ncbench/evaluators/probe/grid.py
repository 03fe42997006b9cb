"""The eight ways in which a pixel grid can be laid down wrongly: mirrored, turned, transposed."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Layout = Literal[
    "as is",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180 degrees",
    "transposed",
    "turned by 90 degrees clockwise",
    "turned by 90 degrees counter-clockwise",
    "transposed along the other diagonal",
]
LAYOUTS: tuple[Layout, ...] = (
    "as is",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180 degrees",
    "transposed",
    "turned by 90 degrees clockwise",
    "turned by 90 degrees counter-clockwise",
    "transposed along the other diagonal",
)
"""What may have been done to a map before it was saved; the last four exchange height and width."""
UNDO: tuple[str, ...] = (
    "n",
    "n[:, ::-1]",
    "n[::-1]",
    "n[::-1, ::-1]",
    "n.swapaxes(0, 1)",
    "np.rot90(n, 1)",
    "np.rot90(n, -1)",
    "n[::-1, ::-1].swapaxes(0, 1)",
)
"""numpy that undoes each of ``LAYOUTS`` for a map ``n`` (H, W, 3); vectors stay as they are."""
FIRST_TRANSPOSED = 4

Indices = NDArray[np.int64]


def laid_out(preds: NDArray[np.float32], size: tuple[int, int], rows: Indices, columns: Indices) -> NDArray[np.float64]:
    """Look predictions up under each layout.

    Args:
        preds: (h, w, 3) normals as they came; (h, w) is ``size`` or ``size`` with height and width exchanged.
        size: Height and width of the truth.
        rows: (N,) rows of the truth.
        columns: (N,) columns of the truth.

    Returns:
        (8, N, 3) float64: what the map undone from each of ``LAYOUTS`` holds there; NaN for a layout whose size does
        not fit, and where the map holds no direction.
    """
    height, width = size
    result = np.full((len(LAYOUTS), len(rows), 3), np.nan)
    up, left = height - 1 - rows, width - 1 - columns
    places = [(rows, columns), (rows, left), (up, columns), (up, left)]
    # element (r, c) of UNDO[k](n), as an element of n
    swapped = [(columns, rows), (columns, up), (left, rows), (left, up)]
    if preds.shape[:2] == (height, width):
        for k, place in enumerate(places):
            result[k] = preds[place]
    if preds.shape[:2] == (width, height):
        for k, place in enumerate(swapped):
            result[FIRST_TRANSPOSED + k] = preds[place]
    length = np.linalg.norm(result, axis=-1, keepdims=True)
    usable = np.isfinite(length) & (length > 0)
    return np.where(usable, result / np.where(usable, length, 1.0), np.nan)
