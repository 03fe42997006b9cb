"""Unpack archives of others safely: plain files and folders only, inside the target, within limits that are counted.

Nothing that an archive claims about itself is trusted: names are checked one by one, sizes are counted while writing.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import zstandard

from ncbench.datasets.member_names import NameRegister
from ncbench.errors import SourceError

_BLOCK = 1 << 20
_MEMBER_COST = 512  # bytes that an empty member counts for, so that millions of them are a bomb too
_AGAIN = "Delete it and fetch again; if it stays, the publisher's archive is damaged."
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    EOFError,
    struct.error,
    ValueError,  # what zipfile and tarfile raise for numbers and names that make no sense
    OverflowError,
    RuntimeError,
    NotImplementedError,  # a compression method that zipfile does not know
)


@dataclass(frozen=True)
class Limits:
    """What an archive may become.

    Attributes:
        ratio: Bytes written for each byte of the archive.
        allowance: Bytes that may be written whatever the ratio.
        total: Bytes written in all.
    """

    ratio: float = 200.0
    allowance: int = 256 << 20
    total: int = 4 << 40


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive: number of files, and their bytes."""

    files: int
    bytes: int


def unpack(
    parts: Sequence[Path], packing: Literal["zip", "tar"], target: Path, limits: Limits | None = None
) -> Unpacked:
    """Unpack an archive into an empty folder.

    Args:
        parts: The archive's file; for a tar also several, which are read as one stream.
        packing: ``zip``, or ``tar`` (plain or compressed with gzip, bzip2, xz or zstd, recognised by content).
        target: Folder to make; it must not exist.
        limits: Against decompression bombs.

    Returns:
        The number of files and their bytes.

    Raises:
        SourceError: Damaged, a bomb, or holding a link, a device, or an unsafe, repeated or colliding name.
        OSError: The target cannot be written.
    """
    name = parts[0]
    budget = _Budget(name, sum(part.stat().st_size for part in parts), limits or Limits())
    writer = _Writer(name, target, budget)
    target.mkdir(parents=True)
    with _damage_named(name, packing):
        if packing == "tar":
            _unpack_tar(parts, writer, budget)
        elif len(parts) == 1:
            _unpack_zip(name, writer)
        else:
            raise SourceError.at(name, "a zip in parts cannot be read", "Join the parts and pass the zip with --local.")
    return Unpacked(writer.files, writer.bytes)


def gunzip(source: Path, target: Path, limits: Limits | None = None) -> None:
    """Undo gzip compression of one file.

    Args:
        source: The compressed file.
        target: The file to write; replaced.
        limits: Against decompression bombs.

    Raises:
        SourceError: Damaged or a bomb.
        OSError: The target cannot be written.
    """
    budget = _Budget(source, source.stat().st_size, limits or Limits())
    with _damage_named(source, "gzip"), gzip.open(source, "rb") as stream, target.open("wb") as out:
        _copy(stream, out, budget)


@contextmanager
def _damage_named(path: Path, packing: str) -> Iterator[None]:
    problem = f"is no readable {packing} archive"
    try:
        yield
    except _BROKEN as error:
        raise SourceError.at(path, f"{problem} ({error}){_beginning(path)}", _AGAIN) from error
    except OSError as error:
        # gzip and bz2 report damage as an OSError without a number, a wild offset in a zip is an impossible seek
        if error.errno not in {None, errno.EINVAL}:
            raise
        raise SourceError.at(path, f"{problem} ({error}){_beginning(path)}", _AGAIN) from error


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Budget:
    """Counts what comes out of an archive and stops a bomb while it grows."""

    def __init__(self, archive: Path, size: int, limits: Limits) -> None:
        self._archive = archive
        self._most = min(limits.total, max(limits.allowance, int(limits.ratio * size)))
        self._spent = 0

    def spend(self, count: int) -> None:
        self._spent += count
        if self._spent > self._most:
            raise SourceError.at(
                self._archive,
                f"unpacks to more than {self._most} bytes, which no real data set does",
                "It looks like a decompression bomb: check where it comes from.",
            )


