"""From a reader to a store: plan, build the shards that are missing, seal.

Every step may be killed and run again: shards that are finished prove and describe themselves, and are kept. The store
opens only once all of it is there and checked (``seal`` writes the state file after the shards and the manifest last).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from ncbench.datasets.lock import claimed
from ncbench.datasets.manifest import Manifest, seal, unseal
from ncbench.datasets.recipe import Recipe
from ncbench.datasets.shard_builder import Group, ShardBuilder, ShardTask
from ncbench.datasets.shards import ShardRecord
from ncbench.datasets.store import Store
from ncbench.engine.local import run
from ncbench.errors import SourceError
from ncbench.files import leftovers, writing

Plan = Sequence[Sequence[Group]]
"""The groups of each shard, in row order."""

_SHOWN = 5  # skipped frames that an error message names


def plan_shards(sequences: Mapping[str, Sequence[int]], shard_rows: int) -> list[list[Group]]:
    """Cut the rows of all sequences, in order, every ``shard_rows`` rows.

    Args:
        sequences: Name -> ascending frame indices.
        shard_rows: Rows a shard; the last may hold fewer.

    Returns:
        The groups of each shard.

    Examples:
        >>> plan_shards({"a": [0, 1, 2], "b": [5]}, 2)
        [[('a', (0, 1))], [('a', (2,)), ('b', (5,))]]
    """
    if shard_rows < 1:
        raise ValueError(f"shard_rows must be at least 1, got {shard_rows}")
    plan: list[list[Group]] = []
    room = 0
    for name, frames in sequences.items():
        taken = 0
        while taken < len(frames):
            if room == 0:
                plan.append([])
                room = shard_rows
            piece = tuple(frames[taken : taken + room])
            plan[-1].append((name, piece))
            taken += len(piece)
            room -= len(piece)
    return plan


def prepare(
    recipe: Recipe,
    out: Path,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    plan: Plan | None = None,
    max_skipped: float = 0.01,
    check: Callable[[Store], None] | None = None,
    expected_frames: int | None = None,
) -> Manifest:
    """Build a store, or finish one that was interrupted; where nothing changed, nothing is written.

    Args:
        recipe: What to build.
        out: The store's folder, made where missing. Files that are not the store's are left alone.
        jobs: Processes that work; any number gives the same bytes.
        progress: Called with (shards done, shards in all) as each is done.
        plan: The frames of each shard; None cuts all sequences every ``recipe.shard_rows`` rows. A plan must keep the
            frames of a sequence together and ascending.
        max_skipped: Largest share of the planned frames that the reader may leave out (see ``Skipped``).
        check: Called with the finished store before it opens for others, for example ``check_axes``; where it raises,
            the shards stay but the store does not open.
        expected_frames: How many frames the source must list, unusable ones included; None takes any number.

    Returns:
        The manifest of the complete store; ``skipped`` names the frames that were left out.

    Raises:
        SourceError: A source file is unusable, a reader breaks its contract, the source lists another number of frames
            than expected, or too many frames are unusable; finished shards stay for the next run.
        StoreError: The disk is full or the folder cannot be written, or another process works on this store; finished
            shards stay for the next run.
    """
    builder = ShardBuilder(recipe)
    tasks = shard_tasks(builder, out, plan)
    _check_planned(recipe, tasks, expected_frames)
    with claimed(out):
        _clean(out, {task.path.name for task in tasks})
        records: dict[int, ShardRecord] = {}
        for task, record in run(builder, tasks, jobs):
            records[task.index] = record
            _check_skipped(recipe, out, tasks, records, max_skipped)
            if progress is not None:
                progress(len(records), len(tasks))
        return seal(
            out,
            [records[index] for index in range(len(tasks))],
            name=recipe.name,
            card_text=recipe.card_text,
            card_digest=recipe.card_digest,
            recipe_digest=recipe.digest,
            check=None if check is None else lambda manifest: check(Store(out, manifest)),
        )


def _check_planned(recipe: Recipe, tasks: Sequence[ShardTask], expected: int | None) -> None:
    """Refuse a source that lists no frames, or not as many as it should."""
    groups = [group for task in tasks for group in task.groups]
    found = sum(len(frames) for _, frames in groups)
    if found == 0:
        raise SourceError.at(
            recipe.root, f"the reader {recipe.reader} finds no frames", "Check the folder and fetch again."
        )
    if expected not in (None, found):
        names = len({name for name, _ in groups})
        raise SourceError.at(
            recipe.root,
            f"expected {expected} frames, the files hold {found} in {names} sequences",
            "Complete the files, or pass --partial.",
        )


def _clean(out: Path, names: AbstractSet[str]) -> None:
    """Remove what killed runs and other plans left: temporary files, and shards that are not of this plan."""
    strays = [path for path in out.glob("data-*-of-*.arrow") if path.name not in names]
    if strays:
        unseal(out)
    for path in leftovers(out) + strays:
        with writing(path):
            path.unlink(missing_ok=True)


def _check_skipped(
    recipe: Recipe, out: Path, tasks: Sequence[ShardTask], records: Mapping[int, ShardRecord], share: float
) -> None:
    """Stop as soon as the finished shards lack more frames than the whole store may."""
    planned = sum(len(frames) for task in tasks for _, frames in task.groups)
    skipped = [item for index in sorted(records) for item in records[index].skipped]
    if len(skipped) <= share * planned and len(skipped) < planned:
        return
    unseal(out)
    shown = "; ".join(f"'{item.sequence}' frame {item.frame}: {item.reason}" for item in skipped[:_SHOWN])
    raise SourceError(
        f"{recipe.root}: at most {share:.2%} of the {planned} frames may be left out, but {len(skipped)} of those read "
        f"so far are unusable ({shown}). Fetch the data set again, or allow more with a larger max_skipped (never all)."
    )


def shard_tasks(builder: ShardBuilder, out: Path, plan: Plan | None) -> list[ShardTask]:
    """List the work of a whole store, one task a shard; ``out`` and ``plan`` as in ``prepare``."""
    groups = plan if plan is not None else plan_shards(builder.reader.sequences(), builder.recipe.shard_rows)
    total = len(groups)
    return [ShardTask(out, index, total, tuple(shard)) for index, shard in enumerate(groups)]
