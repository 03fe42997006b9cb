"""HTTP: resuming with If-Range, statuses told apart, the body as it is on the server.

``requests`` and not fsspec, whose HTTP file system sends no If-Range and hides the entity tag and the raw body.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ncbench.datasets.remote.answer import BLOCK, MOVED, Answer, TransientError, hopeless, redact

if TYPE_CHECKING:
    import requests

_TIMEOUT = (20.0, 60.0)  # seconds to connect, seconds of silence
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_LOGIN = "give your credentials in ~/.netrc or in the variable {variable} (user:password)"
_ADVICE = {
    401: f"The server wants a login: {_LOGIN}",
    403: f"Accept the terms on the data set's home page, or {_LOGIN}. A copy that you have is taken with --local",
    404: MOVED,
    410: MOVED,
}


def credentials_variable(url: str) -> str:
    """Name the environment variable that may hold ``user:password`` for the host of a URL."""
    host = urlsplit(url).hostname or ""
    return "NCBENCH_AUTH_" + re.sub(r"\W", "_", host).upper()


def http_size(url: str, headers: Mapping[str, str]) -> int | None:
    """Ask for the size of a file without reading it.

    Args:
        url: ``http://`` or ``https://``.
        headers: Sent besides our own.

    Returns:
        Bytes; None where the server does not say.

    Raises:
        SourceError: The server refuses for good.
        TransientError: Refused for now, or the connection failed.
    """
    with _request("HEAD", url, headers) as response:
        length = response.headers.get("Content-Length", "")
        if response.ok and length.isdigit() and _encoding(url, response) == "identity":
            return int(length)
    with open_http(url, headers, 0, None) as answer:  # signed addresses refuse HEAD: look at the head of a GET
        return answer.size if answer.encoding == "identity" else None


@contextmanager
def _request(method: str, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    import requests

    from ncbench import __version__

    sent = {"Accept-Encoding": "identity", "User-Agent": f"ncbench/{__version__}", **headers}
    user, colon, password = os.environ.get(credentials_variable(url), "").partition(":")
    try:
        with requests.Session() as session:
            session.max_redirects = 10
            with session.request(
                method,
                url,
                headers=sent,
                auth=(user, password) if colon else None,  # None leaves netrc to requests
                stream=True,
                allow_redirects=True,
                timeout=_TIMEOUT,
            ) as response:
                yield response
    except requests.TooManyRedirects as error:
        raise hopeless(url, "the server redirects in a circle", "Correct the URL in the card") from error
    except requests.exceptions.SSLError as error:
        raise hopeless(url, f"no trusted connection ({redact(str(error))})", "Check the clock and proxy") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        cause = getattr(error.args[0] if error.args else None, "reason", error)  # without the layers around it
        raise TransientError(f"no connection: {redact(str(cause))}") from error
    except requests.RequestException as error:
        raise hopeless(url, redact(f"{type(error).__name__}: {error}"), "Correct the URL in the card") from error


@contextmanager
def open_http(url: str, headers: Mapping[str, str], offset: int, validator: str | None) -> Iterator[Answer]:
    """Open a file over HTTP; the user's own credentials come from the environment or from netrc.

    Args:
        url: ``http://`` or ``https://``.
        headers: Sent besides our own.
        offset: First byte wanted.
        validator: State of the file that the bytes before ``offset`` came from.

    Yields:
        The answer; its blocks are the raw body, in which nothing was decoded.

    Raises:
        SourceError: The server refuses for good.
        TransientError: Refused for now, or the connection failed.
    """
    ranged = {"Range": f"bytes={offset}-", "If-Range": validator} if offset and validator else {}
    with _request("GET", url, {**headers, **ranged}) as response:
        _check_status(url, response)
        start, size = _extent(response, offset)
        found = _validator(response)
        if start and found != validator:  # the server ignores If-Range, and another file lies there now
            raise TransientError("the file changed on the server between two requests", restart=True)
        yield Answer(
            start=start,
            size=size,
            validator=found,
            encoding=_encoding(url, response),
            content_type=response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
            sha256=_published(response),
            blocks=_body(response),
        )


def _check_status(url: str, response: requests.Response) -> None:
    status = response.status_code
    said = f"{status} {response.reason}".strip()
    if status == 416:
        raise TransientError(f"{said}: the file is shorter than what came before", restart=True)
    if status in _RETRIED:
        wait = response.headers.get("Retry-After", "")
        raise TransientError(f"the server answers {said}", float(wait) if wait.isdigit() else None)
    if status not in {200, 206}:
        advice = _ADVICE.get(status, "Try again later, correct the URL in the card, or pass a copy with --local")
        raise hopeless(url, f"the server answers {said}", advice.format(variable=credentials_variable(url)))


def _extent(response: requests.Response, offset: int) -> tuple[int, int | None]:
    """Where the body begins and how long the whole file is, in bytes."""
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if not match or int(match[1]) != offset:
            raise TransientError("the server sent another part than the one asked for", restart=True)
        return offset, None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return 0, int(length) if length.isdigit() and not chunked else None


def _validator(response: requests.Response) -> str | None:
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):  # a weak tag may not go into If-Range (RFC 9110, section 13.1.5)
        return tag
    return response.headers.get("Last-Modified")


def _encoding(url: str, response: requests.Response) -> str:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in {"", "identity"}:
        return "identity"
    if encoding in {"gzip", "x-gzip"}:
        return "gzip"
    raise hopeless(url, f"the server sends the content coding {encoding!r}", "Pass a copy of the file with --local")


def _published(response: requests.Response) -> str | None:
    """The Hub names a large file by its sha256, on the answer that leads to the file's storage."""
    for answer in (*response.history, response):
        tag = answer.headers.get("X-Linked-Etag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            return tag
    return None


def _body(response: requests.Response) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError

    try:
        # read1 returns what has arrived, so that a cut loses nothing; nothing is decoded
        while block := response.raw.read1(BLOCK, decode_content=False):
            yield block
    except (HTTPError, OSError) as error:
        raise TransientError(f"the connection broke: {redact(str(error))}") from error
