"""A recipe of a linear model on a tiny store: 'one' is trained on, 'two' is held out."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

HERE = str(Path(__file__).parent)
LOADER = {
    "name": "tiny-loader",
    "version": "1.0.0",
    "title": "Tiny",
    "summary": "A test.",
    "sets": [{"dataset": "tiny", "sequences": ["one"]}],
    "axes": "opengl",
    "image": "float32",
}
RECIPE = {
    "name": "linear",
    "version": "1.0.0",
    "title": "Linear",
    "summary": "A test.",
    "stage": "linear_stage:LinearStage",
    "loader": "tiny-loader",
    "steps": 12,
    "optimizer": {"lr": 0.01, "warmup_steps": 3},
    "global_batch": 2,
    "checkpoint": {"every": 4, "keep": 2},
    "profiles": {"short": {"steps": 5, "optimizer": {"lr": 0.02}}},
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def linear(tiny, monkeypatch):
    """The working folder of ``tiny`` with the recipe ``linear``; returns a function that changes it for good."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", HERE)
    for folder, values in (("loaders", LOADER), ("recipes", RECIPE)):
        (tiny / folder).mkdir()
        (tiny / folder / f"{values['name']}.yaml").write_text(yaml.safe_dump(values))
    sys.modules.pop("linear_stage", None)
    return tiny
