"""Average ranks against the tables of NormalCrafter (arXiv 2504.11427), which print numbers and ranks."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from ncbench.errors import ScoreError
from ncbench.evaluators.statistics.ranks import average_rank, lower_is_better

METRICS = ["mean", "median", "within_11_25", "within_22_5", "within_30"]

# model: five numbers, then the printed average rank
NYUV2 = """
DSINE           16.4  8.4 59.6 77.7 83.5 4.8
GeoWizard       18.6 12.0 46.4 76.1 83.0 7.0
GenPercept      16.4  8.0 60.9 78.3 83.7 3.2
StableNormal    17.7 10.3 54.2 78.1 84.1 4.6
Lotus-D         16.2  8.4 59.8 78.0 83.9 3.4
Marigold-E2E-FT 16.2  7.6 61.4 77.9 83.5 2.8
NormalCrafter   15.4  7.9 61.4 79.4 85.1 1.2
"""
IBIMS = """
DSINE           17.1  6.1 67.4 79.0 82.3 5.0
GeoWizard       20.5 10.9 51.5 75.2 80.1 7.0
GenPercept      16.3  6.3 69.5 81.1 84.1 2.4
StableNormal    17.0  7.0 68.0 80.9 84.2 3.4
Lotus-D         17.1  6.8 66.4 79.4 83.0 5.2
Marigold-E2E-FT 15.8  5.5 69.9 80.6 83.9 1.8
NormalCrafter   16.1  5.9 68.9 80.4 83.7 3.0
"""
SCANNET = """
DSINE           15.5  8.0 62.4 79.5 84.9 5.4
GeoWizard       18.9 13.1 41.7 75.1 83.0 7.0
GenPercept      14.5  7.2 66.0 81.8 86.7 3.4
StableNormal    15.9 10.0 57.0 81.9 87.0 4.4
Lotus-D         14.3  7.1 65.6 81.4 86.5 3.8
Marigold-E2E-FT 14.1  6.3 67.6 81.7 86.4 2.6
NormalCrafter   13.3  6.8 67.4 82.9 87.9 1.4
"""
SINTEL = """
DSINE           34.9 28.1 21.5 41.5 52.7 4.6
GeoWizard       37.6 32.0 11.7 32.8 46.8 6.4
GenPercept      34.6 26.2 18.4 43.8 55.8 3.6
StableNormal    38.8 32.7 17.9 36.1 46.6 6.6
Lotus-D         32.3 25.5 22.4 44.9 57.0 2.0
Marigold-E2E-FT 33.5 27.0 21.5 43.0 54.3 3.6
NormalCrafter   30.7 23.9 23.5 47.5 60.1 1.0
"""
ABLATION_SCANNET = """
vae    13.4 6.8 67.3 82.8 87.8 1.8
stage1 13.4 6.8 67.3 82.8 87.6 2.0
stage2 14.2 8.1 63.7 82.0 87.4 4.8
sfr    13.7 7.0 67.1 82.5 87.4 4.0
full   13.3 6.8 67.4 82.9 87.9 1.0
"""
ABLATION_SINTEL = """
vae    30.8 23.9 23.4 47.4 60.1 1.8
stage1 30.7 24.2 21.5 46.9 60.0 2.6
stage2 31.6 25.3 19.7 44.6 57.9 5.0
sfr    31.1 24.7 21.4 45.8 58.9 4.0
full   30.7 23.9 23.5 47.5 60.1 1.0
"""
PLACE_SCANNET = """
none  13.7 7.0 67.1 82.5 87.4 7.0
down1 13.5 6.8 67.6 82.5 87.4 3.8
down2 13.6 6.8 67.2 82.4 87.3 6.4
down3 13.5 6.8 67.4 82.5 87.5 4.2
mid   13.5 6.8 67.5 82.7 87.7 3.4
up0   13.4 6.8 67.5 82.8 87.8 2.4
up1   13.3 6.8 67.4 82.9 87.9 2.0
up2   13.4 6.7 67.8 82.9 87.8 1.4
"""
PLACE_SINTEL = """
none  31.1 24.7 21.4 45.8 58.9 6.2
down1 31.0 24.3 21.4 46.6 59.6 3.8
down2 31.2 24.9 21.2 45.7 58.7 7.8
down3 31.1 24.5 21.2 46.2 59.3 6.0
mid   31.0 24.3 21.5 46.6 59.7 3.2
up0   30.7 23.8 21.5 47.5 60.5 1.4
up1   30.7 23.9 23.5 47.5 60.1 1.4
up2   31.1 24.3 21.7 46.7 59.5 3.6
"""
TABLES = [NYUV2, IBIMS, SCANNET, SINTEL, ABLATION_SCANNET, ABLATION_SINTEL, PLACE_SCANNET, PLACE_SINTEL]


def tidy(text, protocol="p"):
    rows, printed = [], {}
    for line in text.split("\n"):
        if line.strip():
            model, *numbers, rank = line.split()
            printed[model] = float(rank)
            rows += [(protocol, model, metric, float(x)) for metric, x in zip(METRICS, numbers, strict=True)]
    return pd.DataFrame(rows, columns=["protocol", "model", "metric", "value"]), printed


@pytest.mark.parametrize("text", TABLES)
def test_every_printed_rank_of_the_paper_comes_out(text):
    values, printed = tidy(text)
    ranks = average_rank(values)
    assert ranks["p"].round(9).to_dict() == printed
    assert ranks["overall"].equals(ranks["p"].rename("overall"))


@pytest.mark.parametrize("method", ["average", "dense", "max", "ordinal"])
def test_no_other_rule_for_ties_gives_the_printed_ranks(method):
    values, printed = tidy(NYUV2)
    wide = values.pivot(index="model", columns="metric", values="value")
    signed = wide * [1 if lower_is_better(name) else -1 for name in wide.columns]
    ranks = scipy.stats.rankdata(signed.to_numpy(), method=method, axis=0).mean(axis=1)
    assert dict(zip(wide.index, ranks.round(9), strict=True)) != printed


def test_over_protocols_it_is_the_mean_over_all_columns():
    parts = [tidy(text, name)[0] for name, text in (("nyuv2", NYUV2), ("sintel", SINTEL))]
    ranks = average_rank(pd.concat(parts))
    np.testing.assert_allclose(ranks["overall"], (ranks["nyuv2"] + ranks["sintel"]) / 2)
    assert list(ranks.columns) == ["nyuv2", "sintel", "overall"]


def test_a_model_without_all_values_has_no_rank_and_takes_no_place():
    whole, _ = tidy(NYUV2)
    partial = whole[~((whole["model"] == "NormalCrafter") & (whole["metric"] == "mean"))]
    with_nan = whole.assign(value=whole["value"].where(whole.index.isin(partial.index)))
    without = average_rank(whole[whole["model"] != "NormalCrafter"])
    for values in (partial, with_nan):
        ranks = average_rank(values)
        assert np.isnan(ranks.loc["NormalCrafter", "p"])
        assert np.isnan(ranks.loc["NormalCrafter", "overall"])
        pd.testing.assert_frame_equal(ranks.drop(index="NormalCrafter"), without)


def test_a_model_of_one_protocol_is_ranked_there_but_not_overall():
    nyuv2, sintel = tidy(NYUV2, "nyuv2")[0], tidy(SINTEL, "sintel")[0]
    ranks = average_rank(pd.concat([nyuv2, sintel[sintel["model"] != "NormalCrafter"]]))
    assert ranks.loc["NormalCrafter", "nyuv2"] == pytest.approx(1.2)
    assert ranks.loc["NormalCrafter", ["sintel", "overall"]].isna().all()
    both = pd.concat([part[part["model"] != "NormalCrafter"] for part in (nyuv2, sintel)])
    expected = average_rank(both)["overall"]
    pd.testing.assert_series_equal(ranks["overall"].drop("NormalCrafter"), expected)


def test_values_that_print_alike_tie():
    rows = [("p", "a", "mean", 16.04), ("p", "b", "mean", 15.96), ("p", "c", "mean", 15.94)]
    values = pd.DataFrame(rows, columns=["protocol", "model", "metric", "value"])
    assert average_rank(values)["p"].to_dict() == {"a": 2.0, "b": 2.0, "c": 1.0}
    assert average_rank(values, decimals=2)["p"].to_dict() == {"a": 3.0, "b": 2.0, "c": 1.0}


def test_no_model_is_complete():
    rows = [("p", "a", "mean", 1.0), ("p", "b", "median", 1.0)]
    assert average_rank(pd.DataFrame(rows, columns=["protocol", "model", "metric", "value"])).isna().all(axis=None)


def test_bad_tables_are_refused():
    values, _ = tidy(NYUV2)
    with pytest.raises(ScoreError, match="'metric'"):
        average_rank(values.drop(columns="metric"))
    with pytest.raises(ScoreError, match="comes twice"):
        average_rank(pd.concat([values, values]))
    with pytest.raises(ScoreError, match="'overall'"):
        average_rank(values.assign(protocol="overall"))
