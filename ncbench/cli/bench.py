"""Verbs that predict, score and report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from ncbench.cli.options import (
    FLOW,
    PREDICTIONS,
    REPORT,
    RESULTS,
    STORES,
    Axes,
    FrameOffset,
    Jobs,
    Key,
    ModelName,
    Pattern,
    Predictions,
    PredictionsName,
    ProtocolName,
    ProtocolOption,
    Results,
    Stores,
)

if TYPE_CHECKING:
    import pandas as pd

    from ncbench.reports.layout import Table

app = typer.Typer()


@app.command(epilog="Example: ncbench predict depth_oracle motorcycle")
def predict(
    model: ModelName,
    protocol: ProtocolName,
    stores: Stores = STORES,
    predictions: Predictions = PREDICTIONS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again whatever is there.")] = False,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of the model's weights, for work offline; default: the Hub's cache.")
    ] = None,
    devices: Annotated[
        str,
        typer.Option(help="Such as 'cuda:0,cuda:1': one worker each. Default: cuda:0 where there is one, else cpu."),
    ] = "",
    jobs: Jobs = 1,
    precision: Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Number format of the network.")] = "fp32",
    compile_network: Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="What all randomness is drawn from.")] = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Frames at a time for a per-frame model; default: as many as fit.")
    ] = None,
) -> None:
    """Run a model over a protocol's data and store its answers; resumes by sequence."""
    from ncbench.models.run import RunOptions
    from ncbench.models.run import predict as run
    from ncbench.progress import progress_bars

    named = tuple(name.strip() for name in devices.split(",") if name.strip())
    options = RunOptions(weights, named, jobs, precision, compile_network, seed, batch_size)
    with (
        progress_bars() as opened,
        opened(f"{model} on {protocol}") as report,
        opened("frames of the sequence") as frames,
    ):
        folder = run(
            model,
            protocol,
            stores=stores,
            predictions=predictions,
            overwrite=overwrite,
            progress=report,
            frame_progress=frames,
            options=options,
        )
    typer.echo(f"{model} on {protocol}: {folder}")


@app.command(
    epilog="Example: ncbench evaluate depth_oracle --protocol motorcycle, or "
    "ncbench evaluate my_results/ --protocol dsine-sintel --axes opengl --pattern '{sequence}/{frame:04d}.png'"
)
def evaluate(
    preds: PredictionsName,
    protocol: ProtocolOption,
    stores: Stores = STORES,
    predictions: Predictions = PREDICTIONS,
    results: Results = RESULTS,
    axes: Axes = None,
    name: Annotated[str | None, typer.Option(help="What a plain folder's result is called.")] = None,
    pattern: Pattern = None,
    key: Key = None,
    frame_offset: FrameOffset = 0,
    jobs: Jobs = 1,
    probe: Annotated[
        Literal["stop", "warn", "off"],
        typer.Option(help="Where the predictions look wrongly read: stop, score and warn, or do not look."),
    ] = "stop",
    expect: Annotated[
        Path | None, typer.Option(help="Values to reach: CSV, YAML, JSON or a result.json; exits 6 on a miss.")
    ] = None,
    flow_cache: Annotated[Path, typer.Option(help="Folder that estimated flow is kept in.")] = FLOW,
) -> None:
    """Score predictions; resumes by sequence. Exits 6 where a frame could not be scored or the probe stops."""
    from ncbench.evaluators.expected import require_expected
    from ncbench.evaluators.predictions import FolderOptions
    from ncbench.evaluators.run import evaluate as run
    from ncbench.progress import progress_bar

    options = FolderOptions(axes, name, pattern, key, frame_offset)
    with progress_bar(f"score {preds} on {protocol}") as report:
        frame = run(
            preds,
            protocol,
            stores=stores,
            predictions=predictions,
            results=results,
            options=options,
            jobs=jobs,
            on_mistake=probe,
            flow_cache=flow_cache,
            progress=report,
        )
    _print_scores(frame.iloc[0].to_dict(), results)
    if expect:
        row = frame.iloc[0]
        require_expected(results / row["protocol"] / row["model"], expect)


@app.command(
    "probe",
    epilog="Example: ncbench probe my_results/ --protocol dsine-sintel --axes opengl",
)
def probe_predictions(
    preds: PredictionsName,
    protocol: ProtocolOption,
    stores: Stores = STORES,
    predictions: Predictions = PREDICTIONS,
    axes: Axes = None,
    pattern: Pattern = None,
    key: Key = None,
    frame_offset: FrameOffset = 0,
) -> None:
    """Say whether predictions are read rightly: axes, encoding, place, order. Exits 6 where they are not."""
    from ncbench.evaluators.predictions import FolderOptions
    from ncbench.evaluators.run import probe_named

    options = FolderOptions(axes, None, pattern, key, frame_offset)
    diagnosis = probe_named(preds, protocol, stores=stores, predictions=predictions, options=options)
    typer.echo(f"{diagnosis.kind}: {diagnosis.message}")
    if diagnosis.fix:
        typer.echo(f"remedy: {diagnosis.fix}")
    if diagnosis.fatal:
        raise typer.Exit(6)


