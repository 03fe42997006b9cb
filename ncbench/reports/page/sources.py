"""The truth and the predictions that a table's results were scored with, opened for the viewer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ncbench.cards import ModelCard, read_yaml
from ncbench.datasets.manifest import CARD
from ncbench.datasets.store import Store, open_store
from ncbench.errors import NcbenchError, StoreError
from ncbench.evaluators.examiner import Examiner
from ncbench.evaluators.predictions import StoredPredictions
from ncbench.evaluators.run import RESULT_FILE
from ncbench.models.run import prediction_folder
from ncbench.protocol_card import ProtocolCard
from ncbench.reports.layout import Table
from ncbench.reports.results import Result


@dataclass(frozen=True)
class Shown:
    """A model that the viewer shows.

    Attributes:
        index: Its row in the table.
        examiner: Reads its predictions on the scored pixels.
    """

    index: int
    examiner: Examiner


@dataclass(frozen=True)
class Sources:
    """What a protocol's pictures are made from.

    Attributes:
        shown: Models with predictions, best first.
        notices: What is missing, in words; the numbers stand without pictures.
    """

    shown: list[Shown]
    notices: list[str]


def open_sources(table: Table, stores: Path, predictions: Path, most: int) -> Sources:
    """Open the stores of a table's results; those of other data or another run are not shown.

    Args:
        table: The table.
        stores: Folder of prepared data sets.
        predictions: Folder of prediction stores.
        most: How many models at most.

    Returns:
        What is there.
    """
    first = table.results[0].values
    if first.protocol.task != "normals":
        return Sources([], [f"No pictures: this protocol scores {first.protocol.task}, and the viewer shows normals."])
    try:
        target = open_store(stores / first.dataset.name)
        if target.manifest.digest != first.dataset.digest:
            found = target.manifest.digest[:12]
            raise StoreError(f"the store of {first.dataset.name} is of another version (digest {found}).")
        protocol = _protocol(table.results[0])
    except NcbenchError as error:
        return Sources([], [f"No pictures: {error}"])
    shown: list[Shown] = []
    notices = []
    for index, result in enumerate(table.results):
        if len(shown) == most:
            notices.append(f"The viewer holds the first {most} of {len(table.results)} models.")
            break
        try:
            shown.append(Shown(index, _examiner(result, protocol, target, predictions)))
        except NcbenchError as error:
            notices.append(f"No pictures of {result.values.model.title}: {error}")
    return Sources(shown, notices)


def raw_result(result: Result) -> dict[str, Any]:
    """Read a result's JSON whole."""
    values: dict[str, Any] = json.loads((result.folder / RESULT_FILE).read_text(encoding="utf-8"))
    return values


def _protocol(result: Result) -> ProtocolCard:
    """Make the protocol from the result itself: the card of that name may have changed since."""
    values = {key: value for key, value in raw_result(result)["protocol"].items() if key != "sha256"}
    values = {"dataset": result.values.dataset.name, "summary": ""} | values
    return ProtocolCard.parse(values, str(result.folder / RESULT_FILE))


def _examiner(result: Result, protocol: ProtocolCard, target: Store, predictions: Path) -> Examiner:
    folder = prediction_folder(predictions, result.model, result.protocol)
    store = open_store(folder)
    scored = (raw_result(result).get("predictions") or {}).get("digest")
    if store.manifest.digest != scored:
        raise StoreError(f"{folder}: holds other predictions than those that were scored.")
    card = ModelCard.parse(read_yaml(folder / CARD), str(folder / CARD))
    return Examiner(protocol, target, StoredPredictions(store, card))
