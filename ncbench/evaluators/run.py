"""From a prediction store and a data store to a result: one JSON, and one Parquet row for each frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from ncbench import catalog
from ncbench.cards import ModelCard, ProtocolCard
from ncbench.datasets.frame import Frame
from ncbench.datasets.store import Store, open_store
from ncbench.errors import NcbenchError, ScoreError
from ncbench.evaluators.angular import AngularState, angular_error, check_invariants, metric_name
from ncbench.files import file_sha256, replacing_file, write_json
from ncbench.models.run import RUN_FILE, prediction_folder, prediction_identity, read_run
from ncbench.protocol import open_target, protocol_digest, protocol_sequences
from ncbench.provenance import code_revision, machine, package_versions

RESULT_SCHEMA = 1
RESULT_FILE = "result.json"
FRAMES_FILE = "frames.parquet"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scores:
    """What scoring a prediction store gives.

    Attributes:
        frames: One row a frame: sequence, frame, status, error, pixels, invalid, then the metrics of that frame.
        state: Pooled statistics over the pixels of all scored frames.
    """

    frames: pd.DataFrame
    state: AngularState

    @property
    def failed(self) -> int:
        """How many frames could not be scored."""
        return int((self.frames["status"] != "scored").sum())


def score(preds: Store, target: Store, protocol: ProtocolCard, progress: Progress | None = None) -> Scores:
    """Score every frame that the protocol names; a frame that cannot be scored is a row with its error.

    Args:
        preds: Store of predictions.
        target: Store of the protocol's data set.
        protocol: What to score, and how.
        progress: Called with (frames done, frames in all).

    Returns:
        Rows and pooled statistics.

    Raises:
        ScoreError: The protocol names a sequence that the data set lacks.
    """
    plan = [(name, frame) for name, frames in protocol_sequences(protocol, target).items() for frame in frames]
    total = AngularState.empty(protocol.thresholds)
    rows: list[dict[str, Any]] = []
    for done, (sequence, frame) in enumerate(plan, start=1):
        row: dict[str, Any] = {"sequence": sequence, "frame": frame, "status": "scored", "error": ""}
        try:
            state = _score_frame(preds.read(sequence, frame, ()), target.read(sequence, frame, ()), protocol)
        except NcbenchError as error:
            rows.append(row | {"status": "failed", "error": str(error), "pixels": 0, "invalid": 0})
        else:
            rows.append(row | {"pixels": state.count, "invalid": state.invalid} | state.metrics())
            total += state
        if progress:
            progress(done, len(plan))
    columns = ["sequence", "frame", "status", "error", "pixels", "invalid", "mean", "median", "rmse"]
    return Scores(pd.DataFrame(rows, columns=columns + [metric_name(t) for t in protocol.thresholds]), total)


def evaluate(
    model: str,
    protocol: str,
    *,
    stores: Path = Path("data/stores"),
    predictions: Path = Path("data/predictions"),
    results: Path = Path("data/results"),
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Score stored predictions under a protocol and write ``<results>/<protocol>/<model>/``.

    Args:
        model: Name of a model card, or a path to a YAML file.
        protocol: Name of a protocol card, or a path to a YAML file.
        stores: Folder of prepared data sets.
        predictions: Folder of prediction stores (``ncbench predict`` writes them).
        results: Where the result goes.
        progress: Called with (frames done, frames in all).

    Returns:
        One row: model, protocol, status, counts and metrics.

    Raises:
        NcbenchError: A card, store or prediction store is missing or broken, or they do not belong together.
    """
    started = time.perf_counter()
    model_card, protocol_card = catalog.load(ModelCard, model), catalog.load(ProtocolCard, protocol)
    target = open_target(stores, protocol_card)
    folder = prediction_folder(predictions, model_card.name, protocol_card.name)
    preds = open_store(folder)
    run = read_run(folder)
    _check_belongs(run, model_card, target, folder)
    scores = score(preds, target, protocol_card, progress)
    out = results / protocol_card.name / model_card.name
    with replacing_file(out / FRAMES_FILE) as temporary:
        scores.frames.to_parquet(temporary, index=False)
    values = {
        "schema": RESULT_SCHEMA,
        "model": model_card.recipe()
        | {"title": model_card.title, "kind": model_card.kind, "training_sets": model_card.training_sets},
        "protocol": protocol_card.scoring() | {"title": protocol_card.title, "sha256": protocol_digest(protocol_card)},
        "dataset": {"name": protocol_card.dataset, "digest": target.manifest.digest},
        **summary(scores, where=f"{model_card.name} on {protocol_card.name}"),
        "frames_sha256": file_sha256(out / FRAMES_FILE),
        "predictions": {"digest": preds.manifest.digest} | run,
        "provenance": {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 3),
            "code": code_revision(),
            "machine": machine(),
            "packages": package_versions(),
        },
    }
    write_json(out / RESULT_FILE, values)
    row = {"model": model_card.name, "protocol": protocol_card.name, "status": values["status"]}
    return pd.DataFrame([row | values["counts"] | values["metrics"]])


def summary(scores: Scores, where: str) -> dict[str, Any]:
    """Reduce scores to what a result states; a partial set has counts but no averages.

    Args:
        scores: Rows and pooled statistics.
        where: Whose scores, for messages.

    Returns:
        ``status`` (``complete``, ``partial`` where a frame failed, ``empty`` where no pixel of the truth is valid),
        ``counts``, and ``metrics`` (empty unless complete).

    Raises:
        ScoreError: The metrics contradict one another.
    """
    failed, state = scores.failed, scores.state
    status = "partial" if failed else "complete" if state.count else "empty"
    metrics = state.metrics() if status == "complete" else {}
    if metrics:
        check_invariants(metrics, where)
    counts = {"frames": len(scores.frames), "scored": len(scores.frames) - failed, "failed": failed}
    counts |= {"pixels": state.count, "invalid_predictions": state.invalid}
    return {"status": status, "counts": counts, "metrics": metrics}


def _score_frame(pred: Frame, target: Frame, protocol: ProtocolCard) -> AngularState:
    if pred.size != target.size:
        raise ScoreError(
            f"sequence '{target.sequence}', frame {target.frame}: prediction is {pred.size[0]}x{pred.size[1]}, "
            f"truth is {target.size[0]}x{target.size[1]} (height x width). Predict at input size."
        )
    mask = target.valid
    errors = angular_error(pred.normal[mask], target.normal[mask])
    return AngularState.of(errors, protocol.thresholds, protocol.invalid_prediction)


def _check_belongs(run: dict[str, Any], model: ModelCard, target: Store, folder: Path) -> None:
    """Refuse predictions made from other data or by another version of the model than the cards name."""
    what = {"data_digest": "data", "model_digest": f"model card '{model.name}'"}
    for key, value in prediction_identity(model, target).items():
        if run.get(key) != value:
            raise ScoreError(
                f"{folder / RUN_FILE}: the predictions were made from another version of the {what[key]}. "
                "Predict again."
            )
