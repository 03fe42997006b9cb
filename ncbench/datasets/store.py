"""Reading a store: its manifest, random access to frames, and whole clips as streams.

Needs pyarrow and numpy alone. Shards are memory-mapped on first use, so that opening a large store costs one small
file, and worker processes share the page cache; a ``Store`` pickles as its path. Of a store behind a URL, shards are
fetched on first use into a bounded cache (`ncbench.datasets.remote_store`).
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ncbench.datasets.frame import Frame
from ncbench.datasets.manifest import MANIFEST, Manifest
from ncbench.datasets.remote_store import DEFAULT_CACHE_BYTES, RemoteStore, is_url
from ncbench.datasets.schema import COLUMNS, from_row
from ncbench.datasets.shards import ShardRecord, open_shard
from ncbench.errors import StoreError
from ncbench.files import file_sha256
from ncbench.settings import suggest

Verify = Literal["size", "lazy"]

_MOST_OPEN = 256  # shards; what is mapped counts as a process's memory although the system may take it back


class Store:
    """A complete store, open for reading.

    Rows are numbered over the whole store: all frames of the first sequence, then of the second, and so on.

    Args:
        path: The store's folder.
        manifest: What it holds, where that is not written yet: ``prepare`` looks at a store before it opens for others.
        verify: ``size`` compares the sizes of all shards now; ``lazy`` also hashes each shard when it is first used.
        remote: Where shards come from that are not in the folder; None means that all are there.

    Attributes:
        path: The folder; of a remote store, the one that keeps its manifest here.
        where: The folder or the URL, for people.

    Raises:
        StoreError: The folder is no store, an unfinished or damaged one, or one that a newer ncbench wrote.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest | None = None,
        *,
        verify: Verify = "size",
        remote: RemoteStore | None = None,
    ) -> None:
        self.path = path
        self.where = str(path) if remote is None else remote.url
        self.manifest = manifest or Manifest.load(path)
        self._unwritten, self._verify, self._remote = manifest, verify, remote
        if remote is None:
            self._check_sizes()
        self._shard_ends = list(np.cumsum([shard.rows for shard in self.manifest.shards]).tolist())
        self._clip_ends = list(np.cumsum([len(clip.frames) for clip in self.manifest.sequences]).tolist())
        self._shards: OrderedDict[int, list[pa.RecordBatch]] = OrderedDict()
        self._lock = threading.RLock()

    def _check_sizes(self) -> None:
        for shard in self.manifest.shards:
            file = self.path / shard.file
            size = file.stat().st_size if file.is_file() else None
            if size != shard.bytes:
                found = "is missing" if size is None else f"has {size} bytes"
                raise StoreError(
                    f"{file}: expected {shard.bytes} bytes, the file {found}. Run `ncbench verify`, then `ncbench "
                    "repair`."
                )

    def __len__(self) -> int:
        return self.manifest.rows

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self._unwritten, self._verify, self._remote)

    def __repr__(self) -> str:
        return f"Store({self.where!r}: {len(self.manifest.sequences)} sequences, {len(self)} frames)"

    @cached_property
    def sequences(self) -> dict[str, list[int]]:
        """Sequence -> its frame indices, ascending, in row order."""
        return {clip.name: list(clip.frames) for clip in self.manifest.sequences}

    @cached_property
    def _first_rows(self) -> dict[str, int]:
        starts = [0, *self._clip_ends]
        return {clip.name: start for clip, start in zip(self.manifest.sequences, starts, strict=False)}

    @cached_property
    def columns(self) -> list[str]:
        """Names of all columns, the card-specific ones last."""
        return list(self._rows(next(iter(self._shards), 0))[0].schema.names)  # of any shard that is open already

    def index(self, sequence: str, frame: int) -> int:
        """Find a frame's row.

        Raises:
            StoreError: The store has no such frame.
        """
        frames = self._frames(sequence)
        position = bisect.bisect_left(frames, frame)
        if position == len(frames) or frames[position] != frame:
            raise StoreError(
                f"{self.where}: sequence '{sequence}' has no frame {frame}; it has {len(frames)} frames from "
                f"{frames[0]} to {frames[-1]}"
            )
        return self._first_rows[sequence] + position

    def locate(self, index: int) -> tuple[str, int]:
        """Name the sequence and frame of a row; the opposite of ``index``."""
        row = self._checked_row(index)
        clip = bisect.bisect_right(self._clip_ends, row)
        sequence = self.manifest.sequences[clip]
        return sequence.name, sequence.frames[row - self._first_rows[sequence.name]]

    def values(
        self, index: int, columns: Iterable[str], into: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, Any]:
        """Decode exactly these columns of one row.

        Args:
            index: Row number; negative counts from the end.
            columns: Names out of ``columns``.
            into: Column -> contiguous array of the right shape and type, which an array column is decoded into and
                which is returned; spares a copy where the memory of a batch waits.

        Returns:
            Column -> value as in ``Frame``; None where the row has none.

        Raises:
            StoreError: An unknown column, a damaged cell or shard.
            IndexError: No such row.
        """
        row = self._checked_row(index)
        batch = self._batch(row)
        places = {name: batch.schema.get_field_index(name) for name in columns}
        for name, place in places.items():
            if place < 0:
                raise StoreError(f"{self.where}: no column '{name}'. {suggest(name, batch.schema.names)}")
        try:
            return from_row({name: batch.column(place) for name, place in places.items()}, into)
        except StoreError as error:
            sequence, frame = self.locate(row)
            record = self.manifest.shards[bisect.bisect_right(self._shard_ends, row)]
            where = f"{self._file(record)}: sequence '{sequence}' frame {frame}"
            raise StoreError(f"{where}: {error}") from error

    def __getitem__(self, index: int) -> Frame:
        return self._frame(index, None)

    def read(self, sequence: str, frame: int, columns: Iterable[str] | None = None) -> Frame:
        """Decode one frame.

        Args:
            sequence: Name of the clip.
            frame: Index within the clip.
            columns: The columns to decode; others are None. ``normal`` and ``valid`` make a frame and always come
                (``values`` decodes without them). None decodes all.

        Returns:
            The canonical frame; ``normal`` is zero outside ``valid``.

        Raises:
            StoreError: No such frame or column, or damage.
        """
        return self._frame(self.index(sequence, frame), columns)

    def clip(
        self, sequence: str, start: int = 0, stop: int | None = None, columns: Iterable[str] | None = None
    ) -> Iterator[Frame]:
        """Stream a piece of a sequence, one frame in memory at a time.

        Args:
            sequence: Name of the clip.
            start: First position in the clip: 0 is its first stored frame, whatever that frame's index.
            stop: Position after the last; None means to the end. Slice rules, so that negative counts from the end.
            columns: As in ``read``.

        Yields:
            The frames in order.

        Raises:
            StoreError: No such sequence or column, or damage.
        """
        first = self._first_rows.get(sequence, 0)
        wanted = None if columns is None else tuple(columns)
        for position in range(*slice(start, stop).indices(len(self._frames(sequence)))):
            yield self._frame(first + position, wanted)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the shards as Arrow tables, in row order, cells as they are stored.

        Raises:
            StoreError: A shard is missing or damaged.
        """
        for record in self.manifest.shards:
            yield self._opened(record)

    def _frame(self, index: int, columns: Iterable[str] | None) -> Frame:
        extra = [name for name in self._batch(self._checked_row(index)).schema.names if name not in COLUMNS]
        wanted = {*COLUMNS, *extra} if columns is None else {*columns, "sequence", "frame", "normal", "valid"}
        found = self.values(index, sorted(wanted))
        base = {name: found[name] for name in COLUMNS if name in found and name not in ("height", "width")}
        base.setdefault("image", None)
        return Frame(**base, extra={name: found[name] for name in extra if name in found})

    def _frames(self, sequence: str) -> list[int]:
        try:
            return self.sequences[sequence]
        except KeyError:
            raise StoreError(f"{self.where}: no sequence '{sequence}'. {suggest(sequence, self.sequences)}") from None

    def _checked_row(self, index: int) -> int:
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"{self.where}: row {index} of {len(self)}")
        return row

    def _batch(self, row: int) -> pa.RecordBatch:
        shard = bisect.bisect_right(self._shard_ends, row)
        return self._rows(shard)[row - self._shard_ends[shard] + self.manifest.shards[shard].rows]

    def _rows(self, shard: int) -> list[pa.RecordBatch]:
        """Return a shard's record batches, one a row; loaders ask from several threads."""
        with self._lock:
            rows = self._shards.get(shard)
            if rows is None:
                rows = self._opened(self.manifest.shards[shard]).to_batches()
                self._shards[shard] = rows
                if len(self._shards) > _MOST_OPEN:
                    self._shards.popitem(last=False)
            else:
                self._shards.move_to_end(shard)
            return rows

    def _opened(self, record: ShardRecord) -> pa.Table:
        if self._remote is not None:
            table = self._remote.open(record)  # hashed as it arrived
        else:
            path = self.path / record.file
            if self._verify == "lazy" and (found := file_sha256(path)) != record.sha256:
                raise StoreError(
                    f"{path}: is damaged: expected sha256 {record.sha256}, found {found}. Run `ncbench verify`, then "
                    "`ncbench repair`."
                )
            table = open_shard(path)
        if table.num_rows != record.rows:
            raise StoreError(
                f"{self._file(record)}: expected {record.rows} rows, found {table.num_rows}. Run `ncbench verify`, "
                "then `ncbench repair`."
            )
        return table

    def _file(self, record: ShardRecord) -> str:
        """Name a shard for people."""
        return f"{self.where}/{record.file}" if self._remote else str(self.path / record.file)


