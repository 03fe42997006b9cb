"""Results against expected values: every form of the file, every kind of miss."""

import json
import math

import pandas as pd
import pytest
import yaml

from ncbench import catalog, evaluate
from ncbench.errors import CardError, ScoreError
from ncbench.evaluators.expectations import Expectation, expectations_of, flat, read_expectations
from ncbench.evaluators.expected import check, read_metrics, require_expected, require_ok
from ncbench.models.run import predict
from ncbench.protocol_card import ProtocolCard

PUBLISHED = """\
source,table,method,dataset,split,metric,value,note
"NormalCrafter, arXiv:2504.11427v1",Table 1,DSINE,nyuv2,test654,mean,16.4,
"NormalCrafter, arXiv:2504.11427v1",Table 1,DSINE,sintel,dsine1064,mean,34.9,
"NormalCrafter, arXiv:2504.11427v1",Table 1,DSINE,sintel,dsine1064,within_11_25,21.5,
"NormalCrafter, arXiv:2504.11427v1",Table 1,GenPercept,sintel,dsine1064,mean,34.6,
"Lotus-2, arXiv:2512.01030v3",Table II,GenPercept,sintel,dsine1064,mean,37.6,
"""
FOUND = {
    ("dsine-sintel", "dsine"): {"mean": 34.95, "median": 28.0, "within_11_25": 21.9},
    ("dsine-sintel", "genpercept"): {},
}


def expected(metric="mean", value=34.9, tolerance=0.1, model="dsine", **more):
    return Expectation("dsine-sintel", model, metric, value, tolerance, "a paper", **more)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def write_result(folder, protocol, model, metrics):
    out = folder / protocol / model
    out.mkdir(parents=True)
    write(out / "result.json", {"protocol": {"name": protocol}, "model": {"name": model}, "metrics": metrics})
    return out


def test_a_row_says_what_was_found_and_how_far_off():
    table = check(FOUND, [expected(), expected("within_11_25", 21.5, 0.2), expected(model="genpercept")])
    assert table["status"].tolist() == ["ok", "off", "missing"]
    assert table["ok"].tolist() == [True, False, False]
    assert table["difference"].tolist()[:2] == pytest.approx([0.05, 0.4])
    assert math.isnan(table.loc[2, "found"])
    with pytest.raises(ScoreError) as error:
        require_ok(table)
    assert str(error.value).splitlines() == [
        "results differ from the expected values:",
        "dsine-sintel: dsine within_11_25 is 21.9000, expected 21.5 ± 0.2 (a paper)",
        "dsine-sintel: genpercept has no complete result with 'mean', expected 34.9 ± 0.1 (a paper)",
    ]


def test_the_bound_itself_is_within_it():
    # 16.4 - 16.3 is 0.0999... or 0.1000...1 in binary, as the numbers go
    for value in (16.3, 0.1, 33.3, 89.9):
        found = {("dsine-sintel", "dsine"): {"mean": value + 0.1}}
        assert check(found, [expected(value=value)])["ok"].all()
        assert not check(found, [expected(value=value - 0.001)])["ok"].any()


def test_a_value_that_is_not_required_may_be_absent_but_not_wrong():
    table = check(FOUND, [expected(model="none", required=False), expected(value=30.0, required=False)])
    assert table["status"].tolist() == ["absent", "off"]
    with pytest.raises(ScoreError, match="mean is 34.9500"):
        require_ok(table)
    require_ok(table.iloc[:1])
    require_ok(check(FOUND, []))


def test_a_protocols_own_expectations():
    values = {"name": "p", "version": "1.0.0", "title": "P", "summary": "", "dataset": "d"}
    item = {"model": "m", "metric": "mean", "value": 3.0, "tolerance": 0.5, "source": "s", "required": False}
    assert expectations_of(ProtocolCard.parse(values | {"expected": [item]}, "p")) == [
        Expectation("p", "m", "mean", 3.0, 0.5, "s", required=False)
    ]
    for name in catalog.find(ProtocolCard):
        assert all(one.protocol == name for one in expectations_of(catalog.load(ProtocolCard, name)))


