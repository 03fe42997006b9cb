"""The HTML page: a folder that opens from disk, with tables and side-by-side pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from ncbench.cards import ReportCard
from ncbench.datasets.frame import Frame
from ncbench.datasets.store import Store, decode_image, open_store
from ncbench.errors import StoreError
from ncbench.evaluators.angular import angular_error
from ncbench.models.run import prediction_folder
from ncbench.reports.pictures import (
    ERROR_LIMIT,
    Rgb,
    error_bar,
    errors_to_rgb,
    fit_width,
    normals_ball,
    normals_to_rgb,
    png_bytes,
)
from ncbench.reports.results import Result
from ncbench.reports.table import Table, label

PICTURE_WIDTH = 480


@dataclass(frozen=True)
class Picture:
    """One picture of a strip; ``file`` is relative to the page."""

    file: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class Strip:
    """The pictures of one frame: columns of two, input over truth, then each model's prediction over its error."""

    sequence: str
    frame: int
    pictures: list[Picture]


def write_page(folder: Path, tables: list[Table], card: ReportCard, stores: Path, predictions: Path) -> Path:
    """Write ``index.html`` and its pictures.

    Args:
        folder: Where to; made if needed.
        tables: The tables, best model first.
        card: Title and number of pictures.
        stores: Folder of prepared data sets.
        predictions: Folder of prediction stores.

    Returns:
        The page's path.

    Raises:
        NcbenchError: A store that the pictures need is damaged.
    """
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    (pictures / "ball.png").write_bytes(png_bytes(normals_ball()))
    (pictures / "bar.png").write_bytes(png_bytes(error_bar()))
    sections = []
    for table in tables:
        strips, notices = _strips(folder, table, card, stores, predictions)
        sections.append({"table": table, "rows": _rows(table), "strips": strips, "notices": notices})
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ncbench.reports"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    text = environment.get_template("page.html.j2").render(
        title=card.title, summary=card.summary, sections=sections, label=label, limit=f"{ERROR_LIMIT:g}"
    )
    page = folder / "index.html"
    page.write_text(text, encoding="utf-8")
    return page


def _rows(table: Table) -> list[dict[str, Any]]:
    text, best = table.text(), table.best()
    return [
        {
            "model": model,
            "note": text["note"].iloc[row],
            "cells": [{"text": text[m].iloc[row], "best": best[m].iloc[row]} for m in table.metrics],
        }
        for row, model in enumerate(text.index)
    ]


def _strips(
    folder: Path, table: Table, card: ReportCard, stores: Path, predictions: Path
) -> tuple[list[Strip], list[str]]:
    """Draw the chosen frames; what cannot be drawn is said, since the numbers stand without pictures."""
    if card.pictures_per_protocol == 0:
        return [], []
    first = table.results[0]
    name, digest = first.values.dataset.name, first.values.dataset.digest
    try:
        target = open_store(stores / name)
    except StoreError as error:
        return [], [f"No pictures: {error}"]
    if target.manifest.digest != digest:
        return [], [f"No pictures: the store of {name} is of another version (digest {target.manifest.digest[:12]})."]
    preds: list[tuple[Result, Store]] = []
    missing = []
    for result in table.results:
        try:
            preds.append((result, open_store(prediction_folder(predictions, result.model, result.protocol))))
        except StoreError as error:
            missing.append(f"No pictures of {result.values.model.title}: {error}")
    rows = first.frames()[["sequence", "frame"]]
    # spread evenly over the whole protocol, first and last frame included
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(card.pictures_per_protocol, len(rows))).round().astype(int))
    strips = [
        _strip(folder, f"{table.name}-{index}", target.read(*rows.iloc[index]), preds) for index in map(int, chosen)
    ]
    return strips, missing


def _strip(folder: Path, stem: str, truth: Frame, preds: list[tuple[Result, Store]]) -> Strip:
    """Draw one frame; ``stem`` starts the names of its files and holds no text from the data."""
    pictures = []
    if truth.image is not None:
        pictures.append(_save(folder, f"{stem}-input", "input", decode_image(truth.image)))
    pictures.append(_save(folder, f"{stem}-truth", "truth", normals_to_rgb(truth.normal)))
    for result, store in preds:
        try:
            pred = store.read(truth.sequence, truth.frame, ()).normal
        except StoreError:
            continue  # a failed frame has no picture; the table's note counts it
        errors = angular_error(pred, truth.normal)
        # as the score has it: a pixel without an answer is charged, a pixel without truth is not looked at
        errors = np.where(truth.valid & np.isnan(errors), result.values.protocol.invalid_prediction, errors)
        errors = np.where(truth.valid, errors, np.nan)
        caption = f"error, mean {np.nanmean(errors):.1f}°" if truth.valid.any() else "nothing to score"
        name = f"{stem}-{result.model}"
        pictures.append(_save(folder, f"{name}-normals", result.values.model.title, normals_to_rgb(pred)))
        pictures.append(_save(folder, f"{name}-error", caption, errors_to_rgb(errors)))
    return Strip(truth.sequence, truth.frame, pictures)


def _save(folder: Path, stem: str, caption: str, picture: Rgb) -> Picture:
    small = fit_width(picture, PICTURE_WIDTH)
    file = f"pictures/{stem}.png"
    (folder / file).write_bytes(png_bytes(small))
    return Picture(file, caption, small.shape[1], small.shape[0])
