"""Shards: Arrow files that appear whole or not at all.

A shard is an Arrow IPC stream with one row a batch: HF's ``Image`` storage is ``binary`` with 32-bit offsets, which a
larger batch would overflow at 2 GB; writing holds one frame in memory; and a row is one contiguous piece of the file.
Its bytes depend on the source files, the recipe and the shard's index, never on the time, the machine or the worker.

Behind the stream's end mark, where Arrow readers stop, the sha256 of all bytes before proves the shard: one that is
found without a manifest is kept only if not a bit of it has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from ncbench.datasets.frame import Frame, Skipped
from ncbench.datasets.schema import checked, to_batch
from ncbench.errors import SourceError, StoreError
from ncbench.files import canonical, disk_error, mib, replacing_file

_PROOF = b"NCB-SHA2"  # then the 32 bytes of the sha256
_CHUNK = 1 << 20
_SKIPPED = b"ncbench.skipped"  # metadata of an empty last batch: known only once all frames were read


@dataclass(frozen=True)
class ShardRecord:
    """What the manifest says of one shard.

    Attributes:
        file: Name within the store's folder.
        rows: Number of frames.
        bytes: Size of the file.
        sha256: Of the whole file, hex.
        source: Digest of the source files and frames that the shard was made from.
        skipped: Frames planned for this shard that the reader left out.
    """

    file: str
    rows: int
    bytes: int
    sha256: str
    source: str
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class SequenceRecord:
    """Frames of one sequence, ascending, all of one size."""

    name: str
    frames: tuple[int, ...]
    height: int
    width: int


def shard_name(index: int, total: int) -> str:
    """Name a shard as `datasets` does."""
    return f"data-{index:05d}-of-{total:05d}.arrow"


def write_shard(
    path: Path,
    frames: Iterable[Frame | Skipped],
    schema: pa.Schema,
    metadata: Mapping[str, Any],
    expect: str | None = None,
) -> ShardRecord:
    """Write one shard: it appears under its name complete and on disk, or not at all.

    Args:
        path: Where; its folder exists.
        frames: The rows; each is checked (`ncbench.datasets.schema.checked`). Skipped frames are written down in an
            empty last batch.
        schema: From ``store_schema``.
        metadata: Kept as JSON in the file under ``ncbench``; must hold ``source`` (digest) and ``rows`` (how
            many, skipped ones included).
        expect: The sha256 that the file must have to be kept; None accepts any.

    Returns:
        The shard's record.

    Raises:
        SourceError: A frame breaks the contract, frames of a sequence differ in size, or their number is not ``rows``.
        StoreError: The disk is full, or the file differs from ``expect``.
    """
    schema = schema.with_metadata({**(schema.metadata or {}), b"ncbench": canonical(metadata)})
    planned = int(metadata["rows"])
    skipped: list[Skipped] = []
    with replacing_file(path) as temporary:
        sink = _Hashing()
        try:
            with temporary.open("wb") as sink.stream:
                with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
                    for batch in _batches(frames, schema, skipped):
                        writer.write_batch(batch)
                        sink.rows += 1
                    if skipped:
                        _write_skipped(writer, schema, skipped)
                sink.write(_PROOF + sink.sha256.digest())
        except OSError as error:
            raise disk_error(error, path, _needed(sink, planned)) from error
        _check_written(sink, path, planned - len(skipped), expect)
    return ShardRecord(path.name, sink.rows, sink.written, sink.digest, str(metadata["source"]), tuple(skipped))


def _batches(frames: Iterable[Frame | Skipped], schema: pa.Schema, skipped: list[Skipped]) -> Iterator[pa.RecordBatch]:
    """Give the rows, and put what is no row into ``skipped``."""
    sizes: dict[str, tuple[int, int]] = {}
    try:
        for item in frames:
            if isinstance(item, Skipped):
                skipped.append(item)
                continue
            frame = checked(item)
            if sizes.setdefault(frame.sequence, frame.size) != frame.size:
                raise _size_changed(frame.sequence, frame.frame, sizes[frame.sequence], frame.size)
            yield to_batch(frame, schema)
    except OSError as error:  # not to be taken for a full disk under the store
        raise SourceError(f"a source file cannot be read ({error}). Fetch the data set again.") from error


def _write_skipped(writer: pa.ipc.RecordBatchStreamWriter, schema: pa.Schema, skipped: list[Skipped]) -> None:
    empty = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
    note = canonical({"skipped": [asdict(item) for item in skipped]})
    writer.write_batch(empty, custom_metadata=pa.KeyValueMetadata({_SKIPPED: note}))


def _read_skipped(path: Path) -> tuple[Skipped, ...]:
    """Read what ``write_shard`` noted of frames left out."""
    noted: list[Skipped] = []
    with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:
        for _, metadata in reader.iter_batches_with_custom_metadata():
            if metadata is not None and _SKIPPED in metadata:
                noted += [Skipped(**item) for item in json.loads(metadata[_SKIPPED])["skipped"]]
    return tuple(noted)


def _check_written(sink: _Hashing, path: Path, rows: int, expect: str | None) -> None:
    if sink.rows != rows:
        raise SourceError(f"{path.name}: expected {rows} frames, the reader gave {sink.rows}. Fix the reader.")
    if expect not in (None, sink.digest):
        raise StoreError(
            f"{path}: rebuilt with sha256 {sink.digest[:12]}, but the manifest says {str(expect)[:12]}. Run `ncbench "
            "prepare` to make a new store from the present source files, code and library versions."
        )


def reusable(path: Path, metadata: Mapping[str, Any]) -> ShardRecord | None:
    """Recognise a finished shard of the same recipe and source, whole to the last bit.

    Args:
        path: The shard.
        metadata: What ``write_shard`` would be given.

    Returns:
        Its record, or None where it must be built.
    """
    try:
        digest = _proved_sha256(path)
        if digest is None:
            return None
        table = open_shard(path)
        skipped = _read_skipped(path)
    except (OSError, StoreError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None
    planned = table.num_rows + len(skipped)
    if table.schema.metadata.get(b"ncbench") != canonical(metadata) or planned != metadata["rows"]:
        return None
    return ShardRecord(path.name, table.num_rows, path.stat().st_size, digest, str(metadata["source"]), skipped)


def _proved_sha256(path: Path) -> str | None:
    """Hash a shard; None where it does not end with the hash of what comes before."""
    found = hashlib.sha256()
    left = path.stat().st_size - len(_PROOF) - found.digest_size
    with path.open("rb") as stream:
        while left > 0:
            chunk = stream.read(min(left, _CHUNK))
            if not chunk:
                return None
            found.update(chunk)
            left -= len(chunk)
        end = stream.read()
    if end != _PROOF + found.digest():
        return None
    found.update(end)
    return found.hexdigest()


def open_shard(path: Path) -> pa.Table:
    """Memory-map one shard; no cell is read.

    Raises:
        StoreError: The file is missing, truncated or no Arrow stream.
    """
    try:
        with pa.memory_map(str(path)) as mapped:  # closing it frees the file's handle; the table keeps the memory
            table = pa.ipc.open_stream(mapped).read_all()
        table.validate()
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: cannot be read ({error}). Run `ncbench verify`, then `ncbench repair`.") from error
    return table


def read_clips(paths: Iterable[Path]) -> tuple[tuple[SequenceRecord, ...], pa.Schema]:
    """Read which frames shards hold and in which columns, and check that the shards fit together.

    Raises:
        SourceError: A sequence is in pieces, out of order, or of changing size.
        StoreError: A shard cannot be read.
    """
    frames: dict[str, list[int]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    schema: pa.Schema | None = None
    last = ""
    for path in paths:
        schema = schema or open_shard(path).schema
        for name, frame, *size in shard_keys(path):
            if name in frames and (name != last or frame <= frames[name][-1]):
                raise SourceError(
                    f"{path.name}: sequence '{name}' frame {frame} comes again or out of order. A sequence's frames "
                    "must follow each other and ascend: fix the reader or the plan."
                )
            first = sizes.setdefault(name, (size[0], size[1]))
            if first != tuple(size):
                raise _size_changed(name, frame, first, (size[0], size[1]))
            frames.setdefault(name, []).append(frame)
            last = name
    return tuple(SequenceRecord(name, tuple(found), *sizes[name]) for name, found in frames.items()), schema


def shard_keys(path: Path) -> list[tuple[str, int, int, int]]:
    """List sequence, frame, height and width of a shard's rows.

    Raises:
        StoreError: The shard cannot be read.
    """
    keys = open_shard(path).select(["sequence", "frame", "height", "width"]).to_pydict()
    return list(zip(*keys.values(), strict=True))


class _Hashing:
    """A write-only file for Arrow that hashes what passes."""

    closed = False

    def __init__(self) -> None:
        self.stream: BinaryIO | None = None
        self.rows = 0
        self.written = 0
        self.sha256 = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self.sha256.hexdigest()

    def write(self, data: bytes) -> int:
        if self.stream is None:
            raise ValueError("the file is not open")
        self.sha256.update(data)
        self.stream.write(data)
        self.written += len(data)
        return len(data)

    def tell(self) -> int:
        return self.written

    def flush(self) -> None:
        """Nothing to do: ``write_shard`` flushes and syncs once, at the end."""

    def close(self) -> None:
        self.closed = True


def _size_changed(name: str, frame: int, first: tuple[int, int], found: tuple[int, int]) -> SourceError:
    return SourceError(
        f"sequence '{name}' frame {frame}: expected {first[0]} x {first[1]} pixels (height x width) as in the frames "
        f"before it, found {found[0]} x {found[1]}. Split the sequence in the reader, or resize all of it."
    )


def _needed(sink: _Hashing, rows: int) -> str:
    needed = f"about {mib(sink.written * rows / sink.rows)} needed, " if sink.rows else ""
    return f"{needed}{mib(sink.written)} written, "
