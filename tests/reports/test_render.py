"""Every style of the same table: parsed back by an independent reader, nothing breaks out of its cell."""

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from ncbench.reports.layout import Cell, Column, Row, Table, rank_column
from ncbench.reports.render.latex import escape as latex_escape
from ncbench.reports.render.latex import to_latex
from ncbench.reports.render.markdown import to_markdown
from ncbench.reports.render.spelling import difference_text
from ncbench.reports.render.terminal import print_tables
from ncbench.reports.render.tidy import tidy, to_csv, write_dvc_files
from ncbench.reports.render.web import to_html

EVIL = '<img src=x onerror=alert(1)> | 100% & $y_1$ *z* `c` \\q [a](b) @torvalds #1 ~~s~~ "q"\n\n# head'
SHOWN = " ".join(EVIL.split())


def table(label="model a", note="note", title="A table"):
    columns = (Column("0/mean", "mean", "mean", group="Set one"), rank_column("Set one", "0/"))
    columns += (Column("1/within_5", "<5°", "within_5", group="Set two"),)
    link = "results/p/a.json"
    first = (Cell(1.234, "1.23", 1, link=link), Cell(1.5, "1.5", 2, link=link), Cell(90.0, "90.00", 3, True, link=link))
    second = (Cell(1.3, "1.3", difference=-0.066), Cell(), Cell())
    rows = (Row("a", label, "result", first, note, link), Row("B", "B (paper)", "published", second))
    return Table("p", title, "protocol", columns, rows, ("First note.", "Second note."))


def parsed_tables(markdown):
    """Cells of every table as GitHub's dialect has them, as visible text."""
    found, row, cell = [], None, None
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            row = []
        elif token.type in ("th_open", "td_open"):
            cell = []
        elif token.type == "inline" and cell is not None:
            cell += [child.content for child in token.children if child.type in ("text", "text_special", "code_inline")]
        elif token.type in ("th_close", "td_close"):
            row.append("".join(cell))
            cell = None
        elif token.type == "tr_close":
            found[-1].append(row)
    return found


def test_markdown_parses_to_the_same_cells():
    (rows,) = parsed_tables(to_markdown([table()], "Title"))
    assert rows == [
        ["model", "Set onemean", "Set oneavg. rank", "Set two<5°", "note"],
        ["model a", "1.23", "1.5", "90.00†", "note"],
        ["B (paper)", "1.3 (-0.1)", "-", "-", ""],
    ]
    text = to_markdown([table()], "Title")
    assert "[model a](results/p/a.json)" in text
    assert "| **1.23** | <ins>1.5</ins> | *90.00*† |" in text


def test_markup_in_names_stays_text_in_markdown():
    text = to_markdown([table(EVIL, EVIL, EVIL)], EVIL)
    (rows,) = parsed_tables(text)
    assert [row[0].replace("\u200b", "") for row in rows] == ["model", SHOWN, "B (paper)"]
    assert rows[1][-1].replace("\u200b", "") == SHOWN
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    assert "<img" not in html
    assert "<code>" not in html
    assert len(re.findall("<h[12]>", html)) == 2
    assert "@torvalds" not in text, "a table must notify nobody"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u200b"), min_size=1, max_size=40))
def test_any_name_comes_back_from_markdown(name):
    (rows,) = parsed_tables(to_markdown([table(name)], "Title"))
    assert [len(row) for row in rows] == [5, 5, 5]
    assert rows[1][0].replace("\u200b", "") == " ".join(name.split())


def latex_cells(line):
    assert line.endswith(r" \\")
    return re.split(r"(?<!\\)&", line.removesuffix(r"\\"))


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_name_stays_one_cell_in_latex(name):
    lines = to_latex([table(name, "note", name)]).splitlines()
    start = lines.index(r"\midrule")
    assert len(latex_cells(lines[start + 1])) == 5
    bare = latex_escape(name)
    assert "\n" not in bare
    # braces pair, and nothing that LaTeX reads as a command or a comment is left
    without = re.sub(r"\\[&%$#_{}]|\$(<|>|-|\^\\circ|\^\\dagger)\$|\\[a-z]+\{\}", "", bare)
    assert without.count("{") == without.count("}")
    assert not re.search(r"[%$#_&~^\\]", without)


def test_latex_has_booktabs_rules_groups_and_marks():
    text = to_latex([table()])
    assert r"\begin{tabular}{lrrrl}" in text
    assert r"\multicolumn{2}{c}{Set one} & \multicolumn{1}{c}{Set two} \\" in text
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-4}" in text
    assert r"model a & \textbf{1.23} & \underline{1.5} & \textit{90.00}$^\dagger$ & note \\" in text
    assert "% results/p/a.json" in text
    # a name in brackets or with a star after a row's end would be read as that command's argument
    assert latex_escape("[2cm] *") == "{[}2cm{]} {*}"


