"""From a card of ``loaders/`` to data: open the stores that it names."""

from __future__ import annotations

from pathlib import Path

from ncbench.datasets.remote_store import is_url
from ncbench.datasets.store import Store, Verify, is_store, open_store
from ncbench.errors import CardError
from ncbench.loader_card import LoaderCard
from ncbench.loaders.clips import NormalClips
from ncbench.settings import suggest


def open_clips(card: LoaderCard, stores: str | Path, verify: Verify = "size") -> NormalClips:
    """Open a recipe's data.

    Args:
        card: The recipe.
        stores: Folder or URL that holds the prepared data sets under their names.
        verify: As in `ncbench.open_store`.

    Returns:
        The clips.

    Raises:
        CardError: The recipe names a data set that is not prepared there, or asks for what it cannot give.
        StoreError: A store is damaged.
    """
    return NormalClips({entry.dataset: _opened(card, entry.dataset, stores, verify) for entry in card.sets}, card)


def _opened(card: LoaderCard, name: str, stores: str | Path, verify: Verify) -> Store:
    if isinstance(stores, str) and is_url(stores):
        return open_store(f"{stores.rstrip('/')}/{name}", verify=verify)
    folder = Path(stores) / name
    if not is_store(folder):
        there = sorted(path.name for path in Path(stores).glob("*") if is_store(path))
        raise CardError(
            f"recipe '{card.name}': data set '{name}' is not in {stores}. Run `ncbench prepare {name}`, or change the "
            f"recipe. {suggest(name, there)}"
        )
    return open_store(folder, verify=verify)
