"""Run a model over a protocol's data and keep its answers in a store, so that scoring never needs the model."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from ncbench import catalog
from ncbench.cards import ModelCard, digest
from ncbench.datasets.manifest import Manifest
from ncbench.datasets.prepare import prepare
from ncbench.datasets.store import Store
from ncbench.errors import StoreError
from ncbench.models.execution import Execution, Progress, RunOptions, plan_execution
from ncbench.models.reader import prediction_recipe
from ncbench.models.record import RUN_FILE, SEQUENCES_FILE, read_costs, read_run, summarize, write_run
from ncbench.models.registry import load_adapter
from ncbench.protocol import open_target, protocol_sequences
from ncbench.protocol_card import ProtocolCard
from ncbench.provenance import code_revision, machine, package_versions

__all__ = ["RUN_FILE", "RunOptions", "predict", "prediction_folder", "prediction_identity", "read_run"]


def predict(
    model: str,
    protocol: str,
    *,
    stores: Path = Path("data/stores"),
    predictions: Path = Path("data/predictions"),
    overwrite: bool = False,
    progress: Progress | None = None,
    frame_progress: Progress | None = None,
    options: RunOptions | None = None,
) -> Path:
    """Predict every frame of a protocol and store the answers; finished sequences are kept.

    What is kept belongs to the same model card, weights, precision, seed, data and files. A model's *code* is not
    looked at: after editing an adapter, raise its card's version or overwrite.

    Args:
        model: Name of a model card, or a path to a YAML file.
        protocol: Name of a protocol card, or a path to a YAML file.
        stores: Folder of prepared data sets.
        predictions: Where prediction stores go.
        overwrite: Predict again whatever is there.
        progress: Called with (sequences done, sequences in all).
        frame_progress: Called with (frames done, frames in all) of the sequence at hand, where one process computes.
        options: Weights, devices, workers, precision, seed and batch size.

    Returns:
        The prediction store.

    Raises:
        NcbenchError: A card, a store or weights are missing or broken, or the model failed; finished sequences stay.
    """
    model_card, protocol_card = catalog.load(ModelCard, model), catalog.load(ProtocolCard, protocol)
    target = open_target(stores, protocol_card)
    folder = prediction_folder(predictions, model_card.name, protocol_card.name)
    if overwrite:
        for path in [*folder.glob("data-*-of-*.arrow"), folder / SEQUENCES_FILE]:
            path.unlink(missing_ok=True)
    plan = [[(name, tuple(frames))] for name, frames in protocol_sequences(protocol_card, target).items()]
    before = _shard_times(folder)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ncbench-", ignore_cleanup_errors=True) as scratch:
        execution = plan_execution(
            model_card,
            load_adapter(model_card),
            options or RunOptions(),
            Path(scratch),
            folder / SEQUENCES_FILE,
            frame_progress,
        )
        recipe = prediction_recipe(model_card, protocol_card, target, execution)
        manifest = prepare(recipe, folder, jobs=execution.workers, progress=progress, plan=plan)
    after = _shard_times(folder)
    done = sum(shard.rows for shard in manifest.shards if before.get(shard.file) != after[shard.file])
    identity = prediction_identity(model_card, target)
    if done == 0 and _recorded(folder, identity):
        return folder
    wall = {"frames": manifest.rows, "frames_predicted": done, "wall_seconds": round(time.perf_counter() - started, 3)}
    write_run(folder, {**identity, **wall, **_record(model_card, execution, folder, manifest)})
    return folder


def prediction_folder(predictions: Path, model: str, protocol: str) -> Path:
    """Name the store of one model under one protocol."""
    return predictions / protocol / model


def prediction_identity(model: ModelCard, target: Store) -> dict[str, str]:
    """Name what predictions belong to: the model's card without its prose, and the data, each by its digest."""
    return {"model_digest": digest(model.recipe()), "data_digest": target.manifest.digest}


def _record(model: ModelCard, execution: Execution, folder: Path, manifest: Manifest) -> dict[str, Any]:
    chosen = execution.options
    return {
        **summarize(read_costs(folder, [clip.name for clip in manifest.sequences])),
        "weights": None if execution.weights is None else execution.weights.record(),
        "precision": chosen.precision,
        "compile": chosen.compile,
        "seed": chosen.seed,
        "batch_size": chosen.batch_size,
        "workers": execution.workers,
        "deterministic": model.deterministic and load_adapter(model).deterministic,
        "code": code_revision(),
        "machine": machine(),
        "packages": package_versions(),
    }


def _recorded(folder: Path, identity: dict[str, str]) -> bool:
    try:
        return identity.items() <= read_run(folder).items()
    except StoreError:
        return False


def _shard_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("data-*-of-*.arrow")}
