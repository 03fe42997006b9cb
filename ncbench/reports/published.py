"""Numbers that papers report, each with its source; papers disagree, so that a number never stands without it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ncbench import catalog
from ncbench.errors import CardError
from ncbench.evaluators.expectations import PUBLISHED_TOLERANCE, PUBLISHED_TOLERANCE_WITHIN, Expectation
from ncbench.report_card import PublishedNumbers
from ncbench.settings import suggest

COLUMNS = ("source", "table", "method", "dataset", "split", "metric", "value", "note")
_NAMES = {"absrel": "abs_rel"}
_ANGLES = ("mean", "median", "rmse")
_FRACTIONS = ("delta1",)


@dataclass(frozen=True)
class Number:
    """One published number.

    Attributes:
        source: Paper with its version, or another place where it stands.
        table: Within the source.
        method: As the source names it.
        split: ``dataset/split``.
        metric: As result files name it.
        value: The number, in degrees, percent, or the metric's own unit.
        text: As it is printed there.
        note: What a reader must know; mostly empty.
    """

    source: str
    table: str
    method: str
    split: str
    metric: str
    value: float
    text: str
    note: str

    @property
    def place(self) -> str:
        """Source and table, as a reader would look it up."""
        return self.source if self.table in self.source else f"{self.source}, {self.table}"


def published_file(name: str) -> Path:
    """Find a file of published numbers: ``reports/<name>`` of the current directory, else the shipped one."""
    here = Path("reports") / name
    return here if here.is_file() else catalog.shipped_root() / "reports" / name


def load_published(path: Path) -> list[Number]:
    """Read and check published numbers.

    Args:
        path: CSV with the columns source, table, method, dataset, split, metric, value, note.

    Returns:
        Its rows, in its order.

    Raises:
        CardError: The file is missing or of another form; a number comes twice, is out of range, or contradicts its
            neighbours (an accuracy that falls while the threshold grows).
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise CardError(f"{path}: cannot be read as CSV ({error})") from error
    if tuple(table.columns) != COLUMNS:
        raise CardError(f"{path}: expected the columns {', '.join(COLUMNS)}, found {', '.join(table.columns)}")
    numbers = [_number(row, f"{path}, row {line}") for line, row in enumerate(table.to_dict("records"), start=2)]
    _check_together(numbers, path)
    return numbers


def _number(row: Mapping[object, str], where: str) -> Number:
    empty = [name for name in COLUMNS[:-1] if not row[name].strip()]
    if empty:
        raise CardError(f"{where}: {', '.join(empty)} must not be empty")
    try:
        value = float(row["value"])
    except ValueError:
        raise CardError(f"{where}: expected a number as value, found '{row['value']}'") from None
    metric = _NAMES.get(row["metric"], row["metric"])
    most = (
        180 if metric in _ANGLES else 100 if metric.startswith("within_") else 1 if metric in _FRACTIONS else math.inf
    )
    if not (math.isfinite(value) and 0 <= value <= most):
        raise CardError(f"{where}: expected {metric} to lie between 0 and {most:g}, found {row['value']}")
    split = f"{row['dataset']}/{row['split']}"
    return Number(
        row["source"], row["table"], row["method"], split, metric, value, row["value"].strip(), row["note"].strip()
    )


def _check_together(numbers: Iterable[Number], path: Path) -> None:
    """Refuse a number that comes twice, and accuracies that fall while the threshold grows."""
    rows: dict[tuple[str, str, str, str], dict[str, float]] = defaultdict(dict)
    for one in numbers:
        row = rows[one.source, one.table, one.method, one.split]
        if one.metric in row:
            raise CardError(f"{path}: {one.place}: {one.metric} of {one.method} on {one.split} comes twice")
        row[one.metric] = one.value
    for (source, table, method, split), row in rows.items():
        within = sorted((_threshold(name), value) for name, value in row.items() if name.startswith("within_"))
        values = [value for _, value in within]
        if values != sorted(values):
            raise CardError(f"{path}: {source}, {table}: accuracies of {method} on {split} fall as thresholds grow")


def _threshold(metric: str) -> float:
    return float(metric.removeprefix("within_").replace("_", "."))


def of_result(numbers: Iterable[Number], settings: PublishedNumbers, protocol: str, model: str) -> list[Number]:
    """Choose the numbers that a result may be compared with.

    Args:
        numbers: All.
        settings: Which methods and splits are which models and protocols.
        protocol: Name of the result's protocol.
        model: Name of the result's model.

    Returns:
        Numbers of that model under that protocol, from every source.
    """
    methods = {method for method, models in settings.methods.items() if model in models}
    splits = {split for split, protocols in settings.protocols.items() if protocol in protocols}
    return [one for one in numbers if one.method in methods and one.split in splits]


def check_mapping(numbers: Iterable[Number], settings: PublishedNumbers, where: str) -> None:
    """Refuse a mapping that speaks of methods or splits that nobody published.

    Args:
        numbers: All.
        settings: The mapping.
        where: Whose, for the message.

    Raises:
        CardError: Naming the first unknown method or split, with a near one.
    """
    numbers = list(numbers)
    known = {"method": {one.method for one in numbers}, "split": {one.split for one in numbers}}
    for kind, names in (("method", settings.methods), ("split", settings.protocols)):
        for name in names:
            if name not in known[kind]:
                raise CardError(f"{where}: nobody published a {kind} '{name}'. {suggest(name, known[kind])}")


def expectations(
    numbers: Iterable[Number], settings: PublishedNumbers, results: Iterable[tuple[str, str]]
) -> list[Expectation]:
    """Turn published numbers into values that results should reach.

    Args:
        numbers: All.
        settings: Which methods and splits are which, and how far a result may be off.
        results: (protocol, model) of what was scored; nothing else is asked for.

    Returns:
        One for each number that has a tolerance (see ``PublishedNumbers``) and belongs to a result.
    """
    numbers = list(numbers)
    found = []
    for protocol, model in results:
        for one in of_result(numbers, settings, protocol, model):
            bound = settings.tolerances.get(one.metric, tolerance(one.metric))
            if bound is not None:
                found.append(Expectation(protocol, model, one.metric, one.value, bound, one.place))
    return found


def tolerance(metric: str) -> float | None:
    """Give the default tolerance of a published number; None where the metric has none."""
    return PUBLISHED_TOLERANCE_WITHIN if metric.startswith("within_") else PUBLISHED_TOLERANCE.get(metric)
