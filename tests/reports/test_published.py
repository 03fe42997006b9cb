"""Published numbers: the shipped file holds together, and papers' tables come out as printed."""

import math

import pytest

from ncbench import catalog
from ncbench.cards import ModelCard, ReportCard
from ncbench.errors import CardError
from ncbench.protocol_card import ProtocolCard
from ncbench.reports.paper import build_paper
from ncbench.reports.published import COLUMNS, check_mapping, load_published, of_result, published_file
from ncbench.reports.results import load_results
from ncbench.reports.table import build_tables

PAPERS = [f"normalcrafter-table-{number}" for number in (1, 2, 3)] + [f"buffer-anytime-table-{n}" for n in (1, 2)]
# average ranks as NormalCrafter's Tables 1 to 3 print them, by data set from left to right
RANKS = {
    "normalcrafter-table-1": {
        "DSINE": (4.8, 5.0, 5.4, 4.6),
        "GeoWizard": (7.0, 7.0, 7.0, 6.4),
        "GenPercept": (3.2, 2.4, 3.4, 3.6),
        "StableNormal": (4.6, 3.4, 4.4, 6.6),
        "Lotus-D": (3.4, 5.2, 3.8, 2.0),
        "Marigold-E2E-FT": (2.8, 1.8, 2.6, 3.6),
        "NormalCrafter": (1.2, 3.0, 1.4, 1.0),
    },
    "normalcrafter-table-2": {
        "w/o VAE fine-tuning": (1.8, 1.8),
        "w/o stage 1": (2.0, 2.6),
        "w/o stage 2": (4.8, 5.0),
        "w/o SFR": (4.0, 4.0),
        "full": (1.0, 1.0),
    },
    "normalcrafter-table-3": {
        "w/o SFR": (7.0, 6.2),
        "Down1": (3.8, 3.8),
        "Down2": (6.4, 7.8),
        "Down3": (4.2, 6.0),
        "Mid": (3.4, 3.2),
        "Up0": (2.4, 1.4),
        "Up1 (the paper's choice)": (2.0, 1.4),
        "Up2": (1.4, 3.6),
    },
}


@pytest.fixture(scope="module")
def numbers():
    return load_published(catalog.shipped_root() / "reports" / "published.csv")


def load(name):
    return catalog.read_card(ReportCard, catalog.shipped_root() / "reports" / f"{name}.yaml")


def test_the_shipped_numbers_hold_together(numbers):
    assert len(numbers) > 400
    for one in numbers:
        assert one.value >= 0
        assert one.source
        assert one.table
    table = [one for one in numbers if one.source.startswith("NormalCrafter") and one.table == "Table 1"]
    rows = {(one.method, one.split): {} for one in table}
    for one in table:
        rows[one.method, one.split][one.metric] = one.value
    assert len(rows) == 7 * 4
    for row in rows.values():
        assert set(row) == {"mean", "median", "within_11_25", "within_22_5", "within_30"}
        assert row["within_11_25"] <= row["within_22_5"] <= row["within_30"]
        assert row["median"] <= row["mean"]


def test_every_mapping_speaks_of_what_is_there(numbers):
    card = load("main")
    check_mapping(numbers, card.published, "main")
    protocols = catalog.find(ProtocolCard)
    for names in card.published.protocols.values():
        assert set(names) <= set(protocols)
    models = set(catalog.find(ModelCard))
    assert "dsine" in models
    assert set(card.include) == set(PAPERS)
    for paper in PAPERS:
        groups = load(paper).paper.groups
        assert {group.protocol for group in groups if group.protocol} <= set(protocols)
        for group in groups:
            assert group.comparable == (group.protocol in card.published.protocols.get(group.split, [])), group


def test_what_a_protocol_expects_is_what_was_published(numbers):
    """Two places quote the papers: they must not disagree."""
    card = load("main")
    checked = 0
    for name in catalog.find(ProtocolCard):
        protocol = catalog.load(ProtocolCard, name)
        for item in protocol.expected:
            for one in of_result(numbers, card.published, name, item.model):
                if one.metric == item.metric and one.place == item.source:
                    assert one.value == item.value, (name, item)
                    checked += 1
    assert checked > 100


@pytest.mark.parametrize("name", RANKS)
def test_average_ranks_come_out_as_the_paper_prints_them(name, numbers):
    table = build_paper(load(name), [], numbers)
    found = {}
    for row in table.rows:
        cells = zip(table.columns, row.cells, strict=True)
        found[row.label] = tuple(float(cell.text) for column, cell in cells if column.role == "rank")
    assert found == RANKS[name]


def test_a_papers_table_prints_numbers_as_published(numbers):
    table = build_paper(load("buffer-anytime-table-2"), [], numbers)
    first = next(row for row in table.rows if row.key == "Buffer Anytime (Marigold-E2E-FT)")
    assert [cell.text for cell in first.cells] == [
        "33.421",
        "28.320",
        "20.664",
        "0.065",
        "21.500",
        "9.915",
        "59.634",
        "0.069",
    ]
    assert [cell.place for cell in first.cells] == [2, 2, 2, 1, 1, 1, 1, 1]
    assert [column.group for column in table.columns] == ["Sintel"] * 4 + ["ScanNet"] * 4
    depth = build_paper(load("buffer-anytime-table-1"), [], numbers)
    assert [cell.text for cell in depth.rows[-1].cells] == ".123 .853 .076 .119 .865 .038 .102 .925 .028".replace(
        ".", "0."
    ).split()


