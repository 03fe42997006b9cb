"""The scorer on scenes whose truth is exact: the controls' pattern, masks, silence, missing inputs and memory."""

import gc
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ncbench.datasets.mini.rooms import make_scene
from ncbench.errors import CardError, ScoreError
from ncbench.evaluators.flow.base import Correspondence, FlowSource
from ncbench.evaluators.flow.dis import DisFlow
from ncbench.evaluators.flow.gt import GtFlow
from ncbench.evaluators.flow.rigid import RigidFlow
from ncbench.evaluators.temporal.controls import control_predictions, control_table, render_views, turning_room
from ncbench.evaluators.temporal.links import Moment
from ncbench.evaluators.temporal.options import TemporalOptions
from ncbench.evaluators.temporal.scorer import TemporalScorer
from ncbench.evaluators.view import View

SIZE = (72, 96)
RATES = (0, 1, 2)
RIGID = RigidFlow()


@pytest.fixture(scope="module")
def tables():
    options = TemporalOptions(rc_steps=(1, 4))
    return {rate: control_table(rate, 13, SIZE, RIGID, RIGID, options) for rate in RATES}


@pytest.fixture(scope="module")
def views():
    return render_views(turning_room(1, 13, *SIZE), "turn")


def scored(preds, views, options=None, flow=RIGID, rigid=RIGID):
    scorer = TemporalScorer(options or TemporalOptions(), flow, rigid)
    for pred, view in zip(preds, views, strict=True):
        scorer.add(pred, view)
    return scorer


def truth(views):
    return [view.normal for view in views]


def control(name, views):
    return dict(control_predictions(views))[name]


def chord(degrees):
    return 2 * math.sin(math.radians(degrees) / 2)


# the controls' pattern


def test_the_truth_is_perfect_but_for_opw(tables):
    for rate, table in tables.items():
        row = table.loc["gt"]
        assert row[["tge_deg", "dtheta_deg", "bfd_rmse", "bfd_bias", "bfd_flicker", "bfd_fast"]].abs().max() < 1e-3
        # what is left is interpolation on bent surfaces
        assert row[["rc_deg", "rc@1", "rc@4", "accel_deg"]].max() < 0.05
        assert row["opw"] == pytest.approx(row["opw_truth"], abs=1e-7)
        assert row["opw_excess"] == pytest.approx(0, abs=1e-7)
        # 0.0206 a degree were the normals spread evenly: half the row lengths of R - I for the axis (1, 1, 1)
        assert row["opw"] == pytest.approx(0.0206 * rate, rel=0.25, abs=1e-3)


def test_a_constant_wins_opw_and_loses_bfd(tables):
    for rate, table in tables.items():
        row = table.loc["constant"]
        assert row["opw"] < 1e-12
        assert row["opw"] <= table["opw"].min()
        # the z axis and the axis of rotation enclose an angle with squared sine 2/3
        swing = chord(rate) * math.sqrt(2 / 3)
        assert row["rc_deg"] == pytest.approx(math.degrees(2 * math.asin(swing / 2)), abs=1e-4)
        # its own swing in the world, and half a pixel of bent surfaces, which are many in so small a picture
        assert row["bfd_fast"] == pytest.approx(math.degrees(swing) / math.sqrt(2), abs=1.6)
        others = table.drop(["constant", "absent"])
        assert row["bfd_rmse"] > others["bfd_rmse"].max()
        assert row["bfd_bias"] > others["bfd_bias"].max()


def test_flicker_reads_the_same_at_any_rotation_except_in_opw(tables):
    rows = [table.loc["flicker5"] for table in tables.values()]
    for name in ("rc_deg", "tge_deg", "bfd_flicker", "bfd_fast", "rc@4"):
        values = [row[name] for row in rows]
        assert max(values) < 1.1 * min(values), name
    for row in rows:
        # a turn by 5 degrees about a random axis moves a normal by 2 sin(2.5 deg) sqrt(2/3), root mean square
        expected = math.degrees(chord(5)) * math.sqrt(2 / 3)
        assert row["bfd_flicker"] == pytest.approx(expected, rel=0.12)
        assert row["bfd_rmse"] == pytest.approx(expected, rel=0.12)
        assert row["bfd_bias"] < 0.4 * expected  # the frames are few, and the truth has none
    assert rows[2]["opw"] < 1.2 * rows[0]["opw"]


def test_noise_of_single_pixels_is_not_averaged_away(tables):
    """Two components of noise lie in the tangent plane, new in every frame: sqrt(2) 0.05 of flicker, all of it fast."""
    for table in tables.values():
        row = table.loc["noise"]
        for name in ("bfd_rmse", "bfd_flicker", "bfd_fast"):
            assert row[name] == pytest.approx(math.degrees(0.05 * math.sqrt(2)), rel=0.04), name
        assert row["bfd_bias"] < 0.5


