"""Files of one folder, zip or tar alike, so that a reader runs on a data set as downloaded or as unpacked.

Large sets come as archives whose inner folders differ from release to release (names doubled, with and without a
suffix). A file is therefore found by the last components of its path. Nothing is unpacked into the data set's folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.errors import SourceError

MAX_MEMBER = 1 << 30
"""Most bytes that one file in an archive may claim."""

_ZIP_ERRORS = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_TAR_ERRORS = (OSError, EOFError, ValueError, tarfile.TarError)


class Members:
    """The files of one folder or archive, by the end of their paths.

    Args:
        path: A folder (searched with its sub-folders), a ``.zip`` or an uncompressed ``.tar``.
        tail: How many path components name a file; 1 is the bare file name.
        keep: Names to keep, matched whole; None keeps all. Files of other names may repeat.

    Raises:
        SourceError: Neither, unreadable, damaged, or two files have one name.
    """

    def __init__(self, path: Path, tail: int = 1, keep: re.Pattern[str] | None = None) -> None:
        self.path = path
        self._tail, self._keep = tail, keep
        self._zip: zipfile.ZipFile | None = None
        self._files: dict[str, Path] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._entries: dict[str, zipfile.ZipInfo] = {}
        if path.is_dir():
            self._index_folder()
        elif path.suffix.lower() == ".zip":
            self._index_zip()
        else:
            self._index_tar()
        self.names = frozenset(self._files) | frozenset(self._places) | frozenset(self._entries)

    def where(self, name: str) -> str:
        """Say where a file is, or would be, for messages."""
        return str(self._files.get(name) or (self.path / name if self.path.is_dir() else f"{self.path}!{name}"))

    def read(self, name: str) -> bytes:
        """Read a whole file.

        Args:
            name: The end of its path, as in ``names``.

        Returns:
            Its contents.

        Raises:
            SourceError: Missing, unreadable, or damaged in the archive.
        """
        if name in self._files:
            return read_bytes(self._files[name], "a file of the data set")
        try:
            if self._zip is not None and name in self._entries:
                return self._zip.read(self._entries[name])
            if name in self._places:
                return self._read_tar(*self._places[name])
        except _ZIP_ERRORS as error:
            raise SourceError.at(self.where(name), f"cannot be read from the archive ({error})", DAMAGED) from error
        raise SourceError.at(self.where(name), "expected a file, found none", "Fetch this archive or folder again")

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Lend a file as a path, for decoders that open paths; a copy in the temporary folder for archives.

        Args:
            name: The end of its path.

        Yields:
            The path, good within the block. A ``SourceError`` raised inside it names the member, not the copy.

        Raises:
            SourceError: See ``read``.
        """
        if name in self._files:
            yield self._files[name]
            return
        content = self.read(name)
        with tempfile.TemporaryDirectory(prefix="ncbench-") as folder:
            copy = Path(folder) / PurePosixPath(name).name
            copy.write_bytes(content)
            try:
                yield copy
            except SourceError as error:
                raise SourceError(str(error).replace(str(copy), self.where(name))) from error

    def _read_tar(self, offset: int, size: int) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(offset)
            content = stream.read(size)
        if len(content) != size:
            raise EOFError(f"{size} bytes expected, {len(content)} there")
        return content

    def _name(self, parts: tuple[str, ...], taken: Container[str]) -> str | None:
        """The end of a path, or None for a file that is not kept."""
        name = "/".join(parts[-self._tail :])
        if self._keep is not None and not self._keep.fullmatch(name):
            return None
        if name in taken:
            problem = f"two files in it are called {name}"
            raise SourceError.at(self.path, problem, "Unpack or fetch it again into an empty folder")
        return name

    def _index_folder(self) -> None:
        for folder, folders, files in os.walk(self.path):
            folders.sort()
            for file in sorted(files):
                path = Path(folder) / file
                name = self._name(path.relative_to(self.path).parts, self._files)
                if name is not None:
                    self._files[name] = path

    def _index_zip(self) -> None:
        try:
            self._zip = zipfile.ZipFile(self.path)
        except _ZIP_ERRORS as error:
            problem = f"expected a zip archive, but it does not open ({error})"
            raise SourceError.at(self.path, problem, DAMAGED) from error
        for info in self._zip.infolist():
            name = None if info.is_dir() else self._name(PurePosixPath(info.filename).parts, self._entries)
            if name is not None:
                self._check_size(info.filename, info.file_size)
                self._entries[name] = info

    def _index_tar(self) -> None:
        try:
            length = self.path.stat().st_size
            with tarfile.open(self.path, "r:") as archive:
                for info in archive:
                    name = self._name(PurePosixPath(info.name).parts, self._places) if info.isreg() else None
                    if name is None:
                        continue
                    self._check_size(info.name, info.size)
                    if info.offset_data + info.size > length:
                        raise EOFError(f"{info.name} is cut off")
                    self._places[name] = (info.offset_data, info.size)
        except _TAR_ERRORS as error:
            problem = f"expected a folder, a .zip or a whole, uncompressed .tar, but it does not open ({error})"
            raise SourceError.at(self.path, problem, DAMAGED) from error

    def _check_size(self, name: str, size: int) -> None:
        if size > MAX_MEMBER:
            problem = f"{name} claims {size} bytes, more than any file of this data set has"
            raise SourceError.at(self.path, problem, DAMAGED)


def hash_members(root: Path, files: Iterable[tuple[Members, str]]) -> str:
    """Hash places (relative to ``root``) and contents of files, in the given order.

    Args:
        root: Folder that holds them all, so that moving a data set does not change its identity.
        files: (folder or archive, name) pairs.

    Returns:
        Hex sha256.

    Raises:
        SourceError: A file is missing or unreadable.
    """
    digest = hashlib.sha256()
    for members, name in files:
        content = members.read(name)
        place = f"{members.path.relative_to(root).as_posix()}\0{name}\0{len(content)}\0"
        digest.update(place.encode())
        digest.update(content)
    return digest.hexdigest()
