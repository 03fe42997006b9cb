"""Run a model over a protocol's data and keep its normals in a store, so that scoring never needs the model.

A model over a store is one more reader: the same machinery that prepares a data set makes the prediction store atomic,
resumable by sequence and verifiable.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ncbench import catalog
from ncbench.cards import ModelCard, ProtocolCard, digest, to_yaml
from ncbench.datasets.frame import Frame
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import Recipe, stored_card
from ncbench.datasets.store import Store, decode_image, open_store
from ncbench.errors import ModelError, StoreError
from ncbench.files import write_json
from ncbench.models.base import Clip, Truth
from ncbench.models.registry import LoadedModel, load_adapter
from ncbench.protocol import open_target, protocol_sequences
from ncbench.provenance import code_revision, machine, package_versions, peak_memory_bytes
from ncbench.settings import Settings

RUN_FILE = "run.json"
RUN_SCHEMA = 1


class PredictionSettings(Settings):
    """What the prediction reader is made from; plain values, so that a recipe can carry it."""

    model: dict[str, Any]
    sequences: dict[str, list[int]]


class PredictionReader:
    """A model over a data store, seen as a reader: its frames are predictions."""

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        parsed = PredictionSettings.parse(settings, where="prediction reader, settings")
        # a recipe carries no prose: what a model is called changes no prediction
        card = ModelCard.parse({"title": "", "summary": "", "kind": "image", **parsed.model}, where="model card")
        self._sequences = parsed.sequences
        self._store = open_store(root)
        self._model = LoadedModel(card, load_adapter(card))
        self._normal_source = stored_card(root).normals if self._model.adapter.needs_truth else None

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List what is to be predicted."""
        return self._sequences

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Predict one sequence, clip by clip."""
        position = 0
        for normals in self._model.stream(self._clips(sequence, frames)):
            for normal in normals:
                yield Frame(sequence, frames[position], None, normal, np.any(normal != 0, axis=-1))
                position += 1

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Name the data and the files that the predictions depend on; the model's card is part of the recipe."""
        own = self._model.adapter.fingerprint(sequence, frames)
        return digest({"data": self._store.manifest.digest, "model": own})

    def extra_features(self) -> Mapping[str, Any]:
        """Predictions have no columns of their own."""
        return {}

    def _clips(self, sequence: str, frames: Sequence[int]) -> Iterator[Clip]:
        length = self._model.adapter.clip_length
        for start in range(0, len(frames), length):
            chunk = tuple(frames[start : start + length])
            yield self._clip(sequence, chunk)

    def _clip(self, sequence: str, frames: tuple[int, ...]) -> Clip:
        rows = [self._store.values(self._store.index(sequence, frame), ("image", "intrinsics")) for frame in frames]
        missing = [frame for frame, row in zip(frames, rows, strict=True) if row["image"] is None]
        if missing:
            raise ModelError(f"sequence '{sequence}', frame {missing[0]}: the store has no picture to predict from")
        return Clip(
            sequence=sequence,
            frames=frames,
            images=np.stack([decode_image(row["image"]) for row in rows]),
            intrinsics=_stacked([row["intrinsics"] for row in rows]),
            truth=self._truth(sequence, frames) if self._normal_source else None,
        )

    def _truth(self, sequence: str, frames: tuple[int, ...]) -> Truth:
        rows = [self._store.read(sequence, frame, ("depth",)) for frame in frames]
        return Truth(
            normal=np.stack([row.normal for row in rows]),
            valid=np.stack([row.valid for row in rows]),
            depth=_stacked([row.depth for row in rows]),
            normal_source=str(self._normal_source),
        )


