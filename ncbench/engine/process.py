"""What suits a process that imports much, works on arrays of megabytes, and ends."""

from __future__ import annotations

import atexit
import ctypes
import gc

_COLLECT_EVERY = 20_000
"""New containers before the collector looks for cycles. At Python's own 700 it looks hundreds of times during imports,
which is a fifth of their time."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_KEPT_BYTES = 256 << 20
_LARGEST_KEPT = 32 << 20  # the most that glibc takes


def tune_process() -> None:
    """Look for cycles less often and not at the end, and keep freed memory for the next array.

    Taking hundreds of modules apart at the end costs 0.3 s, for memory that the system takes back anyway. Fresh pages
    from the system are a twentieth of the time of scoring pictures; up to 256 MiB of freed memory stay with the
    process, where the C library is glibc. Calling this again changes nothing.
    """
    gc.set_threshold(_COLLECT_EVERY, *gc.get_threshold()[1:])
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
