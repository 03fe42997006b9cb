"""Normal maps small enough for a page, and exact enough for a probe.

A normal becomes two 12-bit octahedral codes (`ncbench.geometry.octahedral`, every sixteenth code point); a map becomes
their differences to the left, upper and upper-left neighbours, as bytes, deflated. Browsers inflate by themselves, and
four bytes a pixel become about one (0.5 on flat walls, 2 on noise).
"""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray

from ncbench.geometry.octahedral import INVALID_CODE, decode_octahedral, encode_octahedral

STEP = 16
CENTRE = 2048
NONE = 2 * CENTRE + 1
"""Both codes of a pixel that has no normal."""
PRECISION = 0.07
"""Degrees that a coded normal is off at most."""
_MIDDLE = 32767
_LEVEL = 6


def quantize(normals: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Code a map coarsely.

    Args:
        normals: (H, W, 3) directions in OpenCV axes; zero where there is none.

    Returns:
        (H, W, 2) uint16 from 0 to 4096, at most ``PRECISION`` degrees off; 4097 where there is no direction.
    """
    fine = encode_octahedral(normals).astype(np.int32)
    coarse = np.rint((fine - _MIDDLE) / STEP).astype(np.int32) + CENTRE
    return np.where(fine[..., :1] == INVALID_CODE, NONE, coarse).astype(np.uint16)


def dequantize(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Undo ``quantize``; what the page's script does too.

    Args:
        codes: (H, W, 2) uint16.

    Returns:
        (H, W, 3) float32 unit normals, zero where there is none.
    """
    fine = np.clip((codes.astype(np.int32) - CENTRE) * STEP + _MIDDLE, 0, INVALID_CODE - 1)
    return decode_octahedral(np.where(codes == NONE, INVALID_CODE, fine).astype(np.uint16))


def pack(codes: NDArray[np.uint16]) -> bytes:
    """Deflate codes.

    Args:
        codes: (H, W, 2) uint16.

    Returns:
        A zlib stream of four planes of H x W bytes: low and high bytes of the first code's differences, then of the
        second's; a difference d is written as 2 d, or as -2 d - 1 where it is negative.
    """
    planes = []
    for channel in (0, 1):
        plane = codes[..., channel].astype(np.int32)
        difference = np.diff(np.diff(plane, axis=1, prepend=0), axis=0, prepend=0)
        folded = np.where(difference < 0, -2 * difference - 1, 2 * difference).astype("<u2")
        planes += [(folded & 255).astype(np.uint8), (folded >> 8).astype(np.uint8)]
    return zlib.compress(np.stack(planes).tobytes(), _LEVEL)


def text(data: bytes) -> str:
    """Spell bytes as base64."""
    return base64.b64encode(data).decode("ascii")
