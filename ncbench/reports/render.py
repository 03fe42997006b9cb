"""The neutral table as CSV, Markdown, LaTeX and for the terminal."""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from ncbench.reports.table import Table, label

_LATEX = str.maketrans(
    {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
    | {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "°": r"$^\circ$", "<": r"$<$", ">": r"$>$"}
)


def to_csv(tables: list[Table]) -> str:
    """All tables in one long file at full precision, one row a (protocol, model)."""
    frames = []
    for table in tables:
        frame = table.values.reset_index(names="title")
        frame.insert(0, "protocol", table.name)
        frame.insert(1, "model", [result.model for result in table.results])
        frames.append(frame)
    return pd.concat(frames).to_csv(index=False, lineterminator="\n")


def to_markdown(tables: list[Table], title: str) -> str:
    """GitHub's dialect: best values bold, a footer under each table."""
    lines = [f"# {_md(title)}", ""]
    for table in tables:
        text, best = table.text(), table.best()
        lines += [f"## {_md(table.title)}", "", "| model | " + " | ".join(map(label, table.metrics)) + " | note |"]
        lines.append("|---" + "|---:" * len(table.metrics) + "|---|")
        for row, model in enumerate(text.index):
            cells = [f"**{text[m].iloc[row]}**" if best[m].iloc[row] else text[m].iloc[row] for m in table.metrics]
            lines.append(f"| {_md(model)} | {' | '.join(cells)} | {_md(text['note'].iloc[row])} |")
        lines += ["", _md(table.footer), ""]
    return "\n".join(lines)


def to_latex(tables: list[Table]) -> str:
    """One booktabs tabular for each table."""
    out = []
    for table in tables:
        text, best = table.text(), table.best()
        lines = [rf"% {table.name}", r"\begin{tabular}{l" + "r" * len(table.metrics) + "l}", r"\toprule"]
        lines.append("model & " + " & ".join(label(m).translate(_LATEX) for m in table.metrics) + r" & note \\")
        lines.append(r"\midrule")
        for row, model in enumerate(text.index):
            cells = [
                rf"\textbf{{{text[m].iloc[row]}}}" if best[m].iloc[row] else text[m].iloc[row] for m in table.metrics
            ]
            cells.append(text["note"].iloc[row].translate(_LATEX))
            lines.append(f"{str(model).translate(_LATEX)} & " + " & ".join(cells) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", f"% {table.footer}", ""]
        out.append("\n".join(lines))
    return "\n".join(out)


def print_tables(tables: list[Table], console: Console) -> None:
    """Print every table to the terminal."""
    for table in tables:
        shown = RichTable(title=escape(table.title), caption=escape(table.footer))
        shown.title_justify = shown.caption_justify = "left"
        shown.box, shown.padding = box.SIMPLE_HEAD, (0, 1, 0, 0)
        shown.add_column("model", no_wrap=True)
        for metric in table.metrics:
            shown.add_column(label(metric), justify="right", no_wrap=True)
        shown.add_column("note", style="dim")
        text, best = table.text(), table.best()
        for row, model in enumerate(text.index):
            cells = [f"[bold]{text[m].iloc[row]}[/]" if best[m].iloc[row] else text[m].iloc[row] for m in table.metrics]
            shown.add_row(escape(str(model)), *cells, escape(text["note"].iloc[row]))
        console.print(shown)


def _md(text: str) -> str:
    """Escape what Markdown and a table cell would read as markup."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
