"""What any remote storage answers, and how its failures are told apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ncbench.errors import SourceError

BLOCK = 1 << 20  # bytes asked for at once
MOVED = "The file has moved: look at the data set's home page, correct the URL in the card, or pass a copy with --local"


class TransientError(Exception):
    """Something that may work a little later.

    Attributes:
        wait: Seconds that the server asked for; None where it named none.
        restart: Whether the bytes that are here are of no use.
    """

    def __init__(self, message: str, wait: float | None = None, *, restart: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.restart = restart


@dataclass(frozen=True)
class Answer:
    """What a server offers for one request.

    Attributes:
        start: Offset of the first byte of ``blocks``; 0 where the server does not resume.
        size: Size of the whole file in bytes; None where the server does not say.
        validator: Strong entity tag or date that names this state of the file; None where there is neither.
        encoding: Content coding of the body; ``identity`` or ``gzip``.
        content_type: Media type; empty where unknown.
        sha256: Checksum that the server publishes (Hugging Face's large files); None where it publishes none.
        blocks: The body from ``start`` on.
    """

    start: int
    size: int | None
    validator: str | None
    encoding: str
    content_type: str
    sha256: str | None
    blocks: Iterator[bytes]


def redact(text: str) -> str:
    """Remove user names, passwords and query strings (which may hold signatures) from the URLs in a text.

    Examples:
        >>> redact("no answer from https://me:secret@host.org/a.zip?sig=1 today")
        'no answer from https://host.org/a.zip today'
    """
    return re.sub(r"\?[^\s'\")]+", "", re.sub(r"(\w://)[^/\s@]*@", r"\1", text))


def hopeless(url: str, problem: str, remedy: str) -> SourceError:
    """Build the error for a file that no retry will bring.

    Args:
        url: The file's address; redacted here.
        problem: What came.
        remedy: What the user can do, without the full stop.

    Returns:
        The error, to be raised by the caller.
    """
    return SourceError.at(redact(url), redact(problem), f"{remedy}.")
