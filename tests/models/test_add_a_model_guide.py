"""The guide's own code and cards, taken from the page and run."""

import re
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ncbench import evaluate, open_store
from ncbench.models.run import RunOptions, predict

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "add-a-model.md"


def block(language, part):
    (text,) = [t for t in re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL) if part in t]
    return text


def test_a_model_of_ones_own(tiny, monkeypatch):
    (tiny / "models").mkdir()
    (tiny / "upward.py").write_text(block("python", "class Upward"))
    (tiny / "models" / "upward.yaml").write_text(block("yaml", "name: upward"))
    monkeypatch.syspath_prepend(str(tiny))
    frame = open_store(predict("upward", "tiny")).read("one", 0)
    np.testing.assert_allclose(frame.normal, np.broadcast_to([0, -1, 0], frame.normal.shape), atol=1e-7)
    lines = [line for line in (tiny / "upward.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 15


def test_somebodys_code_in_its_own_environment(tiny):
    (tiny / "models").mkdir()
    (tiny / "their_code").mkdir()
    (tiny / "their_code" / "predict.py").write_text(block("python", "clip.json"))
    card = block("yaml", "name: their_code").replace("envs/theirs/bin/python", sys.executable)
    (tiny / "models" / "their_code.yaml").write_text(card)
    frame = open_store(predict("their_code", "tiny")).read("two", 2)
    np.testing.assert_allclose(frame.normal, np.broadcast_to([0, 0, -1], frame.normal.shape), atol=1e-7)


def test_a_model_with_weights(tiny, monkeypatch):
    (tiny / "models").mkdir()
    (tiny / "one_layer.py").write_text(block("python", "class OneLayer"))
    (tiny / "models" / "one_layer.yaml").write_text(block("yaml", "name: one_layer"))
    monkeypatch.syspath_prepend(str(tiny))
    tensors = {"weight": torch.zeros(3, 3, 1, 1), "bias": torch.tensor([0.0, 3.0, -4.0])}
    save_file(tensors, tiny / "model.safetensors")
    frame = open_store(predict("one_layer", "tiny", options=RunOptions(weights=tiny))).read("one", 0)
    np.testing.assert_allclose(frame.normal, np.broadcast_to([0, 0.6, -0.8], frame.normal.shape), atol=1e-4)


def test_somebody_elses_results(tiny):
    (tiny / "models").mkdir()
    card = block("yaml", "name: theirs").replace(".png", ".npy")
    (tiny / "models" / "theirs.yaml").write_text(card)
    store = open_store("data/stores/tiny")
    for sequence, frames in store.sequences.items():
        folder = tiny / "results" / "theirs" / sequence
        folder.mkdir(parents=True)
        for frame in frames:
            np.save(folder / f"frame_{frame:04d}.npy", -store.read(sequence, frame).normal)
    predict("theirs", "tiny")
    assert evaluate("theirs", "tiny").iloc[0]["rmse"] < 0.01
