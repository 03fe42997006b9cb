"""Files and folders that appear whole or not at all, and never at the cost of somebody else's."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ncbench.errors import StoreError

MARKER = ".ncbench"
TEMPORARY_SUFFIX = ".ncbench-tmp"
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def canonical(values: Mapping[str, Any]) -> bytes:
    """Write JSON that is the same for the same values, whatever their order.

    Args:
        values: Anything that JSON can hold; NaN is refused.

    Returns:
        ASCII.
    """
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def file_sha256(path: Path) -> str:
    """Hash a file, hex.

    Raises:
        StoreError: The file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error}). Check its permissions.") from error


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Write a file beside ``path``, sync and rename it when complete: a reader sees the old file or the new one.

    Args:
        path: Where to; its folder is made.

    Yields:
        The temporary path to write; it vanishes on any error.

    Raises:
        StoreError: The disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file atomically.

    Args:
        path: Where to; its folder is made.
        content: All of it.

    Raises:
        StoreError: The disk is full or the folder cannot be written.
    """
    with replacing_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file, for people to read, atomically.

    Args:
        path: Where to; its folder is made.
        values: Anything that JSON can hold; NaN is refused.

    Raises:
        StoreError: The disk is full or the folder cannot be written.
    """
    write_bytes(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def leftovers(folder: Path) -> list[Path]:
    """List the temporary files that a killed run left in a folder."""
    return sorted(folder.glob(f".*{TEMPORARY_SUFFIX}"))


def sync_folder(folder: Path) -> None:
    """Make created, renamed and removed names of a folder survive a power cut."""
    with suppress(PermissionError):  # Windows cannot open a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
        with writing(to):
            _check_replaceable(to, kind)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            (partial / MARKER).write_text(kind + "\n", encoding="utf-8")
            yield partial
            if to.exists():
                shutil.rmtree(to)
            partial.rename(to)
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


@contextmanager
def writing(path: Path, needed: str = "") -> Iterator[None]:
    """Say what the user can do where the disk refuses what is done to ``path`` within this context.

    Args:
        path: What is written or removed.
        needed: How much space is wanted, as a piece of the sentence, where known.

    Raises:
        StoreError: Instead of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(error, path, needed) from error


def disk_error(error: OSError, path: Path, needed: str = "") -> StoreError:
    """Put an OSError of a write into words; arguments as in ``writing``."""
    reason = error.strerror or str(error)
    if error.errno not in _FULL_DISK:
        return StoreError(
            f"{path}: cannot be written ({reason}). Check the folder, its permissions and what lies there, or choose "
            "another folder."
        )
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = mib(shutil.disk_usage(folder).free)
    return StoreError(
        f"{path}: the disk is full or a size limit was reached ({reason}): {needed}{free} free now. Free space or "
        "choose another folder and run the same command again: what is finished is kept."
    )


def mib(size: float) -> str:
    """Write a number of bytes for people."""
    return f"{size / (1 << 20):.1f} MiB"
