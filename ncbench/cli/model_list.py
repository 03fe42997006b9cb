"""The list of models: one line each that fits a narrow terminal, and folded below it what is long."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import typer

_SHORT = ("name", "kind", "axes", "depth", "runnable here")
_INDENT = "    "
_NARROW = 60  # below it, lines break however they are folded


@dataclass(frozen=True)
class ModelRow:
    """What the list says of a model.

    Attributes:
        name: The card's.
        kind: The card's.
        axes: Of its normals; ``-`` where it gives none.
        depth: Kind of its depth; ``-`` where it gives none.
        weights: Repository and revision; empty where it has none.
        licence: Of the weights; empty where it has none.
        training_sets: Names; empty where none are known.
        lacks: What is missing to run it here.
    """

    name: str
    kind: str
    axes: str
    depth: str
    weights: str
    licence: str
    training_sets: str
    lacks: tuple[str, ...]

    @property
    def runnable(self) -> str:
        """Whether it can run here, in a few words."""
        if not self.lacks:
            return "yes"
        # a module must be installed by hand; files of the Hub come by themselves
        return "after a download" if all("on first use" in item for item in self.lacks) else "no"

    def cells(self) -> tuple[str, ...]:
        """The short facts."""
        return self.name, self.kind, self.axes, self.depth, self.runnable

    def wide(self) -> tuple[str, ...]:
        """Return all facts."""
        long = (self.weights or "none", self.licence or "-", self.training_sets or "-", "; ".join(self.lacks) or "yes")
        return (*self.cells()[:-1], *long)

    def rest(self) -> Iterator[str]:
        """The long facts, a sentence each."""
        if self.weights:
            yield f"{self.weights} ({self.licence})"
        if self.training_sets:
            yield f"trained on {self.training_sets}"
        if self.runnable == "no":
            yield f"lacks: {'; '.join(self.lacks)}"


def print_models(rows: Sequence[ModelRow], *, wide: bool) -> None:
    """Print a list.

    Args:
        rows: One each model.
        wide: Everything in one line, for a wide terminal or another program.
    """
    if wide:
        heads = (*_SHORT[:-1], "weights", "licence", "training sets", _SHORT[-1])
        _print_columns([heads, *(row.wide() for row in rows)])
        return
    widths = [max(map(len, column)) for column in zip(_SHORT, *(row.cells() for row in rows), strict=True)]
    typer.secho(_line(_SHORT, widths), bold=True)
    width = max(shutil.get_terminal_size().columns, _NARROW)
    for row in rows:
        typer.echo(_line(row.cells(), widths))
        for text in row.rest():
            typer.echo(
                textwrap.fill(
                    text,
                    width,
                    initial_indent=_INDENT,
                    subsequent_indent=_INDENT + "  ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )


def _print_columns(lines: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo(_line(line, widths))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
