"""Weights that a recipe of this project has made: the card names their folder."""

from pathlib import Path

import pytest

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import ModelError
from ncbench.models.weights import find_weights, missing_weights

NAMES = ["normalcrafter-mini", "normalcrafter-mini-stage1", "normalcrafter-mini-frame-by-frame"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay_out(card, folder):
    for name in card.weights.files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


@pytest.mark.parametrize("name", NAMES)
def test_a_local_folder_is_found_from_the_working_directory(name, here):
    card = catalog.load(ModelCard, name)
    assert missing_weights(card) == list(card.weights.files)
    with pytest.raises(ModelError, match=r"data/training/normalcrafter-stage\d-mini/model.*docs/train-mini.md"):
        find_weights(card)
    lay_out(card, here / card.weights.repository)
    assert missing_weights(card) == []
    assert find_weights(card).folder == Path(card.weights.repository)


def test_a_given_folder_goes_before_the_local_one(here):
    card = catalog.load(ModelCard, NAMES[0])
    lay_out(card, here / card.weights.repository)
    lay_out(card, here / "other")
    assert find_weights(card, here / "other").folder == here / "other"
    with pytest.raises(ModelError, match="nowhere"):
        find_weights(card, here / "nowhere")


def test_the_trained_recipe_is_the_one_that_the_card_names():
    for name in NAMES:
        folder = Path(catalog.load(ModelCard, name).weights.repository)
        assert (Path(catalog.__file__).parents[1] / "recipes" / f"{folder.parent.name}.yaml").is_file()
