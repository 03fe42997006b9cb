"""One array out of an HDF5 file that is held in memory, as Hypersim stores its maps (one data set to a file)."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.arrays import DAMAGED, MAX_PIXELS
from ncbench.errors import SourceError

# what h5py and the C library below it raise for damaged input
_NOT_HDF5 = (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError)


def decode_hdf5(content: bytes, where: str, *, key: str = "dataset") -> NDArray[Any]:
    """Decode one numeric data set.

    Args:
        content: The whole HDF5 file.
        where: Where it came from, for messages.
        key: Name of the data set.

    Returns:
        The array at its stored type.

    Raises:
        SourceError: Not HDF5, truncated, corrupt, no such data set, not numbers, or larger than any picture.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            stored = file.get(key)
            if not isinstance(stored, h5py.Dataset):
                problem = f"expected a data set named '{key}', found {sorted(file)[:8]}"
                raise SourceError.at(where, problem, DAMAGED)
            if stored.dtype.kind not in "iuf":
                raise SourceError.at(where, f"expected numbers, found type {stored.dtype}", DAMAGED)
            if stored.shape is None or math.prod(stored.shape) > 3 * MAX_PIXELS:
                raise SourceError.at(where, f"expected an array of a picture's size, found {stored.shape}", DAMAGED)
            values: NDArray[Any] = np.asarray(stored[()])
    except _NOT_HDF5 as error:
        raise SourceError.at(where, f"expected an HDF5 file, but it does not decode ({error})", DAMAGED) from error
    return values