def test_our_rows_stand_below_with_differences_where_frames_are_the_same(write_result, tmp_path, numbers):
    for protocol in ("normalcrafter-sintel", "normalcrafter-scannet"):
        write_result("normalcrafter", protocol=protocol, title="NormalCrafter", mean=31.0, median=24.0, rmse=40.0)
    write_result("mine", protocol="normalcrafter-sintel", title="Mine", mean=20.0, rmse=30.0)
    write_result("broken", protocol="normalcrafter-sintel", title="Broken", failed=2)
    table = build_paper(load("normalcrafter-table-1"), load_results(tmp_path), numbers)
    own = {row.key: row for row in table.rows if row.kind == "result"}
    assert list(own) == ["broken", "mine", "normalcrafter"]
    by_key = {column.key: index for index, column in enumerate(table.columns)}
    ours = own["normalcrafter"].cells
    assert (ours[by_key["3/mean"]].text, ours[by_key["3/mean"]].link) == (
        "31.0",
        "results/normalcrafter-sintel/normalcrafter.json",
    )
    assert ours[by_key["3/mean"]].difference == pytest.approx(31.0 - 30.7)
    # ScanNet: other clips, so that nothing is subtracted or ranked, and the row says so
    assert ours[by_key["2/mean"]].text == "31.0"
    assert math.isnan(ours[by_key["2/mean"]].difference)
    assert ours[by_key["2/rank"]].text == "-"
    assert "ScanNet: other frames" in own["normalcrafter"].note
    assert ours[by_key["0/mean"]].text == "-"
    # a mean of 20 ranks first among eight; the other metrics by hand: median 8.0 first, 60 first, 70 first, 80 first
    assert own["mine"].cells[by_key["3/rank"]].value == 1.0
    assert math.isnan(own["mine"].cells[by_key["3/mean"]].difference)
    assert own["broken"].cells[by_key["3/mean"]].text == "-"
    assert "partial: 2 of 4 frames failed" in own["broken"].note
    # published places are not moved by ours
    paper = next(row for row in table.rows if row.label == "NormalCrafter")
    assert paper.cells[by_key["3/mean"]].place == 1


def test_published_rows_follow_the_result_that_they_belong_to(write_result, tmp_path, numbers):
    write_result("lotus-d", protocol="dsine-sintel", title="Lotus", mean=32.5, rmse=40.0)
    write_result("frontal", protocol="dsine-sintel", title="Frontal", mean=52.0, rmse=60.0)
    (table,) = build_tables(load_results(tmp_path), load("main"), numbers)
    labels = [row.label for row in table.rows]
    assert labels == [
        "Lotus",
        "Lotus-D (NormalCrafter, arXiv:2504.11427v1, Table 1)",
        "Lotus-D (Lotus-2, arXiv:2512.01030v3, Table II)",
        "Frontal",
    ]
    assert table.rows[1].cells[0].text == "32.3"
    assert table.rows[1].cells[0].difference == pytest.approx(0.2)
    assert [row.cells[0].place for row in table.rows] == [1, 0, 0, 2], "quoted numbers take no place"
    assert list(table.values.index) == ["Lotus", "Frontal"]


ROW = "Paper,Table 1,X,d,s,"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["source,table"], "expected the columns"),
        ([",".join(COLUMNS), ROW + "mean,abc,"], "row 2: expected a number as value, found 'abc'"),
        ([",".join(COLUMNS), ROW + "mean,nan,"], "between 0 and 180"),
        ([",".join(COLUMNS), ROW + "within_5,101,"], "between 0 and 100"),
        ([",".join(COLUMNS), ROW + "delta1,53,"], "between 0 and 1"),
        ([",".join(COLUMNS), ROW + "mean,-1,"], "between 0 and 180"),
        ([",".join(COLUMNS), ROW + "mean,10,", ROW + "mean,11,"], "comes twice"),
        ([",".join(COLUMNS), ROW + "within_5,50,", ROW + "within_11_25,40,"], "fall as thresholds grow"),
        ([",".join(COLUMNS), ",Table 1,X,d,s,mean,1,"], "row 2: source must not be empty"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, lines, words):
    path = tmp_path / "published.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(CardError, match=words):
        load_published(path)


def test_misspelt_methods_and_splits_are_answered_with_near_ones(numbers):
    card = load("main")
    wrong = card.published.model_copy(update={"methods": {"GeoWizzard": ["x"]}})
    with pytest.raises(CardError, match="nobody published a method 'GeoWizzard'. Did you mean 'GeoWizard'"):
        check_mapping(numbers, wrong, "main")
    paper = load("normalcrafter-table-1")
    rows = [paper.paper.rows[0].model_copy(update={"method": "DSINI"})]
    with pytest.raises(CardError, match="Did you mean 'DSINE'"):
        build_paper(paper.model_copy(update={"paper": paper.paper.model_copy(update={"rows": rows})}), [], numbers)
    with pytest.raises(CardError, match="has no block 'paper'"):
        build_paper(card, [], numbers)


def test_a_file_of_the_current_folder_goes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert published_file("published.csv") == catalog.shipped_root() / "reports" / "published.csv"
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "published.csv").write_text("")
    assert published_file("published.csv").resolve() == (tmp_path / "reports" / "published.csv").resolve()
