"""Build every form of a report from result files alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import pandas as pd

from ncbench import catalog
from ncbench.cards import ReportCard
from ncbench.errors import StoreError
from ncbench.evaluators.expectations import expectations_of, flat
from ncbench.evaluators.expected import check
from ncbench.evaluators.run import RESULT_FILE
from ncbench.files import replacing_folder
from ncbench.protocol_card import ProtocolCard
from ncbench.reports.layout import Table
from ncbench.reports.overview import build_overview
from ncbench.reports.page import write_page
from ncbench.reports.paper import build_paper
from ncbench.reports.published import Number, check_mapping, expectations, load_published, published_file
from ncbench.reports.render.latex import to_latex
from ncbench.reports.render.markdown import to_markdown
from ncbench.reports.render.tidy import tidy, to_csv, write_dvc_files, write_parquet
from ncbench.reports.render.web import to_html
from ncbench.reports.results import Result, load_results
from ncbench.reports.table import build_tables

Against = Literal["expected", "published"]
_FILES = ("index.html", "tables.html", "report.md", "report.tex", "report.csv", "report.parquet")


def report_tables(card: str, results: Path) -> list[Table]:
    """Build the tables of a report without writing anything.

    Args:
        card: Name of a report card.
        results: Folder of results.

    Returns:
        Tables of protocols, then the overview, then those of papers. A card with ``paper`` is that table alone.

    Raises:
        NcbenchError: No such card, no results (a paper's table stands without), or results that contradict themselves.
    """
    report = catalog.load(ReportCard, card)
    return _tables(report, _results(report, results))


def build_report(card: str, results: Path, stores: Path, predictions: Path, to: Path) -> list[Table]:
    """Write the report's folder; the same results give the same bytes.

    Args:
        card: Name of a report card.
        results: Folder of results.
        stores: Folder of prepared data sets, for the pictures.
        predictions: Folder of prediction stores, for the pictures.
        to: Gets ``index.html`` (where there are results), ``tables.html``, ``report.md``, ``.tex``, ``.csv`` and
            ``.parquet``, ``metrics.json`` and ``plots/`` for DVC, and a copy of each result's JSON. An earlier report
            there is replaced as a whole when this one is complete.

    Returns:
        The tables.

    Raises:
        NcbenchError: No results, results that contradict themselves, a folder that holds something else or what the
            report is made from, or a full disk.
    """
    _refuse_own_inputs(to, (results, stores, predictions))
    report = catalog.load(ReportCard, card)
    loaded = _results(report, results)
    tables = _tables(report, loaded)
    rows = tidy(tables)
    with replacing_folder(to, "report") as partial:
        for one in loaded:
            copy = partial / unquote(one.link)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(one.folder / RESULT_FILE, copy)
        protocols = [table for table in tables if table.results]
        if protocols:
            beside = ("tables.html", "report.csv", "report.tex", "report.md")
            write_page(partial, protocols, report, stores, predictions, beside)
        (partial / "tables.html").write_text(to_html(tables, report.title), encoding="utf-8")
        (partial / "report.md").write_text(to_markdown(tables, report.title), encoding="utf-8")
        (partial / "report.tex").write_text(to_latex(tables), encoding="utf-8")
        (partial / "report.csv").write_text(to_csv(rows), encoding="utf-8")
        write_parquet(rows, partial / "report.parquet")
        write_dvc_files(tables, partial)
    return tables


def report_files(folder: Path) -> list[Path]:
    """Name the files of a report that a reader opens; none where there is no report."""
    return [folder / name for name in _FILES if (folder / name).is_file()]


def check_report(card: str, results: Path, against: Against) -> pd.DataFrame:
    """Compare results with the values that they should reach.

    Args:
        card: Name of a report card; it says which published numbers belong to which results.
        results: Folder of results; protocols without a result here are not asked for.
        against: ``expected``: what the protocols' own cards expect. ``published``: these, and the published numbers.

    Returns:
        As ``ncbench.evaluators.expected.check``: one row a value, with ``difference`` and ``status``. Give it to
        ``require_ok`` to refuse a miss.

    Raises:
        NcbenchError: No results, or a card that cannot be used.
    """
    report = catalog.load(ReportCard, card)
    loaded = load_results(results)
    names = sorted({one.protocol for one in loaded})
    wanted = [item for name in names for item in expectations_of(catalog.load(ProtocolCard, name))]
    if against == "published":
        # where a protocol's card quotes the same number, its tolerance stands
        quoted = {(item.protocol, item.model, item.metric, item.value) for item in wanted}
        scored = [(one.protocol, one.model) for one in loaded]
        published = expectations(_numbers(report), report.published, scored)
        wanted += [item for item in published if (item.protocol, item.model, item.metric, item.value) not in quoted]
    found = {(one.protocol, one.model): flat(one.values.metrics) for one in loaded}
    return check(found, wanted)


def _refuse_own_inputs(to: Path, inputs: Sequence[Path]) -> None:
    """An earlier report is replaced as a whole: whatever lies in its folder would be lost."""
    for folder in inputs:
        if folder.resolve().is_relative_to(to.resolve()):
            raise StoreError(f"{to}: holds {folder}, which a new report would remove. Choose another folder.")


def _results(report: ReportCard, folder: Path) -> list[Result]:
    if report.paper and not any(folder.glob(f"*/*/{RESULT_FILE}")):
        return []
    return load_results(folder)


def _numbers(report: ReportCard) -> list[Number]:
    numbers = load_published(published_file(report.published.file))
    check_mapping(numbers, report.published, f"report '{report.name}'")
    return numbers


def _tables(report: ReportCard, results: Sequence[Result]) -> list[Table]:
    numbers = _numbers(report)
    if report.paper:
        return [build_paper(report, results, numbers)]
    tables = build_tables(results, report, numbers)
    overview = build_overview(tables, report)
    papers = [catalog.load(ReportCard, name) for name in report.include]
    return [*tables, *([overview] if overview else []), *(build_paper(paper, results, numbers) for paper in papers)]
