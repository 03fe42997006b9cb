"""Figures for print, from result files alone: accuracy curves, error histograms, accuracy against flicker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ncbench.evaluators.run import UNITS_FILE
from ncbench.files import replacing_file
from ncbench.reports.results import Result
from ncbench.reports.table import Table

Form = Literal["pdf", "svg", "png"]
LIMIT = 60.0
"""Degrees that the axes of errors end at."""
_COLUMN = 3.35  # inches: one column of a two-column paper
_BIN = 2.0  # degrees, of the histogram
# colour-blind safe (Okabe and Ito 2008), and dashes once the colours are used up
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.")
_STYLE: Any = {  # matplotlib types its keys one by one
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "ncbench",  # equal figures give equal bytes
    "savefig.bbox": "tight",
    "savefig.dpi": 300,
}
_NO_DATE: dict[Form, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


def write_figures(tables: Sequence[Table], to: Path, forms: Sequence[Form]) -> list[Path]:
    """Write the figures of every table; the same results give the same bytes.

    Args:
        tables: The tables, best model first. A result without numbers (a partial one) is left out.
        to: Folder; files are called ``<table>-<figure>.<form>``.
        forms: File formats.

    Returns:
        What was written. A figure that no result has values for is left out.

    Raises:
        ScoreError: Statistics of a result are damaged, or are not those that it was made with.
        StoreError: The disk is full or the folder cannot be written.
    """
    written = []
    with mpl.rc_context(_STYLE):
        for table in tables:
            for name, figure in _figures(table):
                for form in forms:
                    path = to / f"{table.name}-{name}.{form}"
                    with replacing_file(path) as temporary:
                        figure.savefig(temporary, format=form, metadata=_NO_DATE[form])
                    written.append(path)
    return written


@dataclass(frozen=True)
class Errors:
    """All errors of a result, over all pixels alike; the histograms of its frames would not fit in memory 200 times.

    Attributes:
        title: Of the model.
        counts: (B,) int64 errors by bin, from 0 degrees up.
        bin_width: Degrees.
    """

    title: str
    counts: NDArray[np.int64]
    bin_width: float

    def below(self, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
        """Percent of pixels whose error is below each angle.

        Args:
            degrees: Angles, multiples of the bin.

        Returns:
            Percent, of the shape of ``degrees``.
        """
        below = np.concatenate([[0], np.cumsum(self.counts)])
        bins = np.clip(np.rint(degrees / self.bin_width).astype(np.int64), 0, len(self.counts))
        return np.asarray(100 * below[bins] / max(1, below[-1]))


def _figures(table: Table) -> list[tuple[str, Figure]]:
    figures = []
    curves = [errors for result in table.results if (errors := _errors(result)) is not None]
    if curves:
        figures += [("accuracy", _accuracy(curves)), ("histogram", _histogram(curves))]
    timed = [result for result in table.results if {"mean", "bfd_flicker"} <= result.values.metrics.keys()]
    if timed:
        figures.append(("flicker", _flicker(timed)))
    return figures


def _errors(result: Result) -> Errors | None:
    if not result.values.metrics or not (result.folder / UNITS_FILE).is_file():
        return None
    units = result.units()
    return Errors(result.values.model.title, units.histogram.sum(axis=0, dtype=np.int64), units.bin_width)


def _accuracy(curves: Sequence[Errors]) -> Figure:
    figure, axes = _axes("Error below (degrees)", "Pixels (%)")
    for number, errors in enumerate(curves):
        degrees = np.arange(0, LIMIT + errors.bin_width / 2, max(errors.bin_width, 0.1))
        axes.plot(degrees, errors.below(degrees), label=errors.title, **_line(number))
    axes.set(xlim=(0, LIMIT), ylim=(0, 100))
    return _with_legend(figure, axes)


def _histogram(curves: Sequence[Errors]) -> Figure:
    figure, axes = _axes("Error (degrees)", "Pixels per degree (%)")
    edges = np.arange(0, LIMIT + _BIN / 2, _BIN)
    for number, errors in enumerate(curves):
        axes.stairs(np.diff(errors.below(edges)) / _BIN, edges, label=errors.title, **_line(number))
    axes.set(xlim=(0, LIMIT))
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(bottom=0)
    return _with_legend(figure, axes)


def _flicker(results: Sequence[Result]) -> Figure:
    figure, axes = _axes("Mean error (degrees)", "Flicker (degrees)")
    for number, result in enumerate(results):
        metrics = result.values.metrics
        axes.plot(
            metrics["mean"],
            metrics["bfd_flicker"],
            marker="o",
            linestyle="none",
            color=_line(number)["color"],
            label=result.values.model.title,
        )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    return _with_legend(figure, axes)


def _axes(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_COLUMN, 0.75 * _COLUMN))
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    return figure, axes


def _with_legend(figure: Figure, axes: Any) -> Figure:  # noqa: ANN401 - matplotlib's axes have no full types
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _line(number: int) -> dict[str, Any]:
    colour, dash = number % len(_COLOURS), number // len(_COLOURS) % len(_DASHES)
    return {"color": _COLOURS[colour], "linestyle": _DASHES[dash], "linewidth": 1.2}
