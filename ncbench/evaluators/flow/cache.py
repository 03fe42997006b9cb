"""Estimated flows kept on disk, by the content of the pictures and the name of the source."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import numpy as np

from ncbench.errors import ScoreError
from ncbench.evaluators.flow.base import Correspondence, FlowSource
from ncbench.evaluators.flow.pictures import Picture, picture_pair
from ncbench.evaluators.view import FloatMap, View
from ncbench.files import canonical, replacing_file, writing

DEFAULT_LIMIT = 16 << 30
"""Bytes that a cache may take."""

_LAYOUT = 1  # part of every key: raised when entries or the meaning of a source's settings change
_ROOM = 0.9  # share of the limit that is left after entries were removed, so that not every write removes one
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class CachedFlow(FlowSource):
    """Answers from a folder where it can, and asks the source behind it where it cannot.

    Entries are zip files with checksums, written whole or not at all; a damaged one is computed anew. When the folder
    outgrows its limit, what was not used for longest goes. Several processes may share a folder.

    Raises:
        ScoreError: The source does not estimate motion from pictures, so that these do not determine its answer.
    """

    estimated: ClassVar[bool] = True

    def __init__(self, source: FlowSource, folder: Path, limit: int = DEFAULT_LIMIT) -> None:
        if not source.estimated:
            raise ScoreError(f"flow source '{source.name}' is not estimated from pictures; use it without a cache")
        self._source = source
        self._folder = folder
        self._limit = limit
        self._used = sum(size for _, size, _ in self._entries())

    @property
    def name(self) -> str:
        """The name of the source behind it."""
        return self._source.name

    def match(self, a: View, b: View) -> Correspondence:
        """Find the pixels of frame a in frame b; see ``FlowSource.match``. ``visible`` is None.

        Raises:
            ScoreError: As the source raises it.
            StoreError: The folder cannot be written.
        """
        pictures = picture_pair(a, b, self.name)
        path = self._folder / f"{self._key(*pictures)}.npz"
        flow = _read(path, (*pictures[0].shape[:2], 2))
        if flow is None:
            flow = self._source.match(a, b).flow
            self._write(path, flow)
        return Correspondence(flow, None)

    def _key(self, first: Picture, second: Picture) -> str:
        head = {"layout": _LAYOUT, "source": self.name, "shape": list(first.shape)}
        key = hashlib.sha256(canonical(head))
        for picture in (first, second):
            key.update(hashlib.sha256(np.ascontiguousarray(picture).data).digest())
        return key.hexdigest()

    def _write(self, path: Path, flow: FloatMap) -> None:
        with replacing_file(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, flow=flow)
        self._used += path.stat().st_size
        if self._used > self._limit:
            self._make_room(keep=path)

    def _make_room(self, keep: Path) -> None:
        entries = sorted(self._entries())
        self._used = sum(size for _, size, _ in entries)  # other processes write too
        for _, size, path in entries:
            if self._used <= _ROOM * self._limit:
                break
            if path != keep:
                with writing(path):
                    path.unlink(missing_ok=True)
                self._used -= size

    def _entries(self) -> list[tuple[int, int, Path]]:
        """When each entry was last used (ns), its size in bytes, and its path."""
        found = []
        for path in self._folder.glob("*.npz"):
            with suppress(FileNotFoundError):  # another process has just removed it
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        return found


def _read(path: Path, shape: tuple[int, ...]) -> FloatMap | None:
    try:
        with np.load(path, allow_pickle=False) as entry:
            flow = entry["flow"]
    except _DAMAGED:
        return None
    if flow.shape != shape or flow.dtype != np.float32:
        return None
    with suppress(OSError):  # a folder that cannot be written still answers
        os.utime(path)
    return np.asarray(flow, np.float32)
