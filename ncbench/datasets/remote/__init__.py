"""Files elsewhere: one way to open them at an offset, whatever the address."""

from __future__ import annotations

from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from ncbench.datasets.remote.answer import Answer, TransientError, redact
from ncbench.datasets.remote.http import http_size, open_http
from ncbench.datasets.remote.hub import hub_address
from ncbench.datasets.remote.storage import open_storage, storage_size

__all__ = ["Answer", "TransientError", "find_size", "open_remote", "redact"]


def open_remote(url: str, offset: int = 0, validator: str | None = None) -> AbstractContextManager[Answer]:
    """Open a remote file for reading.

    Args:
        url: ``http(s)://``, ``hf://``, ``s3://``, ``gs://`` or ``file://``.
        offset: First byte wanted.
        validator: State of the file that the first ``offset`` bytes came from; without one the file starts at 0.

    Returns:
        A context manager that gives the answer; its ``start`` is ``offset`` or 0.

    Raises:
        SourceError: The file cannot be had; trying again will not help.
        TransientError: The network or the server failed; a later try may work. Also raised while reading ``blocks``.
    """
    resume = offset if validator else 0
    scheme = urlsplit(url).scheme
    if scheme in {"http", "https"}:
        return open_http(url, {}, resume, validator)
    if scheme == "hf":
        address, headers = hub_address(url)
        return open_http(address, headers, resume, validator)
    return open_storage(url, resume, validator)


def find_size(url: str) -> int | None:
    """Ask for the size of a remote file without reading it.

    Args:
        url: As for ``open_remote``.

    Returns:
        Bytes; None where the server does not say.

    Raises:
        SourceError: The file cannot be had.
        TransientError: The network or the server failed.
    """
    scheme = urlsplit(url).scheme
    if scheme in {"http", "https"}:
        return http_size(url, {})
    if scheme == "hf":
        return http_size(*hub_address(url))
    return storage_size(url)
