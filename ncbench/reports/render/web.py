"""Tables as one plain HTML file, to read, print or paste; the page with pictures is ``ncbench.reports.page``."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ncbench.reports.layout import Cell, Column, Row, Table
from ncbench.reports.render.spelling import PLACE_NAMES, TIED, detail, difference_text, groups, has_notes

_STYLE = """
body { margin: 2rem auto; padding: 0 1rem; max-width: 110rem; font: 15px/1.5 system-ui, sans-serif; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8884; }
th[scope=row], .note { text-align: left; } .note { white-space: normal; min-width: 12rem; }
.group { text-align: center; } tr.published { font-style: italic; opacity: .8; }
a { color: inherit; text-decoration: none; } a:hover { text-decoration: underline; }
.best { font-weight: 700; } .second { text-decoration: underline; } .third { font-style: italic; }
:root { color-scheme: light dark; } small, li { opacity: .75; }
"""


def to_html(tables: Sequence[Table], title: str) -> str:
    """Write a whole document that opens from disk, without scripts.

    Args:
        tables: In order.
        title: Of the whole.

    Returns:
        HTML; every number of a result links to the result's JSON.
    """
    body = "\n".join(f"<h2>{escape(table.title)}</h2>\n{table_html(table)}" for table in tables)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n<p><span class=best>best</span>, "
        f"<span class=second>second</span>, <span class=third>third</span> of a column; {TIED} not significantly "
        f"different from the best; in brackets the difference, result minus published number.</p>\n{body}\n"
        "</body>\n</html>\n"
    )


def table_html(table: Table) -> str:
    """Write one table with its notes, as a fragment."""
    notes = has_notes(table)
    last = '<th scope="col" class="note">note</th>' if notes else ""
    heads = "".join(f'<th scope="col">{escape(column.label)}</th>' for column in table.columns)
    spans = "".join(
        f'<th scope="colgroup" class="group" colspan="{size}">{escape(name)}</th>' for name, size in groups(table)
    )
    top = f"<tr><td></td>{spans}</tr>\n" if any(column.group for column in table.columns) else ""
    rows = "\n".join(_row(row, table.columns, notes) for row in table.rows)
    lines = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f'<div class="scroll"><table id="{escape(table.name)}">\n<thead>\n{top}<tr><th scope="col">model</th>{heads}'
        f"{last}</tr>\n</thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n<ul>{lines}</ul>"
    )


def _row(row: Row, columns: Sequence[Column], notes: bool) -> str:
    name = _linked(escape(row.label), row.link)
    cells = "".join(_cell(cell, column) for cell, column in zip(row.cells, columns, strict=True))
    last = f'<td class="note">{escape(row.note)}</td>' if notes else ""
    return f'<tr class="{row.kind}"><th scope="row">{name}</th>{cells}{last}</tr>'


def _cell(cell: Cell, column: Column) -> str:
    text = _linked(escape(cell.text), cell.link)
    place = f' class="{PLACE_NAMES[cell.place]}"' if cell.place else ""
    change = difference_text(cell)
    more = (TIED if cell.tied else "") + (f" <small>({change})</small>" if change else "")
    said = detail(cell, column)
    title = f' title="{escape(said)}"' if said else ""
    return f"<td{place}{title}>{text}{more}</td>"


def _linked(text: str, link: str) -> str:
    return f'<a href="{escape(link)}">{text}</a>' if link else text
