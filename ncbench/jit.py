"""numba's ``njit`` with types that survive: the decorated kernel keeps its Python signature for mypy.

numba's disk cache notices edits of a kernel's own file, not of the files that it calls into: after editing a kernel
that others call, delete the ``*.nbi`` files (``make test`` and ``make repro`` do).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def jit(*, inline: bool = False) -> Callable[[Kernel], Kernel]:
    """Compile a kernel to machine code, cached on disk and without the interpreter lock.

    Division follows numpy (x / 0 is inf or NaN): Python's ZeroDivisionError costs a branch that stops vectorization.

    Args:
        inline: Merge the body into its callers before optimization.

    Returns:
        The decorator.
    """

    def decorate(function: Kernel) -> Kernel:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "inline": "always" if inline else "never"}
        try:
            return cast("Kernel", numba.njit(cache=True, **options)(function))
        except RuntimeError:  # no folder to cache in can be written: compile anew in every process
            return cast("Kernel", numba.njit(cache=False, **options)(function))

    return decorate
