"""numba's ``njit`` with types that survive: the decorated kernel keeps its Python signature for mypy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def jit(*, parallel: bool = False, fastmath: bool = False, inline: bool = False) -> Callable[[Kernel], Kernel]:
    """Compile a kernel to machine code, cached on disk and without the interpreter lock.

    Args:
        parallel: Let ``numba.prange`` use several threads.
        fastmath: Allow reordering of floating-point sums; only where a test bounds the effect and no NaN can occur.
        inline: Merge the body into its callers before optimization.

    Returns:
        The decorator.
    """

    def decorate(function: Kernel) -> Kernel:
        compiled = numba.njit(
            cache=True, nogil=True, parallel=parallel, fastmath=fastmath, inline="always" if inline else "never"
        )(function)
        return cast("Kernel", compiled)

    return decorate
