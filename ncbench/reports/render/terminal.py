"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from ncbench.reports.layout import Cell, Column, Table
from ncbench.reports.render.spelling import TIED, difference_text, has_notes

_STYLES = {0: "{}", 1: "[bold]{}[/]", 2: "[underline]{}[/]", 3: "[italic]{}[/]"}
_NOTE_WIDTH = 24
_NAME_SHARE = 3  # of the width, so that a long name leaves room for its numbers
_BETWEEN = 2  # signs between neighbouring columns, and beside the first and the last


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print every table; columns that do not fit beside one another follow below, so that no number is cut.

    Args:
        tables: In order.
        console: Where to.
    """
    for table in tables:
        names = _names_width(table, console.width)
        for number, part in enumerate(_parts(table, console.width - names - _BETWEEN)):
            _print_part(table, part, console, names, first=number == 0)
        for note in table.notes:
            console.print(escape(note), style="dim", highlight=False)


def _names_width(table: Table, width: int) -> int:
    """Room for the models' names; longer ones go on in the next line."""
    longest = max([len("model"), *(cell_len(row.label) for row in table.rows)])
    return min(longest, max(_NOTE_WIDTH, width // _NAME_SHARE))


def _notes_width(table: Table) -> int:
    return min(_NOTE_WIDTH, max(cell_len(row.note) for row in table.rows))


def _parts(table: Table, width: int) -> Iterator[list[int]]:
    """Split the columns into groups that fit beside the models' names, which are repeated."""
    whole = width - _BETWEEN
    room = whole - (_notes_width(table) + _BETWEEN if has_notes(table) else 0)
    part: list[int] = []
    for index, column in enumerate(table.columns):
        heads = _head(column).splitlines()
        texts = [*heads, *(_plain(row.cells[index]) for row in table.rows)]
        wide = max(cell_len(text) for text in texts) + _BETWEEN
        if part and wide > room:
            yield part
            part, room = [], whole
        part.append(index)
        room -= wide
    yield part


def _print_part(table: Table, part: list[int], console: Console, names: int, *, first: bool) -> None:
    notes = first and has_notes(table)
    shown = RichTable(title=escape(table.title) + ("" if first else " (continued)"), title_justify="left")
    shown.box, shown.padding = box.SIMPLE_HEAD, (0, 1, 0, 0)
    shown.add_column("model", width=names, overflow="fold")
    for index in part:
        shown.add_column(escape(_head(table.columns[index])), justify="right", no_wrap=True)
    if notes:
        shown.add_column("note", style="dim", min_width=_notes_width(table), overflow="fold")
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
