"""The cards' schemas, and the only code that reads YAML.

A card says *what* is benchmarked; it is data, so listing and checking cards imports no reader, model or metric.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, model_validator

from ncbench.errors import CardError
from ncbench.files import canonical
from ncbench.settings import Settings
from ncbench.sources import Attribute, Source

AxesName = Literal["opencv", "opengl", "dsine", "ldf"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
SemVer = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]


class Licence(Settings):
    """Under what terms data or weights may be used and passed on."""

    name: str
    redistribution: bool
    note: str = ""


class DatasetCard(Settings):
    """``datasets/<name>.yaml``: where a data set comes from and how it becomes a store.

    ``axes`` are those of the normals in the source files; null where the reader derives normals from depth. ``frames``
    is how many the complete set has with these settings; null where it is open-ended or not published.
    """

    name: Name
    version: SemVer
    title: str
    summary: str
    role: Literal["train", "test", "both"]
    homepage: str = ""
    citation: str = ""
    licence: Licence
    source: Source
    reader: Attribute
    settings: dict[str, Any] = Field(default_factory=dict)
    axes: AxesName | None
    normals: Literal["file", "plane_fit", "cross_product", "analytic", "none"]
    shard_rows: int = Field(default=64, ge=1, le=100_000)
    frames: int | None = Field(default=None, ge=1)

    def reader_settings(self) -> dict[str, Any]:
        """Return what the reader is made from: the settings block, and the axes where the files hold normals."""
        return self.settings | ({"axes": self.axes} if self.axes else {})

    def recipe(self) -> dict[str, Any]:
        """Return the part of the card that the bytes of a store depend on; prose is left out."""
        return {
            "name": self.name,
            "version": self.version,
            "reader": self.reader,
            "settings": self.settings,
            "axes": self.axes,
            "normals": self.normals,
            "shard_rows": self.shard_rows,
        }


class Weights(Settings):
    """Pinned weights of a learned model."""

    repository: str
    revision: str
    files: dict[str, str] = Field(default_factory=dict)
    licence: Licence


class ModelCard(Settings):
    """``models/<name>.yaml``: an adapter, its settings, and the axes that it answers in."""

    name: Name
    version: SemVer
    title: str
    summary: str
    kind: Literal["control", "image", "video", "predictions"]
    adapter: Attribute
    settings: dict[str, Any] = Field(default_factory=dict)
    axes: AxesName
    weights: Weights | None = None
    training_sets: list[str] = Field(default_factory=list)
    deterministic: bool = True

    def recipe(self) -> dict[str, Any]:
        """Return the part of the card that predictions depend on; prose is left out."""
        kept = {"name", "version", "adapter", "settings", "axes", "weights"}
        return {key: value for key, value in self.model_dump(mode="json").items() if key in kept}


class Expected(Settings):
    """A value that a result must reach, checked by ``ncbench report --check``."""

    model: str
    metric: str
    value: float
    tolerance: float = Field(gt=0)
    source: str


class ProtocolCard(Settings):
    """``evaluators/<name>.yaml``: everything that changes a number."""

    name: Name
    version: SemVer
    title: str
    summary: str
    dataset: Name
    sequences: list[str] | None = None
    mask: Literal["valid"] = "valid"
    resolution: Literal["native"] = "native"
    pooling: Literal["pixels"] = "pixels"
    thresholds: list[Annotated[float, Field(gt=0, le=180)]] = Field(
        default_factory=lambda: [5.0, 7.5, 11.25, 22.5, 30.0]
    )
    invalid_prediction: float = Field(default=90.0, ge=0, le=180)
    expected: list[Expected] = Field(default_factory=list)

    @model_validator(mode="after")
    def _thresholds_ascend(self) -> ProtocolCard:
        if not self.thresholds or any(a >= b for a, b in itertools.pairwise(self.thresholds)):
            raise ValueError(f"thresholds must be a non-empty ascending list, got {self.thresholds}")
        return self

    def scoring(self) -> dict[str, Any]:
        """Return the part of the card that a number depends on; prose and expected values are left out."""
        prose = {"title", "summary", "expected"}
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in prose}


class ReportCard(Settings):
    """``reports/<name>.yaml``: which columns a table shows and how many pictures the page holds."""

    name: Name
    title: str
    summary: str
    columns: list[str]
    sort_by: str
    pictures_per_protocol: int = Field(default=4, ge=0, le=200)


Card = DatasetCard | ModelCard | ProtocolCard | ReportCard


def digest(values: Mapping[str, Any]) -> str:
    """Hash plain values in a canonical spelling.

    Args:
        values: Anything that JSON can hold.

    Returns:
        Hex sha256, equal for equal values in any key order.
    """
    return hashlib.sha256(canonical(values)).hexdigest()


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Args:
        path: The file.

    Returns:
        Its plain values.

    Raises:
        CardError: The file is unreadable, not YAML, holds a key twice, or is not a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise CardError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise CardError(f"{path}: is not UTF-8 text ({error})") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise CardError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise CardError(f"{path}: a card is a mapping of keys to values, found {type(values).__name__}")
    _check_plain(values, str(path))
    return values


def _check_plain(value: Any, where: str) -> None:  # noqa: ANN401 - any YAML value
    """Refuse what JSON cannot hold, since cards are hashed and stored as JSON."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise CardError(f"{where}: key {key!r} is not text; put it in quotes")
            _check_plain(item, f"{where}, key '{key}'")
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, where)
    elif not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise CardError(f"{where}: {value!r} is no text, finite number, true, false, null, list or mapping")


def to_yaml(card: Card) -> str:
    """Spell a card as YAML that ``read_yaml`` gives back unchanged."""
    text: str = yaml.safe_dump(card.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    return text


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key written twice, which YAML would silently resolve to the last one."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text", node.start_mark)
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' appears twice", node.start_mark)
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)}


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
