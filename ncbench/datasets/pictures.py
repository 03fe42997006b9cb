"""From a store's encoded pictures to RGB, by decoders that let go of the interpreter lock: loaders run threads."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ncbench.errors import StoreError

_PNG, _RGB8 = b"\x89PNG\r\n\x1a\n", b"\x08\x02"  # signature; 8 bits a channel, colour type RGB


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture to RGB: by Pillow, but for plain PNG, where OpenCV gives the same and is a little faster.

    Args:
        data: PNG, JPEG or another format of 8 bits a channel, or 16-bit grey; alpha is dropped, grey repeated. (Readers
            refuse pictures that EXIF data ask to turn.)

    Returns:
        (H, W, 3) uint8.

    Raises:
        StoreError: The bytes are no such picture.
    """
    if data[:8] == _PNG and data[24:26] == _RGB8 and b"tRNS" not in data[:256]:
        plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if plain is not None:
            return np.asarray(plain, np.uint8)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.mode.startswith("I;16"):  # 16-bit grey: Pillow's own conversion would clip, not scale
                grey = (np.asarray(picture) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=-1)
            if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "YCbCr", "CMYK"):
                raise StoreError(
                    f"picture of mode {picture.mode}: expected 8 bits a channel. Convert it in the reader."
                )
            return np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise StoreError(f"picture of {len(data)} bytes cannot be decoded ({error}). Run `ncbench verify`.") from error
