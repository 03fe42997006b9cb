"""Build every form of a report from result files alone."""

from __future__ import annotations

from pathlib import Path

from ncbench import catalog
from ncbench.cards import ReportCard
from ncbench.evaluators.expectations import expectations_of, flat
from ncbench.evaluators.expected import check, require_ok
from ncbench.files import replacing_folder
from ncbench.protocol_card import ProtocolCard
from ncbench.reports.page import write_page
from ncbench.reports.render import to_csv, to_latex, to_markdown
from ncbench.reports.results import load_results
from ncbench.reports.table import Table, build_tables

_FILES = ("index.html", "report.md", "report.tex", "report.csv")


def report_tables(card: str, results: Path) -> list[Table]:
    """Build the tables of a report without writing anything.

    Args:
        card: Name of a report card.
        results: Folder of results.

    Returns:
        The tables.

    Raises:
        NcbenchError: No such card, no results, or results that contradict themselves.
    """
    return build_tables(load_results(results), catalog.load(ReportCard, card))


def build_report(card: str, results: Path, stores: Path, predictions: Path, to: Path) -> list[Table]:
    """Write the report's folder: page, Markdown, LaTeX and CSV; the same results give the same bytes.

    Args:
        card: Name of a report card.
        results: Folder of results.
        stores: Folder of prepared data sets, for the pictures.
        predictions: Folder of prediction stores, for the pictures.
        to: The report's folder; an earlier report there is replaced as a whole when this one is complete.

    Returns:
        The tables.

    Raises:
        NcbenchError: No results, results that contradict themselves, a folder that holds something else, or a full
            disk.
    """
    report = catalog.load(ReportCard, card)
    tables = build_tables(load_results(results), report)
    with replacing_folder(to, "report") as partial:
        write_page(partial, tables, report, stores, predictions)
        (partial / "report.md").write_text(to_markdown(tables, report.title), encoding="utf-8")
        (partial / "report.tex").write_text(to_latex(tables), encoding="utf-8")
        (partial / "report.csv").write_text(to_csv(tables), encoding="utf-8")
    return tables


def report_files(folder: Path) -> list[Path]:
    """Name the files of a report that a reader opens; none where there is no report."""
    return [folder / name for name in _FILES if (folder / name).is_file()]


def check_expected(results: Path) -> None:
    """Compare results with the values that their protocols expect.

    Args:
        results: Folder of results; protocols without a result here are not asked for.

    Raises:
        ScoreError: Listing every expected value that is missing or outside its tolerance.
    """
    loaded = load_results(results)
    found = {(one.protocol, one.model): flat(one.values.metrics) for one in loaded}
    names = sorted({one.protocol for one in loaded})
    require_ok(check(found, [item for name in names for item in expectations_of(catalog.load(ProtocolCard, name))]))
