"""A copy of a store whose pictures decode faster, at about the bytes of PNG: pixels instead of encoded files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from ncbench.cards import digest
from ncbench.datasets.frame import Frame, Skipped
from ncbench.datasets.lock import claimed
from ncbench.datasets.manifest import CARD, Manifest, seal, unseal
from ncbench.datasets.pictures import decode_image
from ncbench.datasets.schema import COLUMNS, store_schema
from ncbench.datasets.shards import ShardRecord, open_shard, reusable, write_shard
from ncbench.datasets.store import Store, is_store
from ncbench.engine.local import run
from ncbench.errors import StoreError

PIXELS = "rgb"
"""Column of a training copy that holds lossless cells of pixels (`ncbench.datasets.cells.Codec.COLOURS`)."""


@dataclass(frozen=True)
class _Task:
    """One shard to be copied."""

    store: Store
    index: int
    to: Path


def write_training_copy(store: Store, to: Path, jobs: int = 1) -> Manifest:
    """Copy a store for training: the column ``rgb`` (lossless cells of pixels) in place of the encoded pictures.

    Loaders take the new column by themselves. All other columns stay as they are, every pixel keeps its value, and the
    copy is a store like any other; an interrupted copy goes on where it stopped.

    Args:
        store: A store of this machine.
        to: The folder of the copy, another one than the store's.
        jobs: Worker processes.

    Returns:
        The copy's manifest.

    Raises:
        StoreError: The store is damaged or is such a copy already, or the folder holds another store or cannot be
            written.
    """
    if PIXELS in store.columns:
        raise StoreError(f"{store.where}: has a column '{PIXELS}' already; it is a training copy itself.")
    recipe = digest({"training copy of": store.manifest.digest, "column": PIXELS})
    if to.resolve() == store.path.resolve() or (is_store(to) and Manifest.load(to).recipe != recipe):
        raise StoreError(f"{to}: holds another store. Choose another folder for the training copy.")
    tasks = [_Task(store, index, to) for index in range(len(store.manifest.shards))]
    with claimed(to):
        if not is_store(to):
            unseal(to)
        records = sorted((record for _, record in run(_copy_shard, tasks, jobs)), key=lambda record: record.file)
        return seal(
            to,
            records,
            name=store.manifest.name,
            card_text=(store.path / CARD).read_text(encoding="utf-8"),
            card_digest=store.manifest.card,
            recipe_digest=recipe,
        )


def _copy_shard(task: _Task) -> ShardRecord:
    store = task.store
    shard = store.manifest.shards[task.index]
    path = task.to / shard.file
    metadata = {"source": shard.sha256, "rows": shard.rows + len(shard.skipped), "index": task.index}
    return reusable(path, metadata) or write_shard(path, _frames(task), _schema(store), metadata)


def _frames(task: _Task) -> Iterator[Frame | Skipped]:
    shards = task.store.manifest.shards
    first = sum(shard.rows for shard in shards[: task.index])
    for row in range(first, first + shards[task.index].rows):
        frame = task.store[row]
        pixels = None if frame.image is None else decode_image(frame.image)
        yield replace(frame, image=None, extra={**frame.extra, PIXELS: pixels})
    yield from shards[task.index].skipped


def _schema(store: Store) -> pa.Schema:
    own = open_shard(store.path / store.manifest.shards[0].file).schema
    return store_schema(
        {field.name: field.type for field in own if field.name not in COLUMNS} | {PIXELS: pa.large_binary()}
    )
