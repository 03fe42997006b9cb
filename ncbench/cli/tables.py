"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

_PROSE = {"title", "licence", "data sets", "weights", "training sets", "runnable here"}


def print_list(columns: Sequence[str], rows: Sequence[Sequence[str]], problems: Sequence[str]) -> None:
    """Print a list of cards, then what is wrong with files that are no cards.

    Args:
        columns: Heads.
        rows: Cells, as text.
        problems: One line each.
    """
    shown = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        # prose gives way to a narrow terminal; the rest, names above all, is never cut
        shown.add_column(column, no_wrap=column not in _PROSE)
    for row in rows:
        shown.add_row(*map(escape, row))
    Console().print(shown)
    print_problems(problems)


def print_problems(problems: Sequence[str]) -> None:
    """Print what is wrong with files that are no cards, to the error stream.

    Args:
        problems: One line each.
    """
    for problem in problems:
        typer.secho(f"not a card, left out: {problem}", err=True, fg="yellow")


def print_frame(frame: pd.DataFrame, title: str, console: Console) -> None:
    """Print a table of numbers.

    Args:
        frame: What to print; its index comes first where it has a name.
        title: Above it.
        console: Where to.
    """
    plain = frame.reset_index() if frame.index.name else frame
    shown = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for column in plain.columns:
        shown.add_column(str(column), justify="left" if plain[column].dtype == object else "right")
    for row in plain.itertuples(index=False):
        shown.add_row(*(escape(f"{value:.3g}" if isinstance(value, float) else str(value)) for value in row))
    console.print(shown)
