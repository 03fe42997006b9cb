"""Check a MATLAB version 5 file element by element before SciPy decodes it.

SciPy's compiled reader believes what a file claims about itself: with 1.17.1, 56 of 2000 files with one to three
damaged bytes ended the interpreter with a segmentation fault or a bus error instead of an exception. Everything that
its decoder reads is therefore checked here first, and it is handed those very bytes, already inflated.

The layout is that of MathWorks' "MAT-File Format", chapter 1, level 5: a header of 128 bytes, then tagged elements
padded to eight bytes. Matrices of numbers, of text, cells and structures are accepted; objects, functions and sparse
matrices, which no data set here holds, are refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Container
from typing import Literal, NamedTuple

_HEADER = 128
_TEXT = b"MATLAB 5.0 MAT-file"
_VERSION = 1  # the high byte of the version field; 2 is version 7.3, which is HDF5

_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6
_NUMBER_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_TEXT_TYPES = {1, 2, 4, 16, 17, 18}  # one byte a letter, two, and UTF-8, UTF-16, UTF-32

_CELL, _STRUCTURE, _CHARACTERS = 1, 2, 4
_NUMBERS = range(6, 16)  # classes double, single, int8 to uint64
_COMPLEX_FLAG = 0x800

_DEEPEST = 16  # SciPy recurses for each level of cells and structures
_MOST_EMPTY = 1 << 20  # what the sides of an empty matrix may multiply to without the empty one
_MOST_SIDES = 32  # what SciPy's header has room for
_DEFLATE_LIMIT = 1032  # no deflate stream expands further
_NAME_PART = 1 << 12  # bytes that hold a matrix's header whatever its name: names end at 63 letters

Order = Literal["little", "big"]


class _Element(NamedTuple):
    kind: int
    body: memoryview
    end: int


class _Header(NamedTuple):
    matlab_class: int
    is_complex: bool
    entries: int
    name: str
    end: int


class Checked(NamedTuple):
    """What a file holds.

    Attributes:
        content: A version 5 file of the wanted variables alone, not compressed, in their order.
        names: The names of all variables.
    """

    content: bytes
    names: list[str]


def check_mat5(content: bytes, wanted: Container[str]) -> Checked:
    """Keep the wanted variables of a file, each checked as a whole.

    Args:
        content: The file.
        wanted: Names of variables; of others only the name is read.

    Returns:
        What is safe to decode.

    Raises:
        ValueError: The file is not of version 5, or an element is cut off, contradicts itself, or is of a class that is
            not read here.
        zlib.error: A compressed variable is damaged.
    """
    order = _byte_order(content)
    version = (_VERSION << 8).to_bytes(2, order)
    kept: list[bytes | memoryview] = [_TEXT.ljust(116) + bytes(8) + version + content[126:128]]
    data, at, names = memoryview(content), _HEADER, list[str]()
    while at < len(data):
        element = _element(data, at, order, padded=False)
        if element.kind == _COMPRESSED:
            start = _inflate(element.body, order, whole=False)
        elif element.kind == _MATRIX:
            start = data[at : element.end]
        else:
            raise ValueError(f"element of type {element.kind} at byte {at}, where a variable is expected")
        names.append(_header(start[8:], order).name)
        if names[-1] in wanted:
            whole = _inflate(element.body, order, whole=True) if element.kind == _COMPRESSED else start
            _check_matrix(whole, 0, order, _DEEPEST)
            kept.append(whole)
        at = element.end
    if len(set(names)) < len(names):
        raise ValueError(f"two variables of one name among {names}")
    return Checked(b"".join(kept), names)


def _byte_order(content: bytes) -> Order:
    if len(content) < _HEADER:
        raise ValueError(f"{len(content)} bytes, less than the header of {_HEADER}")
    orders: dict[bytes, Order] = {b"IM": "little", b"MI": "big"}
    order = orders.get(content[126:128])
    if order is None:
        raise ValueError(f"byte order {content[126:128]!r}, expected b'IM' or b'MI'")
    version = int.from_bytes(content[124:126], order) >> 8
    if version != _VERSION:
        raise ValueError(f"version field {version}, expected {_VERSION}")
    return order


def _element(data: memoryview, at: int, order: Order, *, padded: bool = True) -> _Element:
    """Read a tag. Up to four bytes of data lie within it; more follow it, to the next multiple of eight if padded."""
    tag = data[at : at + 8]
    first, size = (int.from_bytes(tag[place : place + 4], order) for place in (0, 4))
    small = first >> 16
    if small:
        kind, size, start, end = first & 0xFFFF, small, at + 4, at + 8
    else:
        kind, start = first, at + 8
        end = start + (-(-size // 8) * 8 if padded else size)
    if len(tag) < 8 or small > 4 or end > len(data):
        raise ValueError(f"element of type {kind} at byte {at} claims {size} bytes, which are not there")
    return _Element(kind, data[start : start + size], end)


def _inflate(packed: memoryview, order: Order, *, whole: bool) -> memoryview:
    """Inflate a matrix, or as much of it as holds its header; the inner tag says how long the matrix is."""
    stream = zlib.decompressobj()
    content = stream.decompress(packed, 8)
    kind, size = (int.from_bytes(content[place : place + 4], order) for place in (0, 4))
    if len(content) < 8 or kind != _MATRIX or size > _DEFLATE_LIMIT * (len(packed) + 1):
        raise ValueError(f"a compressed element of {len(packed)} bytes claims type {kind} and {size} bytes")
    wanted = size if whole else min(size, _NAME_PART)
    if wanted:
        content += stream.decompress(stream.unconsumed_tail, wanted)
    if len(content) != 8 + wanted:
        raise ValueError(f"a compressed matrix ends after {len(content)} of {8 + wanted} bytes")
    if whole and (stream.decompress(stream.unconsumed_tail, 1) or not stream.eof):
        raise ValueError("a compressed matrix is longer than it claims, or its checksum is cut off")
    return memoryview(content)


def _header(body: memoryview, order: Order) -> _Header:
    """Read flags, dimensions and name, which stand first in each matrix."""
    flags = _element(body, 0, order)
    if (flags.kind, len(flags.body)) != (_UINT32, 8):
        raise ValueError(f"a matrix begins with type {flags.kind} of {len(flags.body)} bytes, expected its flags")
    sides = _element(body, flags.end, order)
    dimensions = len(sides.body) // 4
    if sides.kind != _INT32 or len(sides.body) % 4 or not 2 <= dimensions <= _MOST_SIDES:
        raise ValueError(f"dimensions of type {sides.kind} in {len(sides.body)} bytes")
    name = _element(body, sides.end, order)
    if name.kind != _INT8:
        raise ValueError(f"a name of type {name.kind}")
    word = int.from_bytes(flags.body[:4], order)
    entries = _product(sides.body, order, len(body))
    return _Header(word & 0xFF, bool(word & _COMPLEX_FLAG), entries, bytes(name.body).decode("latin1"), name.end)


def _product(sides: memoryview, order: Order, most: int) -> int:
    """Number of entries, each of which takes a byte or more; an empty side does not excuse the others."""
    count, within, most_within = 1, 1, max(most, _MOST_EMPTY)
    for place in range(0, len(sides), 4):
        side = int.from_bytes(sides[place : place + 4], order, signed=True)
        count, within = count * side, within * max(side, 1)
        if side < 0 or within > most_within:
            raise ValueError(f"a matrix claims a side of {side} and {within} entries or more")
    if count > most:
        raise ValueError(f"a matrix of {most} bytes claims {count} entries")
    return count


def _check_matrix(data: memoryview, at: int, order: Order, levels: int) -> int:
    """Check a matrix and all within it; answer where it ends."""
    element = _element(data, at, order)
    if element.kind != _MATRIX or element.end != at + 8 + len(element.body):
        raise ValueError(f"element of type {element.kind} and {len(element.body)} bytes, expected a matrix")
    body = element.body
    if len(body) == 0:  # how an empty cell is written
        return element.end
    header = _header(body, order)
    if header.matlab_class in _NUMBERS:
        end = header.end
        for _ in range(1 + header.is_complex):
            end = _check_numbers(body, end, order, header.entries)
    elif header.matlab_class == _CHARACTERS:
        end = _check_text(body, header.end, order)
    elif header.matlab_class in (_CELL, _STRUCTURE) and levels > 0:
        fields, end = (1, header.end) if header.matlab_class == _CELL else _fields(body, header.end, order)
        for _ in range(header.entries * fields):
            end = _check_matrix(body, end, order, levels - 1)
    else:
        raise ValueError(f"a matrix of class {header.matlab_class}, {_DEEPEST - levels} levels deep, is not read here")
    if end != len(body):
        raise ValueError(f"a matrix of {len(body)} bytes holds data up to byte {end}")
    return element.end


def _check_numbers(body: memoryview, at: int, order: Order, count: int) -> int:
    numbers = _element(body, at, order)
    each = _NUMBER_BYTES.get(numbers.kind)
    if each is None or len(numbers.body) != count * each:
        raise ValueError(f"{count} numbers in {len(numbers.body)} bytes of type {numbers.kind}")
    return numbers.end


def _check_text(body: memoryview, at: int, order: Order) -> int:
    text = _element(body, at, order)
    if text.kind not in _TEXT_TYPES:
        raise ValueError(f"text of type {text.kind}")
    return text.end


def _fields(body: memoryview, at: int, order: Order) -> tuple[int, int]:
    """Number of a structure's fields, and where their names end."""
    length = _element(body, at, order)
    each = int.from_bytes(length.body, order, signed=True)
    if (length.kind, len(length.body)) != (_INT32, 4) or each < 1:
        raise ValueError(f"length of field names {each}, of type {length.kind} in {len(length.body)} bytes")
    names = _element(body, length.end, order)
    if names.kind != _INT8 or len(names.body) % each:
        raise ValueError(f"field names of type {names.kind} in {len(names.body)} bytes, {each} each")
    return len(names.body) // each, names.end
