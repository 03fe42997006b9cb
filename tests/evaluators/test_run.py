"""From stores to results: every frame is accounted for, and foreign predictions are refused."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy.spatial.transform import Rotation

import ncbench.evaluators.run as run_module
from ncbench import catalog, evaluate, open_store
from ncbench.cards import ModelCard
from ncbench.errors import ScoreError, StoreError
from ncbench.evaluators.predictions import FolderOptions, StoredPredictions
from ncbench.evaluators.run import score
from ncbench.evaluators.summary import summarize
from ncbench.geometry.axes import convert_axes
from ncbench.models.run import predict
from ncbench.protocol import lock_protocol
from ncbench.protocol_card import ProtocolCard
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


def stored(folder):
    return StoredPredictions(open_store(folder), catalog.load(ModelCard, "frontal"))


@pytest.mark.parametrize("model", ["frontal", "depth_oracle", "blur"])
def test_the_whole_chain_agrees_with_numpy(tiny, model):
    preds = open_store(predict(model, "tiny"))
    row = evaluate(model, "tiny").iloc[0]
    errors = reference(open_store("data/stores/tiny"), preds)
    assert row["pixels"] == errors.size
    # errors are rounded to about a millionth of a degree, which sums exactly
    assert row["mean"] == pytest.approx(errors.mean(), abs=1e-6)
    assert row["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-6)
    assert row["median"] == pytest.approx(np.median(errors), abs=1e-3)
    assert row["within_11_25"] == pytest.approx(100 * (errors < 11.25).mean(), abs=1e-9)
    frames = pd.read_parquet(f"data/results/tiny/{model}/frames.parquet")
    assert (frames["status"] == "scored").all()
    assert np.average(frames["mean"], weights=frames["pixels"]) == pytest.approx(errors.mean(), abs=1e-6)


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
    preds = stored(predict("frontal", "tiny"))
    scores = score(preds, open_store("data/stores/tiny"), ProtocolCard.parse(protocol, "p"))
    result = summarize(scores, "here")
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
    scores = score(stored("data/predictions/tiny/frontal"), target, catalog.load(ProtocolCard, "tiny"))
    result = summarize(scores, "here")
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


def write_predictions(root, axes="opencv", turn=0.0, ending="npy", only=None):
    """Good predictions as plain files: the truth, turned a little, in the named axes."""
    store = open_store("data/stores/tiny")
    matrix = Rotation.from_rotvec(np.radians([turn, turn / 2, 0])).as_matrix()
    for sequence, frames in store.sequences.items():
        (root / sequence).mkdir(parents=True)
        for frame in frames:
            if only is not None and (sequence, frame) not in only:
                continue
            truth = store.read(sequence, frame, ())
            normal = np.where(truth.valid[..., None], truth.normal, np.float32([0, 0, -1])) @ matrix.T
            normal = convert_axes(normal.astype(np.float32), "opencv", axes)
            path = root / sequence / f"{frame:06d}.{ending}"
            if ending == "npy":
                np.save(path, normal)
            else:
                Image.fromarray(np.round((normal + 1) * 127.5).astype(np.uint8)).save(path)
    return root


def test_a_plain_folder_scores_like_the_rotation_it_was_made_by(tiny):
    folder = write_predictions(tiny / "theirs", "opengl", turn=4.0)
    row = evaluate(folder, "tiny", options=FolderOptions(axes="opengl")).iloc[0]
    # a rotation by t about an axis turns a normal at angle a to it by less than t, and none by more
    assert 0 < row["mean"] < np.hypot(4, 2)
    store = open_store("data/stores/tiny")
    matrix = Rotation.from_rotvec(np.radians([4.0, 2.0, 0])).as_matrix()
    errors = []
    for sequence, frames in store.sequences.items():
        for frame in frames:
            truth = store.read(sequence, frame)
            a = truth.normal[truth.valid].astype(np.float64)
            b = a @ matrix.T
            errors.append(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(1))))
    assert row["mean"] == pytest.approx(np.concatenate(errors).mean(), abs=1e-5)
    (result,) = load_results(tiny / "data" / "results")
    assert (result.model, result.values.model.kind) == ("theirs", "predictions")
    assert str(tiny) not in (result.folder / "result.json").read_text()


@pytest.mark.parametrize("change", [{}, {"crop": {"top": 3, "left": 2}}, {"resolution": {"height": 20, "width": 30}}])
def test_pictures_score_like_the_vectors_in_them(tiny, change):
    pictures = write_predictions(tiny / "pictures", "opengl", turn=4.0, ending="png")
    for path in pictures.glob("*/*.png"):
        out = tiny / "vectors" / path.parent.name / f"{path.stem}.npy"
        out.parent.mkdir(parents=True, exist_ok=True)
        np.save(out, np.asarray(Image.open(path), np.float32) / 127.5 - 1)
    protocol = {"name": "tiny", "version": "1.0.0", "title": "T", "summary": "", "dataset": "tiny", **change}
    (tiny / "evaluators" / "tiny.yaml").write_text(yaml.safe_dump(protocol))
    rows = [evaluate(tiny / kind, "tiny", options=FolderOptions(axes="opengl")) for kind in ("pictures", "vectors")]
    one, two = (row.iloc[0] for row in rows)
    assert one["pixels"] == two["pixels"]
    for name in ("mean", "rmse", "median", "within_5"):
        assert one[name] == pytest.approx(two[name], abs=1e-3 if name == "median" else 1e-5)


def test_a_plain_folder_needs_its_axes(tiny):
    folder = write_predictions(tiny / "theirs")
    with pytest.raises(ScoreError, match="--axes opencv"):
        evaluate(folder, "tiny")
    predict("frontal", "tiny")
    with pytest.raises(ScoreError, match="describe a plain folder"):
        evaluate("frontal", "tiny", options=FolderOptions(axes="opencv"))


@pytest.mark.parametrize("wrong", ["opencv", "dsine", "ldf"])
def test_wrong_axes_stop_the_evaluation_with_the_remedy(tiny, wrong):
    folder = write_predictions(tiny / "theirs", "opengl", turn=3.0)
    with pytest.raises(ScoreError, match=r"your files are `opengl`.* Remedy: --axes opengl"):
        evaluate(folder, "tiny", options=FolderOptions(axes=wrong))
    assert not (tiny / "data" / "results" / "tiny" / "theirs" / "result.json").exists()
    row = evaluate(folder, "tiny", options=FolderOptions(axes=wrong), on_mistake="warn").iloc[0]
    assert row["mean"] > 20
    assert "opengl" in row["mistake"]
    row = evaluate(folder, "tiny", options=FolderOptions(axes="opengl")).iloc[0]
    assert row["mean"] < 4
    assert row["mistake"] == ""


def test_a_missing_file_is_a_failed_frame(tiny):
    folder = write_predictions(tiny / "theirs", ending="png")
    (folder / "one" / "000001.png").unlink()
    row = evaluate(folder, "tiny", options=FolderOptions(axes="opencv")).iloc[0]
    assert (row["status"], row["failed"], row["scored"]) == ("partial", 1, 5)
    frames = pd.read_parquet("data/results/tiny/theirs/frames.parquet")
    assert "000001" in frames.loc[frames["status"] == "failed", "error"].item()


def without_provenance(folder):
    values = json.loads((folder / "result.json").read_text())
    return {key: value for key, value in values.items() if key not in ("provenance", "predictions")}


VIDEO = {"temporal": {"flow": "gt", "options": {"track_window": 3}}, "slices": ["border", "depth"]}


def test_a_prediction_store_is_scored_by_its_path_as_by_the_models_name(tiny):
    folder = predict("flicker", "tiny")
    by_name, by_path = (
        evaluate(what, "tiny", results=tiny / str(n)).iloc[0] for n, what in enumerate(("flicker", folder))
    )
    assert (by_path["model"], by_path["mean"]) == ("flicker", by_name["mean"])


def test_a_partial_result_keeps_its_flow_and_so_its_place_beside_complete_ones(tiny):
    path = tiny / "evaluators" / "tiny.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | VIDEO))
    folder = write_predictions(tiny / "theirs", ending="png")
    (folder / "one" / "000001.png").unlink()
    evaluate(folder, "tiny", options=FolderOptions(axes="opencv"))
    predict("flicker", "tiny")
    evaluate("flicker", "tiny")
    partial, complete = sorted(load_results(tiny / "data" / "results"), key=lambda one: one.values.status, reverse=True)
    assert (partial.values.status, complete.values.status) == ("partial", "complete")
    assert partial.table_key() == complete.table_key()


@pytest.mark.parametrize("extra", [{}, VIDEO, {"pooling": "sequences"}, {"pooling": "frames", "decimals": 4}])
def test_two_jobs_give_the_same_result_as_one(tiny, extra):
    path = tiny / "evaluators" / "tiny.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | extra))
    predict("flicker", "tiny")
    results = []
    for jobs in (1, 2):
        evaluate("flicker", "tiny", jobs=jobs, results=tiny / f"results{jobs}")
        results.append(without_provenance(tiny / f"results{jobs}" / "tiny" / "flicker"))
    assert results[0] == results[1]


def test_an_interrupted_evaluation_goes_on_where_it_stopped(tiny, monkeypatch):
    path = tiny / "evaluators" / "tiny.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | VIDEO))
    predict("flicker", "tiny")
    evaluate("flicker", "tiny", results=tiny / "whole")
    scored = []
    honest = run_module.score_piece

    def fails_at_two(examiner, piece):
        scored.append(piece.sequence)
        if piece.sequence == "two" and len(scored) == 2:
            raise KeyboardInterrupt
        return honest(examiner, piece)

    monkeypatch.setattr(run_module, "score_piece", fails_at_two)
    with pytest.raises(KeyboardInterrupt):
        evaluate("flicker", "tiny")
    evaluate("flicker", "tiny")
    assert scored == ["one", "two", "two"]
    assert not (tiny / "data" / "results" / "tiny" / "flicker" / "parts").exists()
    assert without_provenance(tiny / "whole" / "tiny" / "flicker") == without_provenance(
        tiny / "data" / "results" / "tiny" / "flicker"
    )


def test_a_damaged_part_is_scored_again(tiny, monkeypatch):
    predict("flicker", "tiny")
    evaluate("flicker", "tiny", results=tiny / "whole")
    monkeypatch.setattr(run_module.Parts, "clear", lambda _: None)
    evaluate("flicker", "tiny")
    parts = list((tiny / "data" / "results" / "tiny" / "flicker" / "parts").iterdir())
    assert parts
    for part in parts:
        part.write_bytes(part.read_bytes()[:-200])
    evaluate("flicker", "tiny")
    assert without_provenance(tiny / "whole" / "tiny" / "flicker") == without_provenance(
        tiny / "data" / "results" / "tiny" / "flicker"
    )


def test_poolings_against_the_rows_of_the_result(tiny):
    path = tiny / "evaluators" / "tiny.yaml"
    plain = yaml.safe_load(path.read_text())
    predict("depth_oracle", "tiny")
    path.write_text(yaml.safe_dump(plain | {"pooling": "frames", "decimals": 4}))
    row = evaluate("depth_oracle", "tiny").iloc[0]
    frames = pd.read_parquet("data/results/tiny/depth_oracle/frames.parquet")
    for metric in ("mean", "median", "within_11_25"):
        assert row[metric] == pytest.approx(frames[metric].round(4).mean(), abs=1e-9)
    clips = {"pooling": "sequences", "clips": {"length": 2, "overlap": 1}}
    path.write_text(yaml.safe_dump(plain | clips))
    row = evaluate("depth_oracle", "tiny").iloc[0]
    means = []
    for _, group in frames.groupby("sequence"):
        for start in (0, 1):
            pair = group.iloc[start : start + 2]
            means.append(np.average(pair["mean"], weights=pair["pixels"]))
    assert row["mean"] == pytest.approx(np.mean(means), abs=1e-6)


def test_a_first_camera_model_is_turned_back_by_the_true_poses(tiny):
    store = open_store("data/stores/tiny")
    folder = tiny / "world"
    for sequence, frames in store.sequences.items():
        (folder / sequence).mkdir(parents=True)
        first = store.read(sequence, frames[0]).cam_to_world[:3, :3]
        for frame in frames:
            truth = store.read(sequence, frame)
            turn = first.T @ truth.cam_to_world[:3, :3]
            np.save(folder / sequence / f"{frame:06d}.npy", (truth.normal @ turn.T).astype(np.float32))
    (tiny / "models").mkdir()
    card = {"name": "theirs", "version": "1.0.0", "title": "T", "summary": "", "kind": "predictions", "axes": "opencv"}
    card |= {
        "adapter": "ncbench.models.predictions:Predictions",
        "settings": {"root": "world"},
        "space": "first_camera",
    }
    (tiny / "models" / "theirs.yaml").write_text(yaml.safe_dump(card))
    predict("theirs", "tiny")
    with pytest.raises(ScoreError, match="space: first_camera"):
        evaluate("theirs", "tiny")
    path = tiny / "evaluators" / "tiny.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"space": "first_camera"}))
    row = evaluate("theirs", "tiny").iloc[0]
    assert row["mean"] < 0.01
    assert row["invalid"] == 0 if "invalid" in row else row["invalid_predictions"] == 0


def test_slices_change_nothing_about_a_resized_truth(tiny):
    predict("frontal", "tiny")
    protocol = {
        "name": "tiny",
        "version": "1.0.0",
        "title": "T",
        "summary": "",
        "dataset": "tiny",
        "resize": "bilinear",
    }
    rows = []
    for more in ({}, {"slices": ["depth"]}):
        card = protocol | {"resolution": {"height": 9, "width": 13}} | more
        (tiny / "evaluators" / "tiny.yaml").write_text(yaml.safe_dump(card))
        rows.append(evaluate("frontal", "tiny").iloc[0])
    assert rows[0]["pixels"] == rows[1]["pixels"] > 0
    assert rows[0]["mean"] == rows[1]["mean"]


def test_temporal_metrics_and_slices_stand_beside_the_result(tiny):
    path = tiny / "evaluators" / "tiny.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | VIDEO))
    predict("flicker", "tiny")
    row = evaluate("flicker", "tiny").iloc[0]
    assert row["bfd_flicker"] > 1
    assert row["opw"] > row["opw_truth"]
    folder = tiny / "data" / "results" / "tiny" / "flicker"
    values = json.loads((folder / "result.json").read_text())
    assert values["temporal"]["flow"] == "gt"
    assert "rc@16" in values["temporal"]["missing"]
    measures, slices = pd.read_parquet(folder / "measures.parquet"), pd.read_parquet(folder / "slices.parquet")
    pairs = measures[measures["metric"] == "opw"].groupby("sequence")["value"].mean()
    assert row["opw"] == pytest.approx(pairs.mean(), abs=1e-12)
    border = slices[slices["slice"] == "border"]
    assert border["pixels"].sum() == row["pixels"]
    assert np.average(border["mean"].dropna(), weights=border["pixels"][border["mean"].notna()]) == pytest.approx(
        row["mean"], abs=1e-4
    )
    assert values["intervals"]["units"] == 2


def test_exported_true_depth_is_perfect_depth(tiny):
    path = tiny / "evaluators" / "tiny.yaml"
    depth = {"max_depth": 1000, "metrics": ["abs_rel", "delta1", "opw", "tae"], "prediction": "depth"}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"task": "depth", "depth": depth}))
    store = open_store("data/stores/tiny")
    for sequence, frames in store.sequences.items():
        (tiny / "theirs" / sequence).mkdir(parents=True)
        for frame in frames:
            np.save(tiny / "theirs" / sequence / f"{frame:06d}.npy", 3 * store.read(sequence, frame).depth)
    row = evaluate(tiny / "theirs", "tiny").iloc[0]
    assert row["abs_rel"] < 1e-5
    assert row["delta1"] == 1
    (result,) = load_results(tiny / "data" / "results")
    assert result.values.temporal.flow == "gt"
    (tiny / "theirs" / "one" / "000001.npy").unlink()
    row = evaluate(tiny / "theirs", "tiny").iloc[0]
    assert (row["status"], row["failed"]) == ("partial", 1)
    assert "abs_rel" not in row


def depth_model(folder, kind, answers):
    """A model of depth alone whose card says what its depth is: the truth, spelt in that way."""
    (folder / "models").mkdir(exist_ok=True)
    (folder / "own_depth.py").write_text(
        "import numpy as np\n"
        "from ncbench.models.base import Answer, NormalModel\n"
        "class Own(NormalModel):\n"
        "    needs_truth = True\n"
        "    def __init__(self, settings):\n"
        "        self.disparity = settings['disparity']\n"
        "    def predict(self, clip):\n"
        "        depth = 3 * clip.truth.depth\n"
        "        return Answer(None, (5 / depth + 0.5 if self.disparity else depth).astype(np.float32))\n"
    )
    card = {
        "name": kind,
        "version": "1.0.0",
        "title": kind,
        "summary": "",
        "kind": "control",
        "adapter": "own_depth:Own",
        "settings": {"disparity": answers == "disparity"},
        "axes": "opencv",
        "normals": False,
        "depth": kind,
    }
    (folder / "models" / f"{kind}.yaml").write_text(yaml.safe_dump(card))


@pytest.mark.parametrize("kind", ["metres", "relative", "disparity"])
@pytest.mark.parametrize("assumed", ["depth", "disparity"])
def test_the_models_card_says_what_its_depth_is_not_the_protocol(tiny, monkeypatch, kind, assumed):
    path = tiny / "evaluators" / "tiny.yaml"
    depth = {"max_depth": 1000, "prediction": assumed}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"task": "depth", "depth": depth}))
    depth_model(tiny, kind, kind)
    monkeypatch.syspath_prepend(str(tiny))
    predict(kind, "tiny")
    row = evaluate(kind, "tiny").iloc[0]
    assert row["abs_rel"] < 1e-4
    assert row["delta1"] == 1


def test_a_protocol_that_aligns_too_little_is_an_error(tiny, monkeypatch):
    path = tiny / "evaluators" / "tiny.yaml"
    depth = {"max_depth": 1000, "align": "none"}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"task": "depth", "depth": depth}))
    depth_model(tiny, "relative", "relative")
    monkeypatch.syspath_prepend(str(tiny))
    predict("relative", "tiny")
    with pytest.raises(ScoreError, match="'relative'.*align 'none'.*it takes metres"):
        evaluate("relative", "tiny")
