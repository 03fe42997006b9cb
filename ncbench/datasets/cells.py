"""One array in one table cell: self-describing bytes that say their codec, type and shape, and detect damage.

Layout (little endian): magic ``NCBC``, container version, codec, type, number of axes (one byte each), the sides as
uint32, the CRC-32 of all that, then one zstd frame with its content size and checksum. docs/store.md has the format in
full and the measurements that chose it. Decoding executes nothing and allocates nothing before the sizes agree.
"""

from __future__ import annotations

import math
import struct
import zlib
from enum import IntEnum
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from ncbench.errors import StoreError
from ncbench.geometry.octahedral import decode_codes, encode_octahedral
from ncbench.jit import jit

Array = NDArray[Any]

MAGIC = b"NCBC"
VERSION = 1
LEVEL = 1
"""zstd level: the transform before it is what compresses, and higher levels cost time for little (docs/store.md)."""

_HEAD = struct.Struct("<4s4B")
_CRC = struct.Struct("<I")
_MAX_BYTES = 1 << 30
_MAX_RATIO = 1 << 15
"""A zstd block is at most 128 KiB of content from at least 4 bytes, so no honest frame expands further."""

_TYPES: tuple[str, ...] = ("b1", "u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")


class Codec(IntEnum):
    """How the payload becomes the array."""

    LOSSLESS = 1
    """Any integer or float array, bit for bit (NaN payloads too): horizontal delta, zigzag, byte planes."""
    MASK = 2
    """A bool array, eight elements a byte."""
    NORMALS = 3
    """(H, W, 3) normals as octahedral codes, then as LOSSLESS; decodes to unit float32, zero where there is none."""
    COLOURS = 4
    """(H, W, 3) uint8 RGB, bit for bit: red and blue less green (modulo 256), then as LOSSLESS."""


_CODECS = frozenset(Codec)


def encode_cell(array: Array, codec: Codec) -> bytes:
    """Pack one array.

    Args:
        array: One to three axes; with three, the last holds channels. NORMALS wants (H, W, 3) float, MASK wants bool.
        codec: How to pack it.

    Returns:
        The cell's bytes; the same array gives the same bytes (for one version of zstd).

    Raises:
        StoreError: The array does not suit the codec.
    """
    _check_encodable(array, codec)
    kind: np.dtype[Any]
    if codec is Codec.MASK:
        payload, kind = np.packbits(array), np.dtype("b1")
    elif codec is Codec.NORMALS:
        payload, kind = _to_planes(encode_octahedral(array)), np.dtype("<f4")
    elif codec is Codec.COLOURS:
        payload, kind = _to_planes(array - array[..., 1:2] * np.array([1, 0, 1], np.uint8)), np.dtype("u1")
    else:
        kind = array.dtype.newbyteorder("<")
        payload = _to_planes(np.ascontiguousarray(array.astype(kind, copy=False)).view(f"<u{kind.itemsize}"))
    head = _HEAD.pack(MAGIC, VERSION, codec, _TYPES.index(_type_name(kind)), array.ndim)
    head += struct.pack(f"<{array.ndim}I", *array.shape)
    frame = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True).compress(payload.data)
    return head + _CRC.pack(zlib.crc32(head)) + frame


def decode_cell(data: bytes | memoryview, out: Array | None = None) -> Array:
    """Unpack one array.

    Args:
        data: The cell's bytes, from any source; nothing in them is trusted.
        out: Where to put it: a C-contiguous array of the cell's own shape and type; None makes a new one.

    Returns:
        A writable array in the shape and type that the cell names: ``out`` where given.

    Raises:
        StoreError: The bytes are no cell, of a newer version, truncated, or damaged; or ``out`` does not fit.
    """
    codec, kind, shape, frame = _read_head(memoryview(data))
    stored, width = _stored_bytes(codec, kind, shape)
    if out is not None and ((out.shape, out.dtype) != (shape, kind) or not out.flags.c_contiguous):
        raise StoreError(f"expected a contiguous array of {kind} {shape} to decode into, got {out.dtype} {out.shape}")
    payload = _decompress(frame, stored)
    if codec in (Codec.NORMALS, Codec.COLOURS):
        array = np.empty(shape, kind) if out is None else out
        merge = _merge_normals if codec is Codec.NORMALS else _merge_colours
        merge(payload.reshape(width, -1, *shape[:-1]), array.reshape(shape[0], -1))
        return array
    if codec is Codec.MASK:
        array = np.unpackbits(payload, count=math.prod(shape)).view(np.bool_).reshape(shape)
    else:
        array = np.ascontiguousarray(_from_planes(payload, shape, width)).view(kind)
    if out is None:
        return array
    out[...] = array
    return out