@pytest.mark.skipif(not (shutil.which("tectonic") or shutil.which("pdflatex")), reason="no LaTeX on this machine")
def test_latex_compiles(tmp_path):
    head = (
        "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage[T1]{fontenc}\\usepackage{booktabs,textcomp}"
    )
    body = to_latex([table(), table(EVIL, EVIL, EVIL)])
    (tmp_path / "t.tex").write_text(f"{head}\n\\begin{{document}}\n{body}\n\\end{{document}}\n")
    tool = ["tectonic"] if shutil.which("tectonic") else ["pdflatex", "-halt-on-error", "-interaction=nonstopmode"]
    done = subprocess.run([*tool, "t.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.links, self.tags, self._open = [], [], [], False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._open = tag in ("td", "th") or (self._open and tag in ("a", "small"))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if "href" in dict(attrs):
            self.links.append(dict(attrs)["href"])

    def handle_endtag(self, tag):
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data):
        if self._open:
            self.rows[-1][-1] += data


def test_html_links_every_number_and_keeps_markup_as_text():
    page = Cells()
    page.feed(to_html([table(EVIL, EVIL, EVIL)], EVIL))
    assert page.rows[0] == ["", "Set one", "Set two"]
    assert page.rows[2] == [EVIL, "1.23", "1.5", "90.00†", EVIL]
    assert page.rows[3] == ["B (paper)", "1.3 (-0.1)", "-", "-", ""]
    assert page.links == ["results/p/a.json"] * 4
    assert "img" not in page.tags
    assert "script" not in page.tags


def test_csv_is_read_back_whole_and_starts_no_formula():
    rows = tidy([table('=HYPERLINK("http://x";"y")', '@note, with "quotes"\nand a line')])
    back = pd.read_csv(io.StringIO(to_csv(rows)), keep_default_na=False)
    assert back["title"][0] == '\'=HYPERLINK("http://x";"y")'
    assert back["row_note"][0] == '\'@note, with "quotes"\nand a line'
    assert float(back["value"][0]) == 1.234
    assert rows["title"][0].startswith("="), "Parquet holds names unchanged"
    assert list(rows["metric"]) == ["mean", "rank", "within_5"] * 2
    assert list(rows["place"])[:3] == ["best", "second", "third"]
    assert list(rows["tied"])[:3] == [False, False, True]
    assert rows["difference"][3] == -0.066


@pytest.mark.parametrize("width", [40, 70, 200])
def test_the_terminal_never_cuts_a_number(width):
    stream = io.StringIO()
    print_tables([table()], Console(file=stream, width=width))
    output = stream.getvalue()
    for text in ("1.23", "1.5", "90.00†", "1.3 (-0.1)", "model a", "Second note."):
        assert text in output


@pytest.mark.parametrize("width", range(44, 130))
def test_every_column_is_whole_at_any_width(width):
    texts = [f"{10 ** (index % 3) * 1.11:.2f}" for index in range(12)]
    columns = tuple(Column(f"c{index}", f"head{index}", "mean") for index in range(12))
    cells = tuple(Cell(float(text), text) for text in texts)
    name, note = (
        "a name of some length, which goes on for long",
        "a note of many words that wants more room than it gets",
    )
    rows = (Row("a", name, "result", cells, note), Row("b", "b", "result", cells))
    stream = io.StringIO()
    print_tables([Table("t", "T", "protocol", columns, rows, ())], Console(file=stream, width=width))
    output = stream.getvalue()
    assert "…" not in output
    assert all(len(line) <= width for line in output.splitlines())
    words = output.split()
    assert [words.count(column.label) for column in columns] == [1] * 12
    assert [words.count(text) for text in dict.fromkeys(texts)] == [8] * 3


def test_differences_have_the_decimals_of_the_published_number():
    assert difference_text(Cell(30.7, "30.7", difference=0.25)) == "+0.2"
    assert difference_text(Cell(0.131, "0.131", difference=-0.0049)) == "-0.005"
    assert difference_text(Cell(30.7, "30.7", difference=-0.01)) == "+0.0"
    assert difference_text(Cell(30.7, "30.7")) == ""
    assert difference_text(Cell(math.nan, "-", difference=1.0)) == ""


def test_dvc_reads_the_metrics_and_the_curves(write_result, tmp_path):
    from ncbench import catalog
    from ncbench.cards import ReportCard
    from ncbench.reports.results import load_results
    from ncbench.reports.table import build_tables

    write_result("a")
    write_result("b", failed=2)
    tables = build_tables(load_results(tmp_path), catalog.load(ReportCard, "main"))
    folder = tmp_path / "repo"
    folder.mkdir()
    write_dvc_files(tables, folder)
    (folder / "dvc.yaml").write_text(
        "metrics: [metrics.json]\nplots:\n  - plots:\n      x: threshold\n      y: accuracy\n"
    )
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}

    def run(*words):
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("git", "init", "-q")
    run("dvc", "init", "-q")
    shown = json.loads(run("dvc", "metrics", "show", "--json"))[""]["data"]["metrics.json"]["data"]
    assert shown["p"]["a"]["within_22_5"] == 70.0
    assert shown["p"]["b"] == {"failed": 2}
    plots = json.loads(run("dvc", "plots", "show", "--json"))["data"]
    (plot,) = plots["plots/p/a.csv"]
    points = [(float(one["threshold"]), float(one["accuracy"])) for one in plot["content"]["data"]["values"]]
    assert points == [(5, 20), (7.5, 30), (11.25, 60), (22.5, 70), (30, 80)]
    assert list(plots) == ["plots/p/a.csv"], "a partial result has no curve"
