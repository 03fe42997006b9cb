"""The DVC pipeline itself: idempotent, precise about what a change touches, and resumable after kill -9."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ncbench.datasets.integrity import verify

ROOT = Path(__file__).resolve().parent.parent
SEQUENCES = [{"name": "one", "kind": "room"}, {"name": "two", "kind": "objects"}]


@pytest.fixture
def checkout(tmp_path):
    """A checkout of the pipeline with one small data set and two models."""
    for folder in ("datasets", "evaluators", "loaders", "models", "recipes", "reports"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("generated"))
    shutil.copytree(ROOT / "ncbench", tmp_path / "ncbench", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc" / "config")
    params = {"datasets": ["rooms"], "protocols": ["rooms"], "models": ["frontal", "depth_oracle"], "jobs": 1}
    params |= {"training": {}, "train_options": "", "trained": []}  # learning takes minutes: tests/training
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    edit(tmp_path / "datasets" / "rooms.yaml", shard_rows=1)
    shrink(tmp_path, frames=2, height=24, width=32)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def edit(path, **changes):
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def shrink(checkout, **size):
    path = checkout / "datasets" / "rooms.yaml"
    source = yaml.safe_load(path.read_text())["source"]
    source["settings"] |= size | {"sequences": SEQUENCES}
    edit(path, source=source)


def environment():
    bin_folder = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}


def repro(checkout, *arguments):
    done = subprocess.run(
        ["dvc", "repro", *arguments], cwd=checkout, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"Running stage '([^']+)'", done.stdout)


@pytest.mark.slow
def test_once_is_enough_and_a_change_reruns_only_what_depends_on_it(checkout):
    stages = repro(checkout)
    assert stages[0] == "cards"
    assert stages[-1] == "report"
    assert {"fetch@rooms", "prepare@rooms", "lock@rooms"} <= set(stages)
    models = ("frontal", "depth_oracle")
    assert {f"{verb}@{model}-rooms" for verb in ("predict", "evaluate") for model in models} <= set(stages)
    assert "Depth oracle" in (checkout / "reports" / "generated" / "report.md").read_text()

    assert repro(checkout) == []

    edit(checkout / "models" / "frontal.yaml", title="Facing the camera")
    assert repro(checkout) == ["cards", "predict@frontal-rooms", "evaluate@frontal-rooms", "report"]
    assert "Facing the camera" in (checkout / "reports" / "generated" / "report.md").read_text()

    # prose of a data set: its store is sealed anew, but the data and so all predictions stay
    edit(checkout / "datasets" / "rooms.yaml", summary="Other words.")
    assert repro(checkout) == ["cards", "fetch@rooms", "prepare@rooms", "audit@rooms", "lock@rooms"]


@pytest.mark.slow
def test_kill_9_during_prepare_then_repro_finishes_from_the_shards_already_written(checkout):
    shrink(checkout, frames=8, height=192, width=256)
    repro(checkout, "fetch")
    store = checkout / "data" / "stores" / "rooms"
    running = subprocess.Popen(
        ["dvc", "repro", "prepare"], cwd=checkout, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(store.glob("data-*-of-*.arrow")):
        assert running.poll() is None, "prepare ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in store.glob("data-*-of-*.arrow")}
    assert 0 < len(kept) < 16, "nothing was left to resume"
    assert not (store / "manifest.json").exists()
    assert repro(checkout, "prepare") == ["prepare@rooms"]
    after = {path.name: path.stat().st_mtime_ns for path in store.glob("data-*-of-*.arrow")}
    assert len(after) == 16
    assert {name: after[name] for name in kept} == kept
    assert verify(store) == []
