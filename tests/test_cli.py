"""The command line: errors without traceback, exit codes, lists."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.cli import app
from ncbench.sources import select

VERBS = ["fetch", "prepare", "verify", "repair", "audit", "export"]
VERBS += ["predict", "evaluate", "probe", "report", "cards", "doctor"]
LISTS = [[group, verb] for group in ("datasets", "models", "protocols", "loaders") for verb in ("list", "show")]
LISTS += [["loaders", "copy"]]


@pytest.fixture
def run():
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("verb", [[verb] for verb in VERBS] + LISTS)
def test_every_verb_has_help_with_an_example(run, verb):
    result = run(*verb, "--help")
    assert result.exit_code == 0
    assert "Example: ncbench" in result.output


def test_the_example_of_a_partial_fetch_names_scenes_that_exist():
    source = catalog.load(DatasetCard, "bonn").source
    assert source.kind == "download"
    names = [item.name for item in select(source.downloads, ["crowd2", "balloon*"], "bonn")]
    assert names == ["rgbd_bonn_balloon2.zip", "rgbd_bonn_crowd2.zip"]


def test_lists_show_what_is_shipped(run):
    assert "sintel-mini" in run("datasets", "list").output
    assert "depth_oracle" in run("models", "list").output
    assert "motorcycle" in run("protocols", "list").output
    assert "normalcrafter-stage1" in run("loaders", "list").output
    assert "adapter: ncbench.models.controls:DepthOracle" in run("models", "show", "depth_oracle").output


def test_doctor_says_what_is_missing_and_how_to_get_it(run, tmp_path):
    result = run("doctor", "--stores", tmp_path)
    assert result.exit_code == 0, result.output
    assert "ncbench fetch rooms && ncbench prepare rooms" in result.output
    assert "Python" in result.output


def test_an_error_is_one_line_without_traceback(tmp_path):
    command = [
        sys.executable,
        "-m",
        "ncbench",
        "prepare",
        "rooms",
        "--raw",
        str(tmp_path / "none"),
        "--to",
        str(tmp_path / "s"),
    ]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert plain.returncode == 3
    assert str(tmp_path / "none") in plain.stderr
    assert "Traceback" not in plain.stderr
    command.insert(3, "--debug")
    debug = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert debug.returncode != 0
    assert "Traceback" in debug.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["predict", "frontl", "rooms"], 2, "Did you mean 'frontal'"),
        (["predict", "frontal", "rooms", "--stores", "nowhere"], 4, "nowhere"),
        (["evaluate", "frontal", "--protocol", "rooms", "--stores", "nowhere"], 4, "nowhere"),
        (["evaluate", "frontal", "-p", "romms"], 2, "Did you mean 'rooms'"),
        (["probe", "frontal", "-p", "rooms", "--stores", "nowhere"], 4, "nowhere"),
        (["verify", "nowhere"], 4, "nowhere"),
        (["report", "--results", "nowhere"], 6, "ncbench evaluate"),
        (["fetch", "scannet", "--to", "nowhere"], 3, "must be obtained by hand"),
    ],
)
def test_exit_codes_and_remedies(run, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert words in result.output
