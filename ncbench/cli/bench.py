"""Verbs that predict, score and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ncbench.cli.options import (
    PREDICTIONS,
    REPORT,
    RESULTS,
    STORES,
    ModelName,
    Predictions,
    ProtocolName,
    Results,
    Stores,
)

app = typer.Typer()


@app.command(epilog="Example: ncbench predict depth_oracle motorcycle")
def predict(
    model: ModelName,
    protocol: ProtocolName,
    stores: Stores = STORES,
    predictions: Predictions = PREDICTIONS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again whatever is there.")] = False,
) -> None:
    """Run a model over a protocol's data and store its normals; resumes by sequence."""
    from ncbench.models.run import predict as run
    from ncbench.progress import progress_bar

    with progress_bar(f"{model} on {protocol}") as report:
        folder = run(model, protocol, stores=stores, predictions=predictions, overwrite=overwrite, progress=report)
    typer.echo(f"{model} on {protocol}: {folder}")


@app.command(epilog="Example: ncbench evaluate depth_oracle motorcycle")
def evaluate(
    model: ModelName,
    protocol: ProtocolName,
    stores: Stores = STORES,
    predictions: Predictions = PREDICTIONS,
    results: Results = RESULTS,
) -> None:
    """Score stored predictions; exits 6 where a frame could not be scored (the result says which)."""
    from ncbench.errors import ScoreError
    from ncbench.evaluators.run import evaluate as run
    from ncbench.progress import progress_bar

    with progress_bar(f"score {model} on {protocol}") as report:
        frame = run(model, protocol, stores=stores, predictions=predictions, results=results, progress=report)
    row = frame.iloc[0]
    folder = results / row["protocol"] / row["model"]
    if row["status"] == "empty":
        raise ScoreError(f"{folder}: no pixel of the truth is valid, so that there is nothing to score.")
    if row["status"] == "partial":
        raise ScoreError(f"{folder}: {row['failed']} of {row['frames']} frames failed; frames.parquet says why.")
    typer.echo(f"{row['model']} on {row['protocol']}: mean {row['mean']:.2f}°, median {row['median']:.2f}° ({folder})")


@app.command(epilog="Example: ncbench report --results data/results --to reports/generated")
def report(
    results: Results = RESULTS,
    stores: Stores = STORES,
    predictions: Predictions = PREDICTIONS,
    to: Annotated[Path, typer.Option(help="The report's folder; replaced as a whole.")] = REPORT,
    card: Annotated[str, typer.Option(help="Name of a report card.")] = "main",
    check: Annotated[bool, typer.Option("--check", help="Exit 6 where a protocol's expected value is missed.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the tables of an existing report, build nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no tables.")] = False,
) -> None:
    """Build tables (CSV, Markdown, LaTeX) and an HTML page from results."""
    from ncbench.reports.build import build_report, check_expected, report_files, report_tables
    from ncbench.reports.render import print_tables

    tables = report_tables(card, results) if show else build_report(card, results, stores, predictions, to)
    if not quiet:
        # a log has no width of its own: take what the table needs
        print_tables(tables, Console() if Console().is_terminal else Console(width=120))
    for path in report_files(to):
        typer.echo(str(path))
    if check:
        check_expected(results)
