"""What `ncbench models list` says of each model, without importing or loading any."""

import sys

import pytest
import yaml
from typer.testing import CliRunner

from ncbench.cards import ModelCard
from ncbench.cli import app
from ncbench.errors import CardError
from ncbench.models.readiness import obstacles

LICENCE = {"name": "OpenRAIL++-M", "redistribution": True}
CARD = {
    "name": "learned",
    "version": "1.0.0",
    "title": "",
    "summary": "",
    "kind": "image",
    "adapter": "never_imported_package.module:Model",
    "axes": "opengl",
    "requires": ["json", "no_such_module"],
    "weights": {"repository": "owner/repo", "revision": "0123456789", "files": {"a.bin": None}, "licence": LICENCE},
    "training_sets": ["hypersim", "sintel"],
}


@pytest.fixture
def learned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "learned.yaml").write_text(yaml.safe_dump(CARD))
    package = tmp_path / "site" / "never_imported_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path


def test_what_is_missing_is_said(learned):
    said = obstacles(ModelCard.parse(CARD, "card"))
    assert said == ["needs module no_such_module", "1 of 1 weight files to get on first use"]
    (learned / "a.bin").write_bytes(b"")
    assert obstacles(ModelCard.parse(CARD | {"requires": []}, "card"), learned) == []
    absent = ModelCard.parse(CARD | {"adapter": "gone.module:Model", "weights": None, "requires": []}, "card")
    assert obstacles(absent) == ["needs module gone.module"]
    assert "never_imported_package" not in sys.modules


def listed(*words, columns="80"):
    done = CliRunner(env={"COLUMNS": columns, "NO_COLOR": "1"}).invoke(app, ["models", "list", *words])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_the_list_fits_80_columns_and_cuts_nothing(learned):
    lines = listed()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["name", "kind", "axes", "depth", "runnable", "here"]
    start = next(i for i, line in enumerate(lines) if line.startswith("learned "))
    assert lines[start].split() == ["learned", "image", "opengl", "-", "no"]
    text = "".join(lines[start + 1 : start + 5])
    for part in ("owner/repo@0123456 (OpenRAIL++-M)", "trained on hypersim, sintel", "lacks: needs module no_such_mod"):
        assert part in text
    assert "depth_oracle" in "".join(line for line in lines if line.endswith("yes"))
    assert any(line.startswith("normalcrafter ") and line.endswith("after a download") for line in lines)


def test_the_wide_list_has_one_line_a_model(learned):
    lines = listed("--wide")
    assert len(lines) == 1 + len([line for line in listed() if not line.startswith(" ")]) - 1
    (line,) = [line for line in lines if line.startswith("learned ")]
    for part in ("image", "opengl", "owner/repo@0123456", "OpenRAIL++-M", "hypersim, sintel", "no_such_module"):
        assert part in line
    (line,) = [line for line in lines if line.startswith("depth_oracle")]
    assert line.split() == ["depth_oracle", "control", "opencv", "-", "none", "-", "-", "yes"]


def test_a_model_must_answer_something():
    with pytest.raises(CardError, match="normals, depth or both"):
        ModelCard.parse(CARD | {"normals": False}, "card")