def test_a_bias_shows_as_bias_and_blur_and_lag_pay(tables):
    for table in tables.values():
        row = table.loc["bias10"]
        assert row["bfd_bias"] > 5
        assert row["bfd_flicker"] < 1.5
        assert row["rc_deg"] < 0.5
        assert table.loc["blur", "bfd_rmse"] > 3
        assert table.loc["blur", "sharpness_ratio"] < 0.5
        assert table.loc["noise", "sharpness_ratio"] > 1
    assert tables[2].loc["lag", "rc_deg"] > 10 * tables[2].loc["gt", "rc_deg"]


def test_no_answer_is_charged_and_never_wins(tables):
    for table in tables.values():
        row, others = table.loc["absent"], table.drop("absent")
        assert row["opw"] == 2.0
        assert row["rc_deg"] == row["rc@4"] == 90.0
        assert row["bfd_flicker"] == pytest.approx(math.degrees(1))
        assert row["sharpness"] == 0
        for name in ("opw", "opw_excess", "rc_deg", "tge_deg", "dtheta_deg", "accel_deg", "rc@4", "bfd_flicker"):
            assert row[name] > others[name].max(), name
        assert row["bfd_rmse"] > others["bfd_rmse"].max()


@pytest.mark.parametrize("mask", ["truth", "image", "paper", "none"])
def test_leaving_out_the_worst_pixels_never_helps(views, mask):
    options = TemporalOptions(mask=mask, rc_steps=(1,))
    full = control("flicker5", views)
    rng = np.random.default_rng(3)
    holes = full * (rng.random(full.shape[:3]) < 0.9)[..., None]
    half = full.copy()
    half[:, :, 48:] = 0
    base = scored(full, views, options).summary()
    for silent in (holes, half):
        got = scored(silent, views, options)
        for name, value in got.summary().items():
            better = value > base[name] if name.startswith("sharp") else value < base[name]
            assert not better, name
        if mask in ("truth", "image"):  # silence does not change which pixels count
            assert got.coverage() == scored(full, views, options).coverage()


def test_metrics_do_not_depend_on_the_choice_of_the_world(views):
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    turned[:3, 3] = (4, -5, 6)
    elsewhere = [replace(view, cam_to_world=turned @ view.cam_to_world) for view in views]
    preds = control("flicker5", views)
    here, there = scored(preds, views).summary(), scored(preds, elsewhere).summary()
    assert there == pytest.approx(here, rel=1e-3)


# masks and sources


def test_sources_agree_on_a_scene_at_rest(views):
    preds = control("flicker5", views)
    options = TemporalOptions(metrics=("opw", "rc", "tge", "bfd"))
    by_rigid = scored(preds, views, options)
    by_gt = scored(preds, views, options, GtFlow())
    chained = scored(preds, views, options, GtFlow(), None)
    for other in (by_gt, chained):
        for name, value in by_rigid.summary().items():
            assert other.summary()[name] == pytest.approx(value, rel=0.05, abs=0.06), name
    estimated = scored(preds, views, options, DisFlow())
    assert estimated.summary()["tge_deg"] == pytest.approx(by_rigid.summary()["tge_deg"], rel=0.05)
    assert estimated.coverage()["tge_deg"] > 0.3


def test_noise_games_the_papers_mask_and_no_other(views):
    clean, noisy = truth(views), control("noise", views)
    noisy = [np.where(np.random.default_rng(k).random((*SIZE, 1)) < 0.5, n, -n) for k, n in enumerate(noisy)]
    by_paper = TemporalOptions(metrics=("opw",), mask="paper", norm="area")
    honest = TemporalOptions(metrics=("opw",))
    game, fair = scored(noisy, views, by_paper), scored(noisy, views, honest)
    assert game.summary().get("opw", 0.0) < 0.01  # hardly a pixel is left, and the area divides
    assert game.coverage().get("opw", 0.0) < 0.01
    assert fair.summary()["opw"] > 1
    assert fair.coverage() == scored(clean, views, honest).coverage()
    assert "mask 'truth'" in game.missing()["opw_excess"]


def test_the_area_norm_is_the_mask_norm_times_coverage(views):
    preds = control("flicker5", views)
    rows = {
        norm: scored(preds, views, TemporalOptions(metrics=("opw",), norm=norm)).rows()[0] for norm in ("mask", "area")
    }
    row = rows["mask"]
    assert 0.2 < row["coverage"] < 1
    assert rows["area"]["value"] == pytest.approx(row["value"] * row["coverage"], rel=0.02)


