"""The command line: parses and delegates, no logic. Heavy imports wait until a verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from ncbench.errors import NcbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ncbench.cards import Card


class _ErrorsWithoutTraceback(TyperGroup):
    """Prints an error that the user can act on, without a traceback, and exits with its code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's base class leaves the context's type private
        try:
            return super().invoke(ctx)
        except (NcbenchError, OSError) as error:
            if ctx.params["debug"]:
                raise
            typer.secho(f"error: {error}", err=True, fg="red")
            raise typer.Exit(getattr(error, "exit_code", 1)) from error


app = typer.Typer(
    name="ncbench",
    cls=_ErrorsWithoutTraceback,
    help="Honest, fast, reproducible benchmarks and data for surface normals from images and video.",
    epilog="Example: ncbench fetch rooms && ncbench prepare rooms && ncbench predict depth_oracle rooms",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
datasets_app = typer.Typer(no_args_is_help=True, help="List and show data sets.")
models_app = typer.Typer(no_args_is_help=True, help="List and show models.")
protocols_app = typer.Typer(no_args_is_help=True, help="List, show and lock evaluation protocols.")
app.add_typer(datasets_app, name="datasets")
app.add_typer(models_app, name="models")
app.add_typer(protocols_app, name="protocols")

DatasetName = Annotated[str, typer.Argument(help="Name of a data set card, or a path to a YAML file.")]
ModelName = Annotated[str, typer.Argument(help="Name of a model card.")]
ProtocolName = Annotated[str, typer.Argument(help="Name of a protocol card.")]
Stores = Annotated[Path, typer.Option(help="Folder of prepared data sets.")]
Predictions = Annotated[Path, typer.Option(help="Folder of prediction stores.")]
Results = Annotated[Path, typer.Option(help="Folder of results.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Worker processes.")]

RAW, STORES, PREDICTIONS = Path("data/raw"), Path("data/stores"), Path("data/predictions")
RESULTS, REPORT = Path("data/results"), Path("reports/generated")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001 the group reads it
) -> None:
    if version:
        from ncbench import __version__

        typer.echo(__version__)
        raise typer.Exit


@datasets_app.command("list", epilog="Example: ncbench datasets list")
def datasets_list(stores: Stores = STORES) -> None:
    """List every data set, its role and whether it is prepared here."""
    from ncbench import catalog
    from ncbench.cards import DatasetCard
    from ncbench.datasets.store import is_store

    cards, problems = catalog.load_all(DatasetCard)
    rows = [
        (
            *(name, card.role, f"{card.frames:,}" if card.frames else "-", card.licence.name),
            *(card.source.kind, "yes" if is_store(stores / name) else "-"),
        )
        for name, card in cards.items()
    ]
    _print_list(("name", "role", "frames", "licence", "source", "prepared"), rows, problems)


@datasets_app.command("show", epilog="Example: ncbench datasets show sintel")
def datasets_show(name: DatasetName) -> None:
    """Print a data set's card, with everything that it extends filled in."""
    from ncbench import catalog
    from ncbench.cards import DatasetCard

    _print_card(catalog.load(DatasetCard, name))


@models_app.command("list", epilog="Example: ncbench models list")
def models_list() -> None:
    """List every model, its kind and the axes that it answers in."""
    from ncbench import catalog
    from ncbench.cards import ModelCard

    cards, problems = catalog.load_all(ModelCard)
    rows = [
        (name, card.title, card.kind, card.axes, card.weights.licence.name if card.weights else "no weights")
        for name, card in cards.items()
    ]
    _print_list(("name", "title", "kind", "axes", "weights"), rows, problems)


@models_app.command("show", epilog="Example: ncbench models show depth_oracle")
def models_show(name: ModelName) -> None:
    """Print a model's card."""
    from ncbench import catalog
    from ncbench.cards import ModelCard

    _print_card(catalog.load(ModelCard, name))


@protocols_app.command("list", epilog="Example: ncbench protocols list")
def protocols_list() -> None:
    """List every protocol and its data set."""
    from ncbench import catalog
    from ncbench.cards import ProtocolCard

    cards, problems = catalog.load_all(ProtocolCard)
    rows = [(name, card.title, card.dataset, card.pooling, card.resolution) for name, card in cards.items()]
    _print_list(("name", "title", "data set", "pooling", "resolution"), rows, problems)


