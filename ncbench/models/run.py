"""Run a model over a protocol's data and keep its normals in a store, so that scoring never needs the model.

A model over a store is one more reader: the same machinery that prepares a data set makes the prediction store atomic,
resumable by sequence and verifiable.
"""

from __future__ import annotations

import hashlib
import json
import shutil
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
from ncbench.models.base import Clip, Truth
from ncbench.models.registry import LoadedModel, load_adapter
from ncbench.protocol import protocol_digest, protocol_sequences
from ncbench.provenance import code_revision, machine, package_versions, peak_memory_bytes, write_json
from ncbench.settings import Settings

RUN_FILE = "run.json"
RUN_SCHEMA = 1
_INPUTS = ("image", "intrinsics", "depth")


class PredictionSettings(Settings):
    """What the prediction reader is made from; plain values, so that a recipe can carry it."""

    model: dict[str, Any]
    protocol: dict[str, Any]


class PredictionReader:
    """A model over a data store, seen as a reader: its frames are predictions."""

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        parsed = PredictionSettings.parse(settings, where="prediction reader, settings")
        self._card = ModelCard.parse(parsed.model, where="model card")
        self._protocol = ProtocolCard.parse(parsed.protocol, where="protocol card")
        self._store = open_store(root)
        self._model = LoadedModel(self._card, load_adapter(self._card))
        self._normal_source = stored_card(root).normals if self._model.adapter.needs_truth else None

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List what the protocol covers."""
        return protocol_sequences(self._protocol, self._store)

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Predict one sequence, clip by clip."""
        clips = self._clips(sequence, frames)
        position = 0
        for normals in self._model.stream(clips):
            for normal in normals:
                yield Frame(sequence, frames[position], None, normal, np.any(normal != 0, axis=-1))
                position += 1

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Name the data that the predictions depend on; the model's card is part of the recipe."""
        text = json.dumps([self._store.manifest.digest, sequence, list(frames)])
        return hashlib.sha256(text.encode()).hexdigest()

    def extra_features(self) -> Mapping[str, Any]:
        """Predictions have no columns of their own."""
        return {}

    def _clips(self, sequence: str, frames: Sequence[int]) -> Iterator[Clip]:
        length = self._model.adapter.clip_length
        for start in range(0, len(frames), length):
            chunk = frames[start : start + length]
            rows = [self._store.read(sequence, frame, _INPUTS) for frame in chunk]
            yield _to_clip(rows, self._normal_source)


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

    What is kept belongs to the same model card, protocol and data. A model's *code* is not looked at: after editing an
    adapter, raise its card's version or overwrite.

    Args:
        model: Name of a model card.
        protocol: Name of a protocol card.
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
    target = open_store(stores / protocol_card.dataset)
    identity = prediction_identity(model_card, protocol_card, target)
    recipe = Recipe(
        name=model,
        reader=f"{__name__}:{PredictionReader.__name__}",
        settings={"model": model_card.model_dump(mode="json"), "protocol": protocol_card.model_dump(mode="json")},
        root=target.path,
        shard_rows=1,
        card_text=to_yaml(model_card),
        card_digest=digest(identity),
    )
    folder = prediction_folder(predictions, model, protocol)
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    elif _is_finished(folder, identity):
        return folder
    sequences = protocol_sequences(protocol_card, target)
    started = time.perf_counter()
    manifest = prepare(recipe, folder, progress=progress, plan=[[(n, tuple(f))] for n, f in sequences.items()])
    seconds = time.perf_counter() - started
    write_json(
        folder / RUN_FILE,
        {
            "schema": RUN_SCHEMA,
            **identity,
            "frames": manifest.rows,
            "seconds": round(seconds, 3),
            "frames_per_second": round(manifest.rows / seconds, 3),
            "peak_memory_bytes": peak_memory_bytes(),
            "device": "cpu",
            "code": code_revision(),
            "machine": machine(),
            "packages": package_versions(),
        },
    )
    return folder


def _is_finished(folder: Path, identity: dict[str, str]) -> bool:
    try:
        open_store(folder)
        return identity.items() <= read_run(folder).items()
    except StoreError:
        return False


def prediction_folder(predictions: Path, model: str, protocol: str) -> Path:
    """Name the store of one model under one protocol."""
    return predictions / protocol / model


def prediction_identity(model: ModelCard, protocol: ProtocolCard, target: Store) -> dict[str, str]:
    """Name what predictions belong to: the model's card, the protocol and the data, each by its digest."""
    return {
        "model_digest": digest(model.model_dump(mode="json")),
        "protocol_digest": protocol_digest(protocol),
        "data_digest": target.manifest.digest,
    }


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


def _to_clip(rows: list[Frame], normal_source: str | None) -> Clip:
    first = rows[0]
    missing = [row.frame for row in rows if row.image is None]
    if missing:
        raise ModelError(f"sequence '{first.sequence}', frame {missing[0]}: the store has no picture to predict from")
    truth = None
    if normal_source is not None:
        depths = [row.depth for row in rows if row.depth is not None]
        truth = Truth(
            normal=np.stack([row.normal for row in rows]),
            valid=np.stack([row.valid for row in rows]),
            depth=np.stack(depths) if len(depths) == len(rows) else None,
            normal_source=normal_source,
        )
    matrices = [row.intrinsics for row in rows if row.intrinsics is not None]
    return Clip(
        sequence=first.sequence,
        frames=tuple(row.frame for row in rows),
        images=np.stack([decode_image(row.image) for row in rows if row.image is not None]),
        intrinsics=np.stack(matrices) if len(matrices) == len(rows) else None,
        truth=truth,
    )