def test_opw_by_hand_on_two_frames(views):
    a, b = views[:2]
    preds = control("noise", views)[:2].astype(np.float64)
    moved = {}
    for one, other, ours, theirs in ((a, b, preds[0], preds[1]), (b, a, preds[1], preds[0])):
        match = RIGID.match(one, other)
        total, count = 0.0, 0
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                x, y = match.flow[row, column].astype(np.float64) + np.array([column, row])
                if not (0 <= x <= SIZE[1] - 1 and 0 <= y <= SIZE[0] - 1):
                    continue
                left, top = min(int(x), SIZE[1] - 2), min(int(y), SIZE[0] - 2)
                fx, fy = x - left, y - top
                mixed = (1 - fy) * ((1 - fx) * theirs[top, left] + fx * theirs[top, left + 1])
                mixed += fy * ((1 - fx) * theirs[top + 1, left] + fx * theirs[top + 1, left + 1])
                total += np.abs(ours[row, column] - mixed).sum()
                count += 1
        moved[one.frame] = total / count
    got = scored(preds, [a, b], TemporalOptions(metrics=("opw",), mask="none")).summary()["opw"]
    assert got == pytest.approx((moved[0] + moved[1]) / 2, rel=1e-5)


def test_what_moves_by_itself_is_left_out_of_rc_and_kept_in_tge():
    scene = make_scene("objects", 1, 4, 96, 128)  # a box turns amid the table, a ball flies round
    moving = render_views(scene, "toys")
    options = TemporalOptions(metrics=("rc", "tge", "bfd"), track_window=4, track_stride=2, edge_distance=1)
    both = scored(truth(moving), moving, options, GtFlow())
    alone = scored(truth(moving), moving, options, GtFlow(), None)
    assert both.summary()["tge_deg"] == pytest.approx(0, abs=1e-3)
    assert both.summary()["bfd_rmse"] == pytest.approx(0, abs=1e-3)
    assert both.coverage()["rc_deg"] < both.coverage()["tge_deg"]
    assert alone.coverage()["rc_deg"] == alone.coverage()["tge_deg"]
    assert both.summary()["rc_deg"] < alone.summary()["rc_deg"]


class OneWay(FlowSource):
    """Knows motion forward alone, and not what is hidden."""

    name = "one-way"

    def match(self, a: View, b: View) -> Correspondence:
        if b.frame < a.frame:
            raise ScoreError("forward only")
        return Correspondence(RIGID.match(a, b).flow, None)


class Still(FlowSource):
    """Claims that nothing moves."""

    name = "still"
    estimated = True

    def match(self, a: View, b: View) -> Correspondence:
        return Correspondence(np.zeros((*a.size, 2), np.float32), None)


def test_one_way_stands_for_both_where_the_other_is_unknown(views):
    preds = control("flicker5", views)
    one, both = scored(preds, views, flow=OneWay()), scored(preds, views)
    assert one.summary()["opw"] == pytest.approx(both.summary()["opw"], rel=0.1)
    assert "backward" in one.missing()["accel_deg"]
    assert "opw" not in one.missing()


def test_an_estimate_that_explains_nothing_is_refused(views):
    scorer = scored(truth(views), views, flow=Still())
    assert "no better than no motion" in scorer.missing()["opw"]
    assert "rc@1" in scorer.summary()  # by depth and poses, whatever the estimate says


def test_a_long_motion_is_reported_for_classical_sources(views):
    class Far(FlowSource):
        name = "dis-far"

        def match(self, a, b):
            match = RIGID.match(a, b)
            return Correspondence(match.flow + 40, match.visible)

    assert "unreliable" in scored(truth(views)[:2], views[:2], flow=Far()).warnings()[0]
    assert scored(truth(views)[:2], views[:2]).warnings() == []


# what is missing


def test_each_absent_metric_says_why(views):
    bare = [replace(view, cam_to_world=None, depth=None) for view in views]
    scorer = scored(truth(views), bare, flow=GtFlow(), rigid=None)
    missing = scorer.missing()
    assert {"rc_deg", "tge_deg", "accel_deg", "bfd_rmse", "bfd_fast", "rc@1", "rc@16", "sharpness_ratio"} == {
        *missing
    } - {"rc@2", "rc@4", "rc@8", "bfd_bias", "bfd_flicker"}
    assert "poses" in missing["rc_deg"]
    assert "poses" in missing["bfd_rmse"]
    assert "depth and poses" in missing["rc@1"]
    assert "13 frames" in missing["rc@16"]
    assert {"opw", "opw_truth", "opw_excess", "dtheta_deg", "sharpness"} == {*scorer.summary()}
    assert not {row["metric"] for row in scorer.rows()} & {*missing}


