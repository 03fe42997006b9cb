"""From predictions and a data store to a result: one JSON, and tables in Parquet beside it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ncbench import catalog
from ncbench.datasets.store import Store
from ncbench.engine import local
from ncbench.errors import ScoreError
from ncbench.evaluators.examiner import Examiner, Piece, plan_pieces
from ncbench.evaluators.framing import frame_view
from ncbench.evaluators.parts import Parts
from ncbench.evaluators.predictions import FolderOptions, FolderPredictions, PredictionSource, find_predictions
from ncbench.evaluators.probe import Diagnosis, ProbeOptions, Rule, probe_frames
from ncbench.evaluators.scoring import PieceScores, score_piece
from ncbench.evaluators.summary import Scores, gather, summarize
from ncbench.evaluators.view import FloatMap, View
from ncbench.files import file_sha256, replacing_file, write_json
from ncbench.protocol import open_target, protocol_digest, protocol_sequences
from ncbench.protocol_card import ProtocolCard
from ncbench.provenance import code_revision, machine, package_versions, peak_memory_bytes

RESULT_SCHEMA = 2
RESULT_FILE = "result.json"
FRAMES_FILE = "frames.parquet"
MEASURES_FILE = "measures.parquet"
SLICES_FILE = "slices.parquet"
UNITS_FILE = "units.npz"
PARTS_FOLDER = "parts"
_PROBED = ("depth", "intrinsics", "cam_to_world")  # what framing and the probe look at; decoding pictures takes longest
Progress = Callable[[int, int], None]
OnMistake = Literal["stop", "warn", "off"]


def score(
    source: PredictionSource,
    target: Store,
    protocol: ProtocolCard,
    *,
    jobs: int = 1,
    parts: Parts | None = None,
    flow_cache: Path | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score every frame that the protocol names; a frame that cannot be scored is a row with its error.

    Args:
        source: Where predictions come from.
        target: Store of the protocol's data set.
        protocol: What to score, and how.
        jobs: Processes that share the work; the scores are the same for any number.
        parts: Finished pieces of an earlier run; None scores all of them.
        flow_cache: Folder that estimated flow is kept in.
        progress: Called with (frames done, frames in all).

    Returns:
        The scores.

    Raises:
        NcbenchError: The protocol names a sequence that the data set lacks, or asks for what the data or this machine
            cannot give.
    """
    examiner = Examiner(protocol, target, source, flow_cache)
    pieces = plan_pieces(protocol, protocol_sequences(protocol, target))
    with local.started(functools.partial(score_piece, examiner), jobs, len(pieces)) as share:
        return _score(protocol, pieces, share, parts, progress)


def _score(
    protocol: ProtocolCard,
    pieces: Sequence[Piece],
    share: local.Share[Piece, PieceScores],
    parts: Parts | None,
    progress: Progress | None,
) -> Scores:
    finished: dict[Piece, PieceScores] = {}
    if parts:
        finished = {piece: scores for piece in pieces if (scores := parts.load(piece)) is not None}
    frames = sum(len(piece.frames) for piece in pieces)
    done = sum(len(piece.frames) for piece in finished)
    for piece, scores in share([piece for piece in pieces if piece not in finished]):
        finished[piece] = scores
        if parts:
            parts.keep(piece, scores)
        done += len(piece.frames)
        if progress:
            progress(done, frames)
    return gather(protocol, [finished[piece] for piece in pieces])


def probe(source: PredictionSource, target: Store, protocol: ProtocolCard) -> Diagnosis:
    """Look at some frames for wrong axes, encodings, places and orders.

    Args:
        source: Where predictions come from.
        target: Store of the protocol's data set.
        protocol: Its frames, crop and resolution, and how clear a mistake must be.

    Returns:
        The diagnosis.

    Raises:
        NcbenchError: The protocol names a sequence that the data set lacks, or scores depth.
    """
    if protocol.task != "normals":
        raise ScoreError(f"protocol '{protocol.name}' scores {protocol.task}: there are no axes to probe")
    examiner = Examiner(protocol, target, source)
    sequences = protocol_sequences(protocol, target)

    def read(sequence: str, frame: int) -> tuple[FloatMap, FloatMap | None, View]:
        view = examiner.view(sequence, frame, whole=False, columns=_PROBED)
        first = None
        if source.card.space == "first_camera":
            first = examiner.view(sequence, sequences[sequence][0], whole=False, columns=_PROBED)
        found = source.read(sequence, frame)
        if found.normal.shape[:2] == view.size[::-1] != view.size:
            return found.normal, found.raw, view  # lying on its side: the probe says so
        preds = examiner.framed(found.normal, view, first)
        return preds, found.raw if preds is found.normal else None, frame_view(view, protocol)

    rule = Rule(share=protocol.probe.share, degrees=protocol.probe.degrees)
    diagnosis = probe_frames(sequences, read, ProbeOptions(axes=source.card.axes, rule=rule))
    if diagnosis.fix == f"axes: {diagnosis.axes}" and isinstance(source, FolderPredictions):
        return replace(diagnosis, fix=f"--axes {diagnosis.axes}")  # a plain folder has no card to mend
    return diagnosis