def is_cell(data: bytes | memoryview) -> bool:
    """Say whether bytes start like a cell."""
    return data[: len(MAGIC)] == MAGIC


def _check_encodable(array: Array, codec: Codec) -> None:
    problem = ""
    if not 1 <= array.ndim <= 3 or 0 in array.shape or array.size * max(array.itemsize, 4) > _MAX_BYTES:
        problem = "needs one to three axes, no empty one, and at most 1 GiB"
    elif codec is Codec.MASK and array.dtype != np.bool_:
        problem = "of the mask codec must be bool"
    elif codec is Codec.NORMALS and (array.ndim != 3 or array.shape[-1] != 3 or array.dtype.kind != "f"):
        problem = "of the normals codec must be float of shape (H, W, 3)"
    elif codec is Codec.COLOURS and (array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8):
        problem = "of the colours codec must be uint8 of shape (H, W, 3)"
    elif codec is Codec.LOSSLESS and _type_name(array.dtype) not in _TYPES[1:]:
        problem = f"of the lossless codec must be one of {', '.join(_TYPES[1:])}"
    if problem:
        raise StoreError(f"a cell's array {problem}; got {array.dtype} {array.shape}")


def _type_name(kind: np.dtype[Any]) -> str:
    return kind.newbyteorder("<").str.lstrip("|")


def _read_head(view: memoryview) -> tuple[Codec, np.dtype[Any], tuple[int, ...], memoryview]:
    if len(view) < _HEAD.size:
        raise _damaged("it is shorter than its header")
    magic, version, codec, kind, axes = _HEAD.unpack_from(view)
    if magic != MAGIC:
        raise StoreError(f"not an array cell: expected it to start with {MAGIC!r}, found {bytes(magic)!r}")
    if version > VERSION:
        raise StoreError(f"array cell of container version {version}; this ncbench reads {VERSION}. Update ncbench.")
    end = _HEAD.size + 4 * axes
    if not 1 <= axes <= 3 or len(view) < end + _CRC.size:
        raise _damaged("its header is cut short")
    if _CRC.unpack_from(view, end)[0] != zlib.crc32(view[:end]):
        raise _damaged("its header has a wrong checksum")
    shape = struct.unpack_from(f"<{axes}I", view, _HEAD.size)
    if version != VERSION or codec not in _CODECS or kind >= len(_TYPES) or 0 in shape:
        raise _damaged(f"its header names codec {codec}, type {kind} and shape {shape}")
    return Codec(codec), np.dtype(_TYPES[kind]), shape, view[end + _CRC.size :]


