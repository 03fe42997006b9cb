"""Files of archives by name, read without unpacking: zip, also behind a web address, and uncompressed tar.

A zip archive lists its members with size and CRC-32, and each is decompressed on its own. Behind a web address only the
directory and the members that are asked for are fetched (HTTP ranges), which for Hypersim's normals is a fraction of
the 1.9 TB of archives.
"""

from __future__ import annotations

import hashlib
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ncbench.datasets.formats.arrays import DAMAGED, DEFLATE_LIMIT
from ncbench.datasets.formats.members import FETCH_AGAIN, FolderMembers, Members, Naming, missing
from ncbench.errors import SourceError

MAX_MEMBER = 1 << 30
"""Most bytes that one file in an archive may claim."""

_ZIP_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
_TAR_ERRORS = (OSError, EOFError, ValueError, tarfile.TarError)


class _Archive(ABC):
    """What zip and tar share: where members are, and lending them as copies."""

    def __init__(self, origin: str, names: Iterable[str]) -> None:
        self._origin, self._names = origin, frozenset(names)

    @property
    def origin(self) -> str:
        """The archive's file or address."""
        return self._origin

    @property
    def names(self) -> frozenset[str]:
        """All files."""
        return self._names

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Read a whole member."""

    @abstractmethod
    def _inner(self, name: str) -> str:
        """Path of a member within the archive, or its name where there is none."""

    def where(self, name: str) -> str:
        """Write the archive and the member as one path."""
        return f"{self._origin}/{self._inner(name)}"

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Lend a copy in the temporary folder."""
        content = self.read(name)
        with tempfile.TemporaryDirectory(prefix="ncbench-") as folder:
            copy = Path(folder) / PurePosixPath(name).name
            copy.write_bytes(content)
            try:
                yield copy
            except SourceError as error:
                raise SourceError(str(error).replace(str(copy), self.where(name))) from error


class ZipMembers(_Archive):
    """Members of one zip archive; their identity is size and CRC-32 from its directory.

    Zip's CRC-32 is checked as a member is read, so what is read is what the identity speaks of.

    Args:
        archive: An open archive.
        origin: The archive's file or address.
        naming: What the files are called.

    Raises:
        SourceError: Two files have one name, or one claims an absurd size.
    """

    def __init__(self, archive: zipfile.ZipFile, origin: str, naming: Naming) -> None:
        self._archive = archive
        files = ((info.filename, info) for info in archive.infolist() if not info.is_dir())
        self._entries = naming.index(files, origin)
        _check_sizes(origin, ((info.filename, info.file_size) for info in self._entries.values()))
        super().__init__(origin, self._entries)

    def read(self, name: str) -> bytes:
        """Decompress a whole member and check its CRC-32."""
        info = self._info(name)
        if info.file_size > DEFLATE_LIMIT * (info.compress_size + 1):
            problem = f"the archive's member claims {info.file_size} bytes out of {info.compress_size}"
            raise SourceError.at(self.where(name), problem, FETCH_AGAIN)
        try:
            with self._archive.open(info) as stream:
                content = stream.read()
        except _remote_errors() as error:
            raise SourceError.at(self.where(name), f"the archive's member does not read ({error})", DAMAGED) from error
        if len(content) != info.file_size:
            problem = f"expected {info.file_size} bytes, found {len(content)}"
            raise SourceError.at(self.where(name), problem, FETCH_AGAIN)
        return content

    def identity(self, name: str) -> bytes:
        """Size and CRC-32."""
        info = self._info(name)
        return struct.pack("<QI", info.file_size, info.CRC)

    def _inner(self, name: str) -> str:
        return self._entries[name].filename if name in self._entries else name

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self._entries:
            raise missing(self.where(name))
        return self._entries[name]


