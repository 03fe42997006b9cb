"""Tables and pages: right marks, nothing hidden, markup escaped, equal bytes."""

import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from ncbench import catalog, evaluate
from ncbench.cards import ReportCard
from ncbench.errors import CardError, ScoreError, StoreError
from ncbench.evaluators.statistics.ranks import lower_is_better
from ncbench.models.run import predict
from ncbench.reports.build import build_report, check_expected, report_files, report_tables
from ncbench.reports.pictures import errors_to_rgb, fit_width, normals_to_rgb, png_bytes
from ncbench.reports.render import to_csv, to_latex, to_markdown
from ncbench.reports.results import load_results
from ncbench.reports.table import build_tables, label

METRICS = {"mean": 10.0, "median": 8.0, "rmse": 12.0, "within_5": 20.0, "within_7_5": 30.0}
METRICS |= {"within_11_25": 60.0, "within_22_5": 70.0, "within_30": 80.0}


def write_result(
    root, model, *, protocol="p", sha="a" * 64, data="b" * 64, title=None, failed=0, training=(), **metrics
):
    counts = {"frames": 4, "scored": 4 - failed, "failed": failed, "pixels": 100, "invalid_predictions": 0}
    scoring = {"resolution": "native", "mask": "valid", "pooling": "pixels", "invalid_prediction": 90.0}
    values = {
        "schema": 2,
        "model": {"name": model, "title": title or model, "kind": "image", "training_sets": list(training)},
        "protocol": {"name": protocol, "version": "1.0.0", "title": protocol, "sha256": sha} | scoring,
        "dataset": {"name": "d", "digest": data},
        "status": "partial" if failed else "complete",
        "counts": counts,
        "metrics": {} if failed else METRICS | metrics,
        "intervals": {},
        "temporal": {},
        "probe": {"kind": "fits"},
        "files": {},
    }
    folder = root / protocol / model
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(values))
    return folder / "result.json"


@pytest.fixture
def card():
    return catalog.load(ReportCard, "main")


def test_rows_are_ranked_and_ties_on_the_printed_value_share_the_mark(tmp_path, card):
    write_result(tmp_path, "a", mean=10.001, rmse=13)
    write_result(tmp_path, "b", mean=10.004)
    write_result(tmp_path, "c", mean=11.0, within_5=25.0)
    (table,) = build_tables(load_results(tmp_path), card)
    assert [result.model for result in table.results] == ["a", "b", "c"]
    best = table.best()
    assert list(best["mean"]) == [True, True, False]
    assert list(best["within_5"]) == [False, False, True]
    assert list(table.text()["mean"]) == ["10.00", "10.00", "11.00"]


def test_a_partial_result_is_shown_last_without_numbers_and_with_its_reason(tmp_path, card):
    write_result(tmp_path, "good")
    write_result(tmp_path, "bad", failed=3)
    (table,) = build_tables(load_results(tmp_path), card)
    assert list(table.text()["mean"]) == ["10.00", "-"]
    assert table.text()["note"].iloc[1] == "partial: 3 of 4 frames failed"
    assert "| - |" in to_markdown([table], "t")
    assert list(table.best()["mean"]) == [True, False]


def test_only_partial_results_still_give_a_table(tmp_path, card):
    write_result(tmp_path, "bad", failed=4)
    (table,) = build_tables(load_results(tmp_path), card)
    assert list(table.text()["mean"]) == ["-"]


def test_different_protocol_hashes_never_share_a_table(tmp_path, card):
    write_result(tmp_path, "a", sha="a" * 64)
    write_result(tmp_path, "b", sha="c" * 64)
    tables = build_tables(load_results(tmp_path), card)
    assert [table.name for table in tables] == ["p-aaaaaaaa-bbbbbbbb", "p-cccccccc-bbbbbbbb"]
    assert [len(table.results) for table in tables] == [1, 1]


def test_different_versions_of_the_data_never_share_a_table(tmp_path, card):
    write_result(tmp_path, "a")
    write_result(tmp_path, "b", data="c" * 64)
    tables = build_tables(load_results(tmp_path), card)
    assert [table.name for table in tables] == ["p-aaaaaaaa-bbbbbbbb", "p-aaaaaaaa-cccccccc"]


def test_a_copied_result_never_hides_another(tmp_path):
    path = write_result(tmp_path, "a")
    shutil.copytree(path.parent, path.parent.with_name("a_old"))
    with pytest.raises(ScoreError, match="a_old/result.json: is a result of p/a"):
        load_results(tmp_path)


