"""What shapes a store, made from a data set's card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ncbench import catalog
from ncbench.cards import DatasetCard, digest, read_yaml, to_yaml
from ncbench.datasets.manifest import CARD, Manifest
from ncbench.datasets.readers.base import Reader, make_reader
from ncbench.datasets.schema import VERSION
from ncbench.errors import CardError
from ncbench.files import file_sha256


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a store; picklable, since workers make their own reader.

    Attributes:
        name: Name of the data set.
        reader: The reader's class as ``module:Class``, called as ``Class(root, settings)``.
        settings: The reader's settings, plain values.
        root: Folder of the source files; not part of the store's identity.
        shard_rows: Frames a shard.
        card_text: Content of the store's ``card.yaml``.
        card_digest: Digest of the card.
    """

    name: str
    reader: str
    settings: Mapping[str, Any]
    root: Path
    shard_rows: int
    card_text: str
    card_digest: str

    @property
    def digest(self) -> str:
        """Hex sha256 of all that shapes a shard but the source files."""
        shaping = (self.name, self.reader, dict(self.settings), self.shard_rows, self.card_digest)
        return digest({"schema": VERSION, "recipe": shaping})

    def open_reader(self) -> Reader:
        """Import the reader's class and make a reader.

        Raises:
            CardError: The card names no reader, or settings that do not fit it.
            SourceError: The folder does not hold what the reader reads.
        """
        try:
            return make_reader(self.reader, self.root, self.settings)
        except CardError as error:
            raise CardError(f"card of '{self.name}': {error}") from error


def recipe_for(card: DatasetCard, raw: Path) -> Recipe:
    """Make the recipe of a data set's store from its card and the folder of its source files."""
    return Recipe(
        name=card.name,
        reader=card.reader,
        settings=card.reader_settings(),
        root=raw,
        shard_rows=card.shard_rows,
        card_text=to_yaml(card),
        card_digest=digest(card.recipe()),
    )


def stored_card(store: Path) -> DatasetCard:
    """Read the card that a store was made by.

    Raises:
        CardError: The store holds no readable data set card.
    """
    path = store / CARD
    return DatasetCard.parse(read_yaml(path), where=str(path))


def recipe_to_repair(store: Path, raw: Path, card: str | None = None) -> Recipe:
    """Make the recipe that a damaged store was made by.

    Args:
        store: The store's folder.
        raw: Folder of the source files.
        card: Name of a data set card, or a path to a YAML file; None takes the store's own where it is undamaged, else
            the catalogue's card of the name that the manifest states.

    Returns:
        The recipe.

    Raises:
        StoreError: The manifest is damaged.
        CardError: The store's card is damaged and the catalogue has none of that name.
    """
    manifest = Manifest.load(store)
    own = store / CARD
    if card is None and own.is_file() and file_sha256(own) == manifest.files.get(CARD):
        return recipe_for(stored_card(store), raw)
    try:
        return recipe_for(catalog.load(DatasetCard, card or manifest.name), raw)
    except CardError as error:
        raise (
            error if card else CardError(f"{own}: is damaged. Name the card that it was made by. ({error})")
        ) from error
