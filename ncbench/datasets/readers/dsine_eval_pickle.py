"""OASIS ground truth as DSINE ships it: a pickle of one dictionary with a box and the normals inside it.

A pickle is a program that builds objects, and calls whatever function it names. Here nothing that it names is imported
or called, not even NumPy (whose own rebuilding functions can be made to crash the process): each name that NumPy's
pickles use stands for a record that keeps the arguments, every other name is refused, and the arrays are made from the
records.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.arrays import DAMAGED, MAX_PIXELS, read_bytes
from ncbench.errors import SourceError

_BOX = ("min_x", "max_x", "min_y", "max_y")
_MAX_BYTES = 24 * MAX_PIXELS
_NUMBERS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}
# what a damaged or hostile pickle makes the machine raise
_NOT_A_PICKLE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    ImportError,
    MemoryError,
    OverflowError,
    RecursionError,
    AssertionError,
    SystemError,
    struct.error,
)


class _Dtype:
    """Stands for ``numpy.dtype(code, align, copy)``; its state holds the byte order."""

    def __init__(self, code: object, *_flags: object) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def plain(self) -> np.dtype[Any]:
        """The dtype, if it is one of plain numbers."""
        if self.code not in _NUMBERS or self.order not in {"<", ">", "|"}:
            raise ValueError(f"dtype {self.code!r:.20} of byte order {self.order!r:.20}, no plain numbers")
        return np.dtype(f"{self.order}{self.code}")


class _Array:
    """Stands for an array, built by ``_reconstruct`` and a state, or by ``_frombuffer``."""

    def __init__(self, *arguments: object) -> None:
        self.state: tuple[Any, ...] = ()
        if len(arguments) == 4:  # _frombuffer(buffer, dtype, shape, order)
            content, dtype, shape, order = arguments
            self.state = (1, shape, dtype, order == "F", content)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def plain(self) -> NDArray[Any]:
        """The array, once its parts agree."""
        _, shape, dtype, fortran, content = self.state
        if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, _Dtype):
            raise ValueError("an array of objects, no plain numbers")
        values = np.frombuffer(bytes(content), dtype.plain())
        return values.reshape(tuple(int(side) for side in shape), order="F" if fortran else "C")


class _Scalar:
    """Stands for ``scalar(dtype, bytes)``."""

    def __init__(self, dtype: _Dtype, content: bytes) -> None:
        self.dtype, self.content = dtype, content

    def plain(self) -> Any:  # noqa: ANN401 - a NumPy number of any kind
        """The number."""
        return np.frombuffer(self.content, self.dtype.plain(), count=1)[0]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stands for ``_codecs.encode``, which is how protocol 2 spells bytes."""
    return text.encode("latin1") if encoding == "latin1" else b""


_STANDINS: dict[str, Any] = {
    "multiarray._reconstruct": _Array,
    "multiarray.scalar": _Scalar,
    "numeric._frombuffer": _Array,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - the base class's type
        # NumPy 1 wrote numpy.core, NumPy 2 writes numpy._core
        short = module.removeprefix("numpy._core.").removeprefix("numpy.core.")
        if f"{short}.{name}" not in _STANDINS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no plain NumPy data need")
        return _STANDINS[f"{short}.{name}"]


def read_oasis_normals(path: Path, height: int, width: int) -> NDArray[np.float32]:
    """Read the normals of one OASIS picture and paste them at their place.

    Args:
        path: The pickle: ``min_x``, ``max_x``, ``min_y``, ``max_y`` (pixels, all inclusive) and ``normal``.
        height: The picture's height in pixels.
        width: The picture's width in pixels.

    Returns:
        (H, W, 3) float32 in the axes that DSINE gives its other sets (x left, y up, z to the viewer): x and y are the
        stored ones negated, as DSINE does. Zero outside the box and where nothing was annotated. Not of unit length.

    Raises:
        SourceError: Unreadable, damaged, asks for code, or a box that does not fit the picture or the array.
    """
    content = read_bytes(path, "a pickle of OASIS normals")
    if len(content) > _MAX_BYTES:
        raise SourceError.at(path, f"expected at most {_MAX_BYTES} bytes, found {len(content)}", DAMAGED)
    try:
        for _ in pickletools.genops(content):  # every length must be true before the interpreter's machine sees it
            pass
        values = _plain(_Unpickler(io.BytesIO(content)).load())
    except _NOT_A_PICKLE as error:
        problem = f"expected a pickle of plain NumPy data, but it does not read ({error})"
        raise SourceError.at(path, problem, DAMAGED) from error
    if not isinstance(values, dict) or not {*_BOX, "normal"} <= set(values):
        found = sorted(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise SourceError.at(path, f"expected a dictionary with {[*_BOX, 'normal']}, found {found}", DAMAGED)
    left, right, top, bottom = (_whole(values[name], path, name) for name in _BOX)
    inside = values["normal"]
    if not (0 <= left <= right < width and 0 <= top <= bottom < height):
        problem = f"expected a box inside {width} x {height} pixels, found x {left}..{right}, y {top}..{bottom}"
        raise SourceError.at(path, problem, DAMAGED)
    shape = (bottom - top + 1, right - left + 1, 3)
    if not isinstance(inside, np.ndarray) or inside.dtype.kind != "f" or inside.shape != shape:
        found = f"{inside.dtype} {inside.shape}" if isinstance(inside, np.ndarray) else type(inside).__name__
        raise SourceError.at(path, f"expected floating-point normals of shape {shape}, found {found}", DAMAGED)
    normal = np.zeros((height, width, 3), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # too large for float32: infinite, and so no normal
        normal[top : bottom + 1, left : right + 1] = inside * np.array([-1.0, -1.0, 1.0]) + 0.0
    return normal


def _plain(values: object) -> object:
    """Turn the records in a dictionary into arrays and numbers."""
    if not isinstance(values, dict):
        return values
    return {key: item.plain() if isinstance(item, (_Array, _Scalar)) else item for key, item in values.items()}


def _whole(value: object, path: Path, name: str) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise SourceError.at(path, f"expected a whole number in '{name}', found {value!r:.60}", DAMAGED)
