"""Is a store still what was written, and making it so again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ncbench.datasets.manifest import Manifest, seal
from ncbench.datasets.prepare import Plan, build_shard, shard_tasks
from ncbench.datasets.recipe import Recipe
from ncbench.datasets.shards import ShardRecord, file_sha256
from ncbench.engine.local import run
from ncbench.errors import StoreError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a store.

    Attributes:
        file: Name within the store's folder.
        kind: ``missing``, ``extra``, ``resized`` or ``changed``.
        detail: A sentence: what was expected, what was found, which rows are hit.
    """

    file: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.file}: {self.detail}"


def verify(path: Path, jobs: int = 1) -> list[Problem]:
    """Compare every file of a store with its manifest, byte for byte.

    Args:
        path: The store's folder.
        jobs: Worker processes that hash.

    Returns:
        What is wrong, in the manifest's order; empty for an intact store.

    Raises:
        StoreError: There is no readable manifest to compare with.
    """
    manifest = Manifest.load(path)
    names = [shard.file for shard in manifest.shards]
    paths = [path / name for name in [*names, *manifest.files] if (path / name).is_file()]
    hashes = {file.name: digest for file, digest in run(file_sha256, paths, jobs)}
    problems = list(_shard_problems(path, manifest, hashes))
    for name, expected in manifest.files.items():
        if name not in hashes:
            problems.append(Problem(name, "missing", "the file is missing"))
        elif hashes[name] != expected:
            problems.append(Problem(name, "changed", f"expected sha256 {expected}, found {hashes[name]}"))
    extra = sorted(file.name for file in path.glob("data-*-of-*.arrow") if file.name not in names)
    return problems + [Problem(name, "extra", "a shard that the manifest does not list") for name in extra]


def _shard_problems(path: Path, manifest: Manifest, hashes: dict[str, str]) -> Iterator[Problem]:
    first = 0
    for shard in manifest.shards:
        held = f"it holds {_rows_text(manifest, first, first + shard.rows)}"
        first += shard.rows
        if shard.file not in hashes:
            yield Problem(shard.file, "missing", f"the shard is missing; {held}")
        elif (size := (path / shard.file).stat().st_size) != shard.bytes:
            yield Problem(shard.file, "resized", f"expected {shard.bytes} bytes, found {size}; {held}")
        elif hashes[shard.file] != shard.sha256:
            found = hashes[shard.file]
            yield Problem(shard.file, "changed", f"expected sha256 {shard.sha256}, found {found}; {held}")


def _rows_text(manifest: Manifest, start: int, stop: int) -> str:
    """Name the rows of a shard, and the frames they are."""
    parts = []
    first = 0
    for clip in manifest.sequences:
        frames = clip.frames[max(start - first, 0) : max(stop - first, 0)]
        first += len(clip.frames)
        if frames:
            parts.append(f"'{clip.name}' frames {frames[0]} to {frames[-1]}")
    return f"rows {start} to {stop - 1} ({', '.join(parts)})" if parts else "no rows"


def repair(path: Path, recipe: Recipe, jobs: int = 1, plan: Plan | None = None) -> list[ShardRecord]:
    """Rebuild the shards that ``verify`` finds bad, and only those.

    Args:
        path: The store's folder.
        recipe: What the store was made by.
        jobs: Worker processes.
        plan: What ``prepare`` was given.

    Returns:
        The records of the rebuilt shards; the store is then intact, its manifest unchanged.

    Raises:
        StoreError: The store was made by another recipe, or a rebuilt shard differs from the manifest because the
            source files, the code or a library changed. The manifest and the shard stay as they were.
        SourceError: A source file is unusable.
    """
    manifest = Manifest.load(path)
    tasks = shard_tasks(recipe, path, plan)
    planned = [task.path.name for task in tasks]
    if manifest.recipe != recipe.digest or planned != [shard.file for shard in manifest.shards]:
        raise StoreError(
            f"{path}: was made by another recipe (card, reader, settings or source listing), so that it cannot be "
            "repaired with this one. Run `ncbench prepare` to make it anew."
        )
    problems = verify(path, jobs)
    for problem in problems:
        if problem.kind == "extra":
            (path / problem.file).unlink()
    bad = {problem.file for problem in problems}
    rebuilt = [
        record for _, record in run(build_shard, [task.again() for task in tasks if task.path.name in bad], jobs)
    ]
    seal(
        path,
        manifest.shards,
        name=recipe.name,
        card_text=recipe.card_text,
        card_digest=recipe.card_digest,
        recipe_digest=recipe.digest,
    )
    return sorted(rebuilt, key=lambda record: record.file)