def test_a_clip_without_truth_needs_the_picture_mask(views):
    wild = [
        View(view.sequence, view.frame, np.zeros((*SIZE, 3), np.float32), np.zeros(SIZE, bool), view.image)
        for view in views
    ]
    by_truth = scored(truth(views), wild, flow=DisFlow(), rigid=None)
    assert "mask 'image'" in by_truth.missing()["opw"]
    by_image = scored(truth(views), wild, TemporalOptions(mask="image"), DisFlow(), None)
    assert 0 < by_image.summary()["opw"] < 0.1
    assert {*by_image.summary()} == {"opw", "sharpness"}
    assert "true normal" in by_image.missing()["opw_truth"]
    with pytest.raises(ScoreError, match="needs the picture"):
        scored(truth(views), [replace(w, image=None) for w in wild], TemporalOptions(mask="image"))


def test_no_flow_source(views):
    scorer = scored(truth(views), views, flow=None, rigid=RIGID)
    assert "none is given" in scorer.missing()["opw"]
    assert scorer.summary()["bfd_rmse"] < 1e-3


def test_a_clip_that_is_too_short(views):
    alone = scored(truth(views)[:1], views[:1])
    assert {*alone.summary()} == {"sharpness"}
    assert "1 frames, and this needs 12" in alone.missing()["bfd_rmse"]
    assert "needs 3" in scored(truth(views)[:2], views[:2]).missing()["accel_deg"]
    assert TemporalScorer(TemporalOptions(), RIGID, RIGID).rows() == []


def test_a_pair_without_common_pixels_is_a_row_of_no_coverage(views):
    behind = np.diag([-1.0, 1, -1, 1])
    gone = [*views[:3], replace(views[3], cam_to_world=views[3].cam_to_world @ behind)]
    scorer = scored(truth(gone), gone, TemporalOptions(metrics=("rc",)))
    last = scorer.rows()[-1]
    assert (last["frame"], last["other"], last["coverage"], last["pixels"]) == (2, 3, 0.0, 0)
    assert math.isnan(last["value"])
    assert not math.isnan(scorer.summary()["rc_deg"])
    assert scorer.coverage()["rc_deg"] == pytest.approx(sum(row["coverage"] for row in scorer.rows()) / 3)


def test_rows_are_tidy(views):
    rows = scored(truth(views), views, TemporalOptions(rc_steps=(1, 4))).rows()
    assert {*rows[0]} == {"sequence", "frame", "other", "metric", "value", "coverage", "pixels"}
    count = {name: sum(row["metric"] == name for row in rows) for name in ("opw", "rc@4", "accel_deg", "bfd_rmse")}
    assert count == {"opw": 12, "rc@4": 9, "accel_deg": 11, "bfd_rmse": 1}
    window = next(row for row in rows if row["metric"] == "bfd_rmse")
    assert (window["frame"], window["other"]) == (0, 11)
    assert window["pixels"] == round(window["coverage"] * 18 * 24)
    step = next(row for row in rows if row["metric"] == "rc_deg")
    assert step["coverage"] == pytest.approx(step["pixels"] / (SIZE[0] * SIZE[1]))


# bad input, options, memory


def test_frames_must_follow_one_another(views):
    scorer = scored(truth(views)[:2], views[:2])
    for wrong in (views[1], replace(views[2], sequence="other")):
        with pytest.raises(ScoreError, match="expected a frame after 1"):
            scorer.add(wrong.normal, wrong)
    with pytest.raises(ScoreError, match="expected preds of shape"):
        scorer.add(views[2].normal[:-1], views[2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rc_steps": [2, 1]}, "ascending"),
        ({"rc_steps": []}, "ascending"),
        ({"metrics": ["opw", "opw"]}, "each once"),
        ({"metrics": ["opv"]}, "opw"),
        ({"mask": "trutth"}, "Did you mean 'truth'"),
        ({"track_window": 1}, "track_window"),
        ({"visibility": 0.03}, "unknown key"),
    ],
)
def test_bad_options(values, message):
    with pytest.raises(CardError, match=message):
        TemporalOptions.parse(values, "card")


def test_memory_does_not_grow_with_the_clip(views):
    options = TemporalOptions(rc_steps=(1, 4))
    alive = []
    scorer = TemporalScorer(options, RIGID, RIGID)
    for k in range(30):
        view = replace(views[k % 13], frame=k)
        scorer.add(view.normal, view)
        if k % 12 == 8:
            gc.collect()
            alive.append(sum(isinstance(thing, Moment) for thing in gc.get_objects()))
    assert alive[0] == alive[1]
    assert alive[0] <= 4 + 4  # the steps' frames, the latest link's two, the tracks' anchor
