"""Training recipes: the published numbers, and how profiles, --set and extends change them."""

import pytest
import yaml

from ncbench import catalog
from ncbench.cards import to_yaml
from ncbench.errors import CardError
from ncbench.recipe_card import RecipeCard, changed, merged
from ncbench.registry import load_attribute
from ncbench.training.run import loader_of, make_stage
from ncbench.training.stage import Stage

# NormalCrafter, arXiv:2504.11427v1, section 4.1 (steps, rates, clips, batch, warm-up, share and law of sigma), section
# 3 (SFR in both stages) and table 3 (Up1)
PAPER = {
    "normalcrafter-vae": {"steps": 20_000, "lr": 1e-5, "batch": 8, "warmup": 100, "sfr": None},
    "normalcrafter-stage1": {
        "steps": 20_000,
        "lr": 3e-5,
        "batch": 8,
        "warmup": 100,
        "sfr": "up1",
        "clips": (1, 14),
        "sigma": (0.5, 0.7, 1.6),
    },
    "normalcrafter-stage2": {
        "steps": 10_000,
        "lr": 1e-5,
        "batch": 8,
        "warmup": 100,
        "sfr": "up1",
        "clips": (1, 4),
    },
}


@pytest.mark.parametrize("name", PAPER)
def test_the_recipe_is_the_papers(name):
    card, paper = catalog.load(RecipeCard, name), PAPER[name]
    loader = loader_of(card)
    found = {
        "steps": card.steps,
        "lr": card.optimizer.lr,
        "batch": card.global_batch,
        "warmup": card.optimizer.warmup_steps,
        "sfr": (card.settings.get("semantic") or {}).get("block"),
        "clips": loader.length,
        "sigma": tuple(card.settings.get(key) for key in ("share_at_max", "sigma_mean", "sigma_spread")),
    }
    assert {key: found[key] for key in paper} == paper
    assert loader.resize.short_edge == 576
    assert loader.resize.size is None  # the aspect ratio stays
    assert loader.axes == "opengl"
    assert {one.dataset for one in loader.sets} == {
        *("replica-omnidata", "ken-burns", "hypersim", "matrixcity", "objaverse"),
    }
    assert card.optimizer.final_ratio < 1  # "exponential" decay


def test_marigold_e2e_ft_is_its_training_scripts():
    """Flags of train_marigold_e2e_ft_normals.sh and defaults of train.py, diffusion-e2e-ft at 4ff5aad."""
    card = catalog.load(RecipeCard, "marigold-e2e-ft")
    assert (card.steps, card.global_batch, card.precision) == (20_000, 2 * 16, "fp32")
    wanted = {"lr": 3e-5, "betas": (0.9, 0.999), "weight_decay": 1e-2, "eps": 1e-8, "warmup_steps": 100}
    assert card.optimizer.model_dump() == wanted | {"final_ratio": 0.01, "clip": 1.0, "decay_steps": None}
    loader = loader_of(card)
    assert (loader.resize.size, loader.flip, loader.batch_size) == ((480, 640), 0.5, 2)


def test_every_shipped_recipe_and_profile_names_a_stage_a_loader_and_settings_that_exist(tmp_path):
    names = list(catalog.find(RecipeCard))
    assert names
    for name in names:
        card = catalog.load(RecipeCard, name)
        path = tmp_path / f"{name}.yaml"
        path.write_text(to_yaml(card), encoding="utf-8")
        assert catalog.read_card(RecipeCard, path) == card
        assert issubclass(load_attribute(card.stage), Stage)
        assert card.init is None or not isinstance(card.init, str) or card.init in names
        for profile in (None, *card.profiles):
            run = changed(card, profile)
            loader_of(run)
            make_stage(run)


def test_ablations_differ_in_what_they_are_about_alone():
    prose = {"name", "title", "summary"}

    def differing(name, base):
        one, other = (catalog.load(RecipeCard, key).model_dump() for key in (name, base))
        return {key for key in one if one[key] != other[key]} - prose

    for place in ("down1", "down2", "down3", "mid", "up0", "up2"):
        name = f"normalcrafter-stage1-sfr-{place}"
        assert differing(name, "normalcrafter-stage1") == {"settings"}
        settings = catalog.load(RecipeCard, name).settings
        full = catalog.load(RecipeCard, "normalcrafter-stage1").settings
        assert settings == merged(full, {"semantic": {"block": place}})
        assert catalog.load(RecipeCard, f"normalcrafter-stage2-sfr-{place}").init == name
    assert catalog.load(RecipeCard, "normalcrafter-stage2-no-sfr").settings["semantic"] is None
    assert differing("normalcrafter-stage2-no-stage1", "normalcrafter-stage2") == {"init"}
    assert differing("normalcrafter-stage1-no-vae-ft", "normalcrafter-stage1") == {"init"}
    assert (
        catalog.load(RecipeCard, "normalcrafter-stage1-no-vae-ft").init
        == catalog.load(RecipeCard, "normalcrafter-vae").init
    )


VALUES = {
    "name": "mine",
    "version": "1.0.0",
    "title": "Mine",
    "summary": "A test.",
    "stage": "a:B",
    "settings": {"one": {"x": 1, "y": 2}},
    "loader": "mini",
    "steps": 200,
    "optimizer": {"lr": 1.0},
    "profiles": {"small": {"steps": 150, "settings": {"one": {"x": 5}}}},
}


def test_profile_then_set_change_single_nested_keys():
    card = RecipeCard.parse(VALUES, "here")
    run = changed(
        card, "small", ["optimizer.lr=1e-5", "settings.one.y=[3]", "validation=null", "loader_settings.a.b=c"]
    )
    assert (run.steps, run.optimizer.lr, run.optimizer.warmup_steps) == (150, 1e-5, 100)
    assert run.settings == {"one": {"x": 5, "y": [3]}}
    assert run.loader_settings == {"a": {"b": "c"}}
    assert not run.profiles
    assert card.steps == 200


@pytest.mark.parametrize(
    ("profile", "change", "words"),
    [
        ("smal", "steps=3", ["no profile 'smal'", "Did you mean 'small'?"]),
        (None, "stps=3", ["unknown key 'stps'", "Did you mean 'steps'?", "--set stps=3"]),
        (None, "optimizer.momentum=3", ["unknown key 'optimizer.momentum'"]),
        (None, "steps", ["key=value", "'steps'"]),
        (None, "a..b=1", ["key=value"]),
        (None, "steps=[1", ["not YAML"]),
        (None, "steps=50", ["warmup_steps must end before the decay does", "100 of 50"]),
        (None, "precision=fp8", ["key 'precision'", "fp32"]),
    ],
)
def test_a_wrong_change_is_named(profile, change, words):
    with pytest.raises(CardError) as raised:
        changed(RecipeCard.parse(VALUES, "here"), profile, [change])
    for word in words:
        assert word in str(raised.value)


def test_extends_changes_single_keys_but_takes_no_settings_of_another_stage(tmp_path):
    cards = {
        "mine": VALUES,
        "child": {"extends": "mine", "name": "child", "settings": {"one": {"y": 7}}, "optimizer": {"eps": 1e-4}},
        "other": {"extends": "mine", "name": "other", "stage": "a:C", "settings": {"two": 2}},
    }
    for name, values in cards.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    child = catalog.read_card(RecipeCard, tmp_path / "child.yaml")
    assert child.settings == {"one": {"x": 1, "y": 7}}
    assert (child.optimizer.lr, child.optimizer.eps) == (1.0, 1e-4)
    assert catalog.read_card(RecipeCard, tmp_path / "other.yaml").settings == {"two": 2}
