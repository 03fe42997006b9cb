"""One writer at a time for a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ncbench.errors import StoreError
from ncbench.files import writing


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep every other writer off a store while this context lasts.

    The lock is the operating system's, so that it ends with its process however that dies; a lock file that a killed
    process left means nothing. It lies beside the folder, so that the store's own files stay the same, and goes with
    the context.

    Args:
        folder: The store's folder, made where missing.

    Raises:
        StoreError: Another process writes this store, or the place cannot be written.
    """
    folder = folder.absolute()
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"{folder}: expected a folder for a store, found a file. Choose another place.")
        folder.mkdir(parents=True, exist_ok=True)
        real = folder.resolve()  # two spellings of one folder share a lock
        path = real.parent / f".{real.name}.lock"
        lock = FileLock(path, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise StoreError(
                f"{folder}: another prepare or repair is working on this store (it holds the lock {path}). Wait "
                "until it has ended, or write to another folder."
            ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps open files
            path.unlink(missing_ok=True)  # under the lock: filelock notices that a file it waited for is gone
        lock.release()
