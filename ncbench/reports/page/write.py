"""Put the page together: the leaderboards as HTML, everything else as scripts that load on demand."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jinja2
from plotly.offline import get_plotlyjs

from ncbench.cards import ReportCard
from ncbench.evaluators.run import RESULT_FILE
from ncbench.reports.layout import Table
from ncbench.reports.page.board import PLACES, board_heads, board_rows
from ncbench.reports.page.clips import MOST_MODELS, PAGE_BYTES
from ncbench.reports.page.colours import colour_tables
from ncbench.reports.page.plots import plot_data, primary_metric, read_frames
from ncbench.reports.page.scripts import slug, write_script
from ncbench.reports.page.sources import Sources, open_sources
from ncbench.reports.page.viewer import write_viewer

SCRIPTS = ("core", "theme", "leaderboard", "figures", "plots", "maps", "panels", "stage", "timeline", "viewer", "main")
"""The page's own scripts, in the order that they load in."""


def write_page(
    folder: Path,
    tables: list[Table],
    card: ReportCard,
    stores: Path,
    predictions: Path,
    beside: Sequence[str] = (),
) -> Path:
    """Write ``index.html`` and all that it loads; the same inputs give the same bytes.

    Args:
        folder: Where to; made if needed.
        tables: Tables of protocols, best model first.
        card: Title, and how many frames of a protocol the viewer holds.
        stores: Folder of prepared data sets.
        predictions: Folder of prediction stores.
        beside: Names of files in the same folder that the page links to: the tables in other forms.

    Returns:
        The page's path.

    Raises:
        NcbenchError: A store that the pictures need is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_static(folder)
    sections = [
        _section(folder, slug(index, table.name), table, card, (stores, predictions), PAGE_BYTES / len(tables))
        for index, table in enumerate(tables)
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ncbench.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.j2").render(
        title=card.title, summary=card.summary, sections=sections, scripts=SCRIPTS, beside=beside
    )
    page = folder / "index.html"
    page.write_text(text, encoding="utf-8")
    return page


def _section(
    folder: Path, key: str, table: Table, card: ReportCard, places: tuple[Path, Path], budget: float
) -> dict[str, Any]:
    """Write one protocol's data and results; give what its part of the page is made from."""
    for result in table.results:
        copy = folder / unquote(result.link)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(result.folder / RESULT_FILE, copy)
    rows = [read_frames(result, primary_metric(table)) for result in table.results]
    wanted = card.pictures_per_protocol
    sources = open_sources(table, *places, MOST_MODELS) if wanted else Sources([], [])
    viewer = write_viewer(folder, key, sources, rows, wanted, budget)
    write_script(folder, f"{key}/protocol", plot_data(table, rows) | {"viewer": viewer})
    problems = [one.problem for one in rows if one.problem]
    return {
        "key": key,
        "table": table,
        "heads": board_heads(table),
        "rows": board_rows(table),
        "places": PLACES,
        "tied": any(cell.tied for row in table.rows for cell in row.cells),
        "viewer": viewer is not None,
        "notices": problems + sources.notices,
    }


def _write_static(folder: Path) -> None:
    target = folder / "static"
    target.mkdir(exist_ok=True)
    source = files("ncbench.reports") / "static"
    for name in ("report.css", *(f"{script}.js" for script in SCRIPTS)):
        (target / name).write_bytes((source / name).read_bytes())
    (target / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    write_script(folder, "colours", colour_tables())
