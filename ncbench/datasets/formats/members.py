"""Files of a data set by name, whether they lie in a folder or in an archive, so that none has to be unpacked.

What a file is called is a :class:`Naming`: its path below a folder, or the end of its path, since large sets come as
archives whose inner folders differ from release to release (names doubled, with and without a suffix). Archives are in
:mod:`ncbench.datasets.formats.archived_members`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from ncbench.datasets.formats.arrays import read_bytes
from ncbench.errors import SourceError

FETCH_AGAIN = "Fetch this archive or folder again"

Place = TypeVar("Place")


class Members(Protocol):
    """Files by their names, with forward slashes."""

    @property
    def origin(self) -> str:
        """The folder, the archive, or its address."""
        ...

    @property
    def names(self) -> frozenset[str]:
        """All files."""
        ...

    def where(self, name: str) -> str:
        """Say where a file is, or would be, for messages; an archive counts as a folder."""
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

    def local(self, name: str) -> AbstractContextManager[Path]:
        """Lend a file as a path, for decoders that open paths; good within the block.

        A copy in the temporary folder for archives; a ``SourceError`` raised in the block then names the member.

        Raises:
            SourceError: See ``read``.
        """
        ...


@dataclass(frozen=True)
class Naming:
    """What the files are called.

    Attributes:
        prefix: Folder that names begin below; files elsewhere have none. Empty for the top.
        tail: How many path components name a file; None for all of them, so that no two files share a name.
        keep: Names to keep, matched whole; None keeps all.
    """

    prefix: str = ""
    tail: int | None = None
    keep: re.Pattern[str] | None = None

    def name(self, path: str) -> str | None:
        """Name the file at a path, or None for one that has no name here."""
        parts = PurePosixPath(path).parts
        if self.prefix:
            if parts[:1] != (self.prefix,):
                return None
            parts = parts[1:]
        name = "/".join(parts if self.tail is None else parts[-self.tail :])
        return name if name and (self.keep is None or self.keep.fullmatch(name)) else None

    def index(self, files: Iterable[tuple[str, Place]], origin: str) -> dict[str, Place]:
        """Name files.

        Args:
            files: (path, place) pairs.
            origin: The folder or archive, for the message.

        Returns:
            Name -> place.

        Raises:
            SourceError: Two files have one name.
        """
        named: dict[str, Place] = {}
        for path, place in files:
            name = self.name(path)
            if name in named:
                problem = f"two files in it are called {name}"
                raise SourceError.at(origin, problem, "Unpack or fetch it again into an empty folder")
            if name is not None:
                named[name] = place
        return named


class FolderMembers:
    """Unpacked files; their identity is the SHA-256 of the content.

    Args:
        folder: The folder; searched with its sub-folders, but only where names do not say where a file is.
        naming: What the files are called.

    Raises:
        SourceError: Two files have one name.
    """

    def __init__(self, folder: Path, naming: Naming | None = None) -> None:
        self._folder = folder
        self._named = None if naming is None else naming.index(_walk(folder), str(folder))

    @property
    def origin(self) -> str:
        """The folder."""
        return str(self._folder)

    @cached_property
    def names(self) -> frozenset[str]:
        """All files."""
        return frozenset(path for path, _ in _walk(self._folder)) if self._named is None else frozenset(self._named)

    def where(self, name: str) -> str:
        """Say where a file is."""
        return str(self._path(name))

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        if self._named is not None and name not in self._named:
            raise missing(self.where(name))
        return read_bytes(self._path(name), "a file of the data set")

    def identity(self, name: str) -> bytes:
        """SHA-256 of the content."""
        return hashlib.sha256(self.read(name)).digest()

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Give the file's own path."""
        if self._named is not None and name not in self._named:
            raise missing(self.where(name))
        yield self._path(name)

    def _path(self, name: str) -> Path:
        return (self._named or {}).get(name) or self._folder / name


def missing(where: str) -> SourceError:
    """Build the error for a file that is not there."""
    return SourceError.at(where, "expected a file, found none", FETCH_AGAIN)


def hash_members(root: Path, files: Iterable[tuple[Members, str]]) -> str:
    """Hash places (relative to ``root``) and contents of files, in the given order.

    Args:
        root: Folder that holds them all, so that moving a data set does not change its identity.
        files: (local folder or archive, name) pairs.

    Returns:
        Hex sha256.

    Raises:
        SourceError: A file is missing or unreadable.
    """
    digest = hashlib.sha256()
    for members, name in files:
        content = members.read(name)
        place = f"{Path(members.origin).relative_to(root).as_posix()}\0{name}\0{len(content)}\0"
        digest.update(place.encode())
        digest.update(content)
    return digest.hexdigest()


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            path = Path(parent) / file
            yield path.relative_to(folder).as_posix(), path
