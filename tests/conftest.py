"""A tiny prepared data set and cards that score on it."""

from pathlib import Path

import pytest
import yaml

from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.datasets.fetch import fetch
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import recipe_for

TINY = {
    "seed": 3,
    "frames": 3,
    "height": 24,
    "width": 32,
    "sequences": [{"name": "one", "kind": "room"}, {"name": "two", "kind": "objects"}],
}


def tiny_cards(root: Path) -> None:
    """Write a data set card and a protocol, both called ``tiny``, into a catalogue folder."""
    source = {"kind": "generate", "generator": "ncbench.datasets.mini.layouts:write_folder_layout", "settings": TINY}
    card = catalog.load(DatasetCard, "rooms").model_dump(mode="json") | {"name": "tiny", "source": source}
    protocol = {"name": "tiny", "version": "1.0.0", "title": "Tiny", "summary": "A test.", "dataset": "tiny"}
    for folder, values in (("datasets", card), ("evaluators", protocol)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "tiny.yaml").write_text(yaml.safe_dump(values))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cards ``tiny``, raw files and a store; shared, so never write into it."""
    root = tmp_path_factory.mktemp("tiny")
    tiny_cards(root)
    card = catalog.read_card(DatasetCard, root / "datasets" / "tiny.yaml")
    fetch(card, root / "data" / "raw" / "tiny")
    prepare(recipe_for(card, root / "data" / "raw" / "tiny"), root / "data" / "stores" / "tiny")
    return root


@pytest.fixture
def tiny(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of the test's own that shares the tiny store: predictions and results are private."""
    tiny_cards(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "stores").symlink_to(tiny_data / "data" / "stores")
    monkeypatch.chdir(tmp_path)
    return tmp_path
