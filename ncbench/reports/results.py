"""Result files in, checked: the only thing that tables are made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, Field, ValidationError

from ncbench.errors import ScoreError
from ncbench.evaluators.angular import angular_only, check_invariants
from ncbench.evaluators.run import FRAMES_FILE, RESULT_FILE, RESULT_SCHEMA
from ncbench.files import file_sha256


class ResultModel(BaseModel):
    """The model of a result."""

    name: str
    title: str
    kind: str
    training_sets: list[str]


class ResultProtocol(BaseModel):
    """The protocol of a result, as far as a table's footer names it."""

    name: str
    version: str
    title: str
    sha256: str
    mask: str
    resolution: str
    pooling: str
    invalid_prediction: float
    task: str = "normals"
    crop: dict[str, int] = Field(default_factory=dict)
    thresholds: list[float] = Field(default_factory=list)


class ResultDataset(BaseModel):
    """The data of a result."""

    name: str
    digest: str


class Counts(BaseModel):
    """What was scored."""

    frames: int
    scored: int
    failed: int
    pixels: int
    invalid_predictions: int


class Intervals(BaseModel):
    """Confidence intervals of a result; empty where none were drawn."""

    confidence: float | None = None
    unit: str = ""
    units: int = 0
    note: str = ""
    metrics: dict[str, tuple[float, float]] = Field(default_factory=dict)


class Temporal(BaseModel):
    """What a reader must know of temporal or depth metrics; empty where there are none."""

    flow: str = ""
    coverage: dict[str, float] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)


class ProbeRecord(BaseModel):
    """What the probe said of the predictions."""

    kind: str
    message: str = ""
    fix: str = ""
    fatal: bool = False


class ResultFile(BaseModel):
    """The result JSON; keys that no table needs are not looked at."""

    model: ResultModel
    protocol: ResultProtocol
    dataset: ResultDataset
    status: Literal["complete", "partial", "empty"]
    counts: Counts
    metrics: dict[str, float]
    intervals: Intervals
    temporal: Temporal
    probe: ProbeRecord
    files: dict[str, str]


@dataclass(frozen=True)
class Result:
    """One (model, protocol) result.

    Attributes:
        folder: Where it lies.
        values: What its JSON says.
    """

    folder: Path
    values: ResultFile

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.values.model.name

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        return self.values.protocol.name

    def table_key(self) -> tuple[str, str, str, str]:
        """What two results must share to stand in one table: protocol, its hash, the data's digest, and the flow."""
        return self.protocol, self.values.protocol.sha256, self.values.dataset.digest, self.values.temporal.flow

    def frames(self) -> pd.DataFrame:
        """Read the per-frame rows.

        Raises:
            ScoreError: They are missing, or are not those that the result was made with.
        """
        path = self.folder / FRAMES_FILE
        if not path.is_file() or file_sha256(path) != self.values.files.get(FRAMES_FILE):
            raise ScoreError(f"{path}: is missing or is not the file that {RESULT_FILE} was made with. Evaluate again.")
        return pd.read_parquet(path)


def load_results(folder: Path) -> list[Result]:
    """Read and check every result below a folder.

    Args:
        folder: Holds ``<protocol>/<model>/result.json``.

    Returns:
        Results sorted by protocol and model.

    Raises:
        ScoreError: There is none, or one is of another schema, lies under another name, or contradicts itself.
    """
    paths = sorted(folder.glob(f"*/*/{RESULT_FILE}"))
    if not paths:
        raise ScoreError(
            f"{folder}: holds no <protocol>/<model>/{RESULT_FILE}. Run 'ncbench evaluate MODEL --protocol PROTOCOL' "
            "first."
        )
    return [_load(path) for path in paths]


def _load(path: Path) -> Result:
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScoreError(f"{path}: cannot be read ({error}). Evaluate again.") from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if schema != RESULT_SCHEMA:
        raise ScoreError(
            f"{path}: result schema {schema}, this version reads {RESULT_SCHEMA}. Evaluate again, or update ncbench."
        )
    try:
        result = Result(path.parent, ResultFile.model_validate(raw))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ScoreError(f"{path}: key '{where}': {first['msg']}. Evaluate again.") from error
    _check_consistent(result, path)
    return result


def _check_consistent(result: Result, path: Path) -> None:
    values, counts = result.values, result.values.counts
    named = f"{result.protocol}/{result.model}"
    if (path.parent.parent.name, path.parent.name) != (result.protocol, result.model):
        raise ScoreError(f"{path}: is a result of {named} and must lie in a folder of that name. Move or remove it.")
    if counts.frames != counts.scored + counts.failed:
        raise ScoreError(f"{path}: {counts.frames} frames are not {counts.scored} scored + {counts.failed} failed")
    expected = "partial" if counts.failed else "complete" if counts.pixels else "empty"
    if values.status != expected or bool(values.metrics) != (expected == "complete"):
        raise ScoreError(f"{path}: status '{values.status}' contradicts its counts ({expected}) or metrics")
    if values.metrics and values.protocol.task == "normals":
        try:
            check_invariants(angular_only(values.metrics), where=str(path))
        except KeyError as error:
            raise ScoreError(f"{path}: metric {error} is missing. Evaluate again.") from error