def predict(
    model: str,
    protocol: str,
    *,
    stores: Path = Path("data/stores"),
    predictions: Path = Path("data/predictions"),
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Predict every frame of a protocol and store the normals; finished sequences are kept.

    What is kept belongs to the same model card, data and files. A model's *code* is not looked at: after editing an
    adapter, raise its card's version or overwrite.

    Args:
        model: Name of a model card, or a path to a YAML file.
        protocol: Name of a protocol card, or a path to a YAML file.
        stores: Folder of prepared data sets.
        predictions: Where prediction stores go.
        overwrite: Predict again whatever is there.
        progress: Called with (sequences done, sequences in all).

    Returns:
        The prediction store.

    Raises:
        NcbenchError: A card or store is missing or broken, or the model failed; finished sequences stay.
    """
    model_card, protocol_card = catalog.load(ModelCard, model), catalog.load(ProtocolCard, protocol)
    target = open_target(stores, protocol_card)
    folder = prediction_folder(predictions, model_card.name, protocol_card.name)
    if overwrite:
        for path in folder.glob("data-*-of-*.arrow"):
            path.unlink()
    recipe = prediction_recipe(model_card, protocol_card, target)
    plan = [[(name, tuple(frames))] for name, frames in protocol_sequences(protocol_card, target).items()]
    before = _shard_times(folder)
    started = time.perf_counter()
    manifest = prepare(recipe, folder, progress=progress, plan=plan)
    seconds = time.perf_counter() - started
    after = _shard_times(folder)
    done = sum(shard.rows for shard in manifest.shards if before.get(shard.file) != after[shard.file])
    identity = prediction_identity(model_card, target)
    if done == 0 and _recorded(folder, identity):
        return folder
    write_json(
        folder / RUN_FILE,
        {
            "schema": RUN_SCHEMA,
            **identity,
            "frames": manifest.rows,
            "frames_predicted": done,
            "seconds": round(seconds, 3),
            "frames_per_second": round(done / seconds, 3),
            "peak_memory_bytes": peak_memory_bytes(),
            "device": load_adapter(model_card).device,
            "code": code_revision(),
            "machine": machine(),
            "packages": package_versions(),
        },
    )
    return folder


def prediction_recipe(model: ModelCard, protocol: ProtocolCard, target: Store) -> Recipe:
    """Say how a prediction store is made: by the model's card, over the protocol's frames of a data store."""
    settings = {"model": model.recipe(), "sequences": protocol_sequences(protocol, target)}
    return Recipe(
        name=model.name,
        reader=f"{__name__}:{PredictionReader.__name__}",
        settings=settings,
        root=target.path,
        shard_rows=1,
        card_text=to_yaml(model),
        card_digest=digest(model.recipe()),
    )


def prediction_folder(predictions: Path, model: str, protocol: str) -> Path:
    """Name the store of one model under one protocol."""
    return predictions / protocol / model


def prediction_identity(model: ModelCard, target: Store) -> dict[str, str]:
    """Name what predictions belong to: the model's card without its prose, and the data, each by its digest."""
    return {"model_digest": digest(model.recipe()), "data_digest": target.manifest.digest}


def read_run(folder: Path) -> dict[str, Any]:
    """Read what ``predict`` recorded beside a prediction store.

    Args:
        folder: The prediction store.

    Returns:
        The record.

    Raises:
        StoreError: There is none, or it is of another schema.
    """
    path = folder / RUN_FILE
    try:
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}). Run 'ncbench predict' again.") from error
    if run.pop("schema", None) != RUN_SCHEMA:
        raise StoreError(f"{path}: is of another schema than {RUN_SCHEMA}. Run 'ncbench predict' again.")
    return run


def _recorded(folder: Path, identity: dict[str, str]) -> bool:
    try:
        return identity.items() <= read_run(folder).items()
    except StoreError:
        return False


def _shard_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("data-*-of-*.arrow")}


def _stacked(arrays: list[Any]) -> Any:  # noqa: ANN401 - the common type of the arrays
    """Stack the frames' arrays; None where any frame has none."""
    return None if any(array is None for array in arrays) else np.stack(arrays)
