"""What ``ncbench predict`` notes beside a prediction store: of the whole run, and of each sequence as it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ncbench.errors import StoreError
from ncbench.files import write_json, writing
from ncbench.models.sequence import Cost

RUN_FILE = "run.json"
RUN_SCHEMA = 1
SEQUENCES_FILE = "sequences.jsonl"


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


def write_run(folder: Path, values: dict[str, Any]) -> None:
    """Write the record of a run; values as ``read_run`` gives them.

    Raises:
        StoreError: The disk is full or the folder cannot be written.
    """
    write_json(folder / RUN_FILE, {"schema": RUN_SCHEMA, **values})


def add_cost(log: Path, cost: Cost) -> None:
    """Add a line to the log of sequences; several processes may do so at once.

    Raises:
        StoreError: The disk is full or the file cannot be written.
    """
    line = (json.dumps(asdict(cost)) + "\n").encode()
    with writing(log):
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line)  # one call: lines of several workers do not mix
        finally:
            os.close(handle)


def read_costs(folder: Path, sequences: Iterable[str]) -> list[Cost]:
    """Read what the sequences of a prediction store cost.

    Args:
        folder: The prediction store.
        sequences: Their names.

    Returns:
        The last record of each sequence that has one, in the order of ``sequences``.
    """
    found: dict[str, Cost] = {}
    path = folder / SEQUENCES_FILE
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            values = json.loads(line)
            found[values["sequence"]] = Cost(**{**values, "notes": tuple(values["notes"])})
        except (ValueError, TypeError, KeyError):  # a line that a killed process did not finish
            continue
    return [found[name] for name in sequences if name in found]


def summarize(costs: list[Cost]) -> dict[str, Any]:
    """Sum up the costs of sequences.

    Args:
        costs: One for each sequence.

    Returns:
        ``seconds`` in the model and ``frames_per_second`` over all of them, the largest ``peak_memory_bytes``, all
        ``device`` names, and each different note with the number of sequences that have it.
    """
    seconds = sum(cost.seconds for cost in costs)
    frames = sum(cost.frames for cost in costs)
    notes = [note for cost in costs for note in cost.notes]
    return {
        "seconds": round(seconds, 3),
        "frames_per_second": round(frames / seconds, 3) if seconds > 0 else None,
        "peak_memory_bytes": max((cost.peak_memory_bytes or 0 for cost in costs), default=0) or None,
        "device": ", ".join(dict.fromkeys(cost.device for cost in costs)),
        "notes": [f"{note} ({notes.count(note)} of {len(costs)} sequences)" for note in dict.fromkeys(notes)],
    }