def _reopened(path: Path, manifest: Manifest | None, verify: Verify, remote: RemoteStore | None) -> Store:
    return Store(path, manifest, verify=verify, remote=remote)


def open_store(
    path: str | Path,
    *,
    verify: Verify = "size",
    cache: str | Path | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> Store:
    """Open a store for reading.

    Args:
        path: The store's folder, or its URL (``s3://``, ``gs://``, ``http://``, ``memory://`` or another of fsspec's).
        verify: ``size`` compares the sizes of all shards; ``lazy`` also compares the sha256 of each shard when a
            process first uses it, which finds any flipped bit. Shards of a URL are always compared as they arrive.
        cache: Folder for shards of a URL; by default ``ncbench/shards`` in the user's cache folder. Stores share it.
        cache_bytes: How much the folder may hold; what was not used for longest goes first.

    Returns:
        The store; no shard is read yet.

    Raises:
        StoreError: The folder is no store, an unfinished or damaged one, or one that a newer ncbench wrote; or the URL
            cannot be read.
    """
    if isinstance(path, str) and is_url(path):
        remote = RemoteStore.at(path, cache, cache_bytes)
        return Store(remote.fetch_manifest(), verify=verify, remote=remote)
    return Store(Path(path), verify=verify)


def is_store(path: str | Path) -> bool:
    """Say whether a folder holds a finished store, without opening it."""
    return (Path(path) / MANIFEST).is_file()
