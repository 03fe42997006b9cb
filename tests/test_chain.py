"""The whole chain through the command line, from a card to a report, and back from damage."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from ncbench import open_store

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run():
    from ncbench.cli import app

    runner = CliRunner(env={"COLUMNS": "160", "NO_COLOR": "1"})

    def call(text: str, code: int = 0) -> str:
        result = runner.invoke(app, text.split())
        assert result.exit_code == code, (text, result.output, result.exception)
        return result.output

    return call


def test_fetch_prepare_predict_evaluate_report(run, tiny):
    (tiny / "data" / "stores").unlink()  # the shared store: this test makes its own
    assert "fetched into data/raw/tiny" in run("fetch tiny")
    assert "already in data/raw/tiny" in run("fetch tiny")
    assert "6 frames in 1 shards" in run("prepare tiny")
    assert "prepared" in run("datasets list")
    for model in ("frontal", "depth_oracle"):
        run(f"predict {model} tiny")
        assert "mean" in run(f"evaluate {model} --protocol tiny")
    output = run("report --to out")
    assert output.index("Depth oracle") < output.index("Frontal")
    for name in ("index.html", "report.md", "report.tex", "report.csv"):
        assert f"out/{name}" in output
        assert (tiny / "out" / name).is_file()
    assert "Depth oracle" in run("report --show --to out")
    assert "Depth oracle" not in run("report --quiet --to out")


def test_a_flipped_byte_is_found_and_mended(run, tiny):
    (tiny / "data" / "stores").unlink()
    run("fetch tiny")
    run("prepare tiny")
    (shard,) = (tiny / "data" / "stores" / "tiny").glob("*.arrow")
    original = shard.read_bytes()
    run("verify data/stores/tiny")
    damaged = bytearray(original)
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    assert shard.name in run("verify data/stores/tiny", code=4)
    assert f"mended {shard.name}" in run("repair data/stores/tiny --raw data/raw/tiny")
    assert shard.read_bytes() == original
    assert "nothing to repair" in run("repair data/stores/tiny --raw data/raw/tiny")


def test_fetch_leaves_foreign_files_alone_and_renews_its_own(run, tiny):
    foreign = tiny / "data" / "raw" / "tiny"
    foreign.mkdir(parents=True)
    (foreign / "mine.txt").write_text("keep me")
    assert "did not put there" in run("fetch tiny", code=3)
    assert (foreign / "mine.txt").read_text() == "keep me"
    run("fetch tiny --to other")
    first = (tiny / "other" / "one" / "rgb" / "0000.png").read_bytes()
    card = tiny / "datasets" / "tiny.yaml"
    values = yaml.safe_load(card.read_text())
    values["source"]["settings"]["seed"] += 1
    card.write_text(yaml.safe_dump(values))
    assert "fetched into other" in run("fetch tiny --to other")
    assert (tiny / "other" / "one" / "rgb" / "0000.png").read_bytes() != first


def test_fetch_mends_what_was_damaged_and_keeps_what_was_added(run, tiny):
    run("fetch tiny")
    picture = tiny / "data" / "raw" / "tiny" / "one" / "rgb" / "0000.png"
    original = picture.read_bytes()
    picture.write_bytes(original[:100])
    assert "fetched into" in run("fetch tiny")
    assert picture.read_bytes() == original
    (picture.parent / "notes.txt").write_text("mine")
    assert "did not put there (one/rgb/notes.txt)" in run("fetch tiny", code=3)


def test_fetch_that_fails_leaves_nothing(run, tiny):
    card = tiny / "datasets" / "tiny.yaml"
    values = yaml.safe_load(card.read_text())
    values["source"]["settings"]["frames"] = 1
    card.write_text(yaml.safe_dump(values))
    assert "frames" in run("fetch tiny", code=2)
    assert not (tiny / "data" / "raw" / "tiny").exists()
    assert not list((tiny / "data" / "raw").glob(".*"))


def test_an_audit_finds_training_pictures_in_a_test_set(run, tiny):
    output = run("audit data/stores/tiny --against data/stores/tiny --to found")
    assert "pictures look like pictures of data/stores/tiny" in output
    assert (tiny / "found" / "sheet.png").is_file()
    assert "facing" in output


def test_a_resized_store_is_made_and_never_scored(run, tiny):
    (tiny / "data" / "stores").unlink()
    run("fetch tiny")
    assert "data/stores/tiny-12x16" in run("prepare tiny --resize 12x16")
    store = open_store("data/stores/tiny-12x16")
    assert store.read("one", 0).size == (12, 16)
    assert "expected HEIGHTxWIDTH" in run("prepare tiny --resize 12", code=2)
    run("prepare tiny --max-size 16 --to data/stores/tiny")
    assert "options beyond its card" in run("predict frontal tiny", code=6)
    run("prepare tiny")
    run("predict frontal tiny")


def test_a_set_that_must_be_obtained_by_hand_is_accepted_when_it_is_there(run, tiny):
    run("fetch sintel-mini --to film")  # the same layout as the real download
    assert "already in film" in run("fetch sintel --to film")
    assert "expected 1064 frames" in run("prepare sintel --raw film --to stores/sintel", code=3)
    assert "24 frames" in run("prepare sintel --raw film --to stores/sintel --partial")


def test_the_readme_shows_a_card_that_works(run, tiny):
    """The card under "Your own data" is taken from the README and run on files as it describes them."""
    text = (ROOT / "README.md").read_text()
    card = re.search(r"```yaml\n(name: mine\n.*?)```", text, re.DOTALL).group(1)
    assert len(card.splitlines()) <= 15
    (tiny / "datasets" / "mine.yaml").write_text(card)
    root = tiny / "my" / "files"
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(12, 16, 3)).astype(np.float32)
    normal[..., 2] = np.abs(normal[..., 2]) + 0.1  # towards the viewer, in OpenGL axes
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    for clip in ("kitchen", "street"):
        for folder in ("rgb", "normals"):
            (root / clip / folder).mkdir(parents=True)
        for frame in range(3):
            Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).save(root / clip / "rgb" / f"{frame:04d}.png")
            np.save(root / clip / "normals" / f"{frame:04d}.npy", normal)
    assert "6 frames" in run("prepare mine --raw my/files")
    store = open_store("data/stores/mine")
    assert list(store.sequences) == ["kitchen", "street"]
    found = store.read("street", 1)
    np.testing.assert_allclose(found.normal, normal * np.float32([1, -1, -1]), atol=1e-4)
    assert found.intrinsics is not None
