"""MATLAB files: version 5 through SciPy once checked, version 7.3 (which is HDF5) through h5py; no more than asked.

MATLAB stores columns first, so HDF5 shows every array with its dimensions reversed: a MATLAB (H, W, 3, N) array is
(N, 3, W, H) there. Functions here answer in MATLAB's own order.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.datasets.formats.matlab_v5 import check_mat5
from ncbench.errors import SourceError

# what SciPy's reader raises for damaged input
_NOT_MAT5 = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    NotImplementedError,
    MemoryError,
    OverflowError,
    UnicodeError,
    struct.error,
    zlib.error,
)
# what h5py raises for damaged input
_NOT_HDF5 = (OSError, ValueError, TypeError, KeyError, RuntimeError, MemoryError)


def read_mat5(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Read variables of a MATLAB version 5 file.

    Args:
        path: The file.
        names: The variables wanted.

    Returns:
        Name -> array, always two-dimensional or more as in MATLAB; a structure comes as an object or record array.

    Raises:
        SourceError: Unreadable, not such a file, damaged, or a variable is not there.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    content = read_bytes(path, "a MATLAB file")
    try:
        checked = check_mat5(content, names)
        values = loadmat(io.BytesIO(checked.content), variable_names=list(names))
    except (*_NOT_MAT5, MatReadError) as error:
        problem = f"expected a MATLAB file of version 5, but it does not read ({type(error).__name__}: {error})"
        raise SourceError.at(path, problem, DAMAGED) from error
    missing = [name for name in names if name not in values]
    if missing:
        raise SourceError.at(path, f"expected variables {missing}, found {sorted(checked.names)}", DAMAGED)
    return {name: values[name] for name in names}


def numbers(value: Any, path: Path, what: str) -> NDArray[Any]:  # noqa: ANN401 - whatever SciPy gives
    """Check that a value read from a file is an array of numbers.

    Args:
        value: What the file held.
        path: The file, for the message.
        what: Name of the value, for the message.

    Returns:
        The array.

    Raises:
        SourceError: It is something else.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.size == 0:
        problem = f"expected numbers in '{what}', found dtype {array.dtype} of shape {array.shape}"
        raise SourceError.at(path, problem, DAMAGED)
    return array


class Mat73:
    """One array of a MATLAB version 7.3 file, read a slice at a time.

    Args:
        path: The file.
        name: The variable.
        shape: The shape that it must have in MATLAB's order; None leaves a side free.

    Raises:
        SourceError: Unreadable, not HDF5, no such variable, not numbers, or another shape.
    """

    def __init__(self, path: Path, name: str, shape: Sequence[int | None]) -> None:
        self.path, self.name = path, name
        with self._open() as array:
            found = tuple(int(side) for side in array.shape[::-1])
            if array.dtype.kind not in "biuf":
                raise self._broken(f"expected numbers in '{name}', found dtype {array.dtype}")
        self.shape = found
        fits = len(found) == len(shape) and all(
            want in (None, side) for want, side in zip(shape, found, strict=True) if side > 0
        )
        if not fits or min(found, default=0) < 1:
            wanted = tuple("any" if side is None else side for side in shape)
            problem = f"expected '{name}' of MATLAB shape {wanted}, found {found} (HDF5 shows them reversed)"
            raise self._broken(problem)

    def read(self, index: int) -> NDArray[Any]:
        """Read one slice along MATLAB's last dimension.

        Args:
            index: From 0, whatever MATLAB counts from.

        Returns:
            The slice with the other dimensions in MATLAB's order, contiguous.

        Raises:
            SourceError: No such slice, or its data are damaged.
        """
        if not 0 <= index < self.shape[-1]:
            raise self._broken(f"'{self.name}' has slices 0 to {self.shape[-1] - 1}, not {index}")
        with self._open() as array:
            values = np.asarray(array[index])
        return np.ascontiguousarray(values.T)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                if not isinstance(file.get(self.name), h5py.Dataset):
                    raise self._broken(f"expected an array '{self.name}', found {sorted(file)}")
                yield file[self.name]
        except _NOT_HDF5 as error:
            problem = f"expected a MATLAB file of version 7.3 with '{self.name}', but it does not read ({error})"
            raise self._broken(problem) from error

    def _broken(self, problem: str) -> SourceError:
        return SourceError.at(self.path, problem, DAMAGED)
