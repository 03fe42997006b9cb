"""Cards: what is wrong is named by file, key, expectation and the nearest valid name."""

from pathlib import Path

import pytest
import yaml

from ncbench import catalog
from ncbench.cards import DatasetCard, ModelCard, ReportCard, digest, read_yaml, to_yaml
from ncbench.errors import CardError, StoreError
from ncbench.protocol_card import ProtocolCard
from ncbench.registry import load_attribute

MODEL = {
    "name": "mine",
    "version": "1.0.0",
    "title": "Mine",
    "summary": "A test.",
    "kind": "control",
    "adapter": "ncbench.models.controls:Frontal",
    "axes": "opencv",
}


def write(folder: Path, values: dict, name: str = "mine") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("kind", [DatasetCard, ModelCard, ProtocolCard, ReportCard])
def test_every_shipped_card_is_valid_and_survives_a_round_trip(kind, tmp_path):
    names = list(catalog.find(kind))
    assert names
    for name in names:
        card = catalog.load(kind, name)
        path = tmp_path / f"{name}.yaml"
        path.write_text(to_yaml(card), encoding="utf-8")
        assert catalog.read_card(kind, path) == card


def test_every_shipped_card_names_code_that_exists():
    for name in catalog.find(ModelCard):
        load_attribute(catalog.load(ModelCard, name).adapter)
    for name in catalog.find(DatasetCard):
        card = catalog.load(DatasetCard, name)
        load_attribute(card.reader)
        if card.source.kind == "generate":
            load_attribute(card.source.generator)
    for name in catalog.find(ProtocolCard):
        assert catalog.load(ProtocolCard, name).dataset in catalog.find(DatasetCard)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"adaptor": "x:y"}, ["unknown key 'adaptor'", "Did you mean 'adapter'?"]),
        ({"axes": "openg"}, ["key 'axes'", "unknown value 'openg'. Did you mean 'opengl'?"]),
        ({"version": "1.0"}, ["key 'version'", "found '1.0'"]),
        ({"name": "Bad Name"}, ["key 'name'"]),
        ({"adapter": "no colon"}, ["key 'adapter'"]),
    ],
)
def test_a_bad_key_or_value_names_file_key_and_expectation(tmp_path, change, words):
    path = write(tmp_path, MODEL | change)
    with pytest.raises(CardError) as caught:
        catalog.read_card(ModelCard, path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_all_problems_of_a_card_are_named_at_once(tmp_path):
    path = write(tmp_path, {"name": "mine"})
    with pytest.raises(CardError) as caught:
        catalog.read_card(ModelCard, path)
    for key in ("version", "title", "summary", "kind", "adapter", "axes"):
        assert f"key '{key}' is required but missing" in str(caught.value)


def test_a_nested_typo_is_answered_with_its_siblings(tmp_path):
    licence = {"name": "x", "redistribution": False, "notes": ""}
    card = {"name": "mine", "version": "1.0.0", "title": "", "summary": "", "role": "test", "licence": licence}
    card |= {"source": {"kind": "manual", "instructions": ""}, "reader": "a:b", "axes": None, "normals": "file"}
    with pytest.raises(CardError, match=r"unknown key 'licence.notes'. Did you mean 'note'\?"):
        catalog.read_card(DatasetCard, write(tmp_path, card))


def test_name_must_equal_the_file_name(tmp_path):
    with pytest.raises(CardError, match="make them equal"):
        catalog.read_card(ModelCard, write(tmp_path, MODEL, name="other"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", "mapping"),
        ("a: 1\na: 2\n", "appears twice"),
        ("a: [1\n", "not valid YAML"),
        ("a: 2024-01-01\n", "no text, finite number"),
        ("a: {b: [.nan]}\n", "key 'a', key 'b': nan is no text, finite number"),
        ("a: -.inf\n", "no text, finite number"),
        ("a: !!set {x: null}\n", "no text, finite number"),
        ("a: {1: x}\n", "key 1 is not text"),
        ("[1, 2]: x\n", "not valid YAML"),
        ("a: " + "[" * 2000 + "\n", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_unusable_yaml_is_a_card_error(tmp_path, text, words):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(CardError, match=words):
        read_yaml(path)


def test_missing_and_binary_files_are_card_errors(tmp_path):
    with pytest.raises(CardError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CardError, match="UTF-8"):
        read_yaml(tmp_path / "x.yaml")


def test_extends_overrides_keys_and_refuses_circles(tmp_path):
    write(tmp_path, MODEL | {"name": "base"}, "base")
    child = write(tmp_path, {"extends": "base", "name": "child", "axes": "opengl"}, "child")
    card = catalog.read_card(ModelCard, child)
    assert (card.axes, card.adapter) == ("opengl", MODEL["adapter"])
    write(tmp_path, {"extends": "b"}, "a")
    write(tmp_path, {"extends": "a"}, "b")
    with pytest.raises(CardError, match="circle"):
        catalog.read_card(ModelCard, tmp_path / "a.yaml")
    write(tmp_path / "sub", {"extends": "../base"}, "d")
    with pytest.raises(CardError, match="which is not in"):
        catalog.read_card(ModelCard, tmp_path / "sub" / "d.yaml")
    with pytest.raises(CardError, match="Did you mean 'base'"):
        catalog.read_card(ModelCard, write(tmp_path, {"extends": "bse"}, "c"))


def test_a_card_in_the_current_directory_overrides_a_shipped_one(tmp_path, monkeypatch):
    write(tmp_path / "models", MODEL | {"name": "frontal", "title": "My frontal"}, "frontal")
    write(tmp_path / "models", MODEL)
    monkeypatch.chdir(tmp_path)
    assert catalog.load(ModelCard, "frontal").title == "My frontal"
    assert catalog.load(ModelCard, "mine").title == "Mine"
    assert "depth_oracle" in catalog.find(ModelCard)


def test_somebody_elses_yaml_in_the_current_directory_is_left_out_with_a_word(tmp_path, monkeypatch):
    write(tmp_path / "models", {"nc": 80, "backbone": []}, "yolov5s")
    monkeypatch.chdir(tmp_path)
    cards, problems = catalog.load_all(ModelCard)
    assert "frontal" in cards
    assert len(problems) == 1
    assert "yolov5s.yaml" in problems[0]


def test_writing_the_catalogue_spares_what_is_not_its_own(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="did not put there"):
        catalog.write_catalog(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    assert catalog.write_catalog(tmp_path / "cards") == catalog.write_catalog(tmp_path / "cards")
    assert catalog.load(ModelCard, str(tmp_path / "cards" / "models" / "frontal.yaml")).name == "frontal"


def test_an_unknown_name_suggests_a_near_one():
    with pytest.raises(CardError, match="no model is called 'depth_orcale'. Did you mean 'depth_oracle'"):
        catalog.load(ModelCard, "depth_orcale")


def test_prose_does_not_change_what_a_number_depends_on():
    card = catalog.load(ProtocolCard, "rooms")
    assert digest(card.scoring()) == digest(card.model_copy(update={"title": "x", "summary": "y"}).scoring())
    assert digest(card.scoring()) != digest(card.model_copy(update={"thresholds": [5.0]}).scoring())


@pytest.mark.parametrize("thresholds", [[], [5.0, 5.0], [11.0, 5.0], [0.0], [181.0]])
def test_thresholds_must_ascend_within_bounds(tmp_path, thresholds):
    values = {"name": "mine", "version": "1.0.0", "title": "", "summary": "", "dataset": "rooms"}
    with pytest.raises(CardError, match="thresholds"):
        catalog.read_card(ProtocolCard, write(tmp_path, values | {"thresholds": thresholds}))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nocolon", "not of the form"),
        ("no.such.module:x", "cannot be imported"),
        ("ncbench.models.controls:Frontl", "Did you mean 'Frontal'"),
    ],
)
def test_load_attribute_says_what_is_missing(spec, words):
    with pytest.raises(CardError, match=words):
        load_attribute(spec)
