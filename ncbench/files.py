"""Files and folders that appear whole or not at all, and never at the cost of somebody else's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ncbench.errors import StoreError

MARKER = ".ncbench"


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Write a file beside ``path`` and rename it when complete: a reader sees the old file or the new one.

    Args:
        path: Where to; its folder is made.

    Yields:
        The temporary path to write.

    Raises:
        StoreError: The disk is full or the folder cannot be written.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _not_writable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file atomically.

    Args:
        path: Where to; its folder is made.
        values: Anything that JSON can hold; NaN is refused.

    Raises:
        StoreError: The disk is full or the folder cannot be written.
    """
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def replacing_folder(to: Path, kind: str) -> Iterator[Path]:
    """Fill a folder beside ``to`` and swap it in when complete; on any error ``to`` stays as it was.

    Only a folder that an earlier call of the same kind made is replaced: it carries a marker file.

    Args:
        to: The folder.
        kind: What it holds, one word.

    Yields:
        The empty folder to fill.

    Raises:
        StoreError: ``to`` holds something else, or cannot be written.
    """
    to = to.absolute()
    partial = to.parent / f".{to.name}.{os.getpid()}.partial"
    try:
        _check_replaceable(to, kind)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / MARKER).write_text(kind + "\n", encoding="utf-8")
        yield partial
        if to.exists():
            shutil.rmtree(to)
        partial.rename(to)
    except OSError as error:
        raise _not_writable(to, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_replaceable(to: Path, kind: str) -> None:
    if not to.exists():
        return
    if not to.is_dir():
        raise StoreError(f"{to}: is a file, not a folder. Choose another place.")
    marker = to / MARKER
    ours = marker.is_file() and marker.read_text(encoding="utf-8").strip() == kind
    if any(to.iterdir()) and not ours:
        raise StoreError(f"{to}: holds files that ncbench did not put there. Choose another folder or empty this one.")
    if Path.cwd().is_relative_to(to):
        raise StoreError(f"{to}: is the current directory or holds it. Choose another folder.")


def _not_writable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path}: cannot be written ({error.strerror or error}). Free space or choose another folder.")
