"""The slice table against plain numpy over the same pixels."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.errors import ScoreError
from ncbench.evaluators.slices.base import Slice
from ncbench.evaluators.slices.hardest import hardest
from ncbench.evaluators.slices.scorer import SliceScorer
from ncbench.evaluators.slices.standard import SLICES, named_slices
from ncbench.evaluators.view import View

THRESHOLDS = (5.0, 11.25, 30.0)


def column_slice(name, bins):
    return Slice(name, bins, (f"extra.{name}",), lambda view, _: view.extra[name])


def random_view(rng, frame, height=13, width=17, **extra):
    normal = rng.normal(size=(height, width, 3)).astype(np.float32)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    preds = normal + rng.uniform(0, 1.5) * rng.normal(size=normal.shape).astype(np.float32)
    return preds, View(sequence="s", frame=frame, normal=normal, valid=rng.random((height, width)) < 0.8, extra=extra)


def plain_errors(preds, view):
    a, b = preds[view.valid].astype(float), view.normal[view.valid].astype(float)
    with np.errstate(invalid="ignore"):
        error = np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(1)))
    return np.where(np.isfinite(a).all(1) & (a != 0).any(1), error, 90.0)


def expected_row(errors):
    within = [100 * np.mean(errors < threshold) for threshold in THRESHOLDS]
    return [errors.mean(), np.median(errors), math.sqrt(np.mean(errors**2)), *within]


METRICS = ["mean", "median", "rmse", "within_5", "within_11_25", "within_30"]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_every_bin_is_what_numpy_says_of_its_pixels(seed, frames):
    rng = np.random.default_rng(seed)
    scorer = SliceScorer([column_slice("kind", ("a", "b", "c"))], THRESHOLDS, 90.0)
    errors, labels = [], []
    for frame in range(frames):
        kind = rng.integers(-1, 3, (13, 17)).astype(np.int8)
        preds, view = random_view(rng, frame, kind=kind)
        preds[0, :3] = [[0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 0]]
        scorer.add(preds, view)
        errors.append(plain_errors(preds, view))
        labels.append(kind[view.valid])
    errors, labels = np.concatenate(errors), np.concatenate(labels)
    table = scorer.frame()
    assert table["slice"].tolist() == ["all"] + ["kind"] * 4
    assert table["bin"].tolist() == ["all", "a", "b", "c", "not applicable"]
    for row, chosen in zip(
        table.itertuples(), [labels > -9, labels == 0, labels == 1, labels == 2, labels == -1], strict=True
    ):
        assert row.pixels == chosen.sum()
        assert row.share == pytest.approx(chosen.mean())
        wanted = expected_row(errors[chosen])
        got = [getattr(row, name) for name in METRICS]
        assert np.delete(got, 1) == pytest.approx(np.delete(wanted, 1), abs=1e-6)
        below = np.mean(errors[chosen] <= row.median + 0.01), np.mean(errors[chosen] < row.median - 0.01)
        assert below[0] >= 0.5 >= below[1], "the median is within a bin"
    assert table["frames"].eq(frames).all()


def test_rows_of_all_shipped_slices_add_up_on_a_rendered_clip():
    scene = make_scene("objects", 1, 4, 48, 64)
    scorer, pixels = SliceScorer(named_slices(SLICES), THRESHOLDS, 90.0), 0
    rng = np.random.default_rng(0)
    for index in range(4):
        frame = render_frame(scene, index)
        last = index == 3
        view = View(
            sequence="clip",
            frame=10 * index,
            normal=frame.normal.astype(np.float32),
            valid=frame.valid,
            depth=frame.depth.astype(np.float32),
            flow=None if last else frame.flow.astype(np.float32),
            occluded=None if last else frame.occluded,
            flow_to=None if last else 10 * (index + 1),
            intrinsics=frame.intrinsics,
        )
        scorer.add(frame.normal + 0.1 * rng.normal(size=frame.normal.shape), view)
        pixels += int(frame.valid.sum())
    table = scorer.frame()
    assert table.loc[0, "pixels"] == pixels
    for _, rows in table.groupby("slice"):
        assert rows["pixels"].sum() == pixels
        assert rows["share"].sum() == pytest.approx(1)
        full = rows[rows["pixels"] > 0]
        assert np.average(full["mean"], weights=full["pixels"]) == pytest.approx(table.loc[0, "mean"])
    by_slice = table.groupby("slice").first()
    assert by_slice.loc["depth", ["frames", "note"]].tolist() == [4, ""]
    assert by_slice.loc["motion", ["frames", "note"]].tolist() == [3, "no flow in 1 of 4 frames"]
    assert by_slice.loc["disocclusion", ["frames", "note"]].tolist() == [3, "no previous.flow in 1 of 4 frames"]
    assert by_slice.loc["plane", "frames"] == 0
    assert by_slice.loc["plane", "note"].startswith("no extra.mask_wall in 4 of 4 frames; no extra.mask_table")
    plane = table[table["slice"] == "plane"].set_index("bin")
    assert plane.loc["wall", "pixels"] == 0
    assert np.isnan(plane.loc["wall", "mean"])
    assert plane.loc["not applicable", "pixels"] == pixels


def test_the_frame_before_counts_only_where_its_flow_leads_here():
    looked = []

    def label(view, previous):
        looked.append(view.frame)
        return np.zeros(view.size, np.int8)

    scorer = SliceScorer([Slice("x", ("a",), ("previous.flow",), label)], THRESHOLDS, 90.0)
    rng = np.random.default_rng(1)
    flow = np.zeros((13, 17, 2), np.float32)
    for sequence, frame, to in [("a", 0, 1), ("a", 1, 2), ("a", 5, 6), ("b", 6, None), ("b", 7, None)]:
        preds, view = random_view(rng, frame)
        view = View(
            sequence=sequence,
            frame=frame,
            normal=view.normal,
            valid=view.valid,
            flow=None if to is None else flow,
            flow_to=to,
        )
        scorer.add(preds, view)
    assert looked == [1]
    assert scorer.frame().iloc[-1]["note"] == "no previous.flow in 4 of 5 frames"


def test_parts_add_up_to_the_whole():
    rng = np.random.default_rng(2)
    stream = [random_view(rng, f, kind=rng.integers(-1, 2, (13, 17)).astype(np.int8)) for f in range(6)]
    stream += [random_view(rng, f) for f in range(6, 8)]
    one = column_slice("kind", ("a", "b"))

    def scored(part):
        scorer = SliceScorer([one], THRESHOLDS, 90.0)
        for preds, view in part:
            scorer.add(preds, view)
        return scorer

    merged = scored(stream[:3])
    merged += scored(stream[3:])
    whole = scored(stream).frame()
    pd.testing.assert_frame_equal(merged.frame(), whole)
    assert whole["note"].tolist()[1:] == ["no extra.kind in 2 of 8 frames"] * 3
    stored = {name: values.copy() for name, values in scored(stream[3:]).to_arrays().items()}
    again = scored(stream[:3])
    again.add_arrays(stored)
    pd.testing.assert_frame_equal(again.frame(), whole)
    with pytest.raises(ScoreError, match="do not add"):
        merged += SliceScorer([one], (5.0,), 90.0)
    with pytest.raises(ValueError, match="of other slices"):
        SliceScorer([column_slice("kind", ("a", "b", "c"))], THRESHOLDS, 90.0).add_arrays(stored)


def test_nothing_scored_is_an_empty_table_not_an_error():
    table = SliceScorer(named_slices(["depth"]), THRESHOLDS, 90.0).frame()
    assert table["pixels"].eq(0).all()
    assert table[METRICS].isna().all(axis=None)


def test_what_does_not_belong_is_refused():
    preds, view = random_view(np.random.default_rng(3), 0)
    scorer = SliceScorer(named_slices(["border"]), THRESHOLDS, 90.0)
    with pytest.raises(ScoreError, match=r"expected predictions of shape \(13, 17, 3\)"):
        scorer.add(preds[:-1], view)
    with pytest.raises(ScoreError, match="different names"):
        SliceScorer(named_slices(["border", "border"]), THRESHOLDS, 90.0)
    with pytest.raises(ScoreError, match="none of them 'all'"):
        SliceScorer([column_slice("all", ("a",))], THRESHOLDS, 90.0)


def frames_table():
    rows = [
        ("a", 0, "scored", 100, 10.0, 8.0, 12.0, 60.0),
        ("a", 1, "scored", 300, 30.0, 25.0, 33.0, 10.0),
        ("b", 0, "scored", 100, 26.0, 24.0, 28.0, 30.0),
        ("b", 1, "scored", 100, 26.0, 20.0, 30.0, 20.0),
        ("c", 0, "scored", 100, 50.0, 50.0, 50.0, 0.0),
        ("c", 1, "failed", 0, np.nan, np.nan, np.nan, np.nan),
        ("d", 0, "scored", 0, np.nan, np.nan, np.nan, np.nan),
    ]
    columns = ["sequence", "frame", "status", "pixels", "mean", "median", "rmse", "within_11_25"]
    return pd.DataFrame(rows, columns=columns)


def test_the_hardest_by_hand():
    found = hardest(frames_table(), 2)
    assert found.frames[["sequence", "frame", "mean"]].to_numpy().tolist() == [["c", 0, 50.0], ["a", 1, 30.0]]
    # c has a frame that failed, d has no pixel
    assert found.sequences.to_numpy().tolist() == [["b", 2, 200, 26.0], ["a", 2, 400, 25.0]]
    rmse = hardest(frames_table(), 5, by="rmse").sequences.set_index("sequence")["rmse"]
    assert rmse.to_dict() == pytest.approx({"a": math.sqrt((144 + 3 * 1089) / 4), "b": math.sqrt((784 + 900) / 2)})
    within = hardest(frames_table(), 1, by="within_11_25")
    assert within.sequences.to_numpy().tolist() == [["a", 2, 400, 22.5]]
    assert within.frames["sequence"].tolist() == ["c"]
    assert hardest(frames_table(), 1, by="median").sequences["median"].tolist() == [22.0]
    assert hardest(frames_table().iloc[:0], 3).sequences.empty


def test_the_hardest_needs_a_metric():
    with pytest.raises(ScoreError, match="Did you mean 'mean'"):
        hardest(frames_table(), 1, by="meen")
    with pytest.raises(ScoreError, match="n is 0"):
        hardest(frames_table(), 0)
    with pytest.raises(ScoreError, match="pixels"):
        hardest(frames_table().drop(columns="pixels"), 1)