@protocols_app.command("show", epilog="Example: ncbench protocols show motorcycle")
def protocols_show(name: ProtocolName) -> None:
    """Print a protocol's card, defaults included, and which models were trained on its data set."""
    from ncbench import catalog
    from ncbench.cards import ModelCard, ProtocolCard

    card = catalog.load(ProtocolCard, name)
    _print_card(card)
    seen = [model.name for model in catalog.load_all(ModelCard)[0].values() if card.dataset in model.training_sets]
    if seen:
        typer.echo(f"# trained on {card.dataset}: {', '.join(seen)}")


@protocols_app.command("lock", epilog="Example: ncbench protocols lock rooms --to data/protocols/rooms.json")
def protocols_lock(
    name: ProtocolName,
    to: Annotated[Path, typer.Option(help="The file to write.")],
    stores: Stores = STORES,
) -> None:
    """Write down what a protocol means here: its hash, its data's digest and the frames that it covers."""
    from ncbench.protocol import lock_protocol

    lock_protocol(name, stores, to)


@app.command(epilog="Example: ncbench cards --to data/cards")
def cards(to: Annotated[Path, typer.Option(help="The folder to write; replaced.")]) -> None:
    """Write every card with all defaults filled in."""
    from ncbench.catalog import write_catalog

    typer.echo(f"{write_catalog(to)} cards written to {to}")


@app.command(epilog="Example: ncbench fetch matrixcity-small --scenes block_3 --dry-run")
def fetch(
    name: DatasetName,
    to: Annotated[Path | None, typer.Option(help="Raw folder; default data/raw/NAME.")] = None,
    scenes: Annotated[
        list[str] | None, typer.Option(help="Only files of these scenes; patterns such as 'ai_001_*'; repeat it.")
    ] = None,
    local: Annotated[Path | None, typer.Option(help="Your folder of archives, or of the unpacked data set.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files, sizes and free disk; write nothing.")] = False,
) -> None:
    """Bring a data set's source files here, or say how to get them; resumes a cut download."""
    from functools import partial

    from ncbench import catalog
    from ncbench.cards import DatasetCard
    from ncbench.datasets.fetch import fetch as run
    from ncbench.progress import progress_bar

    card = catalog.load(DatasetCard, name)
    folder = to or RAW / card.name
    if dry_run:
        typer.echo(str(run(card, folder, scenes=scenes or None, local=local, dry_run=True)))
        return
    bars = partial(progress_bar, of_bytes=True)
    done = run(card, folder, scenes=scenes or None, local=local, progress=bars)
    typer.echo(f"{card.name}: {'fetched into' if done else 'already in'} {folder}")


@app.command(epilog="Example: ncbench prepare sintel --raw ~/Downloads/sintel --jobs 2")
def prepare(
    name: DatasetName,
    raw: Annotated[Path | None, typer.Option(help="Folder of source files; default data/raw/NAME.")] = None,
    to: Annotated[Path | None, typer.Option(help="The store; default data/stores/NAME.")] = None,
    jobs: Jobs = 1,
    max_skipped: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of frames that may be left out.")
    ] = 0.01,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take the files that are there, however many the card expects.")
    ] = False,
) -> None:
    """Normalize source files into a store that [b]datasets.load_from_disk[/] opens; resumes where it stopped.

    Normals that contradict the depth are refused with the axes convention that fits.
    """
    from ncbench import catalog
    from ncbench.cards import DatasetCard
    from ncbench.datasets.audit_axes import check_axes
    from ncbench.datasets.prepare import prepare as run
    from ncbench.datasets.recipe import recipe_for
    from ncbench.progress import progress_bar

    card = catalog.load(DatasetCard, name)
    store = to or STORES / card.name
    recipe = recipe_for(card, raw or RAW / card.name)
    with progress_bar(f"prepare {card.name}") as report:
        manifest = run(
            recipe,
            store,
            jobs=jobs,
            progress=report,
            max_skipped=max_skipped,
            check=check_axes,
            expected_frames=None if partial else card.frames,
        )
    left_out = f", {len(manifest.skipped)} left out" if manifest.skipped else ""
    typer.echo(f"{card.name}: {manifest.rows} frames in {len(manifest.shards)} shards at {store}{left_out}")


