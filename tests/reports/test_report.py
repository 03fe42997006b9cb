"""Results in, tables out: right marks, nothing hidden, contradictions refused, equal bytes."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from ncbench import catalog, evaluate
from ncbench.cards import ReportCard
from ncbench.errors import CardError, ScoreError, StoreError
from ncbench.evaluators.statistics.ranks import lower_is_better
from ncbench.models.run import predict
from ncbench.report_card import PublishedNumbers
from ncbench.reports.build import build_report, check_report, report_files, report_tables
from ncbench.reports.columns import label
from ncbench.reports.overview import build_overview
from ncbench.reports.results import load_results
from ncbench.reports.table import build_tables


@pytest.fixture
def card():
    return catalog.load(ReportCard, "main")


@pytest.fixture
def tables(tmp_path, card):
    return lambda: build_tables(load_results(tmp_path), card)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_rows_are_ranked_and_ties_on_the_printed_value_share_the_mark(write_result, tables):
    write_result("a", mean=10.001, rmse=13)
    write_result("b", mean=10.004)
    write_result("c", mean=11.0, within_5=25.0)
    write_result("d", mean=12.0)
    (table,) = tables()
    assert [result.model for result in table.results] == ["a", "b", "c", "d"]
    assert list(table.best()["mean"]) == [True, True, False, False]
    assert list(table.best()["within_5"]) == [False, False, True, False]
    assert list(table.text()["mean"]) == ["10.00", "10.00", "11.00", "12.00"]
    # 1, 1, 3 as in sport: two winners leave no second place
    assert [row.cells[0].place for row in table.rows] == [1, 1, 3, 0]


def test_average_rank_by_hand(write_result, tables):
    # mean, median, <11.25, <22.5, <30: ranks of a 1 2 1 1 1, of b 2 1 1 1 1, of c 3 3 3 1 1
    write_result("a", mean=10.0, median=8.0)
    write_result("b", mean=11.0, median=7.0)
    write_result("c", mean=11.5, median=9.0, within_11_25=50.0)
    (table,) = tables()
    index = [column.role for column in table.columns].index("rank")
    assert [row.cells[index].value for row in table.rows] == [1.2, 1.2, 2.2]
    assert [row.cells[index].text for row in table.rows] == ["1.2", "1.2", "2.2"]


def test_a_partial_result_is_shown_last_without_numbers_and_with_its_reason(write_result, tables):
    write_result("good")
    path = write_result("bad", failed=3)
    pd.DataFrame({"sequence": ["x", "y", "y", "y"], "status": ["scored", *["failed"] * 3]}).to_parquet(
        path.parent / "frames.parquet"
    )
    (table,) = tables()
    assert list(table.text()["mean"]) == ["10.00", "-"]
    assert table.text()["note"].iloc[1] == "partial: 3 of 4 frames failed", "an unknown file must not be trusted"
    assert list(table.best()["mean"]) == [True, False]
    from ncbench.files import file_sha256

    edit(path, files={"frames.parquet": file_sha256(path.parent / "frames.parquet")})
    assert tables()[0].text()["note"].iloc[1] == "partial: 3 of 4 frames failed (in y)"


def test_only_partial_results_still_give_a_table(write_result, tables):
    write_result("bad", failed=4)
    (table,) = tables()
    assert list(table.text()["mean"]) == ["-"]


def test_different_protocol_hashes_never_share_a_table_and_each_names_the_other(write_result, tables):
    write_result("a", sha="a" * 64)
    write_result("b", sha="c" * 64)
    found = tables()
    assert [table.name for table in found] == ["p-aaaaaaaa-bbbbbbbb", "p-cccccccc-bbbbbbbb"]
    assert [len(table.results) for table in found] == [1, 1]
    assert "Of a protocol called p there are other results, with another version of the protocol" in found[0].footer
    assert "own: b. Never compare them." in found[0].footer
    assert ": b. Never compare them" in found[0].footer


def test_different_versions_of_the_data_never_share_a_table(write_result, tables):
    write_result("a")
    write_result("b", data="c" * 64)
    assert [table.name for table in tables()] == ["p-aaaaaaaa-bbbbbbbb", "p-aaaaaaaa-cccccccc"]


def test_different_sources_of_flow_never_share_a_table(write_result, tables):
    for model, flow in (("a", "gt"), ("b", "dis-medium"), ("c", "gt")):
        edit(write_result(model), temporal={"flow": flow})
    found = tables()
    assert [[one.model for one in table.results] for table in found] == [["b"], ["a", "c"]]
    assert len({table.name for table in found}) == 2
    assert "flow gt" in found[1].footer


def test_a_source_of_flow_with_path_characters_names_no_other_folder(write_result, tables):
    for model, flow in (("a", "gt"), ("b", "../../../x $(y)/é")):
        path = write_result(model)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"temporal": {"flow": flow}}))
    assert [table.name for table in tables()] == ["p-aaaaaaaa-bbbbbbbb-..-..-..-x-y-é", "p-aaaaaaaa-bbbbbbbb-gt"]


def test_a_copied_result_never_hides_another(write_result, tmp_path):
    path = write_result("a")
    shutil.copytree(path.parent, path.parent.with_name("a_old"))
    with pytest.raises(ScoreError, match="a_old/result.json: is a result of p/a"):
        load_results(tmp_path)


def test_training_on_the_test_set_is_flagged(write_result, tables):
    write_result("a", training=["d"])
    assert "trained on this data set" in tables()[0].text()["note"].iloc[0]


def test_intervals_costs_dates_and_commits_come_from_the_results(write_result, tables):
    code = {"commit": "c" * 40, "dirty": True}
    drawn = {"confidence": 90.0, "unit": "sequences", "units": 4, "note": "rough", "metrics": {"mean": [9.5, 10.456]}}
    edit(
        write_result("a"),
        intervals=drawn,
        predictions={"frames_per_second": 12.34, "peak_memory_bytes": 3 << 30, "device": "cuda: X", "code": {}},
        provenance={"created": "2026-01-02T03:04:05+00:00", "code": code, "packages": {"ncbench": "9.9"}},
    )
    edit(write_result("b"), provenance={"created": "2026-03-04T00:00:00+00:00", "code": {}, "packages": {}})
    (table,) = tables()
    cells = {column.key: cell for column, cell in zip(table.columns, table.rows[0].cells, strict=True)}
    assert cells["interval"].text == "9.50 to 10.46"
    assert (cells["mean"].low, cells["mean"].high) == (9.5, 10.456)
    assert (cells["frames_per_second"].text, cells["peak_memory"].text) == ("12.3", "3.00")
    assert next(column.label for column in table.columns if column.key == "interval") == "90 % interval"
    assert {cell.link for cell in cells.values()} == {"results/p/a.json"}
    assert f"Scored 2026-01-02 to 2026-03-04 by ncbench 9.9, commit {'c' * 12}-dirty on cuda: X." in table.notes


def test_results_of_the_first_schema_are_shown_as_such(write_result, tables):
    path = write_result("old", sha="9" * 64)
    raw = json.loads(path.read_text())
    protocol = raw["protocol"]
    card = {name: protocol.pop(name) for name in ("resolution", "mask", "pooling", "invalid_prediction")}
    for name in ("intervals", "temporal", "probe", "files"):
        del raw[name]
    path.write_text(json.dumps(raw | {"schema": 1, "protocol": protocol | {"card": card}}))
    write_result("new")
    old, new = sorted(tables(), key=lambda table: table.results[0].model, reverse=True)
    assert "result of schema 1" in old.text()["note"].iloc[0]
    assert old.text()["mean"].iloc[0] == "10.00"
    assert "schema" not in new.text()["note"].iloc[0]


def test_an_unknown_column_is_answered_with_a_near_one(write_result, tmp_path, card):
    write_result("a")
    with pytest.raises(CardError, match="there is no metric 'meen'. Did you mean 'mean'"):
        build_tables(load_results(tmp_path), card.model_copy(update={"columns": ["meen"]}))


def test_the_overview_ranks_over_all_and_says_who_was_not_run(write_result, tables, card):
    for protocol in ("p", "q"):
        write_result("a", protocol=protocol, mean=10.0)
        write_result("b", protocol=protocol, mean=11.0)
    write_result("c", protocol="q", mean=9.0)
    write_result("d", protocol="p", failed=1)
    table = build_overview(tables(), card)
    shown = {row.key: row for row in table.rows}
    # a wins the mean of p, and is second to c in q; b is second, then third; the other four metrics are equal
    assert [cell.text for cell in shown["a"].cells] == ["10.00", "1.0", "10.00", "1.2", "1.0"]
    assert [cell.text for cell in shown["b"].cells] == ["11.00", "1.2", "11.00", "1.4", "1.2"]
    assert [cell.text for cell in shown["c"].cells] == ["-", "-", "9.00", "1.0", "-"]
    assert shown["c"].note == "not run on p"
    assert shown["d"].note == "not run on q; no numbers on p"
    assert [row.key for row in table.rows][:2] == ["a", "b"]
    assert shown["a"].cells[0].link == "results/p/a.json"
    assert build_overview(tables()[:1], card) is None


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda v: v | {"schema": 99}, "result schema 99"),
        (lambda v: v | {"metrics": v["metrics"] | {"rmse": 1.0}}, "below the mean"),
        (lambda v: v | {"counts": v["counts"] | {"failed": 1}}, "are not"),
        (lambda v: v | {"status": "partial"}, "contradicts"),
        (lambda _: [1], "result schema None"),
        (lambda _: {"schema": 1, "protocol": {"card": [1]}}, "Field required"),
        (lambda v: {k: v[k] for k in v if k != "counts"}, "key 'counts': Field required"),
        (lambda v: v | {"metrics": v["metrics"] | {"mean": "x"}}, "key 'metrics.mean'"),
        (lambda v: v | {"metrics": {"mean": 1.0}}, "metric 'rmse' is missing"),
        (lambda v: v | {"metrics": v["metrics"] | {"opw": float("nan")}}, "key 'metrics.opw': .* finite"),
        (lambda v: v | {"metrics": v["metrics"] | {"opw": float("inf")}}, "key 'metrics.opw': .* finite"),
        (lambda v: v | {"metrics": v["metrics"] | {"within_x": 1.0}}, "metric of unknown name"),
        (lambda v: v | {"schema": 1, "status": "partial", "counts": [1]}, "key 'counts'"),
    ],
)
def test_contradicting_results_never_reach_a_table(write_result, tmp_path, break_it, words):
    path = write_result("a")
    path.write_text(json.dumps(break_it(json.loads(path.read_text()))))
    with pytest.raises(ScoreError, match=words):
        load_results(tmp_path)


def test_truncated_and_missing_results(write_result, tmp_path):
    with pytest.raises(ScoreError, match="ncbench evaluate"):
        load_results(tmp_path)
    write_result("a").write_text('{"schema"')
    with pytest.raises(ScoreError, match="cannot be read"):
        load_results(tmp_path)


def test_titles_are_one_line_of_visible_signs(write_result, tables):
    write_result("a", title="red\x1b[31m\u202e one\n two")
    write_result("b", title="café 日本 °")
    assert [row.label for row in tables()[0].rows] == ["red\ufffd[31m\ufffd one two", "café 日本 °"]


def test_huge_values_take_little_room(write_result, tables):
    write_result("a", opw=1e300)
    write_result("b", opw=0.5)
    (table,) = tables()
    assert list(table.text()["opw"]) == ["1.00e+300", "0.500"]
    assert list(table.best()["opw"]) == [False, True]


def test_directions_and_labels():
    assert [lower_is_better(name) for name in ("mean", "rmse", "within_5")] == [True, True, False]
    assert label("within_7_5") == "<7.5°"


def test_two_hundred_models_are_all_shown(write_result, tables):
    for index in range(200):
        write_result(f"m{index:03d}", mean=10 + (index * 37 % 200) / 100, failed=int(index == 7))
    (table,) = tables()
    assert len(table.rows) == 200
    assert table.values["mean"].dropna().is_monotonic_increasing
    assert [row.key for row in table.rows][-1] == "m007"


@pytest.fixture
def scored(tiny):
    for model in ("frontal", "depth_oracle"):
        predict(model, "tiny")
        evaluate(model, "tiny")
    return tiny


def build(folder, name="report", card="main"):
    data = folder / "data"
    return build_report(card, data / "results", data / "stores", data / "predictions", folder / name)


def test_two_builds_are_equal_byte_for_byte_and_links_lead_to_results(scored):
    tables = build(scored, "one")
    build(scored, "two")
    files = [path.relative_to(scored / "one") for path in (scored / "one").rglob("*") if path.is_file()]
    assert len(files) > 20
    for file in files:
        assert (scored / "one" / file).read_bytes() == (scored / "two" / file).read_bytes(), file
    links = {cell.link for table in tables for row in table.rows for cell in row.cells if cell.link}
    assert links == {"results/tiny/frontal.json", "results/tiny/depth_oracle.json"}
    for link in links:
        protocol, model = link.removesuffix(".json").split("/")[1:]
        original = scored / "data" / "results" / protocol / model / "result.json"
        assert (scored / "one" / link).read_bytes() == original.read_bytes()


def test_the_tidy_files_hold_the_results_own_numbers(scored):
    build(scored)
    rows = pd.read_parquet(scored / "report" / "report.parquet")
    pd.testing.assert_frame_equal(
        pd.read_csv(
            scored / "report" / "report.csv",
            keep_default_na=False,
            na_values={"value": [""], "low": [""], "high": [""], "difference": [""]},
        ),
        rows,
        check_dtype=False,
    )
    own = rows[(rows["table"] == "tiny") & (rows["model"] == "frontal")].set_index("metric")["value"]
    values = json.loads((scored / "data" / "results" / "tiny" / "frontal" / "result.json").read_text())["metrics"]
    for metric in ("mean", "median", "within_30"):
        assert own[metric] == values[metric]
    assert (rows["kind"] == "published").any(), "the papers' tables follow"


def test_a_rebuild_replaces_the_folder_and_a_failure_leaves_the_old_one(scored):
    build(scored)
    (scored / "report" / "stale.txt").write_text("old")
    build(scored)
    assert not (scored / "report" / "stale.txt").exists()
    (scored / "data" / "results" / "tiny" / "frontal" / "result.json").write_text("{")
    with pytest.raises(ScoreError):
        build(scored)
    names = ["index.html", "tables.html", "report.md", "report.tex", "report.csv", "report.parquet"]
    assert [path.name for path in report_files(scored / "report")] == names
    assert not list(scored.glob(".report*"))


def test_a_report_never_replaces_somebody_elses_folder(scored):
    (scored / "paper").mkdir()
    (scored / "paper" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="did not put there"):
        build(scored, "paper")
    assert (scored / "paper" / "thesis.tex").read_text() == "years of work"


def test_a_report_never_removes_what_it_is_made_from(scored):
    build(scored)
    results = scored / "report" / "mine"
    shutil.copytree(scored / "data" / "results", results)
    with pytest.raises(StoreError, match="a new report would remove"):
        build_report("main", results, scored / "data" / "stores", scored / "data" / "predictions", scored / "report")
    assert list(results.rglob("result.json"))
    (scored / "linked").symlink_to(results)
    with pytest.raises(StoreError, match="a new report would remove"):
        build_report("main", scored / "linked", scored / "s", scored / "p", scored / "report")


def test_a_papers_table_stands_without_any_result(tmp_path):
    tables = build_report("normalcrafter-table-1", tmp_path / "none", tmp_path, tmp_path, tmp_path / "report")
    assert [table.kind for table in tables] == ["paper"]
    assert "GeoWizard" in (tmp_path / "report" / "tables.html").read_text()
    assert not (tmp_path / "report" / "index.html").exists()
    with pytest.raises(ScoreError, match="ncbench evaluate"):
        build_report("main", tmp_path / "none", tmp_path, tmp_path, tmp_path / "report")


def command(*words, code=0):
    from ncbench.cli import app

    result = CliRunner(env={"COLUMNS": "250", "NO_COLOR": "1"}).invoke(app, list(map(str, words)))
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_expected_and_published_values_are_checked(scored):
    results = scored / "data" / "results"
    mean = report_tables("main", results)[0].results[0].values.metrics["mean"]
    path = scored / "evaluators" / "tiny.yaml"
    base = yaml.safe_load(path.read_text())

    def expect(model, value):
        item = {"model": model, "metric": "mean", "value": value, "tolerance": 0.01, "source": "test"}
        path.write_text(yaml.safe_dump(base | {"expected": [item]}))

    expect("depth_oracle", mean)
    assert list(check_report("main", results, "expected")["status"]) == ["ok"]
    assert "± 0.01" in command("report", "--show", "--check", "expected")
    expect("depth_oracle", mean + 1)
    assert "depth_oracle mean is" in command("report", "--show", "--check", "expected", code=6)
    figures = ["--figures", str(scored / "figures")]
    assert "depth_oracle mean is" in command("report", *figures, "--check", "expected", code=6), "figures skip no check"
    expect("blur", 1.0)
    assert "blur has no complete result" in command("report", "--show", "--check", "expected", code=6)

    # a paper that reports 0.1 degrees less than we find, and an accuracy far off
    (scored / "reports").mkdir(exist_ok=True)
    within = json.loads((results / "tiny" / "depth_oracle" / "result.json").read_text())["metrics"]["within_30"]
    lines = ["source,table,method,dataset,split,metric,value,note"]
    lines += [
        f"Paper,Table 9,Oracle,tiny,all,mean,{mean - 0.09:.3f},",
        f"Paper,Table 9,Oracle,tiny,all,within_30,{within - 1:.1f},",
    ]
    (scored / "reports" / "published.csv").write_text("\n".join(lines) + "\n")
    mapping = {"methods": {"Oracle": ["depth_oracle"]}, "protocols": {"tiny/all": ["tiny"]}}
    own = {"name": "mine", "title": "Mine", "summary": "", "columns": ["mean", "within_30"], "sort_by": "mean"}
    (scored / "reports" / "mine.yaml").write_text(yaml.safe_dump(own | {"published": mapping}))
    expect("frontal", 0.0)
    table = check_report("mine", results, "published").set_index(["model", "metric"])
    assert table["status"].to_dict() == {
        ("frontal", "mean"): "off",
        ("depth_oracle", "mean"): "ok",
        ("depth_oracle", "within_30"): "off",
    }
    assert table.loc[("depth_oracle", "within_30"), "difference"] == pytest.approx(1.0, abs=0.06)
    output = command("report", "--show", "--card", "mine", "--check", "published", code=6)
    assert "Oracle (Paper, Table 9)" in output
    assert "(+0.090)" in output, "printed with the decimals of the published number"
    assert "depth_oracle within_30 is" in output


def test_nothing_published_is_said_and_passes(scored):
    (scored / "evaluators" / "tiny.yaml").write_text(
        yaml.safe_dump(yaml.safe_load((scored / "evaluators" / "tiny.yaml").read_text()) | {"expected": []})
    )
    assert "No expected or published value" in command("report", "--show", "--check", "published")


def test_the_guides_card_and_code_work(scored):
    text = (Path(__file__).resolve().parents[2] / "docs" / "reports.md").read_text()
    blocks = re.findall(r"```(yaml|python)\n(.*?)```", text, re.DOTALL)
    (scored / "reports").mkdir(exist_ok=True)
    (scored / "reports" / "main.yaml").write_text((catalog.shipped_root() / "reports" / "main.yaml").read_text())
    card = next(block for kind, block in blocks if kind == "yaml" and "# reports/mine.yaml" in block)
    (scored / "reports" / "mine.yaml").write_text(card)
    assert "My models" in yaml.safe_load(card)["title"]
    assert [table.kind for table in report_tables("mine", scored / "data" / "results")] == ["protocol"]
    names = {}
    exec(next(block for kind, block in blocks if kind == "python"), names)  # noqa: S102 - the guide's own words
    assert names["tables"][0].name == "tiny"
    mapping = yaml.safe_load(next(block for kind, block in blocks if block.startswith("published:")))
    PublishedNumbers.parse(mapping["published"], "docs/reports.md")
