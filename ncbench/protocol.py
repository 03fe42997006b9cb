"""What a protocol covers in a store, and what it means here and now."""

from __future__ import annotations

from pathlib import Path

from ncbench import catalog
from ncbench.cards import digest
from ncbench.datasets.recipe import recipe_for, stored_card
from ncbench.datasets.store import Store, open_store
from ncbench.errors import ScoreError
from ncbench.files import write_json
from ncbench.protocol_card import ProtocolCard
from ncbench.settings import suggest

LOCK_SCHEMA = 1


def protocol_digest(protocol: ProtocolCard) -> str:
    """Hash everything in a protocol that changes a number; hex sha256."""
    return digest(protocol.scoring())


def open_target(stores: Path, protocol: ProtocolCard) -> Store:
    """Open the store of a protocol's data set.

    Args:
        stores: Folder of prepared data sets.
        protocol: The protocol.

    Returns:
        The store.

    Raises:
        StoreError: It is missing or broken.
        ScoreError: It was not made as its own card says (resized, say), so that its numbers would be others.
    """
    path = stores / protocol.dataset
    store = open_store(path)
    if store.manifest.recipe != recipe_for(stored_card(path), path).digest:
        raise ScoreError(
            f"{path}: was prepared with options beyond its card, such as --resize. Protocols are scored on the data as "
            f"the card has them: run 'ncbench prepare {protocol.dataset}' into this folder."
        )
    return store


def protocol_sequences(protocol: ProtocolCard, store: Store) -> dict[str, list[int]]:
    """Name the frames that a protocol covers in a store.

    Args:
        protocol: The protocol.
        store: Its data set.

    Returns:
        Sequence -> frame indices, in the store's order; a sequence of which no frame is chosen is left out.

    Raises:
        ScoreError: The protocol names a sequence that the store lacks.
    """
    names = store.sequences if protocol.sequences is None else protocol.sequences
    missing = sorted(set(names) - set(store.sequences))
    if missing:
        raise ScoreError(
            f"protocol '{protocol.name}' names sequences that the store of '{protocol.dataset}' lacks: "
            f"{', '.join(missing)}. {suggest(missing[0], store.sequences)}"
        )
    chosen = {
        name: [frames[position] for position in protocol.frames.positions(len(frames))]
        for name, frames in store.sequences.items()
        if name in set(names)
    }
    return {name: frames for name, frames in chosen.items() if frames}


def lock_protocol(name: str, stores: Path, to: Path) -> None:
    """Write a small file that changes when, and only when, a protocol's meaning or its data changes.

    The pipeline's predictions depend on it, so that a new version of one data set reruns only what used it.

    Args:
        name: Name of a protocol card.
        stores: Folder of prepared data sets.
        to: The JSON file.

    Raises:
        NcbenchError: The card or the store is missing or broken.
    """
    protocol = catalog.load(ProtocolCard, name)
    store = open_target(stores, protocol)
    write_json(
        to,
        {
            "schema": LOCK_SCHEMA,
            "protocol": {"name": protocol.name, "sha256": protocol_digest(protocol), "card": protocol.scoring()},
            "dataset": {"name": protocol.dataset, "digest": store.manifest.digest},
            "frames": sum(len(frames) for frames in protocol_sequences(protocol, store).values()),
        },
    )
