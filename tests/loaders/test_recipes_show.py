import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ncbench import catalog
from ncbench.cards import DatasetCard, read_yaml
from ncbench.errors import CardError
from ncbench.loader_card import LoaderCard
from ncbench.loaders.recipes import open_clips
from ncbench.loaders.show import contact_sheet, describe

RECIPES = Path(__file__).resolve().parents[2] / "loaders"


def shipped(name):
    """A shipped recipe with what it extends."""
    values = read_yaml(RECIPES / f"{name}.yaml")
    base = values.pop("extends", None)
    values = (read_yaml(RECIPES / f"{base}.yaml") if base else {}) | values
    return LoaderCard.parse(values, where=name)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_whole_and_name_data_sets_that_exist(path):
    card = shipped(path.stem)
    assert card.name == path.stem
    for entry in card.sets:
        assert catalog.load(DatasetCard, entry.dataset).role in ("train", "both")


def test_the_recipes_are_those_of_the_paper():
    first, second = shipped("normalcrafter-stage1"), shipped("normalcrafter-stage2")
    assert (first.length, second.length) == ((1, 14), (1, 4))
    for card in (first, second, shipped("normalcrafter-vae")):
        single = {entry.dataset for entry in card.sets if entry.length == (1, 1)}
        assert single == {"replica-omnidata", "ken-burns"}
        assert (card.resize.short_edge, card.axes, card.batch_size, card.balance) == (576, "opengl", 1, "samples")
        assert (card.flip, card.reverse, card.photometric, card.crop) == (0, 0, None, None)


@pytest.fixture
def recipe(tiny_stores, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(tiny_stores / name, tmp_path / "stores" / name)
    prose = {"name": "mix", "version": "1.0.0", "title": "", "summary": ""}
    sets = [{"dataset": "one"}, {"dataset": "two", "length": [2, 2]}]
    values = prose | {"sets": sets, "length": [1, 3], "resize": {"size": [8, 12]}, "flip": 0.5, "axes": "dsine"}
    return LoaderCard.parse(values, "here"), tmp_path / "stores"


def test_describe_counts_what_an_epoch_holds(recipe):
    card, stores = recipe
    report = describe(card, stores, batches=3)
    plan = open_clips(card, stores).plan(0).refs
    for index, name in enumerate(("one", "two")):
        mine = plan[plan[:, 0] == index]
        row = report.mixture.loc[name]
        assert (row["clips"], row["clip_frames"]) == (len(mine), mine[:, 4].sum())
    assert report.mixture["share_of_frames"].sum() == pytest.approx(1)
    assert report.left_out == {"two": 1}  # five frames of y, in twos
    assert report.batch.loc["image", "dtype"] == "uint8"
    assert report.batch.loc["normal", ["min", "max"]].tolist() == [0, 1]  # a wall's normal is (0, 0, 1) in these axes
    assert min(report.samples_per_second, report.frames_per_second) > 0


def test_the_sheet_shows_pictures_above_opengl_colours(recipe, tmp_path):
    card, stores = recipe
    sheet = np.asarray(Image.open(contact_sheet(card, stores, tmp_path / "sheet.png", clips=4)))
    assert sheet.shape[1] == 7 * 160
    blue = (sheet == (128, 128, 255)).all(axis=-1)  # a wall seen head-on
    assert blue.sum() > 4 * 100 * 160


def test_a_recipe_that_names_no_such_set(recipe):
    card, stores = recipe
    wrong = card.model_copy(update={"sets": [card.sets[0].model_copy(update={"dataset": "tow"})]})
    with pytest.raises(CardError, match=r"recipe 'mix': data set 'tow' is not in .*ncbench prepare tow.*'two'"):
        open_clips(wrong, stores)


def test_recipes_open_from_urls(recipe, monkeypatch, tmp_path):
    card, stores = recipe
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert len(open_clips(card, f"file://{stores}")) > 0
    assert list((tmp_path / "home" / "ncbench" / "shards").glob("store-*"))
