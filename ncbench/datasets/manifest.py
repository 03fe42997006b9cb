"""The manifest: what a complete store holds, and the moment a folder of shards becomes one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import zstandard

import ncbench
from ncbench.datasets.frame import Skipped
from ncbench.datasets.schema import VERSION, dataset_info, dataset_state
from ncbench.datasets.shards import SequenceRecord, ShardRecord, read_clips
from ncbench.errors import NcbenchError, StoreError
from ncbench.files import canonical, file_sha256, sync_folder, write_bytes, writing

MANIFEST = "manifest.json"
STATE, INFO, CARD = "state.json", "dataset_info.json", "card.yaml"
_AGAIN = "Run `ncbench prepare` again; finished shards are kept."


@dataclass(frozen=True)
class Manifest:
    """What a complete store holds; the file of that name holds the same as JSON, and a checksum of itself.

    Attributes:
        name: Name of the data set.
        card: Digest of the card that it was made by.
        recipe: Digest of everything that shaped it but the source files.
        sequences: The clips in row order.
        shards: The shards in row order.
        files: Name -> sha256 of the other files of the store.
        written_with: Versions of ncbench and of the libraries that decide bytes.
    """

    name: str
    card: str
    recipe: str
    sequences: tuple[SequenceRecord, ...]
    shards: tuple[ShardRecord, ...]
    files: Mapping[str, str]
    written_with: Mapping[str, str] = field(compare=False)

    @property
    def rows(self) -> int:
        """Number of frames."""
        return sum(shard.rows for shard in self.shards)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Frames of the source that the store leaves out, in row order, each with its reason."""
        return tuple(item for shard in self.shards for item in shard.skipped)

    @property
    def digest(self) -> str:
        """Identity of the data: hex sha256 over the shards' hashes, in order."""
        return _identity(self.shards)

    def to_json(self) -> bytes:
        """Write the manifest file's content: the same store gives the same bytes."""
        clips = [{**asdict(clip), "frames": _runs(clip.frames)} for clip in self.sequences]
        shards = [_shard_values(shard) for shard in self.shards]
        totals = {"schema": VERSION, "digest": self.digest, "rows": self.rows}
        values = {**totals, **asdict(self), "sequences": clips, "shards": shards}
        return json.dumps({"checksum": _checksum(values), **values}, indent=1).encode()

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and check a store's manifest.

        Args:
            folder: The store's folder.

        Returns:
            The manifest.

        Raises:
            StoreError: The store is incomplete, its manifest is damaged, or a newer ncbench wrote it.
        """
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            state = "an unfinished store" if any(folder.glob("*data-*-of-*.arrow*")) else "not a store"
            raise StoreError(
                f"{folder}: {state} (no {MANIFEST}). Run `ncbench prepare`; finished shards are kept."
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"{path}: cannot be read ({error}). {_AGAIN}") from error
        newest = values.get("schema") if isinstance(values, dict) else None
        if isinstance(newest, int) and newest > VERSION:
            raise StoreError(f"{path}: store schema {newest}, but this ncbench reads up to {VERSION}. Update ncbench.")
        try:
            stated = values.pop("checksum", None)
            if stated != _checksum(values):
                raise StoreError(
                    f"{path}: is damaged (its content does not have the checksum that it states). {_AGAIN}"
                )
            return cls._parse(values)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise StoreError(f"{path}: is damaged ({error!r}). {_AGAIN}") from error

    @classmethod
    def _parse(cls, values: dict[str, Any]) -> Self:
        clips = tuple(SequenceRecord(**{**clip, "frames": _unroll(clip["frames"])}) for clip in values.pop("sequences"))
        shards = tuple(_shard(shard) for shard in values.pop("shards"))
        stated = {name: values.pop(name) for name in ("schema", "digest", "rows")}
        manifest = cls(sequences=clips, shards=shards, **values)
        agrees = stated == {"schema": VERSION, "digest": manifest.digest, "rows": manifest.rows}
        if not agrees or manifest.rows != sum(len(clip.frames) for clip in manifest.sequences):
            raise ValueError("its totals contradict its shards")
        return manifest


def seal(
    folder: Path,
    records: Sequence[ShardRecord],
    *,
    name: str,
    card_text: str,
    card_digest: str,
    recipe_digest: str,
    check: Callable[[Manifest], None] | None = None,
) -> Manifest:
    """Make a folder of finished shards a store; writes nothing where it is this very store already.

    Args:
        folder: Holds the shards.
        records: All shards in row order.
        name: Name of the data set.
        card_text: Content of ``card.yaml``.
        card_digest: Digest of the card.
        recipe_digest: Digest of the recipe.
        check: Called once shards and card are there but before anything opens them; where it raises, nothing ever does.

    Returns:
        The manifest, which is written last.

    Raises:
        SourceError: The shards do not fit together: a sequence in pieces, out of order, or of changing size.
        StoreError: A shard cannot be read, there is none, or the disk is full.
        NcbenchError: Whatever ``check`` raises.
    """
    if not records:
        raise StoreError(f"{folder}: a store needs at least one shard. Check that the source folder holds frames.")
    clips, schema = read_clips(folder / record.file for record in records)
    contents = small_files(records, schema, card_text)
    manifest = Manifest(
        name=name,
        card=card_digest,
        recipe=recipe_digest,
        sequences=clips,
        shards=tuple(records),
        files={file: hashlib.sha256(content).hexdigest() for file, content in contents.items()},
        written_with={
            "ncbench": ncbench.__version__,
            "pyarrow": pa.__version__,
            "zstd": ".".join(str(part) for part in zstandard.ZSTD_VERSION),
        },
    )
    sealed = _is_sealed(folder, manifest)
    if not sealed:
        unseal(folder)
        write_bytes(folder / CARD, contents.pop(CARD))
    if check is not None:
        try:
            check(manifest)
        except NcbenchError:
            unseal(folder)
            raise
    if sealed:
        return Manifest.load(folder)
    for file, content in [*contents.items(), (MANIFEST, manifest.to_json())]:
        write_bytes(folder / file, content)
    return manifest


def small_files(records: Sequence[ShardRecord], schema: pa.Schema, card_text: str) -> dict[str, bytes]:
    """Write the content of the files beside the shards; the manifest comes after them.

    Args:
        records: All shards in row order.
        schema: Of the shards.
        card_text: Content of ``card.yaml``.

    Returns:
        Name -> content.
    """
    return {
        CARD: card_text.encode(),
        INFO: dataset_info(schema),
        STATE: dataset_state((record.file for record in records), _identity(records)),
    }


def unseal(folder: Path) -> None:
    """Take away what makes a folder a store, before its shards change; the shards and the card stay.

    Raises:
        StoreError: A file cannot be removed.
    """
    for name in (MANIFEST, STATE, INFO):
        with writing(folder / name):
            (folder / name).unlink(missing_ok=True)
    with writing(folder):
        sync_folder(folder)


def _is_sealed(folder: Path, manifest: Manifest) -> bool:
    """Whether the folder says the same already; the library versions it was written with may differ."""
    try:
        same = Manifest.load(folder) == manifest
        return same and all(file_sha256(folder / file) == expected for file, expected in manifest.files.items())
    except StoreError:
        return False


def _identity(shards: Sequence[ShardRecord]) -> str:
    return hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(values)).hexdigest()


def _shard_values(shard: ShardRecord) -> dict[str, Any]:
    """Write a shard's record; without skipped frames, it does not speak of them."""
    values = asdict(shard)
    return values if shard.skipped else {key: value for key, value in values.items() if key != "skipped"}


def _shard(values: dict[str, Any]) -> ShardRecord:
    skipped = tuple(Skipped(**item) for item in values.get("skipped", ()))
    return ShardRecord(**{**values, "skipped": skipped})


def _runs(frames: tuple[int, ...]) -> list[list[int]]:
    """Write ascending integers as runs [start, stop, step]."""
    runs: list[list[int]] = []
    for frame in frames:
        run = runs[-1] if runs else None
        if run and run[1] - run[2] == run[0]:  # a run of one takes any step
            run[1], run[2] = frame + frame - run[0], frame - run[0]
        elif run and frame == run[1]:
            run[1] += run[2]
        else:
            runs.append([frame, frame + 1, 1])
    return runs


def _unroll(runs: list[list[int]]) -> tuple[int, ...]:
    return tuple(frame for start, stop, step in runs for frame in range(start, stop, step))
