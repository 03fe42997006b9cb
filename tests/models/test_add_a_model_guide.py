"""The guide's own code and cards, taken from the page and run."""

import re
from pathlib import Path

import numpy as np

from ncbench import evaluate, open_store
from ncbench.models.run import predict

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "add-a-model.md"


def block(language, start):
    (text,) = [t for t in re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL) if t.startswith(start)]
    return text


def test_a_model_of_ones_own(tiny, monkeypatch):
    (tiny / "models").mkdir()
    (tiny / "upward.py").write_text(block("python", "from collections.abc"))
    (tiny / "models" / "upward.yaml").write_text(block("yaml", "name: upward"))
    monkeypatch.syspath_prepend(str(tiny))
    frame = open_store(predict("upward", "tiny")).read("one", 0)
    np.testing.assert_allclose(frame.normal, np.broadcast_to([0, -1, 0], frame.normal.shape), atol=1e-7)


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
