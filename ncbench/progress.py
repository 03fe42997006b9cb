"""Progress bars for people, silence for logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
def progress_bar(title: str, *, of_bytes: bool = False) -> Iterator[Report]:
    """Show a bar on the terminal's error stream; nothing where that is no terminal.

    Args:
        title: What is being done.
        of_bytes: Whether bytes are counted, and not items.

    Yields:
        A function of (done, in all); 0 in all means that nobody knows.
    """
    console = Console(stderr=True)
    amount = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        yield report
