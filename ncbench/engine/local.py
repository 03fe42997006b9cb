"""The one seam between work and where it runs.

A task is pure and idempotent (one shard in, one shard or statistic out), so an engine may run it anywhere, and running
it again after a crash loses nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from ncbench.errors import NcbenchError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run(fn: Callable[[Item], Result], items: Iterable[Item], jobs: int = 1) -> Iterator[tuple[Item, Result]]:
    """Apply ``fn`` to every item, here or in worker processes.

    Args:
        fn: A picklable function; pure and idempotent.
        items: What to work on; picklable where ``jobs > 1``.
        jobs: Worker processes; 1 runs everything in this process, in order.

    Yields:
        ``(item, result)`` as each finishes: with ``jobs > 1`` in any order.

    Raises:
        ValueError: ``jobs`` is below 1.
        NcbenchError: A worker process died.
        Exception: The first error of any task; tasks not yet started are cancelled.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if jobs == 1:
        for item in items:
            yield item, fn(item)
        return
    work = list(items)
    # spawn, not fork: numba, torch and pyarrow all start threads that do not survive a fork
    context = multiprocessing.get_context("spawn")
    workers = max(1, min(jobs, len(work)))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        futures = {pool.submit(fn, item): item for item in work}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise NcbenchError(
                "a worker process died, most likely for want of memory. Run the same command again with fewer --jobs: "
                "what is finished is kept."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker as soon as its parent dies, even by ``kill -9``; it would go on writing, then wait for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
