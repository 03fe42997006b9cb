"""Prediction stores: resumable by sequence, tied to model and data."""

import json

import pytest
import yaml

from ncbench import catalog, open_store
from ncbench.cards import ModelCard
from ncbench.errors import ModelError, StoreError
from ncbench.models.controls import Frontal
from ncbench.models.run import predict


def test_a_prediction_store_holds_every_frame_and_says_how_it_was_made(tiny):
    folder = predict("frontal", "tiny")
    store, data = open_store(folder), open_store("data/stores/tiny")
    assert store.sequences == data.sequences
    frame = store.read("one", 2)
    assert frame.image is None
    assert (frame.normal == [0, 0, -1]).all()
    run = json.loads((folder / "run.json").read_text())
    assert run["data_digest"] == data.manifest.digest
    assert run["frames"] == len(data)
    assert run["packages"]["numpy"]


def test_finished_sequences_are_kept_and_the_rest_is_done(tiny, monkeypatch):
    calls = []
    honest = Frontal.predict

    def breaks_on_two(self, clip):
        calls.append(clip.sequence)
        if clip.sequence == "two" and calls.count("two") == 1:
            raise ModelError("out of luck")
        return honest(self, clip)

    monkeypatch.setattr(Frontal, "predict", breaks_on_two)
    with pytest.raises(ModelError, match="out of luck"):
        predict("frontal", "tiny")
    with pytest.raises(StoreError, match="unfinished"):
        open_store("data/predictions/tiny/frontal")
    predict("frontal", "tiny")
    assert calls == ["one", "two", "two"]
    predict("frontal", "tiny")
    assert len(calls) == 3


def test_a_changed_card_predicts_anew(tiny):
    card = catalog.load(ModelCard, "bias").model_dump(mode="json")
    (tiny / "models").mkdir()
    path = tiny / "models" / "bias.yaml"
    digests = []
    for degrees in (10.0, 12.0):
        path.write_text(yaml.safe_dump(card | {"settings": {"degrees": degrees}}))
        digests.append(open_store(predict("bias", "tiny")).manifest.digest)
    assert digests[0] != digests[1]
