"""Tables in LaTeX, with booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from ncbench.reports.layout import Cell, Row, Table
from ncbench.reports.render.spelling import difference_text, groups, has_notes, one_line

_ESCAPES = str.maketrans(
    {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
    | {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "°": r"$^\circ$", "<": r"$<$", ">": r"$>$"}
    # after a row's end these would be read as arguments of it; the others print as other signs in old fonts
    | {"[": "{[}", "]": "{]}", "*": "{*}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "−": "$-$", "†": r"$^\dagger$"}
)
_STYLES = {0: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}", 3: r"\textit{{{}}}"}


def to_latex(tables: Sequence[Table]) -> str:
    r"""Write one ``tabular`` a table; the document needs ``booktabs`` (and ``[T1]{fontenc}`` where names hold quotes).

    Args:
        tables: In order.

    Returns:
        Text to be taken in by ``\input``. Results and notes stand in comments, since a paper has its own captions.
    """
    head = "% needs \\usepackage{booktabs}; best bold, second underlined, third in italics, dagger: not significantly\n"
    head += "% different from the best; in brackets the difference, result minus published number\n"
    return head + "\n".join(_table(table) for table in tables)


def _table(table: Table) -> str:
    notes = has_notes(table)
    lines = [f"% {one_line(table.name)}: {one_line(table.title)}"]
    lines.append(rf"\begin{{tabular}}{{l{'r' * len(table.columns)}{'l' if notes else ''}}}")
    lines += [r"\toprule", *_group_heads(table)]
    labels = ["model", *(escape(column.label) for column in table.columns), *(["note"] if notes else [])]
    lines += [" & ".join(labels) + r" \\", r"\midrule"]
    for row in table.rows:
        lines.append(_row(row, notes))
        lines += [f"% {link}" for link in dict.fromkeys(cell.link for cell in row.cells if cell.link)]
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% {one_line(note)}" for note in table.notes), ""]
    return "\n".join(lines)


def _group_heads(table: Table) -> list[str]:
    spans = groups(table)
    if all(not name for name, _ in spans):
        return []
    heads, rules, start = [""], [], 2
    for name, size in spans:
        heads.append(rf"\multicolumn{{{size}}}{{c}}{{{escape(name)}}}" if name else "& " * (size - 1))
        rules += [rf"\cmidrule(lr){{{start}-{start + size - 1}}}"] if name else []
        start += size
    return [" & ".join(heads) + r" \\", "".join(rules)]


def _row(row: Row, notes: bool) -> str:
    cells = [escape(row.label), *(_cell(cell) for cell in row.cells), *([escape(row.note)] if notes else [])]
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    text = _STYLES[cell.place].format(escape(cell.text)) + (r"$^\dagger$" if cell.tied else "")
    change = difference_text(cell)
    return f"{text} ({change})" if change else text


def escape(text: str) -> str:
    r"""Escape text for LaTeX, on one line.

    Examples:
        >>> print(escape("100% & [a_b]"))
        100\% \& {[}a\_b{]}
    """
    return one_line(text).translate(_ESCAPES)
