"""Reading a store: its manifest, random access to frames, and whole clips as streams.

Needs pyarrow and numpy alone, and Pillow for pictures. Shards are memory-mapped on first use, so that opening a large
store costs one small file, and worker processes share the page cache; a ``Store`` pickles as its path.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from ncbench.datasets.frame import Frame
from ncbench.datasets.manifest import MANIFEST, Manifest
from ncbench.datasets.schema import COLUMNS, from_row
from ncbench.datasets.shards import open_shard
from ncbench.errors import StoreError
from ncbench.settings import suggest


class Store:
    """A complete store, open for reading.

    Rows are numbered over the whole store: all frames of the first sequence, then of the second, and so on.

    Args:
        path: The store's folder.
        manifest: What it holds, where that is not written yet: ``prepare`` looks at a store before it opens for others.

    Raises:
        StoreError: The folder is no store, an unfinished or damaged one, or one that a newer ncbench wrote.
    """

    def __init__(self, path: Path, manifest: Manifest | None = None) -> None:
        self.path = path
        self.manifest = manifest or Manifest.load(path)
        self._unwritten = manifest
        for shard in self.manifest.shards:
            size = (path / shard.file).stat().st_size if (path / shard.file).is_file() else None
            if size != shard.bytes:
                found = "is missing" if size is None else f"has {size} bytes"
                raise StoreError(
                    f"{path / shard.file}: expected {shard.bytes} bytes, the file {found}. Run `ncbench verify`, then "
                    "`ncbench repair`."
                )
        self._shard_ends = list(np.cumsum([shard.rows for shard in self.manifest.shards]).tolist())
        self._clip_ends = list(np.cumsum([len(clip.frames) for clip in self.manifest.sequences]).tolist())
        self._tables: dict[int, pa.Table] = {}

    def __len__(self) -> int:
        return self.manifest.rows

    def __reduce__(self) -> tuple[type[Store], tuple[Path, Manifest | None]]:
        return Store, (self.path, self._unwritten)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}: {len(self.manifest.sequences)} sequences, {len(self)} frames)"

    @cached_property
    def sequences(self) -> dict[str, list[int]]:
        """Sequence -> its frame indices, ascending, in row order."""
        return {clip.name: list(clip.frames) for clip in self.manifest.sequences}

    @cached_property
    def _first_rows(self) -> dict[str, int]:
        starts = [0, *self._clip_ends]
        return {clip.name: start for clip, start in zip(self.manifest.sequences, starts, strict=False)}

    @property
    def columns(self) -> list[str]:
        """Names of all columns, the card-specific ones last."""
        return list(self._table(0).schema.names)

    def index(self, sequence: str, frame: int) -> int:
        """Find a frame's row.

        Raises:
            StoreError: The store has no such frame.
        """
        frames = self._frames(sequence)
        position = bisect.bisect_left(frames, frame)
        if position == len(frames) or frames[position] != frame:
            raise StoreError(
                f"{self.path}: sequence '{sequence}' has no frame {frame}; it has {len(frames)} frames from "
                f"{frames[0]} to {frames[-1]}"
            )
        return self._first_rows[sequence] + position

    def locate(self, index: int) -> tuple[str, int]:
        """Name the sequence and frame of a row; the opposite of ``index``."""
        row = self._checked_row(index)
        clip = bisect.bisect_right(self._clip_ends, row)
        sequence = self.manifest.sequences[clip]
        return sequence.name, sequence.frames[row - self._first_rows[sequence.name]]

    def values(self, index: int, columns: Iterable[str]) -> dict[str, Any]:
        """Decode exactly these columns of one row.

        Args:
            index: Row number; negative counts from the end.
            columns: Names out of ``columns``.

        Returns:
            Column -> value as in ``Frame``; None where the row has none.

        Raises:
            StoreError: An unknown column, a damaged cell or shard.
            IndexError: No such row.
        """
        row = self._checked_row(index)
        shard = bisect.bisect_right(self._shard_ends, row)
        table = self._table(shard)
        offset = row - self._shard_ends[shard] + self.manifest.shards[shard].rows
        for name in columns:
            if name not in table.schema.names:
                raise StoreError(f"{self.path}: no column '{name}'. {suggest(name, table.schema.names)}")
        try:
            return from_row({name: table.column(name)[offset] for name in columns})
        except StoreError as error:
            sequence, frame = self.locate(row)
            where = f"{self.path / self.manifest.shards[shard].file}: sequence '{sequence}' frame {frame}"
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

    def _frame(self, index: int, columns: Iterable[str] | None) -> Frame:
        extra = [name for name in self.columns if name not in COLUMNS]
        wanted = {*COLUMNS, *extra} if columns is None else {*columns, "sequence", "frame", "normal", "valid"}
        found = self.values(index, sorted(wanted))
        base = {name: found[name] for name in COLUMNS if name in found and name not in ("height", "width")}
        base.setdefault("image", None)
        return Frame(**base, extra={name: found[name] for name in extra if name in found})

    def _frames(self, sequence: str) -> list[int]:
        try:
            return self.sequences[sequence]
        except KeyError:
            raise StoreError(f"{self.path}: no sequence '{sequence}'. {suggest(sequence, self.sequences)}") from None

    def _checked_row(self, index: int) -> int:
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"{self.path}: row {index} of {len(self)}")
        return row

    def _table(self, shard: int) -> pa.Table:
        table = self._tables.get(shard)
        if table is None:
            record = self.manifest.shards[shard]
            table = open_shard(self.path / record.file)
            if table.num_rows != record.rows:
                raise StoreError(
                    f"{self.path / record.file}: expected {record.rows} rows, found {table.num_rows}. Run `ncbench "
                    "verify`, then `ncbench repair`."
                )
            self._tables[shard] = table
        return table


def open_store(path: str | Path) -> Store:
    """Open a store for reading.

    Args:
        path: The store's folder.

    Returns:
        The store; no shard is read yet.

    Raises:
        StoreError: The folder is no store, an unfinished or damaged one, or one that a newer ncbench wrote.
    """
    return Store(Path(path))


def is_store(path: str | Path) -> bool:
    """Say whether a folder holds a finished store, without opening it."""
    return (Path(path) / MANIFEST).is_file()


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture with Pillow, to RGB.

    Args:
        data: PNG, JPEG or another format of 8 bits a channel, or 16-bit grey; alpha is dropped, grey repeated. (Readers
            refuse pictures that EXIF data ask to turn.)

    Returns:
        (H, W, 3) uint8.

    Raises:
        StoreError: The bytes are no such picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.mode.startswith("I;16"):  # 16-bit grey: Pillow's own conversion would clip, not scale
                grey = (np.asarray(picture) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=-1)
            if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "YCbCr", "CMYK"):
                raise StoreError(
                    f"picture of mode {picture.mode}: expected 8 bits a channel. Convert it in the reader."
                )
            return np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise StoreError(f"picture of {len(data)} bytes cannot be decoded ({error}). Run `ncbench verify`.") from error
