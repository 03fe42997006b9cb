"""Comparisons of results: numbers by hand, intervals by a literal bootstrap, rules, Markdown that stays Markdown."""

import json
import shutil

import numpy as np
import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from ncbench import evaluate
from ncbench.cli import app
from ncbench.errors import ScoreError
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.models.run import predict
from ncbench.reports.compare.changes import compare_results
from ncbench.reports.compare.markdown import MARKER, to_markdown
from ncbench.reports.compare.numbers import to_json
from ncbench.reports.compare.rules import parse_rule, require_metrics, violations

METRICS = {"mean": 10.0, "median": 8.0, "rmse": 12.0, "within_5": 20.0, "within_7_5": 30.0}
METRICS |= {"within_11_25": 60.0, "within_22_5": 70.0, "within_30": 80.0}


def write(root, model="m", *, protocol="p", sha="a" * 64, data="b" * 64, title=None, status="complete", **metrics):
    failed = 2 * (status == "partial")
    counts = {"frames": 4, "scored": 4 - failed, "failed": failed, "pixels": 100, "invalid_predictions": 0}
    scoring = {"resolution": "native", "mask": "valid", "pooling": "pixels", "invalid_prediction": 90.0}
    values = {
        "schema": 2,
        "model": {"name": model, "title": title or model, "kind": "image", "training_sets": []},
        "protocol": {"name": protocol, "version": "1.0.0", "title": protocol, "sha256": sha} | scoring,
        "dataset": {"name": "d", "digest": data},
        "status": status,
        "counts": counts,
        "metrics": METRICS | metrics if status == "complete" else {},
        "intervals": {},
        "temporal": {},
        "probe": {"kind": "fits"},
        "files": {},
        "provenance": {"code": {"commit": "c" * 40, "dirty": root.name == "head"}},
    }
    folder = root / protocol / model
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(values))


@pytest.fixture
def sides(tmp_path):
    return tmp_path / "base", tmp_path / "head"


def change(comparison, metric, row=0):
    return next(one for one in comparison.rows[row].changes if one.metric == metric)


def test_differences_and_directions(sides):
    write(sides[0], mean=10.0, within_30=80.0)
    write(sides[1], mean=10.5, within_30=81.5)
    found = compare_results(*sides)
    assert change(found, "mean").delta == pytest.approx(0.5)
    assert change(found, "mean").worsening == pytest.approx(0.5)
    assert change(found, "within_30").worsening == pytest.approx(-1.5)
    assert change(found, "median").verdict == "same"
    assert change(found, "mean").verdict == "unknown"  # no statistics, no interval
    assert (found.base, found.head) == (["c" * 12], ["c" * 12 + "-dirty"])


@pytest.mark.parametrize("other", [{"sha": "e" * 64}, {"data": "e" * 64}])
def test_what_means_something_else_is_never_subtracted(sides, other):
    write(sides[0], mean=10.0)
    write(sides[1], mean=1.0, **other)
    (row,) = compare_results(*sides).rows
    assert (row.state, row.changes) == ("not comparable", [])
    assert "eeee" in row.reason
    assert "9.00" not in to_markdown(compare_results(*sides))


def test_rows_of_one_side_and_failed_ones_are_shown(sides):
    write(sides[0], "gone")
    write(sides[1], "fresh")
    write(sides[0], "broken")
    write(sides[1], "broken", status="partial")
    found = compare_results(*sides)
    assert {row.model: row.state for row in found.rows} == {"gone": "removed", "fresh": "new", "broken": "changed"}
    text = to_markdown(found)
    assert "2 of 4 frames failed" in text
    assert "10.00 → -" in text
    assert violations(found, [parse_rule("mean:+5")]) == [
        "mean:+5: p/broken: 2 of 4 frames failed",
        "mean:+5: p/gone: removed",
    ]


def test_small_numbers_are_seen_and_changes_without_a_column_are_named(sides):
    for side, opw in zip(sides, (0.0061, 0.0082), strict=True):
        write(side, "a", opw=opw)
        write(side, "b", status="complete" if side == sides[0] else "partial")
    found = compare_results(*sides)
    text = to_markdown(found)
    assert "## ncbench: 1 incomplete\n" in text
    assert next(line for line in text.splitlines() if line.startswith("| a ")).endswith("| changed: OPW |")
    assert "| a | 0.008 (+0.002) |" in to_markdown(found, metrics=["opw"])
    require_metrics(["opw", "mean"], found)
    with pytest.raises(ScoreError, match="no such metric. Did you mean 'opw'"):
        require_metrics(["oqw"], found)


def test_no_change_is_one_line(sides):
    for side in sides:
        for model in "abc":
            write(side, model)
    text = to_markdown(compare_results(*sides))
    assert text.splitlines()[:2] == [MARKER, "## ncbench: no change in 3 results"]
    assert "|---" not in text
    assert "noise" not in text


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("mean:+0.4", True),
        ("mean:+0.6", False),
        ("mean:+4%", True),
        ("mean:+6%", False),
        ("p/mean:+0.4", True),
        ("p/m/mean:+0.4", True),
        ("within_30:+1", True),
        ("within_30:+3", False),
        ("median:+0", False),
    ],
)
def test_rules(sides, rule, broken):
    write(sides[0], mean=10.0, within_30=80.0)
    write(sides[1], mean=10.5, within_30=78.0)
    assert bool(violations(compare_results(*sides), [parse_rule(rule)])) is broken


