"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from ncbench.reports.layout import Cell, Column, Table
from ncbench.reports.render.spelling import TIED, difference_text, has_notes

_STYLES = {0: "{}", 1: "[bold]{}[/]", 2: "[underline]{}[/]", 3: "[italic]{}[/]"}
_NOTE_WIDTH = 24


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print every table; columns that do not fit beside one another follow below, so that no number is cut.

    Args:
        tables: In order.
        console: Where to.
    """
    for table in tables:
        for number, part in enumerate(_parts(table, console.width)):
            _print_part(table, part, console, notes=number == 0 and has_notes(table))
        for note in table.notes:
            console.print(escape(note), style="dim", highlight=False)


def _parts(table: Table, width: int) -> Iterator[list[int]]:
    """Split the columns into groups that fit, models' names repeated."""
    names = max([len("model"), *(len(row.label) for row in table.rows)]) + 1
    room = width - names - (_NOTE_WIDTH if has_notes(table) else 0)
    part: list[int] = []
    for index, column in enumerate(table.columns):
        heads = _head(column).splitlines()
        wide = max(len(text) for text in [*heads, *(_plain(row.cells[index]) for row in table.rows)]) + 1
        if part and wide > room:
            yield part
            part, room = [], width - names
        part.append(index)
        room -= wide
    yield part


def _print_part(table: Table, part: list[int], console: Console, *, notes: bool) -> None:
    shown = RichTable(title=escape(table.title), title_justify="left")
    shown.box, shown.padding = box.SIMPLE_HEAD, (0, 1, 0, 0)
    shown.add_column("model", no_wrap=True)
    for index in part:
        shown.add_column(escape(_head(table.columns[index])), justify="right", no_wrap=True)
    if notes:
        shown.add_column("note", style="dim")
    for row in table.rows:
        cells = [_styled(row.cells[index]) for index in part]
        shown.add_row(escape(row.label), *cells, *([escape(row.note)] if notes else []))
    console.print(shown)


def _head(column: Column) -> str:
    return f"{column.group}\n{column.label}" if column.group else column.label


def _plain(cell: Cell) -> str:
    change = difference_text(cell)
    return cell.text + (TIED if cell.tied else "") + (f" ({change})" if change else "")


def _styled(cell: Cell) -> str:
    return _STYLES[cell.place].format(escape(cell.text)) + escape(_plain(cell).removeprefix(cell.text))
