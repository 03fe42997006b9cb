"""Buckets and local files, through fsspec and the user's own configuration of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from ncbench.datasets.remote.answer import BLOCK, MOVED, Answer, TransientError, hopeless

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}


@contextmanager
def open_storage(url: str, offset: int, validator: str | None) -> Iterator[Answer]:
    """Open a file of a bucket or of a local disk.

    Args:
        url: ``s3://``, ``gs://`` or ``file://``.
        offset: First byte wanted.
        validator: State of the file that the bytes before ``offset`` came from.

    Yields:
        The answer; it starts at 0 where the file is in another state.

    Raises:
        SourceError: There is no such file, access is denied, or a package is missing.
        TransientError: The storage failed; a later try may work.
    """
    with _told_apart(url):
        filesystem, path = _filesystem(url)
        found, size = str(filesystem.ukey(path)), int(filesystem.info(path)["size"])
        start = offset if found == validator else 0
        stream = filesystem.open(path, "rb")
    try:  # outside of _told_apart: what the caller raises is not a failure of the storage
        yield Answer(start, size, found, "identity", "", None, _blocks(url, stream, start))
    finally:
        stream.close()


def storage_size(url: str) -> int:
    """Return the size of a file in bytes; raises as ``open_storage``."""
    with _told_apart(url):
        filesystem, path = _filesystem(url)
        return int(filesystem.info(path)["size"])


def _blocks(url: str, stream: Any, start: int) -> Iterator[bytes]:  # noqa: ANN401 - fsspec ships no types
    with _told_apart(url):
        stream.seek(start)
    while True:
        with _told_apart(url):
            block = bytes(stream.read(BLOCK))
        if not block:
            return
        yield block


def _filesystem(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # fsspec ships no types

    filesystem, path = url_to_fs(url)
    return filesystem, str(path)


@contextmanager
def _told_apart(url: str) -> Iterator[None]:
    scheme = urlsplit(url).scheme
    try:
        yield
    except FileNotFoundError as error:
        raise hopeless(url, "there is no such file", MOVED) from error
    except PermissionError as error:
        raise hopeless(url, "access is denied", "Check your own credentials for this storage") from error
    except ImportError as error:
        remedy = f"Run 'pip install {_PACKAGES.get(scheme, 'fsspec[full]')}'"
        raise hopeless(url, f"{scheme}:// needs a package ({error})", remedy) from error
    except OSError as error:
        raise TransientError(f"{type(error).__name__}: {error}") from error
    except Exception as error:  # each storage's library raises types of its own
        remedy = "Check your own credentials for this storage"
        raise hopeless(url, f"{type(error).__name__}: {error}", remedy) from error
