"""MPI Sintel's binary files: ``.flo`` (optical flow), ``.dpt`` (depth) and ``.cam`` (camera).

All are little-endian and open with the float 202021.25 (the bytes ``PIEH``); layout as in the data set's own I/O
description (Butler, Wulff, Stanley, Black: "A naturalistic open source movie for optical flow evaluation", ECCV 2012).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncbench.errors import SourceError

MAGIC = b"PIEH"
MAX_SIDE = 1 << 15
"""Longest side in pixels that a header may claim; more is taken for corruption."""

_REMEDY = "The file is damaged or is not what its name says: fetch it again"
_HEADER = struct.Struct("<4sii")
_CAMERA = struct.Struct("<4s21d")


def read_flo(path: Path) -> NDArray[np.float32]:
    """Read optical flow.

    Args:
        path: A ``.flo`` file: magic, int32 width, int32 height, then float32 (u, v) per pixel, row by row.

    Returns:
        (H, W, 2) float32, (u, v) in pixels.

    Raises:
        SourceError: Unreadable, wrong magic, absurd size, or a length that contradicts the header.
    """
    return _read_grid(path, "optical flow (.flo)", channels=2)


def write_flo(path: Path, flow: ArrayLike) -> None:
    """Write optical flow as ``.flo``.

    Args:
        path: The file to make; an existing one is replaced.
        flow: (H, W, 2), (u, v) in pixels; stored as float32.

    Raises:
        ValueError: Another shape.
    """
    values = np.asarray(flow)
    if values.ndim != 3 or values.shape[2] != 2:
        raise ValueError(f"flow must have shape (H, W, 2), got {values.shape}")
    _write_grid(path, values)


def read_dpt(path: Path) -> NDArray[np.float32]:
    """Read a depth map.

    Args:
        path: A ``.dpt`` file: magic, int32 width, int32 height, then float32 per pixel, row by row.

    Returns:
        (H, W) float32 z-depth in metres; the sky is a very large number.

    Raises:
        SourceError: Unreadable, wrong magic, absurd size, or a length that contradicts the header.
    """
    return _read_grid(path, "depth (.dpt)", channels=1)[:, :, 0]


def write_dpt(path: Path, depth: ArrayLike) -> None:
    """Write a depth map as ``.dpt``.

    Args:
        path: The file to make; an existing one is replaced.
        depth: (H, W) z-depth in metres; stored as float32.

    Raises:
        ValueError: Another shape.
    """
    values = np.asarray(depth)
    if values.ndim != 2:
        raise ValueError(f"depth must have shape (H, W), got {values.shape}")
    _write_grid(path, values)


def read_cam(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read a camera; a world point X projects to ``intrinsics @ world_to_cam @ (X, 1)``.

    Args:
        path: A ``.cam`` file: magic, float64[9] intrinsics, float64[12] extrinsics, both row by row.

    Returns:
        Intrinsics (3, 3) float64 in pixels, world-to-camera (3, 4) float64 in metres and OpenCV axes.

    Raises:
        SourceError: Unreadable, wrong magic, wrong length, or a value that is not finite.
    """
    expected = f"a camera file (.cam) of {_CAMERA.size} bytes"
    try:
        with path.open("rb") as stream:
            content = stream.read(_CAMERA.size + 1)
            size = path.stat().st_size
    except OSError as error:
        raise SourceError.at(path, f"expected {expected}, but it cannot be read ({error.strerror})", _REMEDY) from error
    _check_magic(path, content[:4], expected)
    if len(content) != _CAMERA.size:
        raise SourceError.at(path, f"expected {expected}, found {size} bytes", _REMEDY)
    values = np.array(_CAMERA.unpack(content)[1:], dtype=np.float64)
    if not np.isfinite(values).all():
        raise SourceError.at(path, f"expected {expected} with finite numbers, found NaN or infinity", _REMEDY)
    return values[:9].reshape(3, 3), values[9:].reshape(3, 4)


def write_cam(path: Path, intrinsics: ArrayLike, world_to_cam: ArrayLike) -> None:
    """Write a camera as ``.cam``.

    Args:
        path: The file to make; an existing one is replaced.
        intrinsics: (3, 3), pixels.
        world_to_cam: (3, 4), metres, OpenCV axes.

    Raises:
        ValueError: Another shape.
    """
    inner, outer = np.asarray(intrinsics, dtype=np.float64), np.asarray(world_to_cam, dtype=np.float64)
    if inner.shape != (3, 3) or outer.shape != (3, 4):
        raise ValueError(f"expected intrinsics (3, 3) and world_to_cam (3, 4), got {inner.shape} and {outer.shape}")
    path.write_bytes(_CAMERA.pack(MAGIC, *inner.ravel().tolist(), *outer.ravel().tolist()))


def _read_grid(path: Path, what: str, channels: int) -> NDArray[np.float32]:
    try:
        with path.open("rb") as stream:
            header = stream.read(_HEADER.size)
            height, width = _check_header(path, header, path.stat().st_size, what, channels)
            values = np.fromfile(stream, dtype="<f4", count=height * width * channels)
    except OSError as error:
        raise SourceError.at(path, f"expected {what}, but it cannot be read ({error.strerror})", _REMEDY) from error
    if values.size != height * width * channels:
        raise SourceError.at(path, f"expected {what}, but it ended while being read", _REMEDY)
    return values.reshape(height, width, channels).astype(np.float32, copy=False)


def _check_header(path: Path, header: bytes, size: int, what: str, channels: int) -> tuple[int, int]:
    """Return (height, width) only once the file's length bears them out, so that nothing is allocated on a lie."""
    _check_magic(path, header[:4], what)
    if len(header) < _HEADER.size:
        raise SourceError.at(
            path, f"expected {what} with a header of {_HEADER.size} bytes, found {size} bytes", _REMEDY
        )
    _, width, height = _HEADER.unpack(header)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise SourceError.at(path, f"expected {what} with sides of 1 to {MAX_SIDE}, found {width} x {height}", _REMEDY)
    expected = _HEADER.size + 4 * channels * width * height
    if size != expected:
        problem = f"expected {what} of {width} x {height} pixels in {expected} bytes, found {size} bytes"
        raise SourceError.at(path, problem, _REMEDY)
    return height, width


def _check_magic(path: Path, found: bytes, what: str) -> None:
    if found != MAGIC:
        raise SourceError.at(path, f"expected {what} beginning with the bytes {MAGIC!r}, found {found!r}", _REMEDY)


def _write_grid(path: Path, values: NDArray[Any]) -> None:
    height, width = values.shape[:2]
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ValueError(f"sides must be 1 to {MAX_SIDE}, got {width} x {height}")
    path.write_bytes(_HEADER.pack(MAGIC, width, height) + np.ascontiguousarray(values, dtype="<f4").tobytes())
