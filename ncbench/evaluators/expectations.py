"""Expected values from a file: written out, from a table of published numbers, or an earlier result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, PositiveFloat

from ncbench.cards import read_yaml
from ncbench.errors import CardError
from ncbench.protocol_card import ProtocolCard
from ncbench.settings import Settings, suggest

RERUN_TOLERANCE = 0.005
"""For an earlier result: half of the last digit that tables print."""
PUBLISHED_TOLERANCE = {"mean": 0.1, "median": 0.1, "rmse": 0.1}
"""Degrees, for numbers that papers print with one decimal."""
PUBLISHED_TOLERANCE_WITHIN = 0.2
"""Percent points, for ``within_*``."""
_PUBLISHED_COLUMNS = {"source", "table", "method", "dataset", "split", "metric", "value", "note"}
_SOURCES = (".csv", ".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Expectation:
    """One value that a result should reach.

    Attributes:
        protocol: Name of a protocol card.
        model: Name of a model card.
        metric: As result files name it; parts of a nested block are joined by dots.
        value: What is expected.
        tolerance: Absolute, in the metric's unit.
        source: Where the value comes from.
        required: Whether a result without the value is a miss.
    """

    protocol: str
    model: str
    metric: str
    value: float
    tolerance: float
    source: str
    required: bool = True


class Item(Settings):
    """One entry of ``expect`` in an expectation file; ``tolerance`` null takes the metric's default."""

    protocol: str
    model: str
    metric: str
    value: float = Field(allow_inf_nan=False)
    tolerance: float | None = Field(default=None, gt=0)
    source: str = ""
    required: bool = True


class ExpectationFile(Settings):
    """A YAML or JSON file of expectations.

    Attributes:
        expect: Values written out.
        published: A CSV of published numbers (source, table, method, dataset, split, metric, value, note), by a path
            relative to this file; or none.
        source: Take only published rows of this source, since papers disagree about the same method.
        models: Name of a method in the CSV -> name of a model card. Other methods are not asked for.
        protocols: ``dataset/split`` (or ``dataset``) in the CSV -> name of a protocol card. Others are not asked for.
        tolerances: Metric -> absolute tolerance, before the defaults.
    """

    expect: list[Item] = Field(default_factory=list)
    published: str | None = None
    source: str | None = None
    models: dict[str, str] = Field(default_factory=dict)
    protocols: dict[str, str] = Field(default_factory=dict)
    tolerances: dict[str, PositiveFloat] = Field(default_factory=dict)


def expectations_of(protocol: ProtocolCard) -> list[Expectation]:
    """List the values that a protocol's own card expects."""
    return [
        Expectation(protocol.name, item.model, item.metric, item.value, item.tolerance, item.source, item.required)
        for item in protocol.expected
    ]


def read_expectations(
    path: Path,
    *,
    source: str | None = None,
    models: Mapping[str, str] | None = None,
    protocols: Mapping[str, str] | None = None,
    tolerances: Mapping[str, float] | None = None,
) -> list[Expectation]:
    """Read expected values from a file.

    Args:
        path: ``.csv`` with the columns protocol, model, metric, value (and tolerance, source); or in the layout of
            published numbers; ``.yaml`` or ``.json`` as ``ExpectationFile``; or an earlier ``result.json``.
        source: As in ``ExpectationFile``; goes before what the file says.
        models: Added to the file's.
        protocols: Added to the file's.
        tolerances: Metric -> absolute tolerance; they go before the file's and the defaults: 0.1 degrees for mean,
            median and rmse, 0.2 points for ``within_*``, 0.005 for anything in an earlier result.

    Returns:
        At least one expectation, in the file's order.

    Raises:
        CardError: The file is unreadable, of another form, names nothing that is expected, or a metric without a
            default has no tolerance.
    """
    kind = path.suffix.lower()
    if kind not in _SOURCES:
        raise CardError(f"{path}: expected a file of expected values that ends in {', '.join(_SOURCES)}")
    options = {"source": source, "models": models or {}, "protocols": protocols or {}, "tolerances": tolerances or {}}
    content = given = ExpectationFile.parse(options, "options of expected values")
    if kind == ".csv":
        items = _items_of_csv(path, given)
    else:
        values = _read_json(path) if kind == ".json" else read_yaml(path)
        if "metrics" in values and "protocol" in values:
            return _of_result(values, path, given.tolerances)
        content = _merged(ExpectationFile.parse(values, str(path)), given)
        items = list(content.expect)
        if content.published:
            items += _items_of_csv(path.parent / content.published, content)
    if not items:
        raise CardError(f"{path}: expects nothing. Write entries under 'expect', or name methods and data sets in it.")
    return [_with_tolerance(item, content.tolerances, path) for item in items]


def flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Flatten nested blocks of numbers; what is no number is left out.

    Examples:
        >>> flat({"mean": 1.0, "temporal": {"warp": 2, "source": "gt"}})
        {'mean': 1.0, 'temporal.warp': 2.0}
    """
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            numbers |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[prefix + name] = float(value)
    return numbers


def _merged(file: ExpectationFile, given: ExpectationFile) -> ExpectationFile:
    """The file's words, with the caller's before them."""
    maps = {name: getattr(file, name) | getattr(given, name) for name in ("models", "protocols", "tolerances")}
    return file.model_copy(update=maps | {"source": given.source or file.source})


def _with_tolerance(item: Item, bounds: Mapping[str, float], path: Path) -> Expectation:
    default = PUBLISHED_TOLERANCE_WITHIN if item.metric.startswith("within_") else PUBLISHED_TOLERANCE.get(item.metric)
    tolerance = bounds.get(item.metric, default) if item.tolerance is None else item.tolerance
    if tolerance is None:
        raise CardError(
            f"{path}: '{item.metric}' of '{item.model}' has no tolerance, and this metric has no default one. Write a "
            "tolerance beside the value, or one for the metric under 'tolerances'."
        )
    return Expectation(item.protocol, item.model, item.metric, item.value, tolerance, item.source, item.required)


def _of_result(values: Mapping[str, Any], path: Path, tolerances: Mapping[str, float]) -> list[Expectation]:
    try:
        protocol, model = values["protocol"]["name"], values["model"]["name"]
        numbers = flat(values["metrics"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CardError(f"{path}: is no result that can be read ({error!r})") from error
    if not numbers:
        raise CardError(f"{path}: this result is not complete, so that it has no metric to compare with")
    made = [Expectation(protocol, model, name, value, RERUN_TOLERANCE, str(path)) for name, value in numbers.items()]
    return [replace(item, tolerance=tolerances.get(item.metric, item.tolerance)) for item in made]


def _items_of_csv(path: Path, content: ExpectationFile) -> list[Item]:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise CardError(f"{path}: cannot be read as CSV ({error})") from error
    columns = set(table.columns)
    if columns >= _PUBLISHED_COLUMNS:
        return _published(table, content, path)
    if not {"protocol", "model", "metric", "value"} <= columns:
        raise CardError(
            f"{path}: expected the columns protocol, model, metric, value (and tolerance, source), or those of "
            f"published numbers ({', '.join(sorted(_PUBLISHED_COLUMNS))}), found {', '.join(table.columns)}"
        )
    if content.models or content.protocols or content.source:
        raise CardError(
            f"{path}: names its protocols and models itself; 'models', 'protocols' and 'source' do not apply"
        )
    rows = [{key: value for key, value in row.items() if value != ""} for row in table.to_dict("records")]
    return [Item.parse({str(k): v for k, v in row.items()}, f"{path}, line {n}") for n, row in enumerate(rows, start=2)]


def _published(table: pd.DataFrame, content: ExpectationFile, path: Path) -> list[Item]:
    """Rows of the methods and data sets that are mapped to cards."""
    splits = table["dataset"] + "/" + table["split"]
    known = {
        "source": (set(table["source"]), [content.source] if content.source else []),
        "method": (set(table["method"]), content.models),
        "data set": ({*splits, *table["dataset"]}, content.protocols),
    }
    for kind, (there, names) in known.items():
        for name in names:
            if name not in there:
                raise CardError(f"{path}: has no {kind} '{name}'. {suggest(name, there)}")
    items = []
    for (line, row), split in zip(table.iterrows(), splits, strict=True):
        model = content.models.get(row["method"])
        protocol = content.protocols.get(split) or content.protocols.get(row["dataset"])
        if model and protocol and content.source in (None, row["source"]):
            named = {"protocol": protocol, "model": model, "metric": row["metric"], "value": row["value"]}
            text = ", ".join(part for part in (row["source"], row["table"]) if part)
            items.append(Item.parse(named | {"source": text}, f"{path}, row {line}"))
    return items


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CardError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise CardError(f"{path}: expected a mapping of keys to values, found {type(values).__name__}")
    return values