def probe_named(
    preds: str | Path, protocol: str, *, stores: Path, predictions: Path, options: FolderOptions
) -> Diagnosis:
    """Probe what a user names; see ``evaluate`` for the arguments and ``probe`` for what comes back."""
    card = catalog.load(ProtocolCard, protocol)
    target = open_target(stores, card)
    return probe(find_predictions(preds, card.name, target, predictions, options, card.task), target, card)


def evaluate(
    preds: str | Path,
    protocol: str,
    *,
    stores: Path = Path("data/stores"),
    predictions: Path = Path("data/predictions"),
    results: Path = Path("data/results"),
    options: FolderOptions | None = None,
    jobs: int = 1,
    on_mistake: OnMistake = "stop",
    flow_cache: Path | None = Path("data/flow"),
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Score predictions under a protocol and write ``<results>/<protocol>/<model>/``; resumes by sequence.

    Args:
        preds: A model's name (``ncbench predict`` made its store), a prediction store, or a plain folder of files.
        protocol: Name of a protocol card, or a path to a YAML file.
        stores: Folder of prepared data sets.
        predictions: Folder of prediction stores.
        results: Where the result goes.
        options: What is stated about a plain folder: its axes above all.
        jobs: As in ``score``.
        on_mistake: What happens where the probe finds that the predictions are read wrongly: ``stop``; ``warn`` scores
            them all the same, and the result says so; ``off`` does not look.
        flow_cache: Folder that estimated flow is kept in; None keeps none.
        progress: Called with (frames done, frames in all).

    Returns:
        One row: model, protocol, status, counts, metrics, and ``mistake`` (empty where the probe found none).

    Raises:
        ScoreError: The probe found a mistake that makes numbers meaningless, and ``on_mistake`` is ``stop``.
        NcbenchError: A card, store or prediction is missing or broken, or they do not belong together.
    """
    started = time.perf_counter()
    card = catalog.load(ProtocolCard, protocol)
    target = open_target(stores, card)
    source = find_predictions(preds, card.name, target, predictions, options or FolderOptions(), card.task)
    model = source.card
    if model.space != "camera" and card.space == "camera":
        raise ScoreError(
            f"model '{model.name}' answers in the frame of the first camera; protocol '{card.name}' scores answers in "
            "each frame's own. Use a protocol with 'space: first_camera'."
        )
    where = f"{model.name} on {card.name}"
    out = results / card.name / model.name
    code = {"code": code_revision(), "packages": package_versions()}
    examiner = Examiner(card, target, source, flow_cache)
    pieces = plan_pieces(card, protocol_sequences(card, target))
    parts = Parts(out / PARTS_FOLDER, examiner, code)
    diagnosis = None
    with local.started(functools.partial(score_piece, examiner), jobs, len(pieces)) as share:
        if card.task == "normals" and on_mistake != "off":
            diagnosis = probe(source, target, card)
            if on_mistake == "stop":
                diagnosis.require(where)
        scores = _score(card, pieces, share, parts, progress)
    values = {
        "schema": RESULT_SCHEMA,
        "model": model.recipe() | {"title": model.title, "kind": model.kind, "training_sets": model.training_sets},
        "protocol": _protocol(card),
        "dataset": {"name": card.dataset, "digest": target.manifest.digest},
        **summarize(scores, where),
        "probe": _probe_record(diagnosis),
        "files": _write_tables(scores, out),
        "predictions": source.record(),
        "provenance": {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 3),
            "jobs": jobs,
            "peak_memory_bytes": peak_memory_bytes(),
            **code,
            "machine": machine(),
        },
    }
    write_json(out / RESULT_FILE, values)
    parts.clear()
    mistake = diagnosis.message if diagnosis and diagnosis.fix else ""
    row = {"model": model.name, "protocol": card.name, "status": values["status"]}
    return pd.DataFrame([row | values["counts"] | values["metrics"] | {"mistake": mistake}])


def _protocol(card: ProtocolCard) -> dict[str, Any]:
    return card.scoring() | {
        "resolution": card.resolution_text(),
        "title": card.title,
        "sha256": protocol_digest(card),
    }


def _probe_record(diagnosis: Diagnosis | None) -> dict[str, Any]:
    if diagnosis is None:
        return {"kind": "not_probed"}
    kept = {"kind": diagnosis.kind, "message": diagnosis.message, "fix": diagnosis.fix, "fatal": diagnosis.fatal}
    errors = {"error_declared": diagnosis.error_declared, "error_fixed": diagnosis.error_fixed}
    return kept | {name: None if value != value else value for name, value in errors.items()}


def _write_tables(scores: Scores, out: Path) -> dict[str, str]:
    """Write the tables; returns the sha256 of each by name. A table of an earlier result that has none now goes."""
    tables = {
        FRAMES_FILE: scores.frames,
        MEASURES_FILE: scores.measure_rows() if scores.measures else None,
        SLICES_FILE: scores.slices.frame() if scores.slices else None,
    }
    for name, table in tables.items():
        if table is None:
            (out / name).unlink(missing_ok=True)
            continue
        with replacing_file(out / name) as temporary:
            table.to_parquet(temporary, index=False)
    if scores.units:
        scores.units.save(out / UNITS_FILE)
    else:
        (out / UNITS_FILE).unlink(missing_ok=True)
    names = [*tables, UNITS_FILE]
    return {name: file_sha256(out / name) for name in names if (out / name).is_file()}
