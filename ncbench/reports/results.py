"""Result files in, checked: the only thing that tables are made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import pandas as pd
from pydantic import AfterValidator, BaseModel, Field, FiniteFloat, ValidationError

from ncbench.errors import ScoreError
from ncbench.evaluators.invariants import angular_only, check_invariants
from ncbench.evaluators.run import FRAMES_FILE, RESULT_FILE, RESULT_SCHEMA, UNITS_FILE
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.files import file_sha256
from ncbench.protocol_card import ClipWindows
from ncbench.protocol_card import Intervals as DrawnIntervals

FIRST_SCHEMA = 1


def _printable(text: str) -> str:
    """Bring text to one line of visible signs: a terminal obeys others, and some turn the text after them around."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in " ".join(text.split()))


Line = Annotated[str, AfterValidator(_printable)]


class ResultModel(BaseModel):
    """The model of a result."""

    name: str
    title: Line
    kind: str
    training_sets: list[str]
    axes: str = ""


class ResultProtocol(BaseModel):
    """The protocol of a result, as far as a table's footer names it."""

    name: str
    version: str
    title: Line
    sha256: str
    mask: str
    resolution: str
    pooling: Literal["pixels", "frames", "sequences"]
    invalid_prediction: float
    task: str = "normals"
    crop: dict[str, int] = Field(default_factory=dict)
    thresholds: list[float] = Field(default_factory=list)
    clips: ClipWindows | None = None
    decimals: int | None = None
    intervals: DrawnIntervals = DrawnIntervals()


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
    metrics: dict[str, tuple[FiniteFloat, FiniteFloat]] = Field(default_factory=dict)


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


class Code(BaseModel):
    """Which code ran; empty where git did not know."""

    commit: str | None = None
    dirty: bool | None = None

    def __str__(self) -> str:
        """Short commit, with ``-dirty`` where files had been changed; empty where it is unknown."""
        return (self.commit or "")[:12] + ("-dirty" if self.commit and self.dirty else "")


class Provenance(BaseModel):
    """When and by what a result was made."""

    created: str = ""
    code: Code = Code()
    packages: dict[str, str] = Field(default_factory=dict)


class Run(BaseModel):
    """What predicting cost, and where it ran; empty for files that somebody brought."""

    frames_per_second: FiniteFloat | None = None
    peak_memory_bytes: int | None = None
    device: str = ""
    precision: str = ""
    code: Code = Code()


class ResultFile(BaseModel):
    """The result JSON; keys that no table needs are not looked at."""

    schema_version: int = Field(alias="schema")
    model: ResultModel
    protocol: ResultProtocol
    dataset: ResultDataset
    status: Literal["complete", "partial", "empty"]
    counts: Counts
    metrics: dict[str, FiniteFloat]
    intervals: Intervals
    temporal: Temporal
    probe: ProbeRecord
    files: dict[str, str]
    predictions: Run = Run()
    provenance: Provenance = Provenance()


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

    @property
    def link(self) -> str:
        """URL of the copy of its JSON within a report's folder."""
        return quote(f"results/{self.protocol}/{self.model}.json")

    def units(self) -> UnitStatistics:
        """Read the statistics of every frame.

        Raises:
            ScoreError: They are missing, or are not those that the result was made with.
        """
        return UnitStatistics.load(self.own_file(UNITS_FILE))

    def table_key(self) -> tuple[str, str, str, str]:
        """What two results must share to stand in one table: protocol, its hash, the data's digest, and the flow."""
        return self.protocol, self.values.protocol.sha256, self.values.dataset.digest, self.values.temporal.flow

    def frames(self) -> pd.DataFrame:
        """Read the per-frame rows.

        Raises:
            ScoreError: They are missing, or are not those that the result was made with.
        """
        return pd.read_parquet(self.own_file(FRAMES_FILE))

    def own_file(self, name: str) -> Path:
        """Find a file beside the result.

        Raises:
            ScoreError: It is missing, or is not the one that the result was made with.
        """
        path = self.folder / name
        if not path.is_file() or file_sha256(path) != self.values.files.get(name):
            raise ScoreError(f"{path}: is missing or is not the file that {RESULT_FILE} was made with. Evaluate again.")
        return path


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
    if schema not in (FIRST_SCHEMA, RESULT_SCHEMA):
        raise ScoreError(
            f"{path}: result schema {schema}, this version reads {FIRST_SCHEMA} and {RESULT_SCHEMA}. Evaluate again, "
            "or update ncbench."
        )
    try:
        raw = _upgraded(raw) if schema == FIRST_SCHEMA else raw
        result = Result(path.parent, ResultFile.model_validate(raw))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ScoreError(f"{path}: key '{where}': {first['msg']}. Evaluate again.") from error
    _check_consistent(result, path)
    return result


def _upgraded(raw: dict[str, Any]) -> dict[str, Any]:
    """Spell a result of the first schema as one of today's: what it did not state stays empty."""
    values = raw | {"intervals": {}, "temporal": {}, "probe": {"kind": "not_probed"}, "files": {}}
    protocol = raw.get("protocol")
    if isinstance(protocol, dict) and isinstance(protocol.get("card"), dict):
        values["protocol"] = protocol["card"] | protocol
    counts = raw.get("counts")
    if raw.get("status") == "partial" and isinstance(counts, dict) and not counts.get("failed"):
        values["status"] = "empty"  # the first schema had no word for truth without a valid pixel
    return values


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
        except ValueError as error:  # an accuracy below no number of degrees
            raise ScoreError(f"{path}: holds a metric of unknown name ({error}). Evaluate again.") from error
