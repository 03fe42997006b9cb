"""Files of a data set by name, whether they lie in a folder, in a local zip archive, or in one behind a web address.

Readers that use this seam need no unpacked copy: a zip archive lists its members with size and CRC-32, and each is
decompressed on its own. Behind a web address only the directory and the members that are asked for are fetched (HTTP
ranges), which for Hypersim's normals is a fraction of the 1.9 TB of archives.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.errors import SourceError

_ZIP_ERRORS: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
)
_DEFLATE_LIMIT = 1032  # no deflate stream expands further; a directory that claims more is lying
_FETCH_AGAIN = "Fetch the archive again"


class Members(Protocol):
    """Files by their names relative to a scene's folder, with forward slashes."""

    def where(self, name: str) -> str:
        """Say where a file is, for messages; an archive counts as a folder."""
        ...

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""
        ...

    def read(self, name: str) -> bytes:
        """Read a whole file.

        Raises:
            SourceError: It is missing, unreadable or damaged.
        """
        ...

    def identity(self, name: str) -> bytes:
        """Give bytes that change when the file's content does, for fingerprints.

        Raises:
            SourceError: It is missing or unreadable.
        """
        ...


class FolderMembers:
    """Unpacked files; their identity is the SHA-256 of the content.

    Args:
        folder: The folder that names are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def where(self, name: str) -> str:
        """Say where a file is."""
        return str(self._folder / name)

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""
        return (self._folder / name).is_file()

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        return read_bytes(self._folder / name, "a file of the data set")

    def identity(self, name: str) -> bytes:
        """SHA-256 of the content."""
        return hashlib.sha256(self.read(name)).digest()


class ZipMembers:
    """Members of one zip archive, read without unpacking; their identity is size and CRC-32 from its directory.

    Zip's CRC-32 is checked as a member is read, so what is read is what the identity speaks of.

    Args:
        archive: An open archive.
        origin: The archive's file or address, for messages.
        prefix: Folder inside the archive that names are relative to, without a slash at the end; empty for the top.
    """

    def __init__(self, archive: zipfile.ZipFile, origin: str, prefix: str) -> None:
        self._archive, self._origin = archive, origin
        self._prefix = f"{prefix}/" if prefix else ""

    def where(self, name: str) -> str:
        """Write the archive and the member as one path."""
        return f"{self._origin}/{self._prefix}{name}"

    def has(self, name: str) -> bool:
        """Tell whether the directory lists a file."""
        return self._prefix + name in self._archive.NameToInfo

    def read(self, name: str) -> bytes:
        """Decompress a whole member and check its CRC-32."""
        info = self._info(name)
        if info.file_size > _DEFLATE_LIMIT * (info.compress_size + 1):
            problem = f"the archive's member claims {info.file_size} bytes out of {info.compress_size}"
            raise SourceError.at(self.where(name), problem, _FETCH_AGAIN)
        try:
            with self._archive.open(info) as stream:
                content = stream.read()
        except _archive_errors() as error:
            raise SourceError.at(self.where(name), f"the archive's member does not read ({error})", DAMAGED) from error
        if len(content) != info.file_size:
            problem = f"expected {info.file_size} bytes, found {len(content)}"
            raise SourceError.at(self.where(name), problem, _FETCH_AGAIN)
        return content

    def identity(self, name: str) -> bytes:
        """Size and CRC-32."""
        info = self._info(name)
        return struct.pack("<QI", info.file_size, info.CRC)

    def _info(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._archive.getinfo(self._prefix + name)
        except KeyError as error:
            raise SourceError.at(self.where(name), "the archive has no such member", _FETCH_AGAIN) from error


def open_zip(path: Path, prefix: str) -> ZipMembers:
    """Open a local archive.

    Args:
        path: The archive.
        prefix: See :class:`ZipMembers`; dropped where the archive was packed without it.

    Returns:
        Its members.

    Raises:
        SourceError: Missing, unreadable, or not a zip archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        raise SourceError.at(path, f"expected a zip archive, but it does not open ({error})", _FETCH_AGAIN) from error
    return ZipMembers(archive, str(path), _present_prefix(archive, prefix))


def open_remote_zip(url: str, prefix: str, directory_bytes: int = 1 << 16) -> ZipMembers:
    """Open an archive behind a web address whose server answers range requests.

    Args:
        url: ``http://`` or ``https://``.
        prefix: See :class:`ZipMembers`.
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
    except _archive_errors() as error:
        remedy = "Check the address and the connection, or download the archive and set archive: zip"
        raise SourceError(f"{url}: expected a zip archive, but it does not open ({error}). {remedy}") from error
    return ZipMembers(archive, url, _present_prefix(archive, prefix))


def _present_prefix(archive: zipfile.ZipFile, prefix: str) -> str:
    """The prefix where any member carries it: official archives hold the scene's folder, home-made ones may not."""
    return prefix if any(PurePosixPath(name).parts[:1] == (prefix,) for name in archive.NameToInfo) else ""


def _archive_errors() -> tuple[type[Exception], ...]:
    """What zip archives raise, and remotezip where it is installed (without it nothing remote was opened)."""
    try:
        from remotezip import RemoteZipError
    except ImportError:
        return _ZIP_ERRORS
    return (*_ZIP_ERRORS, RemoteZipError)