def _stored_bytes(codec: Codec, kind: np.dtype[Any], shape: tuple[int, ...]) -> tuple[int, int]:
    """Length of the decompressed payload and bytes per stored integer, once the header is found to make sense."""
    count = math.prod(shape)
    if count * max(kind.itemsize, 4) > _MAX_BYTES:
        raise _damaged(f"its shape {shape} is larger than any frame")
    if codec is Codec.MASK and kind == np.bool_:
        return -(-count // 8), 1
    if codec is Codec.NORMALS and kind == np.float32 and len(shape) == 3 and shape[-1] == 3:
        return count // 3 * 4, 2
    if codec is Codec.COLOURS and kind == np.uint8 and len(shape) == 3 and shape[-1] == 3:
        return count, 1
    if codec is Codec.LOSSLESS and kind != np.bool_:
        return count * kind.itemsize, kind.itemsize
    raise _damaged(f"its codec {codec.name} does not go with type {kind} and shape {shape}")


def _decompress(frame: memoryview, expected: int) -> NDArray[np.uint8]:
    try:
        found = zstandard.get_frame_parameters(frame)
        if found.content_size != expected or not found.has_checksum or found.dict_id:
            raise _damaged(f"it holds {found.content_size} bytes where its shape needs {expected}")
        if expected > len(frame) * _MAX_RATIO:
            raise _damaged(f"{len(frame)} bytes cannot hold {expected}")
        content = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _damaged(str(error)) from error
    if len(content) != expected:
        raise _damaged(f"it holds {len(content)} bytes where its shape needs {expected}")
    return np.frombuffer(content, np.uint8)


def _damaged(problem: str) -> StoreError:
    return StoreError(f"array cell is damaged: {problem}. Run `ncbench verify`, then `ncbench repair`.")


def _to_planes(values: Array) -> NDArray[np.uint8]:
    """(H, W), (W,) or channels-last (H, W, C) unsigned integers -> one byte plane after the other."""
    planar = np.ascontiguousarray(np.moveaxis(values, -1, 0) if values.ndim == 3 else values)
    rows = planar.reshape(-1, planar.shape[-1])
    planes = np.empty((values.itemsize, rows.size), np.uint8)
    _split(rows, planes)
    return planes.reshape(-1)


def _from_planes(payload: NDArray[np.uint8], shape: tuple[int, ...], width: int) -> Array:
    """Undo ``_to_planes``: unsigned integers of ``width`` bytes, as a view whose channels are planes."""
    planar = (shape[-1], *shape[:-1]) if len(shape) == 3 else shape
    values = np.empty(planar, f"<u{width}")
    _merge(payload.reshape(width, -1), values.reshape(-1, planar[-1]))
    return np.moveaxis(values, 0, -1) if len(shape) == 3 else values


@jit()
def _split(rows: Array, planes: NDArray[np.uint8]) -> None:
    """Difference to the left neighbour, small negatives folded onto small positives, then byte by byte."""
    height, width = rows.shape
    sign = np.uint64(8 * planes.shape[0] - 1)
    folded = np.empty(width, rows.dtype)
    word = rows.dtype.type
    for r in range(height):
        row = rows[r]
        for i in range(width):
            step = word(row[i] - row[i - 1]) if i > 0 else row[0]
            folded[i] = word(step << np.uint64(1)) ^ word(np.uint64(0) - np.uint64(step >> sign))
        for k in range(planes.shape[0]):
            shift = np.uint64(8 * k)
            out = planes[k, r * width : (r + 1) * width]
            for i in range(width):
                out[i] = np.uint8((folded[i] >> shift) & np.uint64(255))


# The two kernels below do what ``_merge`` does, and finish each row while it is in the cache. Undoing the zigzag in a
# loop of its own lets it vectorize; the sums of several planes in one loop do not wait for each other.


@jit()
def _merge_normals(planes: NDArray[np.uint8], normals: NDArray[np.float32]) -> None:
    """Turn (2 bytes, 2 codes, H, W) planes into (H, 3 W) normals."""
    height, width = planes.shape[2:]
    codes = np.empty((2, width), np.uint16)
    one, byte = np.uint16(1), np.uint16(8)
    for row in range(height):
        for k in range(2):
            low, high, steps = planes[0, k, row], planes[1, k, row], codes[k]
            for i in range(width):
                folded = np.uint16(low[i]) | np.uint16(np.uint16(high[i]) << byte)
                steps[i] = np.uint16(folded >> one) ^ np.uint16(np.uint16(0) - np.uint16(folded & one))
        u, v = np.uint16(0), np.uint16(0)
        for i in range(width):
            u, v = np.uint16(u + codes[0, i]), np.uint16(v + codes[1, i])
            codes[0, i], codes[1, i] = u, v
        decode_codes(codes[0], codes[1], normals[row])


@jit()
def _merge_colours(planes: NDArray[np.uint8], colours: NDArray[np.uint8]) -> None:
    """Turn (1 byte, 3 channels, H, W) planes into (H, 3 W) red, green, blue, red, ..."""
    height, width = planes.shape[2:]
    steps = np.empty((3, width), np.uint8)
    one, zero = np.uint8(1), np.uint8(0)
    for row in range(height):
        for k in range(3):
            folded, step = planes[0, k, row], steps[k]
            for i in range(width):
                step[i] = np.uint8(folded[i] >> one) ^ np.uint8(zero - np.uint8(folded[i] & one))
        red, green, blue = zero, zero, zero
        out = colours[row]
        for i in range(width):
            red, green, blue = np.uint8(red + steps[0, i]), np.uint8(green + steps[1, i]), np.uint8(blue + steps[2, i])
            out[3 * i], out[3 * i + 1], out[3 * i + 2] = np.uint8(red + green), green, np.uint8(blue + green)


@jit()
def _merge(planes: NDArray[np.uint8], rows: Array) -> None:
    """Undo ``_split``."""
    height, width = rows.shape
    folded = np.empty(width, rows.dtype)
    word = rows.dtype.type
    one = np.uint64(1)
    for r in range(height):
        folded[:] = 0
        for k in range(planes.shape[0]):
            shift = np.uint64(8 * k)
            part = planes[k, r * width : (r + 1) * width]
            for i in range(width):
                folded[i] |= word(np.uint64(part[i]) << shift)
        row = rows[r]
        total = word(0)
        for i in range(width):
            step = np.uint64(folded[i])
            total = word(np.uint64(total) + ((step >> one) ^ (np.uint64(0) - (step & one))))
            row[i] = total
