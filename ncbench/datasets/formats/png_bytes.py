"""Encode pictures that a data set does not hold as such (rendered here, or tonemapped from radiance)."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LEVEL = 4  # of zlib: within 1 % of the size of level 6 on textured pictures, in a third of its time


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a picture losslessly.

    Args:
        pixels: (H, W, 3) or (H, W) uint8.

    Returns:
        PNG bytes, a function of the pixels and of the zlib in use.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=_LEVEL)
    return buffer.getvalue()
