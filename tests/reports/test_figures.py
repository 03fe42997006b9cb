"""Figures: the curves against errors counted one by one, equal bytes, and nothing drawn where there is nothing."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ncbench import catalog, evaluate
from ncbench.cards import ReportCard
from ncbench.errors import ScoreError
from ncbench.evaluators.angular import AngularState
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.models.run import predict
from ncbench.reports.figures import Errors, write_figures
from ncbench.reports.results import load_results
from ncbench.reports.table import build_tables


def test_the_accuracy_curve_counts_pixels():
    generator = np.random.default_rng(3)
    preds, target = (generator.normal(size=(2, 40, 50, 3)).astype(np.float32) for _ in range(2))
    target /= np.linalg.norm(target, axis=-1, keepdims=True)
    valid = generator.random((2, 40, 50)) < 0.8
    states = [AngularState.score(*one, (5.0, 30.0), 90.0) for one in zip(preds, target, valid, strict=True)]
    units = UnitStatistics.concatenate([UnitStatistics.of("s", frame, state) for frame, state in enumerate(states)])
    a, b = preds[valid].astype(np.float64), target[valid].astype(np.float64)
    errors = np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))
    degrees = np.array([0, 5, 11.25, 30, 60, 180])
    expected = [100 * np.mean(errors < limit) for limit in degrees]
    # a pixel nearer to an angle than a bin of 0.01 degrees may stand on its other side
    found = Errors("", units.histogram.sum(axis=0, dtype=np.int64), units.bin_width).below(degrees)
    np.testing.assert_allclose(found, expected, atol=100 * 2 / len(errors))


@pytest.fixture
def tables(tiny):
    for model in ("frontal", "depth_oracle"):
        predict(model, "tiny")
        evaluate(model, "tiny")
    return build_tables(load_results(tiny / "data" / "results"), catalog.load(ReportCard, "main"))


def test_figures_come_in_every_form_with_equal_bytes(tables, tmp_path):
    first = write_figures(tables, tmp_path / "a", ["pdf", "svg", "png"])
    second = write_figures(tables, tmp_path / "b", ["pdf", "svg", "png"])
    assert {path.suffix for path in first} == {".pdf", ".svg", ".png"}
    assert [path.name for path in first] == [path.name for path in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    svg = next(path for path in first if path.name == "tiny-accuracy.svg").read_text()
    assert "Depth oracle" in svg
    assert "Frontal" in svg
    with Image.open(next(path for path in first if path.suffix == ".png")) as picture:
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert len(colours) > 10


def test_partial_results_have_no_curves_and_statistics_of_others_are_refused(tables, tmp_path):
    results = {one.model: one for one in tables[0].results}
    path = results["frontal"].folder / "result.json"
    values = json.loads(path.read_text())
    counts = values["counts"] | {"failed": 1, "scored": values["counts"]["scored"] - 1}
    path.write_text(json.dumps(values | {"status": "partial", "metrics": {}, "counts": counts}))
    again = build_tables(load_results(path.parents[2]), catalog.load(ReportCard, "main"))
    written = write_figures(again, tmp_path / "partial", ["svg"])
    svg = next(file for file in written if file.name == "tiny-accuracy.svg").read_text()
    assert "Depth oracle" in svg
    assert "Frontal" not in svg
    shutil.copy(results["frontal"].folder / "units.npz", results["depth_oracle"].folder / "units.npz")
    with pytest.raises(ScoreError, match="is not the file"):
        write_figures(again, tmp_path / "mixed", ["svg"])


def test_results_without_statistics_have_no_curves(tables, tmp_path):
    for result in tables[0].results:
        (result.folder / "units.npz").unlink()
    assert write_figures(tables, tmp_path / "none", ["png"]) == []
