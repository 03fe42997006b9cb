"""The page's folder: nothing invented, nothing lost, nothing that a name could break, equal bytes."""

import base64
import io
import json
import re
import shutil
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from ncbench import catalog, open_store
from ncbench.cards import ReportCard
from ncbench.reports.layout import Cell, Row
from ncbench.reports.page import write_page
from ncbench.reports.page.clips import choose_clips, choose_stride, thin
from ncbench.reports.page.codes import CENTRE, NONE, PRECISION, STEP, dequantize, pack, quantize
from ncbench.reports.page.scripts import script_text, slug
from ncbench.reports.page.write import SCRIPTS
from ncbench.reports.results import load_results
from ncbench.reports.table import build_tables

METRICS = {"mean": 10.0, "median": 8.0, "rmse": 12.0, "within_5": 20.0, "within_7_5": 30.0}
METRICS |= {"within_11_25": 60.0, "within_22_5": 70.0, "within_30": 80.0}


def read_data(report, key):
    """The values of a data script, read without the page."""
    name, values = re.fullmatch(
        r'ncbench\.data\.put\("([^"]*)",(.*)\);\n', (report / "data" / f"{key}.js").read_text("ascii")
    ).groups()
    assert name == key
    return json.loads(values)


def degrees_between(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def unpacked(text, height, width):
    """Codes from a data script, by sums where the page's script uses a recurrence."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(4, height, width).astype(int)
    codes = []
    for low, high in ((0, 1), (2, 3)):
        folded = planes[low] + 256 * planes[high]
        difference = np.where(folded % 2, -(folded + 1) // 2, folded // 2)
        codes.append(difference.cumsum(0).cumsum(1))
    return np.stack(codes, -1)


def write_result(root, model, title=None, **changes):
    values = {
        "schema": 2,
        "model": {"name": model, "title": title or model, "kind": "image", "training_sets": []},
        "protocol": {"name": "p", "version": "1.0.0", "title": "p", "sha256": "a" * 64}
        | {"resolution": "native", "mask": "valid", "pooling": "pixels", "invalid_prediction": 90.0},
        "dataset": {"name": "d", "digest": "b" * 64},
        "status": "complete",
        "counts": {"frames": 4, "scored": 4, "failed": 0, "pixels": 100, "invalid_predictions": 0},
        "metrics": METRICS | changes,
        "intervals": {},
        "temporal": {},
        "probe": {"kind": "fits"},
        "files": {},
    }
    folder = root / "p" / model
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(values))


class Page(HTMLParser):
    """Cells with their links and classes; every tag and address."""

    def __init__(self, folder):
        super().__init__()
        self.tags, self.links, self.sources, self.cells, self.text, self._open = set(), [], [], [], [], []
        self.feed((folder / "index.html").read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values["src"]] if "src" in values else []
        if tag == "td" and "data-value" in values:
            self.cells.append([values.get("class", ""), values["data-value"], ""])

    def handle_data(self, data):
        self.text.append(data)
        if self.cells and not self.cells[-1][2]:
            self.cells[-1][2] = data.strip()


def page_of(tmp_path, results):
    tables = build_tables(load_results(results), catalog.load(ReportCard, "main"))
    write_page(tmp_path / "page", tables, catalog.load(ReportCard, "main"), tmp_path / "stores", tmp_path / "none")
    return Page(tmp_path / "page")


# ---- the leaderboard ----


def test_the_leaderboard_has_the_tables_numbers_marks_and_links(shown):
    table = shown.tables[1]
    page = Page(shown.report)
    size = len(table.results), len(table.metrics)
    cells = np.array(page.cells[-size[0] * size[1] :], dtype=object).reshape(*size, 3)
    assert cells[..., 2].tolist() == table.text()[table.metrics].to_numpy().tolist()
    for column, metric in enumerate(table.metrics):
        for row, (_, value, _) in enumerate(cells[:, column]):
            expected = table.values[metric].iloc[row]
            assert value == "" if pd.isna(expected) else float(value) == expected
        best = table.best()[metric].to_numpy(bool)
        assert [place == "best" for place, _, _ in cells[:, column]] == best.tolist()
    results = [unquote(link) for link in page.links if link.startswith("results/shown/")]
    assert len(results) == size[0] * size[1]
    for result in table.results:
        copy = shown.report / "results" / "shown" / f"{result.model}.json"
        assert copy.read_bytes() == (result.folder / "result.json").read_bytes()


def test_second_and_third_follow_what_is_printed_and_ties_leave_a_gap(tmp_path):
    for model, mean in (("a", 10.001), ("b", 10.004), ("c", 10.5), ("d", 11.0)):
        write_result(tmp_path / "results", model, mean=mean)
    cells = page_of(tmp_path, tmp_path / "results").cells
    columns = len(cells) // 4
    assert [cells[row * columns][0] for row in range(4)] == ["best", "best", "third", ""]


def test_published_numbers_stand_beside_results_without_a_link_or_a_plot(shown, tmp_path):
    table = shown.tables[1]
    cells = tuple(Cell(12.3, "12.3", difference=-0.44, note="as printed") for _ in table.columns)
    rows = (*table.rows[:1], Row("P", "P (a paper)", "published", cells, "published"), *table.rows[1:])
    tables = [replace(table, rows=rows)]
    write_page(tmp_path / "page", tables, shown.card, tmp_path, tmp_path, ["report & more.csv"])
    page = Page(tmp_path / "page")
    size = len(table.columns)
    assert [cell[2] for cell in page.cells[size : 2 * size]] == ["12.3"] * size
    assert " (-0.4)" in page.text
    assert len([link for link in page.links if link.startswith("results/")]) == len(table.results) * size
    assert "report%20%26%20more.csv" in page.links
    assert len(read_data(tmp_path / "page", "0-shown/protocol")["models"]) == len(table.results)


def test_notes_are_shown(shown):
    text = " ".join(Page(shown.report).text)
    assert "partial: 2 of 10 frames failed" in text
    assert "trained on this data set" in text
    assert "control" in text


def test_names_with_markup_and_path_characters_stay_text(tmp_path, shown):
    page = Page(shown.report)
    assert not {"img", "amp"} & page.tags
    source = (shown.report / "index.html").read_text("utf-8")
    assert "<img" not in source
    assert "A <i>test" not in source
    for script in (shown.report / "data").rglob("*.js"):
        assert "<" not in script.read_text("ascii")
        assert re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)*\.js", script.relative_to(shown.report / "data").as_posix())
    name = "a b#?%41&'x"
    write_result(tmp_path / "results", name, title="</script><!--")
    for link in page_of(tmp_path, tmp_path / "results").links:
        if link.startswith("results/"):
            assert (tmp_path / "page" / unquote(link)).is_file()


def test_the_page_loads_only_its_own_files(shown):
    page = Page(shown.report)
    for address in page.sources + [link for link in page.links if not link.startswith(("#", "data:"))]:
        assert (shown.report / unquote(address)).is_file(), address
    for file in [shown.report / "index.html", *(shown.report / "static").glob("*")]:
        if file.name != "plotly.min.js":
            assert not re.search(r"https?://", file.read_text("utf-8")), file


def test_a_model_without_results_beside_its_json_still_has_its_row(tmp_path):
    write_result(tmp_path / "results", "lonely")
    page = page_of(tmp_path, tmp_path / "results")
    text = " ".join(page.text)
    assert "lonely" in text
    assert "frames.parquet: is missing" in text
    assert "No pictures" in text
    plots = read_data(tmp_path / "page", "0-p/protocol")
    assert plots["viewer"] is None
    assert plots["models"][0]["curve"] is None


# ---- plots ----


def read_maps(shown, model):
    """True normals, validity and predictions of all frames, in the order of the store."""
    truth = open_store(shown.data / "stores" / "shown")
    preds = open_store(shown.data / "predictions" / "shown" / model)
    frames = [truth[index] for index in range(len(truth))]
    return [(frame, preds.read(frame.sequence, frame.frame).normal.astype(float)) for frame in frames]


def test_curves_areas_and_histograms_are_those_of_all_pixels(shown):
    plots = read_data(shown.report, "1-shown/protocol")
    for model in plots["models"]:
        pairs = read_maps(shown, model["name"])
        errors = np.concatenate([degrees_between(p, f.normal.astype(float))[f.valid] for f, p in pairs])
        shares = [100 * (errors < limit).mean() for limit in plots["curve"]]
        # 100 is printed with two decimals, and errors lie in bins of 0.01 degrees
        near = [100 * (np.abs(errors - limit) < 0.0101).mean() for limit in plots["curve"]]
        assert (np.abs(np.subtract(model["curve"], shares)) <= 0.01 + np.array(near)).all()
        assert model["area"] == pytest.approx(100 * np.clip(1 - errors / 30, 0, None).mean(), abs=0.03)
        assert sum(model["histogram"]) == pytest.approx(100, abs=0.05)
        middle = np.histogram(errors, bins=[*range(90), 181])[0] / len(errors) * 100
        assert np.abs(np.subtract(model["histogram"], middle)).max() < 0.5


def test_hardest_frames_sequences_and_slices_are_those_of_the_result(shown):
    plots = read_data(shown.report, "1-shown/protocol")
    index = [model["name"] for model in plots["models"]].index("frontal")
    means = {
        (f.sequence, f.frame): degrees_between(p, f.normal)[f.valid].mean() for f, p in read_maps(shown, "frontal")
    }
    sequence, frame, value, _ = plots["hardest"][index][0]
    assert (sequence, frame) == max(means, key=means.get)
    assert value == pytest.approx(max(means.values()), abs=1e-3)
    assert plots["sequences"]["names"] == list(dict.fromkeys(sequence for sequence, _ in means))
    gaps = read_data(shown.report, "0-gaps/protocol")
    assert [model["name"] for model in gaps["models"]] == ["frontal", "blur"]
    assert gaps["sequences"]["values"][1] == [None, None], "a part of a sequence has no mean"
    assert (gaps["models"][1]["value"], gaps["models"][1]["curve"], gaps["flicker"]) == (None, None, None)
    table = pd.read_parquet(shown.data / "results" / "shown" / "frontal" / "slices.parquet")
    row = table[(table["slice"] == "border") & (table["bin"] == "8-32 px")].iloc[0]
    column = [tuple(c[:2]) for c in plots["slices"]["columns"]].index(("border", "8-32 px"))
    assert plots["slices"]["values"][index][column] == pytest.approx(row["mean"], rel=1e-2)


# ---- maps ----

directions = arrays(np.float32, (3, 4, 3), elements=st.floats(-1, 1, width=32))


@given(directions)
def test_coded_normals_are_as_exact_as_the_page_says(vectors):
    lengths = np.linalg.norm(vectors.astype(float), axis=-1)
    codes = quantize(vectors)
    set_ = lengths > 1e-20
    assert (codes[set_] <= 2 * CENTRE).all()
    back = dequantize(codes).astype(float)
    assert degrees_between(back, vectors.astype(float))[set_].max(initial=0) <= PRECISION
    np.testing.assert_array_equal(back[lengths == 0], 0)
    assert (codes[lengths == 0] == NONE).all()


@given(arrays(np.uint16, (5, 7, 2), elements=st.integers(0, NONE)))
def test_packing_loses_nothing(codes):
    text = base64.b64encode(pack(codes)).decode()
    np.testing.assert_array_equal(unpacked(text, 5, 7), codes)


def test_axes_and_a_wall_seen_head_on_are_nearly_exact():
    axes = np.array([[[0, 0, -1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]], np.float32)
    assert degrees_between(dequantize(quantize(axes)), axes).max() < 0.05
    assert STEP == 16


def test_the_viewer_holds_every_frame_as_it_was_scored(shown):
    viewer = read_data(shown.report, "1-shown/protocol")["viewer"]
    names = [result.model for result in shown.tables[1].results]
    assert sum(len(clip["frames"]) for clip in viewer["clips"]) == 10
    for clip in viewer["clips"]:
        truth = read_data(shown.report, f"{clip['key']}/truth")["frames"]
        pictures = read_data(shown.report, f"{clip['key']}/input")["frames"]
        size = (clip["height"], clip["width"])
        assert (clip["stride"], clip["size"]) == (1, [48, 64])
        maps = {m: read_data(shown.report, f"{clip['key']}/model-{m}")["frames"] for m in viewer["models"]}
        pairs = {model: read_maps(shown, model) for model in names}
        for place, number in enumerate(clip["frames"]):
            with Image.open(io.BytesIO(base64.b64decode(pictures[place]))) as picture:
                assert picture.size == size[::-1]
            for model, index in ((names[m], m) for m in viewer["models"]):
                frame, preds = next(
                    (f, p) for f, p in pairs[model] if (f.sequence, f.frame) == (clip["sequence"], number)
                )
                found = dequantize(unpacked(maps[index][place], *size).astype(np.uint16))
                assert degrees_between(found, preds).max() <= PRECISION
                true = dequantize(unpacked(truth[place], *size).astype(np.uint16))
                assert degrees_between(true, frame.normal)[frame.valid].max() <= PRECISION
                assert not true[~frame.valid].any()


def test_a_failed_frame_has_no_map_and_says_why(shown):
    viewer = read_data(shown.report, "0-gaps/protocol")["viewer"]
    assert viewer["models"] == [0, 1]
    for clip in viewer["clips"]:
        *kept, last = clip["scores"][1]
        assert all(reason == "" for _, _, reason in kept)
        assert "has no frame" in last[2]
        maps = read_data(shown.report, f"{clip['key']}/model-1")["frames"]
        assert [text is None for text in maps] == [False] * 4 + [True]


def test_clips_are_whole_where_they_fit_and_hold_the_hardest_frame():
    sequences = {"long": range(100), "easy": range(40), "mid": range(30), "short": range(3, 6)}
    difficulty = {"long": 9.0, "mid": 5.0, "short": 4.0, "easy": 1.0}
    clips = choose_clips(sequences, difficulty, {"long": 98}, 30)
    assert [clip.sequence for clip in clips] == ["long", "short", "easy"]
    assert clips[0].frames == tuple(range(90, 100))
    assert clips[1].frames == (3, 4, 5)
    assert clips[2].total == 40
    stills = {f"s{k:02}": [0] for k in range(50)}
    assert len(choose_clips(stills, {}, {}, 20)) == 20
    assert choose_clips(sequences, {}, {}, 0) == []
    assert [clip.frames for clip in choose_clips({"x": [4, 8]}, {}, {}, 1)] == [(4,)]


def test_large_maps_are_thinned_to_true_pixels_until_they_fit():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(96, 128, 3)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=-1, keepdims=True)
    assert choose_stride([noise], 10, 1e9) == 1
    stride = choose_stride([noise], 10, 100_000)
    assert len(pack(quantize(thin(noise, stride)))) * 10 * 4 / 3 <= 100_000
    assert len(pack(quantize(thin(noise, stride - 1)))) * 10 * 4 / 3 > 100_000
    np.testing.assert_array_equal(thin(noise, 3)[2, 5], noise[7, 16])
    assert choose_stride([np.zeros((1200, 1600, 3), np.float32)], 1, 1e9) == 5  # 80,000 pixels are enough to see


# ---- the folder ----


def build(shown, to, **places):
    folders = {name: shown.data / name for name in ("stores", "predictions")} | places
    write_page(to, shown.tables, shown.card, folders["stores"], folders["predictions"])


def test_two_builds_are_equal_byte_for_byte(shown, tmp_path):
    build(shown, tmp_path / "again")
    ours = sorted(path.relative_to(shown.report) for path in shown.report.rglob("*") if path.is_file())
    assert ours == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    assert len(ours) > 30
    for file in ours:
        assert (shown.report / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_without_stores_or_predictions_the_page_says_why_there_are_no_pictures(shown, tmp_path):
    build(shown, tmp_path / "a", stores=tmp_path / "nothing")
    text = " ".join(Page(tmp_path / "a").text)
    assert "No pictures: " in text
    assert read_data(tmp_path / "a", "1-shown/protocol")["viewer"] is None
    shutil.copytree(shown.data / "predictions", tmp_path / "predictions")
    shutil.rmtree(tmp_path / "predictions" / "shown" / "flicker")
    shutil.rmtree(tmp_path / "predictions" / "shown" / "evil")
    shutil.copytree(tmp_path / "predictions" / "shown" / "frontal", tmp_path / "predictions" / "shown" / "evil")
    build(shown, tmp_path / "b", predictions=tmp_path / "predictions")
    text = " ".join(Page(tmp_path / "b").text)
    assert "No pictures of Truth + flicker 5°" in text
    assert "other predictions than those that were scored" in text
    assert len(read_data(tmp_path / "b", "1-shown/protocol")["viewer"]["models"]) == 2


def test_two_hundred_models_make_a_page_that_stays_small(tmp_path):
    for index in range(200):
        write_result(tmp_path / "results", f"model{index}", mean=8 + index / 100, rmse=30)
    page = page_of(tmp_path, tmp_path / "results")
    assert len(page.cells) >= 200 * 8
    assert (tmp_path / "page" / "index.html").stat().st_size < 1_000_000


def test_every_file_of_the_page_travels_with_the_package():
    folder = files("ncbench.reports") / "static"
    named = {f"{script}.js" for script in SCRIPTS} | {"report.css"}
    assert {path.name for path in folder.iterdir()} == named


def test_scripts_are_plain_ascii_whatever_they_hold():
    text = script_text("k", {"name": "</script>\u2028<!--é"})
    assert "<" not in text
    assert text.isascii()
    assert slug(3, "../../etc/passwd") == "3-etc-passwd"
    assert slug(0, "日本") == "0"
    with pytest.raises(ValueError, match="JSON"):
        script_text("k", float("nan"))
