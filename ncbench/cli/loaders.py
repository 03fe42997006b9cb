"""Verbs about the data side of training: recipes, what they give, and copies that load faster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ncbench.cli.options import STORES, Jobs, Stores
from ncbench.cli.tables import print_frame, print_list

app = typer.Typer(no_args_is_help=True, help="List and show training recipes; copy stores for training.")
RecipeName = Annotated[str, typer.Argument(help="Name of a recipe card, or a path to a YAML file.")]


@app.command("list", epilog="Example: ncbench loaders list")
def loaders_list() -> None:
    """List every recipe, its data sets and clip lengths."""
    from ncbench import catalog
    from ncbench.loader_card import LoaderCard

    cards, problems = catalog.load_all(LoaderCard)
    rows = [
        (name, card.title, ", ".join(one.dataset for one in card.sets), "-".join(map(str, card.length)))
        for name, card in cards.items()
    ]
    print_list(("name", "title", "data sets", "frames"), rows, problems)


@app.command("show", epilog="Example: ncbench loaders show mini --sheet mini.png")
def loaders_show(
    name: RecipeName,
    stores: Stores = STORES,
    sheet: Annotated[Path | None, typer.Option(help="Also draw clips with their normals into this PNG.")] = None,
    batches: Annotated[int, typer.Option(min=1, help="Batches to read for the speed.")] = 16,
    workers: Annotated[int, typer.Option(min=0, help="Loading threads; 0 loads in this one.")] = 0,
) -> None:
    """Show what a recipe gives: the mixture's real proportions, a batch's tensors, samples a second, pictures."""
    from ncbench import catalog
    from ncbench.loader_card import LoaderCard
    from ncbench.loaders.show import contact_sheet, describe

    card = catalog.load(LoaderCard, name)
    report = describe(card, stores, batches, workers)
    console = Console() if Console().is_terminal else Console(width=120)
    print_frame(report.mixture, f"{card.name}: the first epoch", console)
    print_frame(report.batch, "a batch", console)
    for dataset, frames in report.left_out.items():
        if frames:
            typer.echo(f"{dataset}: {frames} frames are left out, since no clip of the allowed lengths fits")
    typer.echo(f"{report.samples_per_second:.1f} samples/s, {report.frames_per_second:.1f} frames/s here")
    if sheet:
        typer.echo(str(contact_sheet(card, stores, sheet)))


@app.command("copy", epilog="Example: ncbench loaders copy data/stores/rooms --to data/training/rooms")
def loaders_copy(
    store: Annotated[Path, typer.Argument(help="A prepared store.")],
    to: Annotated[Path, typer.Option(help="Where the copy goes.")],
    jobs: Jobs = 1,
) -> None:
    """Copy a store with its pictures in a coding that loads several times faster than PNG, without loss."""
    from ncbench.datasets.store import open_store
    from ncbench.loaders.training_copy import write_training_copy

    manifest = write_training_copy(open_store(store), to, jobs)
    typer.echo(f"{to}: {manifest.rows} frames")
