"""Verbs that list, show and write cards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ncbench.cli.model_list import ModelRow, print_models
from ncbench.cli.options import STORES, DatasetName, ModelName, ProtocolName, Stores
from ncbench.cli.tables import print_list, print_problems

if TYPE_CHECKING:
    from ncbench.cards import Card, ModelCard

datasets_app = typer.Typer(no_args_is_help=True, help="List and show data sets.")
models_app = typer.Typer(no_args_is_help=True, help="List and show models.")
protocols_app = typer.Typer(no_args_is_help=True, help="List, show and lock evaluation protocols.")


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
    print_list(("name", "role", "frames", "licence", "source", "prepared"), rows, problems)


@datasets_app.command("show", epilog="Example: ncbench datasets show sintel")
def datasets_show(name: DatasetName) -> None:
    """Print a data set's card, with everything that it extends filled in."""
    from ncbench import catalog
    from ncbench.cards import DatasetCard

    _print_card(catalog.load(DatasetCard, name))


@models_app.command("list", epilog="Example: ncbench models list")
def models_list(
    weights: Annotated[Path | None, typer.Option(help="Folder of weights, where not in the Hub's cache.")] = None,
    wide: Annotated[bool, typer.Option("--wide", help="One line a model, however wide the terminal is.")] = False,
) -> None:
    """List every model: what it answers, its weights, what it was trained on, and whether it can run here."""
    from ncbench import catalog
    from ncbench.cards import ModelCard
    from ncbench.models.readiness import obstacles

    cards, problems = catalog.load_all(ModelCard)
    rows = [_model_row(card, obstacles(card, weights)) for card in cards.values()]
    print_models(rows, wide=wide)
    print_problems(problems)


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
    from ncbench.protocol_card import ProtocolCard

    cards, problems = catalog.load_all(ProtocolCard)
    rows = [(name, card.title, card.dataset, card.pooling, card.resolution_text()) for name, card in cards.items()]
    print_list(("name", "title", "data set", "pooling", "resolution"), rows, problems)


@protocols_app.command("show", epilog="Example: ncbench protocols show motorcycle")
def protocols_show(name: ProtocolName) -> None:
    """Print a protocol's card, defaults included, and which models were trained on its data set."""
    from ncbench import catalog
    from ncbench.cards import ModelCard
    from ncbench.protocol_card import ProtocolCard

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


def cards(to: Annotated[Path, typer.Option(help="The folder to write; replaced.")]) -> None:
    """Write every card with all defaults filled in."""
    from ncbench.catalog import write_catalog

    typer.echo(f"{write_catalog(to)} cards written to {to}")


def _model_row(card: ModelCard, lacks: list[str]) -> ModelRow:
    own = card.weights
    return ModelRow(
        name=card.name,
        kind=card.kind,
        axes=card.axes if card.normals else "-",
        depth=card.depth or "-",
        weights=f"{own.repository}@{_short(own.revision)}" if own else "",
        licence=own.licence.name if own else "",
        training_sets=", ".join(card.training_sets),
        lacks=tuple(lacks),
    )


def _short(revision: str) -> str:
    return revision[:7] if re.fullmatch("[0-9a-f]{10,40}", revision) else revision


def _print_card(card: Card) -> None:
    from ncbench.cards import to_yaml

    typer.echo(to_yaml(card), nl=False)