def test_training_on_the_test_set_is_flagged(tmp_path, card):
    write_result(tmp_path, "a", training=["d"])
    (table,) = build_tables(load_results(tmp_path), card)
    assert "trained on this data set" in table.text()["note"].iloc[0]


def test_different_sources_of_flow_never_share_a_table(tmp_path, card):
    for model, flow in (("a", "gt"), ("b", "dis-medium"), ("c", "gt")):
        path = write_result(tmp_path, model)
        values = json.loads(path.read_text()) | {"temporal": {"flow": flow}}
        path.write_text(json.dumps(values))
    tables = build_tables(load_results(tmp_path), card)
    assert [[one.model for one in table.results] for table in tables] == [["b"], ["a", "c"]]
    assert len({table.name for table in tables}) == 2
    assert "flow gt" in tables[1].footer


def test_names_with_markup_are_escaped_everywhere(tmp_path, card):
    evil = r"<b>x</b> | 100% & $y_1$ *z* \q"
    write_result(tmp_path, "a", title=evil)
    tables = build_tables(load_results(tmp_path), card)
    row = next(line for line in to_markdown(tables, "t").splitlines() if "100%" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == len(tables[0].metrics) + 3, "the pipe in the name opened a new cell"
    assert "<b>" not in row
    latex = next(line for line in to_latex(tables).splitlines() if "100" in line)
    assert r"100\% \& \$y\_1\$" in latex
    assert len(re.findall(r"(?<!\\)&", latex)) == len(tables[0].metrics) + 1
    frame = pd.read_csv(io.StringIO(to_csv(tables)))
    assert frame["title"].iloc[0] == evil
    assert frame["mean"].iloc[0] == 10.0


def test_an_unknown_column_is_answered_with_a_near_one(tmp_path, card):
    write_result(tmp_path, "a")
    with pytest.raises(CardError, match="there is no metric 'meen'. Did you mean 'mean'"):
        build_tables(load_results(tmp_path), card.model_copy(update={"columns": ["meen"]}))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda v: v | {"schema": 99}, "result schema 99"),
        (lambda v: v | {"metrics": v["metrics"] | {"rmse": 1.0}}, "below the mean"),
        (lambda v: v | {"counts": v["counts"] | {"failed": 1}}, "are not"),
        (lambda v: v | {"status": "partial"}, "contradicts"),
        (lambda _: [1], "result schema None"),
        (lambda v: {k: v[k] for k in v if k != "counts"}, "key 'counts': Field required"),
        (lambda v: v | {"metrics": v["metrics"] | {"mean": "x"}}, "key 'metrics.mean'"),
        (lambda v: v | {"metrics": {"mean": 1.0}}, "metric 'rmse' is missing"),
    ],
)
def test_contradicting_results_never_reach_a_table(tmp_path, break_it, words):
    path = write_result(tmp_path, "a")
    path.write_text(json.dumps(break_it(json.loads(path.read_text()))))
    with pytest.raises(ScoreError, match=words):
        load_results(tmp_path)


def test_truncated_and_missing_results(tmp_path):
    with pytest.raises(ScoreError, match="ncbench evaluate"):
        load_results(tmp_path)
    write_result(tmp_path, "a").write_text('{"schema"')
    with pytest.raises(ScoreError, match="cannot be read"):
        load_results(tmp_path)


def test_directions_and_labels():
    assert [lower_is_better(name) for name in ("mean", "rmse", "within_5")] == [True, True, False]
    assert label("within_7_5") == "<7.5°"