class _Writer:
    """Writes members below the target after checking their names."""

    def __init__(self, archive: Path, target: Path, budget: _Budget) -> None:
        self.files = 0
        self.bytes = 0
        self._archive = archive
        self._target = target
        self._names = NameRegister()
        self._budget = budget
        self._made: set[Path] = set()

    def refuse(self, member: str, reason: str) -> SourceError:
        return SourceError.at(
            self._archive,
            f"the member {member!r} cannot be unpacked safely: {reason}",
            "Nothing was unpacked. Check where the archive comes from.",
        )

    def folder(self, member: str) -> None:
        self._path(member, folder=True).mkdir(parents=True, exist_ok=True)

    def file(self, member: str, stream: _Readable) -> None:
        path = self._path(member, folder=False)
        if path.parent not in self._made:  # a set of 100,000 frames has few folders
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        with path.open("xb") as out:
            self.bytes += _copy(stream, out, self._budget)
        self.files += 1

    def _path(self, member: str, *, folder: bool) -> Path:
        self._budget.spend(_MEMBER_COST)
        try:
            return self._target.joinpath(*self._names.add(member, folder=folder))
        except ValueError as error:
            raise self.refuse(member, str(error)) from error


def _copy(stream: _Readable, out: IO[bytes], budget: _Budget) -> int:
    count = 0
    while block := stream.read(_BLOCK):
        budget.spend(len(block))
        out.write(block)
        count += len(block)
    return count


def _unpack_zip(path: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.orig_filename  # zipfile shortens `filename` at a zero byte and swaps separators
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise writer.refuse(name, "it is a link or a device")
            if member.flag_bits & 0x1:
                raise writer.refuse(name, "it is encrypted")
            if name.endswith("/") or kind == stat.S_IFDIR:
                writer.folder(name)
                continue
            with archive.open(member) as stream:
                writer.file(name, stream)


def _unpack_tar(parts: Sequence[Path], writer: _Writer, budget: _Budget) -> None:
    with BufferedReader(_Parts(parts), _BLOCK) as packed, _decompressed(packed) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            while (member := archive.next()) is not None:
                # tarfile keeps every member that it has seen: hundreds of MB for a large set
                archive.members = []  # type: ignore[attr-defined]  # documented by its source, not by typeshed
                if member.isdir():
                    writer.folder(member.name)
                    continue
                content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None:
                    raise writer.refuse(member.name, "it is a link, a device or a file with holes")
                writer.file(member.name, content)
        while rest := stream.read(_BLOCK):  # to the end, so that the compressed stream's own checksum is compared
            budget.spend(len(rest))


@contextmanager
def _decompressed(packed: BufferedReader[_Parts]) -> Iterator[Any]:  # typeshed asks tarfile for more than `read`
    """Recognise the compression by its first bytes; the decompressors of the standard library compare checksums."""
    start = packed.peek(6)
    if start.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=packed) as stream:
            yield stream
    elif start.startswith(b"BZh"):
        with bz2.BZ2File(packed) as stream:
            yield stream
    elif start.startswith(b"\xfd7zXZ\x00"):
        with lzma.LZMAFile(packed) as stream:
            yield stream
    elif start.startswith(b"\x28\xb5\x2f\xfd"):
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True, closefd=False) as stream:
            yield stream
    else:
        yield packed


class _Parts(RawIOBase):
    """Several files read as one, one of them open at a time."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._left = list(parts)
        self._stream: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - typeshed's WriteableBuffer
        while self._stream is not None or self._left:
            if self._stream is None:
                self._stream = self._left.pop(0).open("rb")
            count: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]  # a BufferedReader
            if count:
                return count
            self.close_part()
        return 0

    def close_part(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def close(self) -> None:
        self.close_part()
        super().close()


def _beginning(path: Path) -> str:
    """Quote the first bytes of what should have been an archive: an error page is recognised at a glance."""
    with path.open("rb") as stream:
        start = stream.read(24)
    return f"; it begins with {start!r}"
