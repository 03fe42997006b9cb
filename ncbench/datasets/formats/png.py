"""PNG pictures at their own bit depth: strict about damage, silent about meaning.

Plain pictures (grey, RGB or RGBA, 8 or 16 bits, no transparent colour) are decoded by kornia-rs, which takes a third to
a half of OpenCV's and Pillow's time (benchmarks/test_png.py) but keeps the interpreter lock: share such work among
processes, not threads. Palettes and other rarities go to OpenCV.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.arrays import DAMAGED, DEFLATE_LIMIT, MAX_PIXELS, read_bytes
from ncbench.errors import SourceError

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PIXELS: Final = b"IDAT"
_HEADER: Final = struct.Struct(">4sIIBBBBB")
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_MODES: Final = {0: "mono", 2: "rgb", 6: "rgba"}  # kornia-rs' names of colour types


@dataclass(frozen=True, slots=True)
class PngHeader:
    """What a PNG says about its pixels (PNG specification, 11.2.2).

    Attributes:
        height: In pixels.
        width: In pixels.
        depth: Bits a channel.
        colour: Colour type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
        transparent: Whether a colour stands for transparency (tRNS).
    """

    height: int
    width: int
    depth: int
    colour: int
    transparent: bool = False


def read_png(path: Path) -> Pixels:
    """Read a PNG at its own bit depth.

    Args:
        path: The file.

    Returns:
        (H, W) or (H, W, C) uint8 or uint16 with C = 3 (red, green, blue) or 4 (and alpha).

    Raises:
        SourceError: Unreadable, truncated or corrupt.
    """
    return decode_png(read_bytes(path, "a PNG picture"), path)


def decode_png(content: bytes, path: Path) -> Pixels:
    """Decode PNG bytes; see :func:`read_png`.

    Args:
        content: The encoded picture.
        path: Where it came from, for the message.

    Returns:
        (H, W) or (H, W, C) uint8 or uint16.

    Raises:
        SourceError: Truncated or corrupt.
    """
    header = _walk(content, path, _PIXELS)
    if header.depth in (8, 16) and header.colour in _MODES and not header.transparent:
        return _decode_plain(content, header, path)
    check_png(content, path)
    return _decode_any(content, path)


def check_png(content: bytes, path: Path) -> PngHeader:
    """Check that PNG bytes are whole: signature, the checksum of every chunk, sane sides, and the end marker.

    Args:
        content: The encoded picture.
        path: Where it came from, for the message.

    Returns:
        What its header says.

    Raises:
        SourceError: One of these does not hold.
    """
    return _walk(content, path)


def _walk(content: bytes, path: Path, unchecked: bytes = b"") -> PngHeader:
    """Go from chunk to chunk; the sums of one kind may be left to a decoder that checks them anyway."""
    if content[:8] != _SIGNATURE:
        raise SourceError.at(path, f"expected a PNG picture, found {content[:8]!r} at its start", DAMAGED)
    position, kinds, coded = 8, [b""], 0
    while kinds[-1] != b"IEND":
        if position + 12 > len(content):
            raise SourceError.at(path, f"expected a whole PNG picture, but it ends after {len(content)} bytes", DAMAGED)
        length = int.from_bytes(content[position : position + 4], "big")
        kinds.append(content[position + 4 : position + 8])
        body = memoryview(content)[position + 4 : position + 8 + length]
        checksum = content[position + 8 + length : position + 12 + length]
        whole = len(checksum) == 4
        if not whole or (kinds[-1] != unchecked and zlib.crc32(body) != int.from_bytes(checksum, "big")):
            raise SourceError.at(path, f"PNG chunk {kinds[-1]!r} at byte {position} is cut off or corrupt", DAMAGED)
        if position == 8:
            height, width, depth, colour = _read_header(bytes(body), path)
        coded += length if kinds[-1] == _PIXELS else 0
        position += 12 + length
    if height * width * depth * _CHANNELS.get(colour, 1) > 8 * DEFLATE_LIMIT * coded:  # before room is made for them
        raise SourceError.at(path, f"{coded} bytes of pixel data cannot hold {width} x {height} pixels", DAMAGED)
    return PngHeader(height, width, depth, colour, b"tRNS" in kinds)


def _read_header(body: bytes, path: Path) -> tuple[int, int, int, int]:
    if body[:4] != b"IHDR" or len(body) != _HEADER.size:
        raise SourceError.at(path, "expected a PNG header (IHDR) first", DAMAGED)
    _, width, height, depth, colour, *_ = _HEADER.unpack(body)
    if not 0 < width * height <= MAX_PIXELS:
        raise SourceError.at(path, f"expected 1 to {MAX_PIXELS} pixels, found {width} x {height}", DAMAGED)
    return height, width, depth, colour


def _decode_plain(content: bytes, header: PngHeader, path: Path) -> Pixels:
    from kornia_rs import io

    decode = io.decode_image_png_u8 if header.depth == 8 else io.decode_image_png_u16
    try:
        pixels = decode(content, (header.height, header.width), _MODES[header.colour])
    except Exception as error:  # it raises nothing more special
        raise _undecodable(path, error) from error
    return cast("Pixels", pixels[:, :, 0] if header.colour == 0 else pixels)


def _decode_any(content: bytes, path: Path) -> Pixels:
    import cv2

    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _undecodable(path, error) from error
    if pixels is None:
        raise _undecodable(path, "its pixel data are not whole")
    if pixels.ndim == 3:  # it answers in BGR order
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return cast("Pixels", pixels)


def _undecodable(path: Path, why: object) -> SourceError:
    return SourceError.at(path, f"expected a PNG picture, but it does not decode ({why})", DAMAGED)
