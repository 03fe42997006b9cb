"""Label maps stored as PNG with a palette: the numbers are the palette's entries, the colours are for looking at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.datasets.formats.png import check_png
from ncbench.errors import SourceError

_LABELS = ("P", "L")


def read_indexed_png(path: Path) -> NDArray[np.uint8]:
    """Read the labels of a PNG with a palette, or of a grey one.

    Through Pillow: OpenCV looks the colours up and loses the labels.

    Args:
        path: The picture, of up to 8 bits a pixel.

    Returns:
        (H, W) uint8.

    Raises:
        SourceError: Unreadable, truncated, corrupt, or in colours.
    """
    content = read_bytes(path, "a PNG picture of labels")
    check_png(content, path)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            mode, labels = picture.mode, np.array(picture)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise SourceError.at(path, f"expected a PNG picture, but it does not decode ({error})", DAMAGED) from error
    if mode not in _LABELS or labels.dtype != np.uint8:
        problem = f"expected labels with a palette or in grey (modes {', '.join(_LABELS)}), found mode {mode}"
        raise SourceError.at(path, problem, "Unpack or fetch the annotations again")
    return labels