@pytest.mark.parametrize("text", ["mean", "mean:0.5", "mean:+x", "a/b/c/mean:+1", "/mean:+1", ":+1"])
def test_a_malformed_rule_is_refused_with_an_example(text):
    with pytest.raises(ScoreError, match=r"mean:\+0\.5"):
        parse_rule(text)


@pytest.mark.parametrize(
    ("rule", "near"), [("maen:+1", "'mean'"), ("q/mean:+1", "Valid: p"), ("p/n/mean:+1", "Valid: m")]
)
def test_a_rule_about_nothing_is_refused(sides, rule, near):
    for side in sides:
        write(side)
    with pytest.raises(ScoreError, match=near):
        violations(compare_results(*sides), [parse_rule(rule)])


def test_names_with_markup_stay_text_and_keep_the_table_whole(sides):
    title = "a|b `c` <script>alert(1)</script> [x](http://e.org) *d* @someone"
    write(sides[0], title=title)
    write(sides[1], title=title, mean=11.0)
    text = to_markdown(compare_results(*sides))
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script>" not in html
    assert "href" not in html
    assert "<em>d" not in html
    assert "@someone" not in html
    assert html.count("<td") == html.count("<th style") + html.count("<th>")


def test_long_tables_are_folded(sides):
    for number in range(200):
        write(sides[0], f"m{number:03}")
        write(sides[1], f"m{number:03}", mean=10.5)
    text = to_markdown(compare_results(*sides))
    assert "<details><summary>200 models changed</summary>" in text
    assert sum(line.startswith("| m") for line in text.splitlines()) == 201
    assert text == to_markdown(compare_results(*sides))


@pytest.fixture
def scored(tiny):
    """The same two models on both sides, but for the seed of what is random in one of them."""
    for model in ("frontal", "flicker"):
        predict(model, "tiny")
        evaluate(model, "tiny")
    base = tiny / "base"
    shutil.copytree(tiny / "data" / "results", base)
    card = {"name": "flicker", "version": "1.0.0", "title": "Flicker", "summary": "", "kind": "control"}
    card |= {"adapter": "ncbench.models.controls:Flicker", "axes": "opencv", "settings": {"degrees": 8.0}}
    (tiny / "models").mkdir()
    (tiny / "models" / "flicker.yaml").write_text(json.dumps(card))
    predict("flicker", "tiny")
    evaluate("flicker", "tiny")
    return base, tiny / "data" / "results"


def test_intervals_are_those_of_a_literal_bootstrap(scored):
    found = compare_results(*scored)
    row = next(row for row in found.rows if row.model == "flicker")
    mean = next(one for one in row.changes if one.metric == "mean")
    head, base = (UnitStatistics.load(side / "tiny" / "flicker" / "units.npz") for side in reversed(scored))
    names = sorted(set(head.sequences))
    sums = {
        key: np.array(
            [
                [side.total[np.array(side.sequences) == name].sum(), side.count[np.array(side.sequences) == name].sum()]
                for name in names
            ]
        )
        for key, side in (("head", head), ("base", base))
    }
    generator = np.random.default_rng(1)
    differences = []
    for _ in range(4000):
        drawn = generator.integers(0, len(names), len(names))
        means = {key: values[drawn, 0].sum() / values[drawn, 1].sum() for key, values in sums.items()}
        differences.append(means["head"] - means["base"])
    # two sequences have but three different draws: the ends are those of the extreme ones
    assert mean.interval == pytest.approx((min(differences), max(differences)), abs=1e-9)
    assert mean.verdict == "worse"
    assert "paired difference" in found.interval
    assert next(row for row in found.rows if row.model == "frontal").state == "same"


def test_the_command(scored, tmp_path):
    base, head = map(str, scored)
    files = ["--to", str(tmp_path / "c.md"), "--json", str(tmp_path / "c.json")]
    done = CliRunner().invoke(app, ["compare", base, head, "--fail-if", "mean:+0.5", *files])
    assert done.exit_code == 6
    assert "mean:+0.5: tiny/flicker" in done.output
    text = (tmp_path / "c.md").read_text()
    assert text.startswith(MARKER)
    assert "worse" in text
    values = json.loads((tmp_path / "c.json").read_text())
    assert values["broken"][0].startswith("mean:+0.5: tiny/flicker")
    assert (tmp_path / "c.json").read_text() == to_json(compare_results(*scored), values["broken"])
    done = CliRunner().invoke(app, ["compare", base, head, "--fail-if", "mean:+50"])
    assert done.exit_code == 0
    assert done.output.startswith(MARKER)
    done = CliRunner().invoke(app, ["compare", base, str(tmp_path / "nothing")])
    assert done.exit_code == 6
