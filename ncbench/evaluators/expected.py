"""Results against the values that they should reach: a protocol's own, a paper's table, or an earlier run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from ncbench.errors import ScoreError
from ncbench.evaluators.expectations import Expectation, flat, read_expectations
from ncbench.evaluators.run import RESULT_FILE

Found = Mapping[tuple[str, str], Mapping[str, float]]
"""(protocol, model) -> metric -> value; no metric where a result is partial."""


def require_expected(
    results: Path,
    expect: Path,
    *,
    source: str | None = None,
    models: Mapping[str, str] | None = None,
    protocols: Mapping[str, str] | None = None,
    tolerances: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Compare results with a file of expected values, and refuse a miss.

    Args:
        results: A folder of results, of which everything that the file names is asked for; or one result (its folder or
            its JSON), of which only what the file says about it.
        expect: See ``read_expectations``, as for all that follows.
        source: Take only published rows of this source.
        models: Name of a method in published rows -> name of a model card.
        protocols: ``dataset/split`` or ``dataset`` in published rows -> name of a protocol card.
        tolerances: Metric -> absolute tolerance.

    Returns:
        As ``check``; all is well.

    Raises:
        CardError: The file cannot be used.
        ScoreError: Listing every miss; or there is no result; or the file says nothing about the one result.
    """
    wanted = read_expectations(expect, source=source, models=models, protocols=protocols, tolerances=tolerances)
    found = read_metrics(results)
    if results.is_file() or (results / RESULT_FILE).is_file():
        ((protocol, model),) = found
        wanted = [item for item in wanted if (item.protocol, item.model) == (protocol, model)]
        if not wanted:
            raise ScoreError(f"{expect}: expects nothing of {model} on {protocol}. Add it, or compare other results.")
    table = check(found, wanted)
    require_ok(table)
    return table


def read_metrics(results: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Read what results say.

    Args:
        results: A folder of results (``<protocol>/<model>/result.json``), the folder of one, or its JSON.

    Returns:
        (protocol, model) -> metric -> value; nested blocks are flattened with dots.

    Raises:
        ScoreError: There is no result, or one cannot be read.
    """
    if results.is_file():
        paths = [results]
    elif (results / RESULT_FILE).is_file():
        paths = [results / RESULT_FILE]
    else:
        paths = sorted(results.glob(f"*/*/{RESULT_FILE}"))
    if not paths:
        raise ScoreError(f"{results}: holds no {RESULT_FILE}. Run 'ncbench evaluate MODEL PROTOCOL' first.")
    found = {}
    for path in paths:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found[values["protocol"]["name"], values["model"]["name"]] = flat(values["metrics"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ScoreError(f"{path}: is no result that can be read ({error!r}). Evaluate again.") from error
    return found


def check(found: Found, expectations: Iterable[Expectation]) -> pd.DataFrame:
    """Compare results with expected values.

    Args:
        found: As ``read_metrics`` gives it.
        expectations: What should be there.

    Returns:
        One row an expectation: ``protocol``, ``model``, ``metric``, ``expected``, ``tolerance``, ``found`` (NaN where
        there is none), ``difference`` (found - expected), ``required``, ``source``, ``status`` (``ok``, ``off``,
        ``missing``, or ``absent`` for a missing one that is not required) and ``ok``.
    """
    rows = []
    for item in expectations:
        value = found.get((item.protocol, item.model), {}).get(item.metric, float("nan"))
        difference = value - item.value
        # a hair of slack, so that 16.4 is within 0.1 of 16.3 in binary, too
        status = _status(difference, item.tolerance * (1 + 1e-9) + 1e-12, item.required)
        rows.append(
            {
                "protocol": item.protocol,
                "model": item.model,
                "metric": item.metric,
                "expected": item.value,
                "tolerance": item.tolerance,
                "found": value,
                "difference": difference,
                "required": item.required,
                "source": item.source,
                "status": status,
                "ok": status in ("ok", "absent"),
            }
        )
    columns = ["protocol", "model", "metric", "expected", "tolerance", "found", "difference", "required", "source"]
    return pd.DataFrame(rows, columns=[*columns, "status", "ok"])


def require_ok(table: pd.DataFrame) -> None:
    """Refuse results that miss an expected value.

    Args:
        table: As ``check`` gives it.

    Raises:
        ScoreError: Listing every miss.
    """
    lines = []
    for _, row in table[~table["ok"].astype(bool)].iterrows():
        source = f" ({row['source']})" if row["source"] else ""
        wanted = f"expected {row['expected']:g} ± {row['tolerance']:g}{source}"
        if row["status"] == "missing":
            lines.append(f"{row['protocol']}: {row['model']} has no complete result with '{row['metric']}', {wanted}")
        else:
            lines.append(f"{row['protocol']}: {row['model']} {row['metric']} is {row['found']:.4f}, {wanted}")
    if lines:
        raise ScoreError("results differ from the expected values:\n" + "\n".join(lines))


def _status(difference: float, tolerance: float, required: bool) -> Literal["ok", "off", "missing", "absent"]:
    if math.isnan(difference):
        return "missing" if required else "absent"
    return "ok" if abs(difference) <= tolerance else "off"
