"""From encoded pictures to RGB, and the name of the column that spares it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.store import decode_image

Picture = NDArray[np.uint8]

PIXELS = "rgb"
"""Column of a training copy that holds lossless cells of pixels (`ncbench.datasets.cells.Codec.COLOURS`)."""

_PNG, _RGB8 = b"\x89PNG\r\n\x1a\n", b"\x08\x02"  # signature; 8 bits a channel, colour type RGB


def decode_picture(data: bytes) -> Picture:
    """Decode an encoded picture.

    Args:
        data: The stored bytes, of any format that `ncbench.datasets.store.decode_image` takes.

    Returns:
        (H, W, 3) uint8 RGB, equal to what that function gives.

    Raises:
        StoreError: The bytes are no picture.
    """
    # OpenCV is a little faster than Pillow on plain PNG, where no two decoders may differ
    if data[:8] == _PNG and data[24:26] == _RGB8 and b"tRNS" not in data[:256]:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None:
            return np.asarray(image, np.uint8)
    return decode_image(data)
