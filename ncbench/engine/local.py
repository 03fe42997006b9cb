"""The one seam between work and where it runs.

A task is pure and idempotent (one shard in, one shard or statistic out), so an engine may run it anywhere, and running
it again after a crash loses nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

from ncbench.engine.process import tune_process
from ncbench.errors import NcbenchError

Item = TypeVar("Item")
Result = TypeVar("Result")
Share = Callable[[Iterable[Item]], Iterator[tuple[Item, Result]]]

_AHEAD = 2  # items that a worker holds: the one it works on, and the next, while this process is busy with its own
_INTERRUPTED = 128 + signal.SIGINT
_worker = SimpleNamespace()  # of a worker process: ``fn``, what it was started for


def run(fn: Callable[[Item], Result], items: Iterable[Item], jobs: int = 1) -> Iterator[tuple[Item, Result]]:
    """Apply ``fn`` to every item, here or in worker processes.

    Args:
        fn: A picklable function; pure and idempotent. Each process gets it once, so what it keeps to itself (an open
            source, a memory map) serves all items that this process takes.
        items: What to work on; picklable where ``jobs > 1``.
        jobs: Processes that work, this one included: starting a worker costs about a second of imports.

    Yields:
        ``(item, result)`` as each finishes: with one job in order, else in any.

    Raises:
        ValueError: ``jobs`` is below 1.
        NcbenchError: A worker process died.
        Exception: The first error of any task, as soon as this process has finished its own; tasks not yet started are
            cancelled.
    """
    work = list(items)
    with started(fn, jobs, len(work)) as share:
        yield from share(work)


@contextmanager
def started(fn: Callable[[Item], Result], jobs: int, most: int) -> Iterator[Share[Item, Result]]:
    """Start worker processes ahead, so that their imports go on while this process does what comes before the work.

    Args:
        fn: As for ``run``.
        jobs: As for ``run``.
        most: How many items there can be; no more processes than that are started.

    Yields:
        What takes the items, once, and gives what ``run`` does.

    Raises:
        ValueError: ``jobs`` is below 1.
        NcbenchError: A worker process died.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    workers = min(jobs, most) - 1
    if workers < 1:
        yield lambda items: ((item, fn(item)) for item in items)
        return
    # spawn, not fork: numba, torch and pyarrow all start threads that do not survive a fork
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(fn,))
    idle = False
    try:
        with _interrupts_held():  # a worker takes them once it knows how to
            for _ in range(workers):
                pool.submit(_nothing)  # a process starts when it is given something
        yield lambda items: _share(fn, deque(items), pool, workers * _AHEAD)
        idle = True
    except BrokenProcessPool as error:
        raise NcbenchError(
            "a worker process died, most likely for want of memory. Run the same command again with fewer --jobs: "
            "what is finished is kept. (A script of your own must call this under `if __name__ == '__main__':`.)"
        ) from error
    finally:
        # idle workers end while the caller goes on; busy ones must not write behind the back of one that cleans up
        pool.shutdown(wait=not idle, cancel_futures=True)


def _share(
    fn: Callable[[Item], Result], work: deque[Item], pool: ProcessPoolExecutor, ahead: int
) -> Iterator[tuple[Item, Result]]:
    """Keep ``ahead`` items with the workers, take the next one here, and give what has been finished meanwhile.

    The last item is always taken here, so that no process waits for more than one item of another's.
    """
    handed: dict[Future[Result], Item] = {}
    while work or handed:
        while len(work) > 1 and len(handed) < ahead:
            item = work.popleft()
            handed[pool.submit(_apply, item)] = item
        if work:
            item = work.popleft()
            yield item, fn(item)
        else:
            wait(handed, return_when=FIRST_COMPLETED)
        for future in [future for future in handed if future.done()]:
            yield handed.pop(future), future.result()


def _begin(fn: Callable[[Any], Any]) -> None:
    """Make this process a worker for one function."""
    _worker.fn = fn
    tune_process()
    _end_with_parent()
    # the parent tells the user, and all writes are atomic
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait in this thread, and in processes that it starts until they let it through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nothing() -> None:
    """Give a worker process a reason to start."""


def _apply(item: Any) -> Any:  # noqa: ANN401 - whatever the function takes and gives
    return _worker.fn(item)


def _end_with_parent() -> None:
    """End this worker as soon as its parent dies, even by ``kill -9``; it would go on writing, then wait for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