@app.command(epilog="Example: ncbench report --results data/results --to reports/generated")
def report(
    results: Results = RESULTS,
    stores: Stores = STORES,
    predictions: Predictions = PREDICTIONS,
    to: Annotated[Path, typer.Option(help="The report's folder; replaced as a whole.")] = REPORT,
    card: Annotated[str, typer.Option(help="Name of a report card.")] = "main",
    check: Annotated[
        Literal["expected", "published"] | None,
        typer.Option(
            help="Exit 6 where a result misses a value that its protocol's card expects, or that a paper published."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the tables, write nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no tables.")] = False,
    figures: Annotated[
        Path | None, typer.Option(help="Write only figures for print (PDF, SVG, PNG) into this folder.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Write only a side-by-side video of --clip: a .mp4, .webm or .gif file.")
    ] = None,
    clip: Annotated[str, typer.Option(help="PROTOCOL/SEQUENCE of the video.")] = "",
    model: Annotated[
        list[str] | None, typer.Option(help="A model of the video; may be given again. Default: all.")
    ] = None,
    fps: Annotated[float, typer.Option(min=0.1, help="Frames a second of the video.")] = 12.0,
) -> None:
    """Build tables (CSV, Parquet, Markdown, LaTeX, HTML) and a page with pictures from results."""
    from ncbench.evaluators.expected import require_ok
    from ncbench.reports.build import build_report, check_report, report_files, report_tables
    from ncbench.reports.render.terminal import print_tables

    if (clip or model) and not video:
        raise typer.BadParameter("--clip and --model say what --video FILE shows; give that, too")
    # a log has no width of its own: take what the table needs
    console = Console() if Console().is_terminal else Console(width=200)
    if figures or video:
        _draw(report_tables(card, results), (stores, predictions), figures, video, (clip, tuple(model or ()), fps))
    else:
        tables = report_tables(card, results) if show else build_report(card, results, stores, predictions, to)
        own = [table for table in tables if table.kind != "paper"]
        print_tables([] if quiet else own or tables, console)
        for path in () if show else report_files(to):  # an earlier report may be of other results
            typer.echo(str(path))
    if check:
        table = check_report(card, results, check)
        _print_checks(table, console)
        if not table.empty:
            require_ok(table)


def _draw(
    tables: list[Table],
    sources: tuple[Path, Path],
    figures: Path | None,
    video: Path | None,
    clip: tuple[str, tuple[str, ...], float],
) -> None:
    """Write figures or a video, and say where."""
    from ncbench.reports.figures import write_figures
    from ncbench.reports.side_by_side import write_clip

    if figures:
        for path in write_figures([table for table in tables if table.results], figures, ["pdf", "svg", "png"]):
            typer.echo(str(path))
    if video:
        name, models, fps = clip
        count = write_clip(tables, name, video, sources, models, fps)
        typer.echo(f"{video}: {count} frames")


def _print_checks(table: pd.DataFrame, console: Console) -> None:
    """Print every value that was looked for beside what was found."""
    from rich.table import Table

    if table.empty:
        console.print("No expected or published value speaks of these results.")
        return
    shown = Table("protocol", "model", "metric", "expected", "found", "difference", "tolerance", "status", "source")
    for row in table[table["status"] != "absent"].to_dict("records"):
        numbers = f"{row['expected']:g}", f"{row['found']:.4g}", f"{row['difference']:+.2g}", f"± {row['tolerance']:g}"
        names = (escape(str(row[name])) for name in ("protocol", "model", "metric"))
        shown.add_row(*names, *numbers, str(row["status"]), escape(str(row["source"])))
    console.print(shown)


def _print_scores(row: Mapping[Any, Any], results: Path) -> None:
    """Say how it went, headline first; raise where there is no complete result."""
    from ncbench.errors import ScoreError

    folder = results / row["protocol"] / row["model"]
    if row["mistake"]:
        typer.secho(f"warning: {row['mistake']}", err=True, fg="yellow")
    if row["status"] == "empty":
        raise ScoreError(f"{folder}: no pixel of the truth is valid, so that there is nothing to score.")
    if row["status"] == "partial":
        raise ScoreError(f"{folder}: {row['failed']} of {row['frames']} frames failed; frames.parquet says why.")
    headline = {"mean": "°", "median": "°", "bfd_flicker": "°", "abs_rel": "", "delta1": "", "tae": " %"}
    shown = ", ".join(f"{name} {row[name]:.2f}{unit}" for name, unit in headline.items() if name in row)
    typer.echo(f"{row['model']} on {row['protocol']}: {shown} ({folder})")
