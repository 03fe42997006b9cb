import doctest
from pathlib import Path

import pytest

from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.datasets.fetch import fetch
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import recipe_for

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "loaders.md"


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    """The store that the guide opens."""
    card = catalog.load(DatasetCard, "rooms")
    small = card.source.settings | {
        "frames": 6,
        "height": 96,
        "width": 128,
        "sequences": [{"name": "a", "kind": "room"}],
    }
    card = card.model_copy(update={"source": card.source.model_copy(update={"settings": small})})
    fetch(card, tmp_path / "raw")
    prepare(recipe_for(card, tmp_path / "raw"), tmp_path / "data" / "stores" / "rooms")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("rooms")
def test_the_guides_training_loop_runs_and_learns():
    found = doctest.testfile(str(GUIDE), module_relative=False)
    assert found.attempted > 5
    assert found.failed == 0