class Sources(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.cells, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        if "href" in values:
            self.links.append(values["href"])

    def handle_data(self, data):
        self.cells.append(data.strip())


@pytest.fixture
def scored(tiny):
    for model in ("frontal", "depth_oracle"):
        predict(model, "tiny")
        evaluate(model, "tiny")
    return tiny


def build(folder, name="report"):
    data = folder / "data"
    return build_report("main", data / "results", data / "stores", data / "predictions", folder / name)


def test_the_page_shows_every_model_with_pictures_that_exist(scored):
    tables = build(scored)
    assert [result.model for result in tables[0].results] == ["depth_oracle", "frontal"]
    page = Sources()
    text = (scored / "report" / "index.html").read_text()
    page.feed(text)
    assert {"Depth oracle", "Frontal"} <= set(page.cells)
    assert tables[0].text()["mean"].iloc[0] in page.cells
    assert not page.links
    assert "http" not in text
    # four frames, each with input, truth, and two pictures a model; and two legends
    assert len(page.images) == 4 * 6 + 2
    for image in page.images:
        with Image.open(scored / "report" / image["src"]) as picture:
            assert (
                picture.size == (int(image["width"]), int(image["height"]))
                or "ball" in image["src"]
                or "bar" in image["src"]
            )
        assert image["alt"]


def test_two_builds_are_equal_byte_for_byte(scored):
    build(scored, "one")
    build(scored, "two")
    files = [path.relative_to(scored / "one") for path in (scored / "one").rglob("*") if path.is_file()]
    assert len(files) > 20
    for file in files:
        assert (scored / "one" / file).read_bytes() == (scored / "two" / file).read_bytes(), file


def test_a_rebuild_replaces_the_folder_and_a_failure_leaves_the_old_one(scored):
    build(scored)
    (scored / "report" / "stale.txt").write_text("old")
    build(scored)
    assert not (scored / "report" / "stale.txt").exists()
    (scored / "data" / "results" / "tiny" / "frontal" / "result.json").write_text("{")
    with pytest.raises(ScoreError):
        build(scored)
    assert len(report_files(scored / "report")) == 4
    assert not list(scored.glob(".report*"))


def test_a_report_never_replaces_somebody_elses_folder(scored):
    (scored / "paper").mkdir()
    (scored / "paper" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="did not put there"):
        build(scored, "paper")
    assert (scored / "paper" / "thesis.tex").read_text() == "years of work"


def test_tables_need_no_store_and_the_page_says_why_there_are_no_pictures(scored):
    shutil.rmtree(scored / "data" / "predictions" / "tiny" / "frontal")
    assert len(build(scored)[0].results) == 2
    page = (scored / "report" / "index.html").read_text()
    assert "No pictures of Frontal" in page
    assert "depth_oracle-normals.png" in page
    (scored / "data" / "stores").unlink()
    build(scored)
    assert "No pictures: " in (scored / "report" / "index.html").read_text()


def test_a_pixel_without_an_answer_is_drawn_and_captioned_as_it_is_charged(tiny):
    (tiny / "models").mkdir()
    (tiny / "silent.py").write_text(
        "import numpy as np\nfrom ncbench.models.controls import Frontal\n"
        "class Silent(Frontal):\n    def predict(self, clip):\n        return super().predict(clip) * np.float32(0)\n"
    )
    card = {"name": "silent", "version": "1.0.0", "title": "Silent", "summary": "", "kind": "image", "axes": "opencv"}
    (tiny / "models" / "silent.yaml").write_text(yaml.safe_dump(card | {"adapter": "silent:Silent"}))
    sys.path.insert(0, str(tiny))
    try:
        predict("silent", "tiny")
    finally:
        sys.path.remove(str(tiny))
    assert evaluate("silent", "tiny").iloc[0]["mean"] == 90.0
    build(tiny)
    assert "error, mean 90.0°" in (tiny / "report" / "index.html").read_text()


def test_expected_values_are_checked(scored):
    results = scored / "data" / "results"
    mean = report_tables("main", results)[0].results[0].values.metrics["mean"]
    path = scored / "evaluators" / "tiny.yaml"
    base = yaml.safe_load(path.read_text())

    def expect(model, value):
        item = {"model": model, "metric": "mean", "value": value, "tolerance": 0.01, "source": "test"}
        path.write_text(yaml.safe_dump(base | {"expected": [item]}))

    expect("depth_oracle", mean)
    check_expected(results)
    expect("depth_oracle", mean + 1)
    with pytest.raises(ScoreError, match="depth_oracle mean is"):
        check_expected(results)
    expect("blur", 1.0)
    with pytest.raises(ScoreError, match="blur has no complete result"):
        check_expected(results)


def test_normals_are_coloured_as_papers_do():
    right, up, camera = [1, 0, 0], [0, -1, 0], [0, 0, -1]
    colours = normals_to_rgb(np.array([[right, up, camera, [0, 0, 0]]], np.float32))[0]
    np.testing.assert_array_equal(colours, [[255, 128, 128], [128, 255, 128], [128, 128, 255], [200, 200, 200]])


def test_error_colours_grow_brighter_and_stop_at_the_limit():
    row = errors_to_rgb(np.array([[0.0, 20.0, 40.0, 60.0, 180.0, np.nan]]))[0].astype(int)
    brightness = row.sum(1)
    assert (np.diff(brightness[:4]) > 0).all()
    np.testing.assert_array_equal(row[3], row[4])
    np.testing.assert_array_equal(row[5], [200, 200, 200])


def test_pictures_shrink_but_never_grow():
    assert fit_width(np.zeros((50, 100, 3), np.uint8), 40).shape == (20, 40, 3)
    small = np.zeros((5, 10, 3), np.uint8)
    assert fit_width(small, 40) is small
    assert png_bytes(small) == png_bytes(small.copy())
