"""The cards' schemas, and the only code that reads YAML.

A card says *what* is benchmarked; it is data, so listing and checking cards imports no reader, model or metric.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from ncbench.errors import CardError
from ncbench.files import canonical
from ncbench.loader_card import LoaderCard
from ncbench.names import AxesName, Name, SemVer
from ncbench.protocol_card import ProtocolCard
from ncbench.recipe_card import RecipeCard
from ncbench.report_card import PaperTable, PublishedNumbers, Significance
from ncbench.settings import Settings
from ncbench.sources import Attribute, Licence, Source, Weights


class DatasetCard(Settings):
    """``datasets/<name>.yaml``: where a data set comes from and how it becomes a store.

    ``axes`` are those of the normals in the source files; null where the reader derives normals from depth. ``frames``
    is how many the complete set has with these settings; null where it is open-ended or not published. ``fps`` is
    frames a second of its videos, which some models are told; null where it is not known or there are none.
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
    fps: float | None = Field(default=None, gt=0)

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


class ModelCard(Settings):
    """``models/<name>.yaml``: an adapter, its settings, and the axes that it answers in.

    ``space`` is ``first_camera`` for a model that answers in the frame of a sequence's first camera (UniGeo).
    ``normals`` is false for a model of depth alone. ``depth`` says what its depth is: ``metres``, ``relative`` (up to a
    scale) or ``disparity`` (1 / depth up to a scale and a shift); null where it answers with none. ``requires`` names
    the modules that the adapter imports beyond ncbench's own dependencies.
    """

    name: Name
    version: SemVer
    title: str
    summary: str
    kind: Literal["control", "image", "video", "predictions"]
    adapter: Attribute
    settings: dict[str, Any] = Field(default_factory=dict)
    axes: AxesName
    space: Literal["camera", "first_camera"] = "camera"
    weights: Weights | None = None
    normals: bool = True
    depth: Literal["metres", "relative", "disparity"] | None = None
    requires: list[str] = Field(default_factory=list)
    training_sets: list[str] = Field(default_factory=list)
    deterministic: bool = True

    @model_validator(mode="after")
    def _answers_something(self) -> ModelCard:
        if not self.normals and self.depth is None:
            raise ValueError("a model answers with normals, depth or both: set 'normals: true' or say what 'depth' is")
        return self

    def recipe(self) -> dict[str, Any]:
        """Return the part of the card that predictions depend on; prose is left out."""
        kept = {"name", "version", "adapter", "settings", "axes", "space", "weights"}
        return {key: value for key, value in self.model_dump(mode="json").items() if key in kept}


class ReportCard(Settings):
    """``reports/<name>.yaml``: which columns a table shows, what stands beside them, and how much the page holds.

    ``columns`` are metrics, or ``interval`` (of ``sort_by``), ``rank`` (the average over ``rank_by``),
    ``frames_per_second`` and ``peak_memory``. ``published`` puts papers' numbers beside results. A card with ``paper``
    is that paper's table alone; ``include`` names such cards, whose tables follow this report's own.
    """

    name: Name
    title: str
    summary: str
    columns: list[str]
    sort_by: str
    rank_by: list[str] = Field(default_factory=lambda: ["mean", "median", "within_11_25", "within_22_5", "within_30"])
    pictures_per_protocol: int = Field(default=4, ge=0, le=200)
    significance: Significance = Significance()
    published: PublishedNumbers = PublishedNumbers()
    paper: PaperTable | None = None
    include: list[Name] = Field(default_factory=list)


Card = DatasetCard | ModelCard | ProtocolCard | LoaderCard | RecipeCard | ReportCard


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
