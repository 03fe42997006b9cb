"""A model over a store is one more reader: its frames are predictions.

The machinery that prepares a data set so makes the prediction store atomic, resumable by sequence and verifiable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ncbench.cards import ModelCard, digest, to_yaml
from ncbench.datasets.frame import Frame
from ncbench.datasets.pictures import decode_image
from ncbench.datasets.readers.base import Reader
from ncbench.datasets.recipe import Recipe, stored_card
from ncbench.datasets.store import Store, open_store
from ncbench.errors import ModelError
from ncbench.models.base import Answer, Clip, Precision, Truth
from ncbench.models.execution import Execution
from ncbench.models.memory import Device
from ncbench.models.record import add_cost
from ncbench.models.registry import LoadedModel, load_adapter
from ncbench.models.sequence import SequenceRunner
from ncbench.protocol import protocol_sequences
from ncbench.protocol_card import ProtocolCard
from ncbench.settings import Settings

CONFIDENCE = "confidence"


class PredictionSettings(Settings):
    """What the prediction reader is made from, all of it part of the store's identity; plain values."""

    model: dict[str, Any]
    sequences: dict[str, list[int]]
    precision: Precision = "fp32"
    seed: int = 0


@dataclass(frozen=True)
class PredictionRecipe(Recipe):
    """How a prediction store is made, and where; the latter is not part of its identity."""

    execution: Execution = field(default_factory=Execution)

    def open_reader(self) -> Reader:
        """Make a reader; no weights are loaded yet."""
        return PredictionReader(self.root, self.settings, self.execution)


class PredictionReader:
    """A model over a data store, seen as a reader.

    Args:
        root: The data store.
        settings: As ``PredictionSettings``.
        execution: Where it computes.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any], execution: Execution | None = None) -> None:
        parsed = PredictionSettings.parse(settings, where="prediction reader, settings")
        # a recipe carries no prose: what a model is called changes no prediction
        self._card = ModelCard.parse({"title": "", "summary": "", "kind": "image", **parsed.model}, where="model card")
        self._sequences = parsed.sequences
        self._execution = execution or Execution()
        self._store = open_store(root)
        self._adapter = load_adapter(self._card)
        source = stored_card(root)
        self._normal_source = source.normals if self._adapter.needs_truth else None
        self._fps = source.fps

    @cached_property
    def _runner(self) -> SequenceRunner:
        """Loaded in the process that predicts, and only where there is something to predict."""
        device = self._execution.claim()
        model = LoadedModel(self._card, self._adapter, self._execution.runtime(device))
        model.load()
        self._execution.share_processors(device)
        return SequenceRunner(model, Device(device), self._execution.options.batch_size, self._execution.progress)

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List what is to be predicted."""
        return self._sequences

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Predict one sequence, clip by clip."""
        position = 0
        answers = self._runner.run(
            sequence, frames, lambda chunk: self._clip(sequence, chunk), self._execution.options.seed
        )
        for answer in answers:
            for frame in self._frames(sequence, frames[position:], answer):
                yield frame
                position += 1
        if self._execution.log is not None:
            add_cost(self._execution.log, self._runner.cost)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Name the data, the weights and the files that the predictions depend on; the card is part of the recipe."""
        weights = self._execution.weights
        return digest(
            {
                "data": self._store.manifest.digest,
                "weights": {} if weights is None else dict(weights.sha256),
                "model": self._adapter.fingerprint(sequence, frames),
            }
        )

    def extra_features(self) -> Mapping[str, pa.DataType]:
        """Declare a column for the confidence of a model that has one."""
        return {CONFIDENCE: pa.large_binary()} if self._adapter.gives_confidence else {}

    def _frames(self, sequence: str, indices: Sequence[int], answer: Answer) -> Iterator[Frame]:
        for index, normal, depth, confidence in zip(indices, *_maps(answer), strict=False):
            extra = {CONFIDENCE: confidence} if self._adapter.gives_confidence else {}
            yield Frame(sequence, index, None, normal, np.any(normal != 0, axis=-1), depth=depth, extra=extra)

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
            fps=self._fps,
        )

    def _truth(self, sequence: str, frames: tuple[int, ...]) -> Truth:
        rows = [self._store.read(sequence, frame, ("depth",)) for frame in frames]
        return Truth(
            normal=np.stack([row.normal for row in rows]),
            valid=np.stack([row.valid for row in rows]),
            depth=_stacked([row.depth for row in rows]),
            normal_source=str(self._normal_source),
        )


def prediction_recipe(
    model: ModelCard, protocol: ProtocolCard, target: Store, execution: Execution | None = None
) -> PredictionRecipe:
    """Say how a prediction store is made: by the model's card, over the protocol's frames of a data store."""
    where = execution or Execution()
    settings = {
        "model": {**model.recipe(), "normals": model.normals, "depth": model.depth},
        "sequences": protocol_sequences(protocol, target),
        "precision": where.options.precision,
        "seed": where.options.seed,
    }
    return PredictionRecipe(
        name=model.name,
        reader=f"{__name__}:{PredictionReader.__name__}",
        settings=settings,
        root=target.path,
        shard_rows=1,
        card_text=to_yaml(model),
        card_digest=digest(model.recipe()),
        execution=where,
    )


def _maps(answer: Answer) -> tuple[Iterable[Any], ...]:
    """Give normals, depth and confidence frame by frame: zero for normals and None for others that there are not."""
    depth, confidence = answer.depth, answer.confidence
    normal = answer.normal
    if normal is None:  # then there is depth
        normal = np.zeros((*np.asarray(depth).shape, 3), np.float32)
    nothing = [None] * len(normal)
    return normal, nothing if depth is None else depth, nothing if confidence is None else confidence


def _stacked(arrays: list[Any]) -> Any:  # noqa: ANN401 - the common type of the arrays
    """Stack the frames' arrays; None where any frame has none."""
    return None if any(array is None for array in arrays) else np.stack(arrays)