@app.command(epilog="Example: ncbench audit data/stores/rooms --to audit/rooms")
def audit(
    store: Annotated[Path, typer.Argument(help="A prepared store.")],
    to: Annotated[Path | None, typer.Option(help="Folder for the tables and a contact sheet.")] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Look at so many frames, evenly spread.")] = None,
    jobs: Jobs = 1,
) -> None:
    """Verify a store, then check its normals: unit length, facing, agreement with depth, coverage, duplicates."""
    from ncbench.datasets.audit import audit as run
    from ncbench.datasets.audit_sheet import contact_sheet
    from ncbench.errors import SourceError
    from ncbench.progress import progress_bar

    verify([store], jobs)
    with progress_bar(f"audit {store.name}") as bar:
        found = run(store, max_frames, jobs, bar)
    typer.echo(found.findings.to_string(index=False))
    if to is not None:
        found.save(to)
        contact_sheet(store, found, to / "sheet.png")
        typer.echo(f"{to}: tables and sheet.png")
    if not found.ok:
        raise SourceError(f"{store}: the audit found errors (above). See docs/audit.md for what each means.")


@app.command(epilog="Example: ncbench export data/stores/rooms --to folder --axes opengl --dtype png16 --out rooms_png")
def export(
    store: Annotated[Path, typer.Argument(help="A prepared store.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    to: Annotated[str, typer.Option(help="folder, dsine_eval, marigold, webdataset or parquet.")] = "folder",
    axes: Annotated[str | None, typer.Option(help="Axes of the written normals; default: the form's own.")] = None,
    dtype: Annotated[str | None, typer.Option(help="png8, png16, npy or exr; default: the form's own.")] = None,
    sequence: Annotated[list[str] | None, typer.Option(help="Only this sequence; repeat it.")] = None,
    jobs: Jobs = 1,
) -> None:
    """Write a store in another form, for a model that reads that; resumes by sequence."""
    from ncbench.datasets.export import export as run
    from ncbench.progress import progress_bar

    with progress_bar(f"export {store.name}") as bar:
        run(store, out, form=to, axes=axes, dtype=dtype, sequences=sequence or None, jobs=jobs, progress=bar)
    typer.echo(f"{store}: written to {out}")


@app.command(epilog="Example: ncbench verify data/stores/rooms data/stores/motorcycle")
def verify(stores: Annotated[list[Path], typer.Argument(help="Stores to check.")], jobs: Jobs = 1) -> None:
    """Compare every shard with its recorded sha256; exits 4 where anything differs."""
    from ncbench.datasets.integrity import verify as run
    from ncbench.errors import StoreError

    problems = [f"{store}: {problem}" for store in stores for problem in run(store, jobs=jobs)]
    if problems:
        raise StoreError("\n".join([*problems, "Run 'ncbench repair STORE --raw FOLDER' to mend them."]))
    typer.echo(f"{len(stores)} store(s) verified")


@app.command(epilog="Example: ncbench repair data/stores/rooms --raw data/raw/rooms")
def repair(
    store: Annotated[Path, typer.Argument(help="The store to mend.")],
    raw: Annotated[Path, typer.Option(help="Folder of the source files that it was made from.")],
    card: Annotated[
        str | None, typer.Option(help="Card it was made by; default: its own, else the catalogue's.")
    ] = None,
    jobs: Jobs = 1,
) -> None:
    """Mend only what fails verification."""
    from ncbench.datasets.integrity import repair as run
    from ncbench.datasets.recipe import recipe_to_repair

    mended = run(store, recipe_to_repair(store, raw, card), jobs=jobs)
    names = ", ".join(dict.fromkeys(problem.file for problem in mended))
    typer.echo(f"{store}: {f'mended {names}' if mended else 'nothing to repair'}")


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


@app.command(epilog="Example: ncbench doctor")
def doctor(stores: Stores = STORES) -> None:
    """Say what this machine can run, what is missing and how to get it."""
    from ncbench.doctor import diagnose

    shown = Table("check", "state", "what to do", title="ncbench doctor", title_justify="left")
    findings = diagnose(stores)
    for finding in findings:
        colour = "green" if finding.ok else "yellow"
        shown.add_row(finding.check, f"[{colour}]{escape(finding.state)}[/]", escape(finding.remedy))
    Console().print(shown)
    if not all(finding.ok or finding.optional for finding in findings):
        raise typer.Exit(1)


def _print_list(columns: tuple[str, ...], rows: Sequence[Sequence[str]], problems: list[str]) -> None:
    shown = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        # prose gives way to a narrow terminal; the rest, names above all, is never cut
        shown.add_column(column, no_wrap=column not in {"title", "licence"})
    for row in rows:
        shown.add_row(*map(escape, row))
    Console().print(shown)
    for problem in problems:
        typer.secho(f"not a card, left out: {problem}", err=True, fg="yellow")


def _print_card(card: Card) -> None:
    from ncbench.cards import to_yaml

    typer.echo(to_yaml(card), nl=False)


def main() -> None:
    """Run the command line."""
    app()
