"""Work that leaves the interpreter alone (decoding, compiled kernels), shared by threads of this process.

Against worker processes (``ncbench.engine.local``) nothing has to start, and nothing travels. It pays only where nearly
all of the time is spent without the interpreter lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2  # items that wait for each thread where results come in order: what bounds the memory


def in_order(fn: Callable[[Item], Result], items: Iterable[Item], jobs: int = 1) -> Iterator[Result]:
    """Apply ``fn`` to every item, a little ahead of whoever takes the results.

    Args:
        fn: Safe to call from several threads at once.
        items: What to work on.
        jobs: Threads that work.

    Yields:
        The results in the order of the items.

    Raises:
        ValueError: ``jobs`` is below 1.
        Exception: What an item raised, in its turn; items not yet started are cancelled.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if jobs == 1:
        yield from map(fn, items)
        return
    pool = ThreadPoolExecutor(jobs)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(fn, item))
            if len(waiting) > jobs * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
