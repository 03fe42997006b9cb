"""Rules of the house that would otherwise have to be remembered."""

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import ncbench

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("datasets", "loaders", "evaluators", "models", "reports")
HEAVY = ("torch", "diffusers", "datasets", "pandas", "transformers", "numba", "pyarrow")


def python(code: str, cwd: Path = ROOT, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("folder", FOLDERS)
def test_declarative_folders_hold_no_python(folder):
    assert not list((ROOT / folder).rglob("*.py")), f"{folder}/ is data; a module here would shadow a library"
    assert (ROOT / folder / "README.md").is_file()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_what_a_run_writes_is_not_tracked():
    """A tracked dvc.lock would change with every run, and every result would say that its code had been edited."""
    listed = ["git", "ls-files", "dvc.lock", "data", "reports/generated", "site"]
    assert subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""


def test_the_folder_called_datasets_does_not_shadow_the_library():
    assert python("import datasets; print(datasets.load_from_disk.__module__)").startswith("datasets.")


def test_importing_ncbench_and_its_help_stays_light():
    code = f"import sys, ncbench, ncbench.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert python(code) == "[]"
    code = (
        "import sys\nfrom ncbench.cli import main\nsys.argv = ['ncbench', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(str([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "prepare" in done.stdout
    assert done.stderr == "[]"


def test_the_learned_models_libraries_import_together():
    with pytest.raises(PackageNotFoundError):
        version("torchvision")  # its wheel and a CPU torch break each other
    python("import diffusers, transformers; from diffusers import AutoencoderKL")


def test_public_names_are_a_promise():
    """Removing or adding a public name must be a decision: edit this list in the same change."""
    promised = [
        "Loader",
        "NcbenchError",
        "NormalClips",
        "NormalFrames",
        "Store",
        "__version__",
        "angular_error",
        "evaluate",
        "load_model",
        "open_clips",
        "open_store",
    ]
    assert sorted(ncbench.__all__) == promised
    for name in promised:
        assert getattr(ncbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ncbench.nonsense


LISTING = (
    "import json; from ncbench import catalog; from ncbench.cards import *;"
    "from ncbench.protocol_card import ProtocolCard; from ncbench.loader_card import LoaderCard;"
    "kinds = (DatasetCard, ModelCard, ProtocolCard, LoaderCard, RecipeCard, ReportCard);"
    "shown = [{n: digest(catalog.load(k, n).model_dump(mode='json')) for n in catalog.find(k)} for k in kinds];"
    "print(json.dumps(shown))"
)


def test_the_wheel_carries_the_same_cards_as_the_checkout(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    empty = tmp_path / "empty"
    empty.mkdir()
    code = "import ncbench; print(ncbench.__file__)"
    assert python(code, cwd=empty, PYTHONPATH=str(unpacked)).startswith(str(unpacked))
    from_wheel = json.loads(python(LISTING, cwd=empty, PYTHONPATH=str(unpacked)))
    assert from_wheel == json.loads(python(LISTING))
    assert all(from_wheel)


def test_another_package_adds_cards_by_an_entry_point(tmp_path):
    site = tmp_path / "site"
    cards = site / "plug" / "models"
    cards.mkdir(parents=True)
    (site / "plug" / "__init__.py").write_text("")
    text = (ROOT / "models" / "frontal.yaml").read_text().replace("name: frontal", "name: plugged")
    (cards / "plugged.yaml").write_text(text)
    info = site / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ncbench.catalogs]\nplug = plug\n")
    code = "from ncbench import load_model; m = load_model('plugged'); print(m.card.name, type(m.adapter).__name__)"
    assert python(code, cwd=tmp_path, PYTHONPATH=str(site)) == "plugged Frontal"
    (cards / "frontal.yaml").write_text((ROOT / "models" / "frontal.yaml").read_text())
    code = "import ncbench\ntry:\n    ncbench.load_model('frontal')\nexcept ncbench.NcbenchError as e:\n    print(e)"
    assert "offered twice" in python(code, cwd=tmp_path, PYTHONPATH=str(site))
