"""Raw arrays out of NPY and NPZ files: strict about damage, silent about meaning.

Every reader checks what a header claims before it allocates, and raises only :class:`~ncbench.errors.SourceError`.
Meaning (depth, normals, masks) is given by the modules `images` and `normal_maps` beside it.
"""

from __future__ import annotations

import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ncbench.errors import SourceError

MAX_PIXELS = 1 << 28
"""Most pixels that a picture or map may claim (16384 x 16384); more is taken for corruption."""

DAMAGED = "The file is damaged or is not what its name says: write or fetch it again"

DEFLATE_LIMIT = 1032  # no deflate stream expands further; a zip directory that claims more is lying
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    KeyError,
)
_NPY_HEADERS: Mapping[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


def read_bytes(path: Path, what: str) -> bytes:
    """Read a whole file.

    Args:
        path: The file.
        what: What it should be, for the message.

    Returns:
        Its contents.

    Raises:
        SourceError: It is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError.at(path, f"expected {what}, but it cannot be read ({error.strerror})", DAMAGED) from error


def read_npy(path: Path) -> NDArray[Any]:
    """Read a numeric ``.npy`` array; pickled objects are refused.

    Args:
        path: The file.

    Returns:
        The array.

    Raises:
        SourceError: Unreadable, not NPY, not numeric, or a length that contradicts the header.
    """
    what = "a NumPy array (.npy)"
    try:
        with path.open("rb") as stream:
            return _read_npy_stream(stream, path.stat().st_size, path, what)
    except OSError as error:
        raise SourceError.at(path, f"expected {what}, but it cannot be read ({error})", DAMAGED) from error


def read_npz(path: Path, key: str | None = None) -> NDArray[Any]:
    """Read one numeric array of an ``.npz`` archive; pickled objects are refused.

    Args:
        path: The archive.
        key: Name of the array; None takes the only one.

    Returns:
        The array.

    Raises:
        SourceError: Unreadable, no such array, several arrays and no key, or a damaged member.
    """
    what = "a NumPy archive (.npz)"
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(_npz_member(archive, key, path))
            if member.file_size > DEFLATE_LIMIT * (member.compress_size + 1):
                problem = f"{member.filename} claims {member.file_size} bytes out of {member.compress_size}"
                raise SourceError.at(path, problem, DAMAGED)
            with archive.open(member) as stream:
                inside = cast("io.BufferedIOBase", stream)
                return _read_npy_stream(inside, member.file_size, path, f"array '{member.filename}' of {what}")
    except (OSError, EOFError, ValueError, *_ZIP_ERRORS) as error:
        raise SourceError.at(path, f"expected {what}, but it cannot be read ({error})", DAMAGED) from error


def _npz_member(archive: zipfile.ZipFile, key: str | None, path: Path) -> str:
    names = {name.removesuffix(".npy"): name for name in archive.namelist()}
    if key is None:
        if len(names) == 1:
            return next(iter(names.values()))
        problem = f"expected a single array, found {sorted(names)}"
        raise SourceError.at(path, problem, "Name the array with a key")
    if key not in names:
        raise SourceError.at(path, f"expected an array named '{key}', found {sorted(names)}", "Correct the key")
    return names[key]


def _read_npy_stream(stream: io.BufferedIOBase, size: int, path: Path, what: str) -> NDArray[Any]:
    shape, fortran, dtype = _npy_header(cast("IO[bytes]", stream), path, what)
    count = math.prod(shape)
    if dtype.kind not in "biuf" or dtype.hasobject:
        raise SourceError.at(path, f"expected {what} of numbers, found dtype {dtype}", DAMAGED)
    if any(side < 0 for side in shape) or stream.tell() + count * dtype.itemsize != size:
        problem = f"expected {what} of shape {shape} and dtype {dtype}, but {size} bytes do not hold that"
        raise SourceError.at(path, problem, DAMAGED)
    values = np.empty(count, dtype)  # into an array that can be written to, so that nobody needs a copy
    if values.size and stream.readinto(values.view(np.uint8).data) != values.nbytes:
        raise SourceError.at(path, f"expected {what}, but it ended while being read", DAMAGED)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _npy_header(stream: IO[bytes], path: Path, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy_format.read_magic(stream)
        if version not in _NPY_HEADERS:
            raise ValueError(f"version {version} is not for plain numeric arrays")
        return _NPY_HEADERS[version](stream)
    except (ValueError, EOFError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise SourceError.at(path, f"expected {what}, but its header is not valid ({error})", DAMAGED) from error


def read_array(path: Path, key: str | None) -> NDArray[Any]:
    """Read an NPZ's array of a name (None takes the only one), or an NPY."""
    return read_npz(path, key) if path.suffix.lower() == ".npz" else read_npy(path)
