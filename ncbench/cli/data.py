"""Verbs that bring, prepare, check and hand over data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ncbench.cli.options import RAW, STORES, DatasetName, Jobs
from ncbench.errors import CardError

app = typer.Typer()


@app.command(epilog="Example: ncbench fetch bonn --scenes crowd2 --scenes 'balloon*'")
def fetch(
    name: DatasetName,
    to: Annotated[Path | None, typer.Option(help="Raw folder; default data/raw/NAME.")] = None,
    scenes: Annotated[
        list[str] | None, typer.Option(help="Only files of these scenes; patterns such as 'ai_001_*'; repeat it.")
    ] = None,
    local: Annotated[Path | None, typer.Option(help="Your folder of archives, or of the unpacked data set.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files, sizes and free disk; write nothing.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=16, help="Files downloaded at once.")] = 2,
) -> None:
    """Bring a data set's source files here, or say how to get them; resumes a cut download."""
    from ncbench import catalog
    from ncbench.cards import DatasetCard
    from ncbench.datasets.fetch import fetch as run
    from ncbench.progress import progress_bars

    card = catalog.load(DatasetCard, name)
    folder = to or RAW / card.name
    if dry_run:
        typer.echo(str(run(card, folder, scenes=scenes or None, local=local, dry_run=True)))
        return
    with progress_bars(of_bytes=True) as bars:
        done = run(card, folder, scenes=scenes or None, local=local, progress=bars, jobs=jobs)
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
    resize: Annotated[
        str | None, typer.Option(metavar="HxW", help="Height x width of every frame; not for test sets.")
    ] = None,
    max_size: Annotated[
        int | None, typer.Option(min=1, help="Longest side; larger frames shrink in proportion; not for test sets.")
    ] = None,
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
    recipe = recipe_for(card, raw or RAW / card.name)
    suffix = ""
    if resize is not None or max_size is not None:
        from ncbench.datasets.readers.resized import resized_recipe

        recipe = resized_recipe(recipe, None if resize is None else _size(resize), max_size)
        suffix = "-" + "-".join(str(part) for part in (resize, max_size) if part is not None)
    store = to or STORES / f"{card.name}{suffix}"
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
    against: Annotated[
        Path | None, typer.Option(help="A training store: list its pictures that look like this store's.")
    ] = None,
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
    if against is not None:
        from ncbench.datasets.duplicates import find_duplicates

        with progress_bar(f"compare with {against.name}") as bar:
            alike = find_duplicates(store, against, jobs=jobs, progress=bar)
        typer.echo(f"{len(alike)} pictures look like pictures of {against}")
        if len(alike):
            typer.echo(alike.to_string(index=False))
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


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise CardError(f"--resize: expected HEIGHTxWIDTH such as 480x640, found '{text}'")
    return int(found[1]), int(found[2])
