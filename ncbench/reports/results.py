"""Result files in, checked: the only thing that reports are made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ncbench.errors import ScoreError
from ncbench.evaluators.angular import check_invariants
from ncbench.evaluators.run import FRAMES_FILE, RESULT_FILE, RESULT_SCHEMA


@dataclass(frozen=True)
class Result:
    """One (model, protocol) result.

    Attributes:
        folder: Where it lies.
        values: The result JSON.
    """

    folder: Path
    values: dict[str, Any]

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.values["model"]["name"])

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        return str(self.values["protocol"]["name"])

    @property
    def complete(self) -> bool:
        """Whether every frame was scored."""
        return bool(self.values["status"] == "complete")

    @property
    def metrics(self) -> dict[str, float]:
        """Pooled metrics; empty for a partial result."""
        return dict(self.values["metrics"])

    def column_key(self) -> tuple[str, str, str]:
        """What two results must share to stand in one table: protocol, its hash, and the data's digest."""
        return self.protocol, self.values["protocol"]["sha256"], self.values["dataset"]["digest"]

    def frames(self) -> pd.DataFrame:
        """Read the per-frame rows."""
        return pd.read_parquet(self.folder / FRAMES_FILE)


def load_results(folder: Path) -> list[Result]:
    """Read and check every result below a folder.

    Args:
        folder: Holds ``<protocol>/<model>/result.json``.

    Returns:
        Results sorted by protocol and model.

    Raises:
        ScoreError: There is none, or one is of another schema, or its numbers contradict one another.
    """
    paths = sorted(folder.glob(f"*/*/{RESULT_FILE}"))
    if not paths:
        raise ScoreError(
            f"{folder}: holds no <protocol>/<model>/{RESULT_FILE}. Run 'ncbench evaluate MODEL PROTOCOL' first."
        )
    return [_load(path) for path in paths]


def _load(path: Path) -> Result:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScoreError(f"{path}: cannot be read ({error}). Evaluate again.") from error
    schema = values.get("schema")
    if schema != RESULT_SCHEMA:
        raise ScoreError(
            f"{path}: result schema {schema}, this version reads {RESULT_SCHEMA}. Evaluate again, or update ncbench."
        )
    counts, metrics = values["counts"], values["metrics"]
    if counts["frames"] != counts["scored"] + counts["failed"]:
        raise ScoreError(
            f"{path}: {counts['frames']} frames are not {counts['scored']} scored + {counts['failed']} failed"
        )
    if (values["status"] == "complete") != (counts["failed"] == 0 and counts["pixels"] > 0):
        raise ScoreError(f"{path}: status '{values['status']}' contradicts its counts {counts}")
    if metrics:
        check_invariants(metrics, where=str(path))
    return Result(path.parent, values)