def test_plain_csv_with_and_without_tolerances(tmp_path):
    path = write(
        tmp_path / "e.csv",
        "protocol,model,metric,value,tolerance,source\np,m,mean,16.4,0.3,paper\np,m,within_30,80,,\np,m,rmse,20,,\n",
    )
    assert read_expectations(path, tolerances={"rmse": 1.0}) == [
        Expectation("p", "m", "mean", 16.4, 0.3, "paper"),
        Expectation("p", "m", "within_30", 80.0, 0.2, ""),
        Expectation("p", "m", "rmse", 20.0, 1.0, ""),
    ]


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_values_written_out(tmp_path, suffix):
    content = {
        "tolerances": {"temporal.warp": 0.5, "mean": 0.2},
        "expect": [
            {"protocol": "p", "model": "m", "metric": "mean", "value": 16, "source": "x"},
            {"protocol": "p", "model": "m", "metric": "temporal.warp", "value": 2, "required": False},
        ],
    }
    path = tmp_path / f"e{suffix}"
    path.write_text(yaml.safe_dump(content) if suffix == ".yaml" else json.dumps(content))
    assert read_expectations(path, tolerances={"mean": 0.7}) == [
        Expectation("p", "m", "mean", 16.0, 0.7, "x"),
        Expectation("p", "m", "temporal.warp", 2.0, 0.5, "", required=False),
    ]


def test_published_numbers_by_names_of_cards(tmp_path):
    path = write(tmp_path / "published.csv", PUBLISHED)
    names = {"models": {"DSINE": "dsine"}, "protocols": {"sintel/dsine1064": "dsine-sintel"}}
    source = "NormalCrafter, arXiv:2504.11427v1, Table 1"
    wanted = [
        Expectation("dsine-sintel", "dsine", "mean", 34.9, 0.1, source),
        Expectation("dsine-sintel", "dsine", "within_11_25", 21.5, 0.2, source),
    ]
    assert read_expectations(path, **names) == wanted
    assert read_expectations(path, models=names["models"], protocols={"sintel": "dsine-sintel"}) == wanted
    wrapped = write(tmp_path / "e.yaml", yaml.safe_dump(names | {"published": "published.csv"}))
    assert read_expectations(wrapped) == wanted
    more = read_expectations(wrapped, models={"GenPercept": "genpercept"}, source="Lotus-2, arXiv:2512.01030v3")
    assert [(one.model, one.value) for one in more] == [("genpercept", 37.6)]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"models": {"DSINEE": "dsine"}, "protocols": {"sintel": "p"}}, "no method 'DSINEE'. Did you mean 'DSINE'"),
        ({"models": {"DSINE": "dsine"}, "protocols": {"sintl": "p"}}, "no data set 'sintl'. Did you mean 'sintel'"),
        ({"source": "NormalCrafter"}, "no source 'NormalCrafter'"),
        ({}, "expects nothing"),
    ],
)
def test_names_that_published_numbers_lack(tmp_path, names, words):
    with pytest.raises(CardError, match=words):
        read_expectations(write(tmp_path / "p.csv", PUBLISHED), **names)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("e.txt", "", "ends in .csv, .yaml, .yml, .json"),
        ("e.csv", "a,b\n1,2\n", "expected the columns protocol, model"),
        ("e.csv", "", "cannot be read as CSV"),
        ("e.csv", "protocol,model,metric,value\np,m,mean,high\n", "line 2: key 'value'"),
        ("e.csv", "protocol,model,metric,value\np,m,mean,nan\n", "line 2: key 'value'"),
        ("e.csv", "protocol,model,metric,value\np,m,opw,3\n", "'opw' of 'm' has no tolerance"),
        ("e.csv", "protocol,model,metric,value,tolerance\np,m,mean,3,0\n", "key 'tolerance'"),
        ("e.yaml", "expect: []\n", "expects nothing"),
        ("e.yaml", "expects: []\n", "Did you mean 'expect'"),
        ("e.yaml", "tolerances: {mean: 0}\n", "tolerances.mean"),
        ("e.yaml", "published: absent.csv\n", "absent.csv: cannot be read"),
        ("e.json", "[1]", "expected a mapping"),
        ("e.json", "{", "cannot be read as JSON"),
        ("e.json", '{"protocol": 3, "metrics": {}}', "no result that can be read"),
        ("e.json", '{"protocol": {"name": "p"}, "model": {"name": "m"}, "metrics": {}}', "not complete"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, words):
    with pytest.raises(CardError, match=words):
        read_expectations(write(tmp_path / name, content))


