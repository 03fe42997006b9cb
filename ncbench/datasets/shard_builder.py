"""Building one shard of a store: asking the reader for its frames, and holding the reader to its contract."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ncbench.cards import digest
from ncbench.datasets.frame import Frame, Skipped
from ncbench.datasets.manifest import unseal
from ncbench.datasets.readers.base import Reader
from ncbench.datasets.recipe import Recipe
from ncbench.datasets.schema import VERSION, store_schema
from ncbench.datasets.shards import ShardRecord, reusable, shard_name, write_shard
from ncbench.errors import SourceError

Group = tuple[str, tuple[int, ...]]
"""Frames of one sequence: (name, frame indices)."""
_REASON_LENGTH = 300


@dataclass(frozen=True)
class ShardTask:
    """One shard's work for a worker process.

    ``expect`` is the sha256 that a shard must come out with when it is built whatever is there; None keeps a finished
    one.
    """

    folder: Path
    index: int
    total: int
    groups: tuple[Group, ...]
    expect: str | None = None

    @property
    def path(self) -> Path:
        """Where the shard goes."""
        return self.folder / shard_name(self.index, self.total)


class ShardBuilder:
    """Builds shards of one recipe, with one reader in each process: listing a large source can take seconds.

    Args:
        recipe: What to build.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __reduce__(self) -> tuple[type[ShardBuilder], tuple[Recipe]]:
        return ShardBuilder, (self.recipe,)

    @cached_property
    def reader(self) -> Reader:
        """The reader of this process, opened on first use."""
        return self.recipe.open_reader()

    def __call__(self, task: ShardTask) -> ShardRecord:
        """Keep a finished shard or build it; runs in a worker.

        Args:
            task: What to build.

        Returns:
            The shard's record.

        Raises:
            SourceError: A source file is unusable or the reader breaks its contract.
            StoreError: The disk is full, or the shard differs from what the task expects.
        """
        reader = self.reader
        # the frame after a group decides whether the flow of its last one leads anywhere
        sources = [
            (name, frames, reader.fingerprint(name, (*frames, *_successor(reader, name, frames[-1]))))
            for name, frames in task.groups
        ]
        metadata = {
            "schema": VERSION,
            "recipe": self.recipe.digest,
            "source": digest({"source": sources}),
            "shard": task.index,
            "shards": task.total,
            "rows": sum(len(frames) for _, frames in task.groups),
        }
        schema = store_schema(reader.extra_features())
        rows = _rows(self.recipe.root, reader, task.groups)
        if task.expect is not None:
            return write_shard(task.path, rows, schema, metadata, task.expect)
        record = reusable(task.path, metadata)
        if record is None:
            unseal(task.folder)
            record = write_shard(task.path, rows, schema, metadata)
        return record


def _rows(root: Path, reader: Reader, groups: Sequence[Group]) -> Iterator[Frame | Skipped]:
    """Read a shard's frames; flow that would lead to a skipped frame is taken away."""
    for name, wanted in groups:
        held: Frame | None = None
        for item in _in_order(root, reader, name, wanted):
            if held is not None:
                yield _without_flow(held) if isinstance(item, Skipped) else held
            held = item if isinstance(item, Frame) else None
            if isinstance(item, Skipped):
                yield item
        if held is not None:
            leads_nowhere = held.flow is not None and _is_skipped(reader, name, _successor(reader, name, held.frame))
            yield _without_flow(held) if leads_nowhere else held


def _in_order(root: Path, reader: Reader, name: str, wanted: Sequence[int]) -> Iterator[Frame | Skipped]:
    """Check that the reader gives what it was asked for."""
    expected = iter(wanted)
    items: Iterable[Frame | Skipped] = reader.read(name, wanted)
    for item in items:
        index = next(expected, None)
        if (item.sequence, item.frame) != (name, index):
            raise SourceError(
                f"sequence '{name}': expected frame {index}, the reader gave frame {item.frame} of "
                f"'{item.sequence}'. Fix the reader."
            )
        yield replace(item, reason=_one_line(item.reason, root)) if isinstance(item, Skipped) else item


def _one_line(reason: str, root: Path) -> str:
    """Bring a reason to a form that does not depend on where the source lies."""
    text = " ".join(reason.replace(f"{root}/", "").split())
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 3] + "..."


def _successor(reader: Reader, name: str, frame: int) -> tuple[int, ...]:
    """Name the frame that the sequence lists after one, if any."""
    listed = reader.sequences().get(name, ())
    return tuple(listed[bisect_right(listed, frame) :][:1])


def _is_skipped(reader: Reader, name: str, frames: Sequence[int]) -> bool:
    items: Iterable[Frame | Skipped] = reader.read(name, frames)
    return any(isinstance(item, Skipped) for item in items)


def _without_flow(frame: Frame) -> Frame:
    return replace(frame, flow=None, occluded=None)
