"""Somebody's results in every format and axes convention score like the normals they hold."""

import cv2
import numpy as np
import OpenEXR
import pytest
import yaml

from ncbench import evaluate, load_model, open_store
from ncbench.errors import CardError, ModelError, ScoreError
from ncbench.models.run import predict

# x right, y down, z forward to: the signs of each convention, written out by hand
SIGNS = {"opencv": (1, 1, 1), "opengl": (1, -1, -1), "dsine": (-1, -1, -1), "ldf": (-1, 1, 1)}


def save(path, normal):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, normal)
    elif path.suffix == ".npz":
        np.savez(path, normals=normal, other=np.zeros(3))
    elif path.suffix == ".exr":
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"RGB": np.ascontiguousarray(normal)}).write(str(path))
    else:
        top = 65535 if path.name.endswith("16.png") else 255
        pixels = np.rint((normal * 0.5 + 0.5) * top).astype(np.uint16 if top > 255 else np.uint8)
        cv2.imwrite(str(path), pixels[..., ::-1])


def card_for(folder, **settings):
    values = {"name": "mine", "version": "1.0.0", "title": "Mine", "summary": "", "kind": "predictions"}
    values |= {"adapter": "ncbench.models.predictions:Predictions", "axes": settings.pop("axes", "opencv")}
    values["settings"] = {"root": "results"} | settings
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "mine.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.parametrize(
    ("ending", "axes", "worst"),
    [
        (".npy", "opencv", 0.01),
        (".npz", "opengl", 0.01),
        (".exr", "dsine", 0.01),
        ("_16.png", "ldf", 0.02),
        ("_8.png", "opengl", 0.4),
    ],
)
def test_the_truth_in_any_format_and_axes_scores_its_own_quantization(tiny, ending, axes, worst):
    store = open_store("data/stores/tiny")
    for sequence, frames in store.sequences.items():
        for frame in frames:
            normal = store.read(sequence, frame).normal * np.float32(SIGNS[axes])
            save(tiny / "results" / sequence / f"{frame + 1:04d}{ending}", normal)
    key = {"key": "normals"} if ending == ".npz" else {}
    card_for(tiny, axes=axes, pattern="{sequence}/{frame:04d}" + ending, frame_offset=1, **key)
    predict("mine", "tiny")
    row = evaluate("mine", "tiny").iloc[0]
    assert row["status"] == "complete"
    assert row["rmse"] < worst


def test_the_wrong_axes_score_terribly(tiny):
    """The mistake that this project exists for: the truth, saved in one convention and declared as another."""
    store = open_store("data/stores/tiny")
    for sequence, frames in store.sequences.items():
        for frame in frames:
            save(tiny / "results" / sequence / f"{frame:06d}.npy", store.read(sequence, frame).normal)
    card_for(tiny, axes="dsine")
    predict("mine", "tiny")
    with pytest.raises(ScoreError, match="card says axes: dsine"):
        evaluate("mine", "tiny")
    assert evaluate("mine", "tiny", on_mistake="off").iloc[0]["mean"] > 90


def test_other_files_are_other_predictions(tiny):
    store = open_store("data/stores/tiny")
    for sequence, frames in store.sequences.items():
        for frame in frames:
            save(tiny / "results" / sequence / f"{frame:06d}.npy", store.read(sequence, frame).normal)
    card_for(tiny)
    predict("mine", "tiny")
    assert evaluate("mine", "tiny").iloc[0]["mean"] < 0.01
    save(tiny / "results" / "one" / "000000.npy", np.broadcast_to(np.float32([0, 0, -1]), (24, 32, 3)))
    predict("mine", "tiny")
    assert evaluate("mine", "tiny").iloc[0]["mean"] > 1


def test_missing_frame_wrong_size_and_missing_folder_are_named(tiny):
    card_for(tiny)
    with pytest.raises(ModelError, match="expected the folder of predictions"):
        predict("mine", "tiny")
    good = np.broadcast_to(np.float32([0, 0, -1]), (24, 32, 3))
    for sequence in ("one", "two"):
        for frame in range(3):
            save(tiny / "results" / sequence / f"{frame:06d}.npy", good)
    (tiny / "results" / "one" / "000001.npy").unlink()
    with pytest.raises(ModelError, match=r"no prediction for sequence 'one', frame 1: looked for one/000001.npy"):
        predict("mine", "tiny")
    save(tiny / "results" / "one" / "000001.npy", good[:12, :16])
    with pytest.raises(ModelError, match="expected 24x32 .* found 12x16"):
        predict("mine", "tiny")
    for pattern in ("{nonsense}.npy", "{frame.x}.npy"):
        card_for(tiny, pattern=pattern)
        with pytest.raises(ModelError, match="unusable"):
            predict("mine", "tiny")
    card_for(tiny, patern="x")
    with pytest.raises(CardError, match="Did you mean 'pattern'"):
        load_model("mine")
