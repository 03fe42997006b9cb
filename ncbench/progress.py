"""Progress bars for people, silence for logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

Report = Callable[[int, int], None]


@contextmanager
def progress_bars(*, of_bytes: bool = False) -> Iterator[Callable[[str], AbstractContextManager[Report]]]:
    """Show bars on the terminal's error stream, one below the other; nothing where that is no terminal.

    Args:
        of_bytes: Whether bytes are counted, and not items.

    Yields:
        Opens a bar with a title, from any thread; it is a function of (done, in all), where 0 in all means that nobody
        knows, and vanishes when it is closed.
    """
    console = Console(stderr=True)
    amount = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:

        @contextmanager
        def opened(title: str) -> Iterator[Report]:
            task = bars.add_task(title, total=None)
            try:
                yield lambda done, total: bars.update(task, completed=done, total=total or None)
            finally:
                bars.remove_task(task)

        yield opened


@contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """Show one bar on the terminal's error stream; nothing where that is no terminal.

    Args:
        title: What is being done.

    Yields:
        A function of (done, in all); 0 in all means that nobody knows.
    """
    with progress_bars() as opened, opened(title) as report:
        yield report
