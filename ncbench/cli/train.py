"""Verbs about training: recipes, and running one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ncbench.cli.options import STORES, Stores
from ncbench.cli.tables import print_list

app = typer.Typer()
recipes_app = typer.Typer(no_args_is_help=True, help="List and show training recipes.")
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe card, or a path to a YAML file.")]
Profile = Annotated[str | None, typer.Option(help="One of the recipe's profiles, such as 'small'.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; may be repeated.")
]


class Device(StrEnum):
    """Where training computes."""

    CPU = "cpu"
    CUDA = "cuda"


@app.command(
    epilog="Examples: ncbench train normalcrafter-stage1 --to data/training/normalcrafter-stage1 --profile small · "
    "accelerate launch --num_processes 8 -m ncbench train normalcrafter-stage1 --to data/training/normalcrafter-stage1"
)
def train(
    recipe: RecipeName,
    to: Annotated[Path, typer.Option(help="Folder of the run; an unfinished run there is gone on with.")],
    init: Annotated[
        Path | None, typer.Option(help="Weights to start from: a folder, or that of a finished run.")
    ] = None,
    stores: Stores = STORES,
    profile: Profile = None,
    steps: Annotated[int | None, typer.Option(min=1, help="In place of the recipe's number of steps.")] = None,
    changes: Changes = None,
    workers: Annotated[int, typer.Option(min=0, help="Loading threads of each process.")] = 2,
    device: Annotated[Device | None, typer.Option(help="In place of the best there is.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew where the run there was begun with other settings or data.")
    ] = False,
) -> None:
    """Train a model, or go on where a run was interrupted; the result is RUN/model."""
    from ncbench.training.run import Options, train

    assignments = [*(changes or []), *([f"steps={steps}"] if steps else [])]
    train(
        recipe,
        Options(
            to=to,
            init=init,
            stores=stores,
            profile=profile,
            assignments=assignments,
            workers=workers,
            device=None if device is None else device.value,
            restart=restart,
            tell=typer.echo,
        ),
    )


@recipes_app.command("list", epilog="Example: ncbench recipes list")
def recipes_list() -> None:
    """List every training recipe: its data, steps and profiles."""
    from ncbench import catalog
    from ncbench.recipe_card import RecipeCard

    cards, problems = catalog.load_all(RecipeCard)
    rows = [
        (
            *(name, card.title, card.loader, f"{card.steps:,}", str(card.global_batch), f"{card.optimizer.lr:g}"),
            ", ".join(card.profiles) or "-",
        )
        for name, card in cards.items()
    ]
    print_list(("name", "title", "loader", "steps", "batch", "lr", "profiles"), rows, problems)


@recipes_app.command("show", epilog="Example: ncbench recipes show normalcrafter-stage1 --profile small")
def recipes_show(name: RecipeName, profile: Profile = None, changes: Changes = None) -> None:
    """Print a recipe with everything that it extends filled in, as it would be run."""
    from ncbench import catalog
    from ncbench.cards import to_yaml
    from ncbench.recipe_card import RecipeCard, changed

    card = catalog.load(RecipeCard, name)
    typer.echo(to_yaml(changed(card, profile, changes or ()) if profile or changes else card), nl=False)
