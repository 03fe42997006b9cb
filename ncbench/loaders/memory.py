"""Memory of batches that is used again: fresh pages from the system cost a fifth to a third of a loader's time."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

Buffer = NDArray[np.uint8]

SMALLEST = 1 << 17
"""Bytes from which memory is worth keeping: the C library hands out less than this without asking the system."""
_ALIGNMENT = 64  # as torch's own allocator
_STEPS = 8  # sizes that are kept apart between one power of two and the next: at most an eighth is left unused


class Memory:
    """Gives room for tensors, and takes it back once no tensor, view or array refers to it any more.

    Never holds more than was in use at one time, so that a program's peak stays what it was; what was not used for
    longest goes first. Any number of threads may ask.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[Buffer] = []
        self._returned: deque[Buffer] = deque()  # by finalizers, which may run anywhere, so that they take no lock
        self._used = self._peak = 0

    @property
    def held(self) -> int:
        """Bytes that wait for their next use."""
        with self._lock:
            self._collect()
            return sum(buffer.nbytes for buffer in self._free)

    def batch(self, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        """Make room for a tensor of a batch; in a worker process right in the memory that it shares with its parent.

        Args:
            shape: Shape of the tensor.
            kind: Its type.

        Returns:
            A contiguous tensor of any content.
        """
        if get_worker_info() is None:
            return self.scratch(shape, kind)
        share: Callable[[int], Any] = torch.UntypedStorage._new_shared  # noqa: SLF001 - as torch's own collate
        return torch.empty(0, dtype=kind).set_(share(math.prod(shape) * kind.itemsize)).view(shape)

    def scratch(self, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        """Make room for a tensor of this process; arguments and result as ``batch``."""
        size = math.prod(shape) * kind.itemsize
        if size < SMALLEST:
            return torch.empty(shape, dtype=kind)
        buffer = self._take(size)
        start = -buffer.ctypes.data % _ALIGNMENT
        room = buffer[start : start + size]
        # the tensor's storage keeps ``room``, and all that is made of the tensor, arrays too, keeps its storage
        weakref.finalize(room, self._returned.append, buffer).atexit = False
        return torch.from_numpy(room).view(kind).view(shape)

    def _take(self, size: int) -> Buffer:
        whole = _rounded(size) + _ALIGNMENT
        with self._lock:
            self._collect()
            place = next((place for place, buffer in enumerate(self._free) if buffer.nbytes == whole), None)
            buffer = np.empty(whole, np.uint8) if place is None else self._free.pop(place)
            self._used += whole
            self._peak = max(self._peak, self._used)
            return buffer

    def _collect(self) -> None:
        """Take back what came since the last time, then let go of what exceeds the peak."""
        while self._returned:
            buffer = self._returned.popleft()
            self._used -= buffer.nbytes
            self._free.append(buffer)
        spare = self._peak - self._used
        while self._free and sum(buffer.nbytes for buffer in self._free) > spare:
            del self._free[0]


def _rounded(size: int) -> int:
    """Round up to one of a few sizes, so that clips of other lengths find room that was used before."""
    step = max(1, (1 << (size - 1).bit_length()) // (2 * _STEPS))
    return -(-size // step) * step