def test_a_missing_file(tmp_path):
    for name in ("e.csv", "e.yaml", "e.json"):
        with pytest.raises(CardError, match="cannot be read"):
            read_expectations(tmp_path / name)


def test_an_earlier_result_and_a_folder_of_results(tmp_path):
    before = write_result(tmp_path / "before", "p", "m", {"mean": 16.0, "temporal": {"warp": 2.0, "flow": "gt"}})
    results = tmp_path / "now"
    now = write_result(results, "p", "m", {"mean": 16.004, "temporal": {"warp": 2.1}})
    other = write_result(results, "p", "other", {"mean": 1.0})
    for place in (results, now, now / "result.json"):
        with pytest.raises(ScoreError, match="temporal.warp is 2.1000, expected 2 ± 0.005") as error:
            require_expected(place, before / "result.json")
        assert "mean" not in str(error.value)
    table = require_expected(results, before / "result.json", tolerances={"temporal.warp": 0.2})
    assert table["ok"].tolist() == [True, True]
    with pytest.raises(ScoreError, match="expects nothing of other on p"):
        require_expected(other, before / "result.json")


def test_of_one_result_only_its_own_values_are_asked_for(tmp_path):
    results = tmp_path / "results"
    out = write_result(results, "p", "m", {"mean": 16.0})
    path = write(tmp_path / "e.csv", "protocol,model,metric,value\np,m,mean,16\np,missing,mean,3\n")
    assert len(require_expected(out, path)) == 1
    with pytest.raises(ScoreError, match="missing has no complete result with 'mean'"):
        require_expected(results, path)


def test_results_that_cannot_be_read(tmp_path):
    with pytest.raises(ScoreError, match="holds no result.json"):
        read_metrics(tmp_path)
    for content in ("{", "[]", '{"protocol": {"name": "p"}, "model": "m", "metrics": {}}', '{"metrics": {}}'):
        with pytest.raises(ScoreError, match="no result that can be read"):
            read_metrics(write(tmp_path / "result.json", content))


def test_flat_keeps_numbers_only():
    assert flat({"a": 1, "b": {"c": 2.5, "d": {"e": 3}}, "t": "x", "y": True, "n": None, "l": [1]}) == {
        "a": 1.0,
        "b.c": 2.5,
        "b.d.e": 3.0,
    }


def test_a_real_result_meets_itself_and_nothing_else(tiny):
    predict("frontal", "tiny")
    row = evaluate("frontal", "tiny").iloc[0]
    results = tiny / "data" / "results"
    assert read_metrics(results)["tiny", "frontal"]["mean"] == row["mean"]
    file = results / "tiny" / "frontal" / "result.json"
    assert require_expected(results, file)["difference"].eq(0).all()
    wrong = pd.DataFrame([{"protocol": "tiny", "model": "frontal", "metric": "mean", "value": row["mean"] + 1}])
    wrong.to_csv(tiny / "e.csv", index=False)
    with pytest.raises(ScoreError, match="tiny: frontal mean is"):
        require_expected(results, tiny / "e.csv")