class TarMembers(_Archive):
    """Members of one uncompressed tar archive; their identity is the SHA-256 of the content.

    Args:
        path: The archive.
        naming: What the files are called.

    Raises:
        SourceError: Unreadable, damaged, cut off or compressed; two files have one name, or one claims an absurd size.
    """

    def __init__(self, path: Path, naming: Naming) -> None:
        self._path = path
        try:
            length = path.stat().st_size
            with tarfile.open(path, "r:") as archive:
                files = ((info.name, (info.name, info.offset_data, info.size)) for info in archive if info.isreg())
                self._places = naming.index(files, str(path))
            _check_sizes(str(path), ((inner, size) for inner, _, size in self._places.values()))
            for inner, offset, size in self._places.values():
                if offset + size > length:
                    raise EOFError(f"{inner} is cut off")
        except _TAR_ERRORS as error:
            problem = f"expected a folder, a .zip or a whole, uncompressed .tar, but it does not open ({error})"
            raise SourceError.at(path, problem, DAMAGED) from error
        super().__init__(str(path), self._places)

    def read(self, name: str) -> bytes:
        """Read a whole member."""
        if name not in self._places:
            raise missing(self.where(name))
        _, offset, size = self._places[name]
        try:
            with self._path.open("rb") as stream:
                stream.seek(offset)
                content = stream.read(size)
        except OSError as error:
            raise SourceError.at(self.where(name), f"the archive's member does not read ({error})", DAMAGED) from error
        if len(content) != size:
            problem = f"the archive's member does not read ({size} bytes expected, {len(content)} there)"
            raise SourceError.at(self.where(name), problem, FETCH_AGAIN)
        return content

    def identity(self, name: str) -> bytes:
        """SHA-256 of the content."""
        return hashlib.sha256(self.read(name)).digest()

    def _inner(self, name: str) -> str:
        return self._places[name][0] if name in self._places else name


def open_members(path: Path, tail: int = 1, keep: re.Pattern[str] | None = None) -> Members:
    """Open a folder or an archive whose files are named by the end of their paths.

    Args:
        path: A folder (searched with its sub-folders), a ``.zip`` or an uncompressed ``.tar``.
        tail: How many path components name a file; 1 is the bare file name.
        keep: Names to keep, matched whole; None keeps all. Files of other names may repeat.

    Returns:
        Its files.

    Raises:
        SourceError: Neither, unreadable, damaged, or two files have one name.
    """
    naming = Naming(tail=tail, keep=keep)
    if path.is_dir():
        return FolderMembers(path, naming)
    if path.suffix.lower() == ".zip":
        return ZipMembers(_open(path), str(path), naming)
    return TarMembers(path, naming)


def open_zip(path: Path, prefix: str) -> ZipMembers:
    """Open a local archive whose files are named by their paths.

    Args:
        path: The archive.
        prefix: Folder inside the archive that names begin below; dropped where the archive was packed without it.

    Returns:
        Its members.

    Raises:
        SourceError: Missing, unreadable, or not a zip archive.
    """
    archive = _open(path)
    return ZipMembers(archive, str(path), _below(archive, prefix))


def open_remote_zip(url: str, prefix: str, directory_bytes: int = 1 << 16) -> ZipMembers:
    """Open an archive behind a web address whose server answers range requests.

    Args:
        url: ``http://`` or ``https://``.
        prefix: See ``open_zip``.
        directory_bytes: How much of the archive's end is fetched at first; a longer directory costs one more request.

    Returns:
        Its members; each read fetches that member alone.

    Raises:
        SourceError: The server does not answer, or knows no ranges, or the file is no zip archive.
    """
    import requests
    from remotezip import RemoteZip

    try:
        archive = RemoteZip(url, initial_buffer_size=directory_bytes, session=requests.Session(), timeout=60)
    except _remote_errors() as error:
        remedy = "Check the address and the connection, or download the archive and set archive: zip"
        raise SourceError(f"{url}: expected a zip archive, but it does not open ({error}). {remedy}") from error
    return ZipMembers(archive, url, _below(archive, prefix))


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        raise SourceError.at(path, f"expected a zip archive, but it does not open ({error})", DAMAGED) from error


def _below(archive: zipfile.ZipFile, prefix: str) -> Naming:
    """The prefix where any member carries it: official archives hold the scene's folder, home-made ones may not."""
    return Naming(prefix if any(PurePosixPath(name).parts[:1] == (prefix,) for name in archive.NameToInfo) else "")


def _check_sizes(origin: str, claims: Iterable[tuple[str, int]]) -> None:
    for inner, size in claims:
        if size > MAX_MEMBER:
            problem = f"{inner} claims {size} bytes, more than any file of this data set has"
            raise SourceError.at(origin, problem, DAMAGED)


def _remote_errors() -> tuple[type[Exception], ...]:
    """What zip archives raise, and remotezip where it is installed (without it nothing remote was opened)."""
    try:
        from remotezip import RemoteZipError
    except ImportError:
        return _ZIP_ERRORS
    return (*_ZIP_ERRORS, RemoteZipError)
