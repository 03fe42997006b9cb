"""Download one file: resumed after a cut, never stitched from two states of the file, checked, then renamed."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from ncbench.datasets.archives import gunzip
from ncbench.datasets.remote import Answer, TransientError, open_remote, redact
from ncbench.errors import SourceError, StoreError
from ncbench.files import write_json
from ncbench.progress import Report
from ncbench.sources import Download

_PROGRESS = 1 << 20  # bytes that make an attempt a useful one
_GZIPPED = (".gz", ".tgz")


@dataclass(frozen=True)
class Retry:
    """How patiently a failing server is asked again.

    Attributes:
        attempts: Attempts in a row that bring less than 1 MiB of new data, before giving up.
        wait: Seconds before the second attempt; doubled for each further one.
        longest: No wait is longer than this, whatever the server asks for.
        sleep: What waits.
    """

    attempts: int = 6
    wait: float = 1.0
    longest: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def seconds(self, failures: int, asked: float | None) -> float:
        """Return the wait in seconds after so many failures in a row, where the server asked for one."""
        return min(self.longest, max(self.wait * 2.0 ** (failures - 1), asked or 0.0))


@dataclass(frozen=True)
class Received:
    """What lies on the disk now.

    Attributes:
        bytes: Size.
        sha256: Checksum, read back from the disk.
        published: Whether the checksum was compared with a published one.
    """

    bytes: int
    sha256: str
    published: bool


class WrongBytesError(SourceError):
    """What was received is not the file: it is of no use for a resume."""


def download(
    item: Download, target: Path, partial: Path, report: Report | None = None, retry: Retry | None = None
) -> Received:
    """Download one file.

    The bytes go to ``partial``; beside it lies a note of the server's size and validator (entity tag or date). A cut
    download continues where it stopped, if the file is still in the state that the note names; otherwise it restarts.

    Args:
        item: Address and, where published, size and sha256.
        target: The finished file. Its folder is made.
        partial: The unfinished file, on the same file system.
        report: Called with (bytes done, bytes in all or 0 where the server does not say).
        retry: Patience with failing servers.

    Returns:
        Size and checksum.

    Raises:
        SourceError: The server refuses, keeps failing, or sends something else than the file.
        StoreError: The disk is full or cannot be written.
    """
    transfer = _Transfer(item, partial, report or (lambda _done, _total: None))
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        _persist(transfer, retry or Retry())
        whole = transfer.decoded()
        received = check_file(whole, item, transfer.published())
        whole.replace(target)
        transfer.discard()
    except OSError as error:
        raise StoreError(
            f"{target}: cannot be written ({error.strerror or error}). Free space or choose another folder; what was "
            "downloaded is kept and continued."
        ) from error
    except WrongBytesError:
        transfer.discard()
        raise
    return received


def check_file(path: Path, item: Download, published: str | None = None) -> Received:
    """Compare a file with its published size and checksum.

    Args:
        path: The file.
        item: What the card says.
        published: Checksum that the server publishes, used where the card holds none.

    Returns:
        Size and checksum as read from the disk.

    Raises:
        SourceError: They differ.
    """
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    size = path.stat().st_size
    where = f"{redact(item.url)} ({path.name})"
    remedy = "Fetch again; if it stays, the publisher has changed the file and the card needs a new version."
    if item.bytes is not None and size != item.bytes:
        raise WrongBytesError.at(where, f"expected {item.bytes} bytes, found {size}", remedy)
    expected = item.sha256 or published
    if expected and found != expected:
        raise WrongBytesError.at(where, f"expected sha256 {expected}, found {found}", remedy)
    return Received(size, found, expected is not None)


def _persist(transfer: _Transfer, retry: Retry) -> None:
    """Attempt until the file is whole; attempts that bring new data do not count as failures."""
    failures, best = 0, transfer.size()
    while True:
        try:
            transfer.attempt()
        except TransientError as problem:
            here = transfer.size()
            failures = 1 if here >= best + _PROGRESS else failures + 1
            best = max(best, here)
            if problem.restart:
                transfer.discard()
            if failures >= retry.attempts:
                raise SourceError.at(
                    redact(transfer.item.url),
                    f"{problem} ({failures} attempts in a row; {here} bytes are here)",
                    "Check the connection and fetch again: the download continues where it stopped.",
                ) from problem
            retry.sleep(retry.seconds(failures, problem.wait))
        else:
            return


class _Note(BaseModel):
    """Which state of the remote file the unfinished file is the beginning of."""

    url: str
    size: int | None
    validator: str | None
    encoding: str
    sha256: str | None


class _Transfer:
    """The unfinished file and the note beside it that says which state of the remote file it is the beginning of."""

    def __init__(self, item: Download, partial: Path, report: Report) -> None:
        self.item = item
        self._partial = partial
        self._note = partial.with_name(f".{partial.name}.note")
        self._decoded = partial.with_name(f".{partial.name}.decoded")
        self._report = report

    def size(self) -> int:
        """Bytes that are here."""
        return self._partial.stat().st_size if self._partial.exists() else 0

    def published(self) -> str | None:
        """Checksum that the server published; None where it did not."""
        note = self._read_note()
        return note.sha256 if note else None

    def attempt(self) -> None:
        """Bring the rest of the file.

        Raises:
            SourceError: A later attempt would not help.
            TransientError: It may.
        """
        note = self._read_note()
        here = self.size() if note else 0
        if note and here == note.size:
            return
        with open_remote(self.item.url, here, note.validator if note else None) as answer:
            total = self._expect(answer, note.size if note else None)
            self._require_space(total, answer.start)
            if answer.start == 0:
                self._begin(answer)
            done = self._receive(answer, total)
        if total is not None and done != total:
            raise TransientError(f"{total} bytes were announced, {done} came", restart=done > total)

    def decoded(self) -> Path:
        """The file itself, where the server sent it in a content coding; the received bytes otherwise.

        A name that ends in .gz is stored as received: servers mislabel such files as coded, and undoing the coding
        would unpack them once too often.
        """
        note = self._read_note()
        if note is None or note.encoding == "identity" or self._stored_as_received():
            return self._partial
        gunzip(self._partial, self._decoded)
        return self._decoded

    def discard(self) -> None:
        """Remove everything that is here, so that the next attempt starts from nothing."""
        for path in (self._partial, self._decoded, self._note):  # the note last: without it bytes are worthless
            path.unlink(missing_ok=True)

    def _stored_as_received(self) -> bool:
        return self.item.name.lower().endswith(_GZIPPED)

    def _expect(self, answer: Answer, before: int | None) -> int | None:
        """Compare the announcement with the card and with what came before; give the size of the whole answer."""
        if answer.content_type == "text/html" and not self.item.name.lower().endswith((".html", ".htm")):
            raise SourceError.at(
                redact(self.item.url),
                f"expected the file {self.item.name}, but a web page (text/html) came",
                "It may ask for a login or for terms: open the address in a browser, and pass what it gives with "
                "--local FOLDER.",
            )
        total = answer.size if answer.size is not None or answer.start == 0 else before
        if answer.start and before is not None and total != before:
            raise TransientError(f"the file had {before} bytes and has {total} now", restart=True)
        plain = answer.encoding == "identity" or self._stored_as_received()
        if plain and None not in (total, self.item.bytes) and total != self.item.bytes:
            raise SourceError.at(
                redact(self.item.url),
                f"the card says {self.item.bytes} bytes, the server announces {total}",
                "The publisher has changed the file: the card needs a new version.",
            )
        return total

    def _require_space(self, total: int | None, start: int) -> None:
        free = shutil.disk_usage(self._partial.parent).free
        if total is not None and total - start > free:
            raise StoreError(
                f"{self._partial.parent}: {total - start} more bytes are needed for {self.item.name}, {free} are free. "
                "Free space or choose another folder with --to; what was downloaded is kept and continued."
            )

    def _begin(self, answer: Answer) -> None:
        # Empty the file before the note changes: a note must never vouch for bytes of another state.
        self._partial.open("wb").close()
        note = _Note(
            url=self.item.url,
            size=answer.size,
            validator=answer.validator,
            encoding=answer.encoding,
            sha256=answer.sha256,
        )
        write_json(self._note, note.model_dump())

    def _receive(self, answer: Answer, total: int | None) -> int:
        done = answer.start
        with self._partial.open("ab") as stream:
            self._report(done, total or 0)
            for block in answer.blocks:
                stream.write(block)
                stream.flush()  # a killed process must not lose what has arrived
                done += len(block)
                self._report(done, total or 0)
            os.fsync(stream.fileno())  # once: the rename must not outrun the data in a power cut
        return done

    def _read_note(self) -> _Note | None:
        with suppress(OSError, ValueError):
            note = _Note.model_validate_json(self._note.read_text(encoding="utf-8"))
            if note.url == self.item.url:
                return note
        return None
