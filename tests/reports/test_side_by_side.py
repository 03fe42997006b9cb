"""Videos of a protocol's sequence: the right panels in the right places, and clear refusals."""

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from ncbench import evaluate, open_store
from ncbench.cli import app
from ncbench.datasets.pictures import decode_image
from ncbench.errors import ScoreError
from ncbench.models.run import predict
from ncbench.reports.build import report_tables
from ncbench.reports.pictures import normals_to_rgb
from ncbench.reports.side_by_side import VideoOptions, clip_frames


@pytest.fixture
def tables(tiny):
    for model in ("frontal", "depth_oracle"):
        predict(model, "tiny")
        evaluate(model, "tiny")
    return report_tables("main", tiny / "data" / "results")


def panel(sheet, column, row, size):
    height, width = size
    top, left = row * (height + 28) + 24, column * (width + 4)
    return sheet[top : top + height, left : left + width]


def test_panels_are_input_truth_predictions_and_errors(tables, tiny):
    folder = tiny / "data"
    store = open_store(folder / "stores" / "tiny")
    truth = store.read("one", store.sequences["one"][1])
    size = truth.size
    options = VideoOptions(("frontal", "depth_oracle"), height=size[0])
    sheets = list(clip_frames(tables[0], "one", folder / "stores", folder / "predictions", options))
    assert len(sheets) == len(store.sequences["one"])
    sheet = sheets[1]
    np.testing.assert_array_equal(panel(sheet, 0, 0, size), decode_image(truth.image))
    np.testing.assert_array_equal(panel(sheet, 1, 0, size), normals_to_rgb(truth.normal))
    frontal = panel(sheet, 2, 0, size)
    assert (frontal == normals_to_rgb(np.array([[[0, 0, -1]]], np.float32))).all()
    # the brightest errors are where the truth is furthest from the camera's direction
    errors = panel(sheet, 2, 1, size).astype(int).sum(axis=-1)
    angle = np.degrees(np.arccos(np.clip(-truth.normal[..., 2], -1, 1)))
    assert errors[truth.valid & (angle > 50)].mean() > errors[truth.valid & (angle < 20)].mean() + 100


def test_the_command_writes_a_video(tables, tmp_path):
    to = tmp_path / "one.mp4"
    done = CliRunner().invoke(
        app, ["report", "--video", str(to), "--clip", "tiny/one", "--model", "frontal", "--fps", "6"]
    )
    assert done.exit_code == 0, done.output
    with av.open(str(to)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3


@pytest.mark.parametrize(("arguments", "words"), [(("nine", ()), "'nine'"), (("one", ("nobody",)), "'nobody'")])
def test_what_is_not_there_is_named(tables, tiny, arguments, words):
    sequence, models = arguments
    folder = tiny / "data"
    with pytest.raises(ScoreError, match=words):
        next(clip_frames(tables[0], sequence, folder / "stores", folder / "predictions", VideoOptions(models)))


def test_figures_come_by_the_command(tables, tmp_path):
    done = CliRunner().invoke(app, ["report", "--clip", "tiny/one"])
    assert done.exit_code == 2, "a clip of no video is a mistake"
    done = CliRunner().invoke(app, ["report", "--figures", str(tmp_path / "figures")])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "figures").iterdir()} >= {"tiny-accuracy.pdf", "tiny-histogram.png"}
