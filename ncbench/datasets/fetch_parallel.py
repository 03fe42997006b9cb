"""Several files at once, in threads: a download waits for the network and computes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from ncbench.datasets.download import Retry
from ncbench.progress import Report

Item = TypeVar("Item")
Brought = TypeVar("Brought")


class Stopped(Exception):  # noqa: N818 - no failure: this file was given up because the run is over
    """Raised within a download when another one failed or the user interrupted the run."""


class Stop:
    """Ends downloads between two blocks and between two attempts, which leaves them as a cut does: resumable."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def now(self) -> None:
        """Ask all downloads to end."""
        self._event.set()

    def reporting(self, report: Report | None) -> Report:
        """Wrap a progress report, which a download calls after each block, so that it ends the download in time."""

        def checked(done: int, total: int) -> None:
            self._check()
            if report is not None:
                report(done, total)

        return checked

    def waiting(self, retry: Retry) -> Retry:
        """Let the waits between attempts end early."""

        def sleep(seconds: float) -> None:
            self._event.wait(seconds)
            self._check()

        return replace(retry, sleep=sleep)

    def _check(self) -> None:
        if self._event.is_set():
            raise Stopped


def bring_each(
    items: Iterable[Item], bring: Callable[[Item, Stop | None], Brought], jobs: int
) -> Generator[tuple[Item, Brought], None, None]:
    """Bring items, so many of them at once.

    While the caller deals with one item the next ones are under way, but never more than ``jobs`` of them wait for
    the caller: archives that wait for being unpacked do not fill the disk.

    Args:
        items: What to bring.
        bring: Brings one item; called in threads with what ends it early, or in this thread with None for one job.
        jobs: How many at once.

    Yields:
        Each item with what was brought, as they become complete; in order for one job.

    Raises:
        Exception: The first that ``bring`` raises. Whatever ends the iteration, closing it included, the other items
            are ended too, and none is under way afterwards.
    """
    if jobs == 1:
        for item in items:
            yield item, bring(item, None)
        return
    stop, waiting = Stop(), iter(items)
    with ThreadPoolExecutor(jobs, thread_name_prefix="fetch") as pool:
        try:
            running = {pool.submit(bring, item, stop): item for item in islice(waiting, jobs)}
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    item, brought = running.pop(future), future.result()
                    running.update({pool.submit(bring, more, stop): more for more in islice(waiting, 1)})
                    yield item, brought
        finally:
            stop.now()
            pool.shutdown(cancel_futures=True)
