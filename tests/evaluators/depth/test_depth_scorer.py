"""The streaming scorer against the whole video in memory, and against what one could do to cheat it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.errors import ScoreError
from ncbench.evaluators.depth.options import DepthOptions
from ncbench.evaluators.depth.scorer import COLUMNS, DepthScorer
from ncbench.evaluators.flow.dis import DisFlow
from ncbench.evaluators.flow.gt import GtFlow
from ncbench.evaluators.flow.rigid import RigidFlow
from ncbench.evaluators.view import View

MAX = 7.0
ALL = ("abs_rel", "delta1", "opw", "tae")


def rendered(kind="room", seed=1, frames=4, height=96, width=128):
    scene = make_scene(kind, seed, frames, height, width)
    views = []
    for index in range(frames):
        frame = render_frame(scene, index)
        last = index + 1 == frames
        views.append(
            View(
                kind,
                index,
                frame.normal.astype(np.float32),
                frame.valid,
                image=frame.rgb,
                depth=frame.depth.astype(np.float32),
                flow=None if last else frame.flow.astype(np.float32),
                flow_to=None if last else index + 1,
                occluded=None if last else frame.occluded,
                intrinsics=frame.intrinsics,
                cam_to_world=frame.cam_to_world,
            )
        )
    return views


@pytest.fixture(scope="module")
def room():
    return rendered()


@pytest.fixture(scope="module")
def objects():
    return rendered("objects", 2, 3)


def score(clips, predict, flow=None, **options):
    """``predict(view)`` is asked twice, as a stream would be read twice."""
    scorer = DepthScorer(DepthOptions(**({"max_depth": MAX} | options)), flow)
    for step in (scorer.fit, scorer.add):
        for clip in clips:
            for view in clip:
                step(predict(view), view)
    return scorer


def true_disparity(view):
    return 1 / np.where(view.depth > 0, view.depth, np.inf)


def noisy(view):
    rng = np.random.default_rng(view.frame)
    return (0.3 * true_disparity(view) + 0.01 * rng.random(view.size) + 0.02 * view.frame).astype(np.float32)


def whole_video(clip, predict, max_depth):
    """Independent reference in the manner of the published script: stack, solve, clip, average frames (in torch)."""
    target = np.stack([view.depth.astype(np.float64) for view in clip])
    pred = np.clip(np.stack([predict(view).astype(np.float64) for view in clip]), 1e-3, None)
    valid = (target > 1e-3) & (target < max_depth)
    matrix = np.stack([pred[valid], np.ones(valid.sum())], -1)
    scale, shift = np.linalg.lstsq(matrix, 1 / target[valid], rcond=None)[0]
    depth = np.clip(1 / np.clip(scale * pred + shift, 1e-3, None), 1e-3, max_depth)
    depth, target, valid = (torch.from_numpy(part) for part in (depth, target, valid))
    count = valid.sum((-1, -2)).double()
    relative = torch.where(valid, (depth - target).abs() / target, 0).sum((-1, -2)) / count
    right = torch.where(valid, torch.maximum(depth / target, target / depth) < 1.25, False).sum((-1, -2)) / count
    return {"abs_rel": relative.mean().item(), "delta1": right.mean().item(), "scale": scale, "shift": shift}


def test_streaming_equals_the_stacked_video(room, objects):
    scorer = score([room, objects], noisy)
    references = {"room": whole_video(room, noisy, MAX), "objects": whole_video(objects, noisy, MAX)}
    summary = scorer.summary()
    for metric in ("abs_rel", "delta1"):
        expected = np.mean([reference[metric] for reference in references.values()])  # clips weigh the same
        assert summary[metric] == pytest.approx(expected, rel=1e-9)
    for name, fit in scorer.alignments().items():
        assert (fit.scale, fit.shift) == pytest.approx((references[name]["scale"], references[name]["shift"]), rel=1e-9)
    assert summary["unanswered"] == 0
    assert scorer.missing() == []


@pytest.mark.parametrize("align", ["video", "frame", "scale", "none"])
def test_the_truth_scores_zero(room, align):
    scorer = score([room], true_disparity, GtFlow(), align=align, metrics=ALL)
    summary = scorer.summary()
    assert summary["abs_rel"] < 1e-6
    assert summary["delta1"] == 1
    assert summary["opw_excess"] == pytest.approx(0, abs=1e-6)
    assert 0 < summary["opw"] < 0.1  # the camera moves: true depth changes along the flow
    assert summary["tae"] < 1.0  # rounding, occlusion, and a body that moves


def test_scale_and_shift_are_undone_for_a_video_and_flicker_is_not(room):
    steady = score([room], lambda view: 5 * true_disparity(view) + 3)
    assert steady.summary()["abs_rel"] < 1e-6
    assert steady.alignments()["room"].scale == pytest.approx(0.2)

    def flicker(view):
        return (1 + 0.2 * (view.frame % 2)) * true_disparity(view) + 1

    once, each = score([room], flicker), score([room], flicker, align="frame")
    assert once.summary()["abs_rel"] > 0.05
    assert each.summary()["abs_rel"] < 1e-6
    assert score([room], lambda view: 5 * true_disparity(view), align="scale").summary()["abs_rel"] < 1e-6
    assert score([room], lambda view: true_disparity(view) + 3, align="scale").summary()["abs_rel"] > 0.05


def test_metric_depth_is_taken_as_it_is(room):
    options = {"prediction": "depth", "align": "none"}
    assert score([room], lambda view: view.depth, **options).summary()["abs_rel"] < 1e-6
    summary = score([room], lambda view: 1.1 * view.depth, **options).summary()
    assert summary["abs_rel"] == pytest.approx(0.1, abs=0.01)  # a little less where it is clipped
    assert score([room], lambda view: 1.1 * view.depth, prediction="depth").summary()["abs_rel"] < 1e-6


def test_a_constant_wins_opw_and_pays_elsewhere(room):
    """Known since arXiv 2304.07435: no warping error of a constant, so never rank by it alone."""
    cheat = score([room], lambda view: np.full(view.size, 0.5), GtFlow(), metrics=ALL).summary()
    honest = score([room], lambda view: noisy(view) - 0.02 * view.frame, GtFlow(), metrics=ALL).summary()
    assert cheat["opw"] == pytest.approx(0, abs=1e-9)
    assert cheat["opw_excess"] < 0  # steadier than the truth: given away
    assert cheat["abs_rel"] > 2 * honest["abs_rel"]
    assert cheat["tae"] > 0.3


def test_no_answer_is_counted_and_costs_the_farthest_depth(room):
    def silent(view):
        pred = true_disparity(view)
        pred[:48] = np.nan
        return pred

    view = room[0]
    scorer = score([[view]], silent)
    valid = (view.depth > 1e-3) & (view.depth < MAX)
    top = valid.copy()
    top[48:] = False
    expected = (np.where(top, MAX / np.where(valid, view.depth, 1) - 1, 0)).sum() / valid.sum()
    summary = scorer.summary()
    assert summary["abs_rel"] == pytest.approx(expected, rel=1e-5)
    assert summary["unanswered"] == pytest.approx(top.sum() / valid.sum())
    assert scorer.alignments()["room"].scale == pytest.approx(1, rel=1e-5)  # fitted without them


def test_opw_by_hand(room):
    """Forward and backward, over the same pixels, with geometry as the flow."""
    from scipy.ndimage import map_coordinates

    from ncbench.evaluators.flow.checks import edge_distance_mask

    scorer = score([room[:2]], lambda view: view.depth, RigidFlow(), prediction="depth", align="none", metrics=("opw",))
    halves = []
    for one, two in ((room[0], room[1]), (room[1], room[0])):
        match = RigidFlow().match(one, two)
        rows, columns = np.mgrid[: one.size[0], : one.size[1]]
        places = np.stack([rows + match.flow[..., 1], columns + match.flow[..., 0]])
        warped = map_coordinates(two.depth.astype(np.float64), places, order=1, mode="nearest")
        disparity = 1 / one.depth.astype(np.float64)
        levels = ((disparity - disparity.min()) / np.ptp(disparity) * 255).astype(np.uint8)
        mask = match.visible & edge_distance_mask(levels)
        halves.append(np.abs(one.depth - warped)[mask].mean())
    assert max(room[0].depth.max(), room[1].depth.max()) < MAX
    assert scorer.summary()["opw"] == pytest.approx(np.mean(halves), rel=1e-4)


@pytest.mark.parametrize("mask", ["truth", "image", "paper", "none"])
def test_masks_of_opw(room, mask):
    scorer = score([room], noisy, DisFlow(), metrics=("opw",), opw_mask=mask)
    rows = scorer.rows().set_index("metric").loc[["opw"]]
    assert (rows["value"] > 0).all()
    assert rows["coverage"].between(0.02, 1).all()
    assert ("opw_excess" in scorer.summary()) == (mask == "truth")
    area = score([room], noisy, DisFlow(), metrics=("opw",), opw_mask=mask, opw_norm="area").rows()
    area = area.set_index("metric").loc[["opw"]]
    assert (area["value"] < rows["value"]).all()


def test_noise_shrinks_the_mask_of_the_paper_and_no_other(room):
    """Edges of the prediction leave out what the prediction spoils; divided by the area, it comes out better for it."""

    def spoilt(view):
        return true_disparity(view) * (1 + 0.6 * np.random.default_rng(view.frame).normal(size=view.size))

    def value(predict, mask, norm):
        scorer = score([room], predict, GtFlow(), metrics=("opw",), opw_mask=mask, opw_norm=norm)
        rows = scorer.rows().set_index("metric").loc[["opw"]]
        return rows["value"].mean(), rows["coverage"].mean()

    (paper, kept), (truth, all_kept) = value(spoilt, "paper", "area"), value(spoilt, "truth", "area")
    clean, _ = value(true_disparity, "paper", "area")
    assert kept < 0.05 < 0.3 < all_kept
    assert paper < clean < truth


def test_opw_in_disparity(room):
    scorer = score([room], lambda view: 3 * true_disparity(view), GtFlow(), metrics=("opw",), opw_map="disparity")
    assert 0 < scorer.summary()["opw"] < 0.05
    assert scorer.summary()["opw_excess"] == pytest.approx(0, abs=1e-6)


def test_rows_are_tidy(room, objects):
    scorer = score([room, objects], noisy, GtFlow(), metrics=ALL)
    rows = scorer.rows()
    assert tuple(rows.columns) == COLUMNS
    pairs, frames = rows[rows["other"].notna()], rows[rows["other"].isna()]
    assert len(frames) == 7 * 3
    assert set(frames["metric"]) == {"abs_rel", "delta1", "unanswered"}
    assert len(pairs) == (3 + 2) * 4
    assert (pairs["other"] == pairs["frame"] + 1).all()
    assert rows["coverage"].between(0, 1).all()
    assert (rows["pixels"] > 0).all()
    means = rows.groupby(["metric", "sequence"])["value"].mean().groupby("metric").mean()
    assert scorer.summary() == pytest.approx(means.to_dict())


def test_what_is_missing_is_listed_and_never_averaged_away(room, objects):
    bare = [replace(view, sequence="bare", cam_to_world=None, flow=None, flow_to=None) for view in objects]
    scorer = score([room, bare], noisy, GtFlow(), metrics=ALL)
    missing = scorer.missing()
    assert [(row["frame"], row["other"], row["metric"]) for row in missing] == [
        (0, 1, "opw"), (0, 1, "tae"), (1, 2, "opw"), (1, 2, "tae"),
    ]  # fmt: skip
    assert "no flow between frames 0 and 1" in missing[0]["reason"]
    assert "no poses" in missing[1]["reason"]
    summary = scorer.summary()
    assert math.isnan(summary["opw"])
    assert math.isnan(summary["tae"])
    assert not math.isnan(summary["abs_rel"])


def test_a_frame_without_valid_truth_is_left_out_of_the_mean(room):
    """As in the published script: such a frame does not count, and the rest does."""
    blank = replace(room[1], depth=np.full(room[1].size, 99, np.float32))
    scorer = score([[room[0], blank, room[2]]], noisy, metrics=("abs_rel", "tae"))
    assert [(row["frame"], row["metric"]) for row in scorer.missing()] == [(1, "unanswered"), (1, "abs_rel")]
    assert scorer.summary()["abs_rel"] == pytest.approx(whole_video([room[0], room[2]], noisy, MAX)["abs_rel"])
    empty = score([[blank]], noisy, metrics=("abs_rel", "tae"))
    assert [row["metric"] for row in empty.missing()] == ["abs_rel", "tae"]
    assert all(math.isnan(value) for value in empty.summary().values())


def test_a_flow_that_explains_nothing_is_not_trusted(room):
    class Still(DisFlow):
        def match(self, a, b):
            return replace(super().match(a, b), flow=np.zeros((*a.size, 2), np.float32))

    scorer = score([room], noisy, Still(), metrics=("opw",))
    assert len(scorer.missing()) == 3
    assert "no better than standing still" in scorer.missing()[0]["reason"]


def test_long_motion_is_warned_of(room):
    class Far(DisFlow):
        def match(self, a, b):
            match = super().match(a, b)
            match.flow[:3] = 40
            return match

    scorer = score([room[:2]], noisy, Far(), metrics=("opw",))
    assert len(scorer.warnings()) == 1
    assert scorer.warnings()[0].startswith("sequence 'room', frame 0 to 1: 3% of the pixels move by more than 30")


def test_calls_out_of_order_are_refused(room, objects):
    options = DepthOptions(max_depth=MAX)
    with pytest.raises(ScoreError, match="'opw' needs a flow source"):
        DepthScorer(DepthOptions(max_depth=MAX, metrics=("opw",)))
    scorer = DepthScorer(options)
    with pytest.raises(ScoreError, match="frame 0: was not fitted"):
        scorer.add(noisy(room[0]), room[0])
    scorer = DepthScorer(options)
    scorer.fit(noisy(room[0]), room[0])
    with pytest.raises(ScoreError, match="fitted before"):
        scorer.fit(noisy(room[0]), room[0])
    scorer.fit(noisy(room[1]), room[1])
    scorer.fit(noisy(objects[0]), objects[0])
    scorer.add(noisy(room[0]), room[0])
    with pytest.raises(ScoreError, match=r"2 clips were fitted and not scored to the end; sequence 'room' lacks \[1\]"):
        scorer.summary()
    scorer.add(noisy(objects[0]), objects[0])
    with pytest.raises(ScoreError, match="comes after frames of another sequence"):
        scorer.add(noisy(room[1]), room[1])
    free = DepthScorer(DepthOptions(max_depth=MAX, align="none"))
    free.add(noisy(room[1]), room[1])
    with pytest.raises(ScoreError, match="frame 0: comes after frame 1"):
        free.add(noisy(room[0]), room[0])


def test_sizes_and_depth_are_checked(room):
    scorer = DepthScorer(DepthOptions(max_depth=MAX))
    with pytest.raises(ScoreError, match=r"expected a prediction of \(96, 128\), got \(48, 64\)"):
        scorer.fit(np.ones((48, 64)), room[0])
    with pytest.raises(ScoreError, match="the truth has none"):
        scorer.fit(np.ones((96, 128)), replace(room[0], depth=None))


def test_edges_of_a_picture_need_one(room):
    blind = [replace(view, image=None) for view in room[:2]]
    scorer = score([blind], noisy, GtFlow(), metrics=("opw",), opw_mask="image")
    assert "opw_mask 'image' needs a picture" in scorer.missing()[0]["reason"]
