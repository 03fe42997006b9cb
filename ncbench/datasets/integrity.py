"""Is a store still what was written, and making it so again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ncbench.datasets.lock import claimed
from ncbench.datasets.manifest import CARD, MANIFEST, Manifest, small_files
from ncbench.datasets.prepare import Plan, shard_tasks
from ncbench.datasets.recipe import Recipe
from ncbench.datasets.shard_builder import ShardBuilder
from ncbench.datasets.shards import open_shard, shard_keys
from ncbench.engine.local import run
from ncbench.errors import StoreError
from ncbench.files import file_sha256, write_bytes, writing

_PREPARE = "Run `ncbench prepare`: it writes the small files anew and keeps the good shards."


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
    """Compare every file of a store with its manifest, byte for byte, and the manifest with the shards' own columns.

    Args:
        path: The store's folder.
        jobs: Worker processes that hash.

    Returns:
        What is wrong, in the manifest's order; empty for an intact store.

    Raises:
        StoreError: There is no undamaged manifest to compare with, or a file cannot be read.
    """
    manifest = Manifest.load(path)
    names = [shard.file for shard in manifest.shards]
    paths = [path / name for name in [*names, *manifest.files] if (path / name).is_file()]
    hashes = {file.name: digest for file, digest in run(file_sha256, paths, jobs)}
    problems = [*_shard_problems(path, manifest, hashes), *_key_problems(path, manifest, hashes)]
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


def _key_problems(path: Path, manifest: Manifest, hashes: Mapping[str, str]) -> Iterator[Problem]:
    """Compare sequences, frames and sizes that the manifest lists with those in the shards that are intact."""
    listed = [(clip.name, frame, clip.height, clip.width) for clip in manifest.sequences for frame in clip.frames]
    first = 0
    for shard in manifest.shards:
        rows = listed[first : first + shard.rows]
        first += shard.rows
        if hashes.get(shard.file) == shard.sha256 and shard_keys(path / shard.file) != rows:
            yield Problem(MANIFEST, "changed", f"its sequences, frames or sizes are not those in {shard.file}")


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


def repair(path: Path, recipe: Recipe, jobs: int = 1, plan: Plan | None = None) -> list[Problem]:
    """Mend what ``verify`` finds bad, and only that; the manifest says what each file must become and stays as it is.

    Args:
        path: The store's folder.
        recipe: What the store was made by (``recipe_to_repair``).
        jobs: Worker processes.
        plan: What ``prepare`` was given.

    Returns:
        What was wrong and is mended, in the manifest's order; the store is then intact.

    Raises:
        StoreError: The store was made by another recipe, its manifest is damaged, another process works on it, or a
            file cannot become what the manifest says because the source files, the card, the code or a library changed.
            The manifest and that file stay as they were.
        SourceError: A source file is unusable.
    """
    manifest = Manifest.load(path)
    builder = ShardBuilder(recipe)
    tasks = {task.path.name: task for task in shard_tasks(builder, path, plan)}
    if manifest.recipe != recipe.digest or list(tasks) != [shard.file for shard in manifest.shards]:
        raise StoreError(
            f"{path}: was made by another recipe (card, reader, settings or source listing), so that it cannot be "
            "repaired with this one. Run `ncbench prepare` to make it anew."
        )
    with claimed(path):
        problems = verify(path, jobs)
        bad = {problem.file for problem in problems}
        if MANIFEST in bad:
            raise StoreError(f"{path / MANIFEST}: contradicts its shards. {_PREPARE}")
        card_text = _mended_card(path, manifest, recipe) if CARD in bad else ""
        rebuilt = [replace(tasks[shard.file], expect=shard.sha256) for shard in manifest.shards if shard.file in bad]
        for _ in run(builder, rebuilt, jobs):
            pass
        for problem in problems:
            if problem.kind == "extra":
                with writing(path / problem.file):
                    (path / problem.file).unlink()
        if bad & set(manifest.files):
            _rewrite(path, manifest, card_text, bad)
    return problems


def _mended_card(path: Path, manifest: Manifest, recipe: Recipe) -> str:
    if _sha256(recipe.card_text.encode()) != manifest.files.get(CARD):
        raise StoreError(
            f"{path / CARD}: is damaged, and the card given for the repair is worded otherwise than the one that the "
            f"store was made by. {_PREPARE}"
        )
    return recipe.card_text


def _rewrite(path: Path, manifest: Manifest, card_text: str, bad: set[str]) -> None:
    """Write the bad ones of the small files again, once the shards are good."""
    schema = open_shard(path / manifest.shards[0].file).schema
    for file, content in small_files(manifest.shards, schema, card_text).items():
        if file not in bad:
            continue
        if _sha256(content) != manifest.files.get(file):
            raise StoreError(f"{path / file}: this ncbench writes it otherwise than the manifest says. {_PREPARE}")
        write_bytes(path / file, content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
