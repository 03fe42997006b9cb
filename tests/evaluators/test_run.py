"""From stores to results: every frame is accounted for, and foreign predictions are refused."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from ncbench import catalog, evaluate, open_store
from ncbench.cards import ModelCard, ProtocolCard
from ncbench.errors import ScoreError, StoreError
from ncbench.evaluators.run import score, summary
from ncbench.models.run import predict
from ncbench.protocol import lock_protocol
from ncbench.reports.results import load_results


def reference(store, preds):
    """Pooled errors in plain float64 numpy, DSINE's way."""
    errors = []
    for sequence, frames in store.sequences.items():
        for frame in frames:
            truth, pred = store.read(sequence, frame), preds.read(sequence, frame)
            a, b = pred.normal[truth.valid].astype(np.float64), truth.normal[truth.valid].astype(np.float64)
            cross = np.linalg.norm(np.cross(a, b), axis=1)
            errors.append(np.degrees(np.arctan2(cross, (a * b).sum(1))))
    return np.concatenate(errors)


@pytest.mark.parametrize("model", ["frontal", "depth_oracle", "blur"])
def test_the_whole_chain_agrees_with_numpy(tiny, model):
    preds = open_store(predict(model, "tiny"))
    row = evaluate(model, "tiny").iloc[0]
    errors = reference(open_store("data/stores/tiny"), preds)
    assert row["pixels"] == errors.size
    assert row["mean"] == pytest.approx(errors.mean(), abs=1e-9)
    assert row["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-9)
    assert row["median"] == pytest.approx(np.median(errors), abs=1e-3)
    assert row["within_11_25"] == pytest.approx(100 * (errors < 11.25).mean(), abs=1e-9)
    frames = pd.read_parquet(f"data/results/tiny/{model}/frames.parquet")
    assert (frames["status"] == "scored").all()
    assert np.average(frames["mean"], weights=frames["pixels"]) == pytest.approx(errors.mean(), abs=1e-9)


def test_the_result_file_says_where_its_numbers_come_from(tiny):
    predict("frontal", "tiny")
    evaluate("frontal", "tiny")
    (result,) = load_results(tiny / "data" / "results")
    values = json.loads((result.folder / "result.json").read_text())
    assert values["dataset"]["digest"] == open_store("data/stores/tiny").manifest.digest
    assert values["protocol"]["thresholds"] == [5.0, 7.5, 11.25, 22.5, 30.0]
    assert values["model"]["adapter"] == "ncbench.models.controls:Frontal"
    assert {"commit", "dirty"} <= set(values["provenance"]["code"])
    assert values["provenance"]["packages"]["numpy"]
    assert str(tiny) not in json.dumps(values), "a result must not name paths of the machine"


def test_a_frame_that_cannot_be_scored_is_counted_and_averages_vanish(tiny):
    folder = predict("frontal", "tiny")
    protocol = {"name": "tiny", "version": "1.0.0", "title": "T", "summary": "", "dataset": "tiny"}

    # predictions that cover one sequence only
    (tiny / "evaluators" / "tiny.yaml").write_text(yaml.safe_dump(protocol | {"sequences": ["one"]}))
    shutil.rmtree(folder)
    preds = open_store(predict("frontal", "tiny"))
    scores = score(preds, open_store("data/stores/tiny"), ProtocolCard.parse(protocol, "p"))
    result = summary(scores, "here")
    assert (scores.failed, result["status"], result["metrics"]) == (3, "partial", {})
    assert result["counts"] == {
        "frames": 6,
        "scored": 3,
        "failed": 3,
        "pixels": scores.state.count,
        "invalid_predictions": 0,
    }
    bad = scores.frames[scores.frames["status"] == "failed"]
    assert (bad["sequence"] == "two").all()
    assert bad["error"].str.contains("two").all()


def test_an_unknown_sequence_is_named(tiny):
    protocol = {
        "name": "tiny",
        "version": "1.0.0",
        "title": "T",
        "summary": "",
        "dataset": "tiny",
        "sequences": ["onne"],
    }
    (tiny / "evaluators" / "tiny.yaml").write_text(yaml.safe_dump(protocol))
    with pytest.raises(ScoreError, match="onne. Did you mean 'one'"):
        predict("frontal", "tiny")


def test_predictions_of_other_data_or_another_model_are_refused(tiny):
    folder = predict("frontal", "tiny")
    run = json.loads((folder / "run.json").read_text())
    for key, words in (("data_digest", "version of the data"), ("model_digest", "model card 'frontal'")):
        (folder / "run.json").write_text(json.dumps(run | {key: "0" * 64}))
        with pytest.raises(ScoreError, match=words):
            evaluate("frontal", "tiny")
    (folder / "run.json").write_text("{")
    with pytest.raises(StoreError, match="Run 'ncbench predict' again"):
        evaluate("frontal", "tiny")


def test_the_lock_changes_with_the_meaning_not_with_the_prose(tiny):
    path = tiny / "evaluators" / "tiny.yaml"
    values = yaml.safe_load(path.read_text())
    locks = []
    for change in ({}, {"title": "Other words"}, {"thresholds": [5.0]}):
        path.write_text(yaml.safe_dump(values | change))
        lock_protocol("tiny", tiny / "data" / "stores", tiny / "lock.json")
        locks.append((tiny / "lock.json").read_bytes())
    assert locks[0] == locks[1] != locks[2]


def test_a_card_may_be_given_as_a_file_and_results_lie_under_its_name(tiny):
    predict("frontal", "evaluators/tiny.yaml")
    evaluate("frontal", str(tiny / "evaluators" / "tiny.yaml"))
    assert (tiny / "data" / "results" / "tiny" / "frontal" / "result.json").is_file()


def test_truth_without_a_valid_pixel_is_empty_not_perfect(tiny):
    predict("frontal", "tiny")
    target = open_store("data/stores/tiny")
    honest = target.read

    def blank(*arguments):
        frame = honest(*arguments)
        return dataclasses.replace(frame, valid=np.zeros_like(frame.valid))

    target.read = blank
    scores = score(open_store("data/predictions/tiny/frontal"), target, catalog.load(ProtocolCard, "tiny"))
    result = summary(scores, "here")
    assert (result["status"], result["metrics"], result["counts"]["failed"]) == ("empty", {}, 0)


def test_prose_of_a_model_changes_no_prediction(tiny):
    predict("frontal", "tiny")
    card = catalog.load(ModelCard, "frontal").model_dump(mode="json")
    (tiny / "models").mkdir()
    (tiny / "models" / "frontal.yaml").write_text(yaml.safe_dump(card | {"summary": "Other words."}))
    shard = next((tiny / "data" / "predictions" / "tiny" / "frontal").glob("*.arrow"))
    written = shard.stat().st_mtime_ns
    evaluate("frontal", "tiny")
    predict("frontal", "tiny")
    assert shard.stat().st_mtime_ns == written
