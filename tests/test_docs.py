"""The site builds without a broken link, and what the guides show works as shown."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main
import yaml

from ncbench.cli import app
from ncbench.datasets.pictures import decode_image
from ncbench.datasets.store import open_store
from ncbench.evaluators.angular import angular_error
from ncbench.evaluators.slices.standard import named_slices
from ncbench.evaluators.view import View
from ncbench.geometry.axes import convert_axes

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def block(page, part):
    (text,) = [t for t in re.findall(r"```\w*\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL) if part in t]
    return text


def run(code):
    names = {}
    exec(compile(code, "guide", "exec"), names)  # noqa: S102 - our own page
    return names


def test_the_site_builds_and_no_link_is_broken(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))  # and a page for what is not found
    asked = [
        url
        for page in pages
        for url in re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)', page.read_text())
    ]
    assert asked == []


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}\n" in text, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_readme_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def commands():
    """Every ``ncbench ...`` line in shell blocks, with its page."""
    for page in PAGES:
        for shell in re.findall(r"```(?:sh|bash|console)?\n(.*?)```", page.read_text(), re.DOTALL):
            for line in shell.replace("\\\n", " ").splitlines():
                for part in line.split("#")[0].split("&&"):
                    words = part.strip().removeprefix("$ ").split()
                    if words[:1] == ["ncbench"]:
                        yield page.name, words[1:]


@pytest.mark.parametrize(
    ("page", "words"), list(commands()), ids=lambda value: value if isinstance(value, str) else None
)
def test_commands_in_the_docs_exist(page, words):
    command = typer.main.get_command(app)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command = command.commands[words[0]]
        words = words[1:]
    assert not hasattr(command, "commands"), f"{page}: no such command: {words}"
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    used = {word.split("=")[0] for word in words if word.startswith("-") and not word.lstrip("-")[:1].isdigit()}
    assert used <= known, f"{page}: {sorted(used - known)}"


def test_the_guides_reader_prepares(tmp_path, monkeypatch):
    (tmp_path / "npz_reader.py").write_text(block("add-a-dataset.md", "class NpzReader"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    card = yaml.safe_load(block("add-a-dataset.md", "name: mine"))
    card |= {"reader": "npz_reader:NpzReader", "settings": {}}
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mine.yaml").write_text(yaml.safe_dump(card))
    vectors = np.random.default_rng(0).normal(size=(3, 6, 8, 3))
    vectors[..., 2] = np.abs(vectors[..., 2]) + 0.1  # towards the camera, in OpenGL axes
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    (tmp_path / "raw").mkdir()
    rgb = np.arange(3 * 6 * 8 * 3, dtype=np.uint8).reshape(3, 6, 8, 3)
    np.savez(tmp_path / "raw" / "one.npz", rgb=rgb, normals=vectors.astype(np.float32))
    done = subprocess.run(
        [sys.executable, "-m", "ncbench", "prepare", "mine", "--raw", "raw", "--to", "store"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = convert_axes(vectors, "opengl", "opencv")
    frames = [open_store("store").read("one", frame) for frame in range(3)]
    np.testing.assert_array_equal(np.stack([decode_image(frame.image) for frame in frames]), rgb)
    stored = np.stack([frame.normal for frame in frames])
    assert angular_error(stored, expected.astype(np.float32)).max() < 0.01


def test_the_guides_slice_sorts_pixels():
    normals = np.array([[[0, -1, 0], [0, -0.8, -0.6], [0, 0, -1], [0, 1, 0]]], np.float32)
    tilt = run(block("add-a-metric.md", "def tilt"))["tilt"]()
    labels = tilt.label(View(sequence="s", frame=0, normal=normals, valid=np.ones((1, 4), bool)), None)
    assert [tilt.bins[label] for label in labels[0]] == ["floor", "slope", "wall", "ceiling"]
    assert len(named_slices(["border"])) == 1
