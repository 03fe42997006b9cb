"""Each source against exact motion: the renderer's, and real pairs with true flow or geometry."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ncbench.datasets.formats.sintel import read_flo
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.errors import ScoreError
from ncbench.evaluators.flow.checks import cycle_consistent, warp_beats_zero
from ncbench.evaluators.flow.dis import DisFlow, DisSettings
from ncbench.evaluators.flow.gt import GtFlow
from ncbench.evaluators.flow.rigid import RigidFlow, RigidSettings
from ncbench.evaluators.view import View
from ncbench.geometry.warp import backward_warp

ALLEY = Path(__file__).resolve().parents[3].parent / "shared" / "real" / "sintel" / "alley_1"


def view_of_render(scene, index):
    frame = render_frame(scene, index)
    last = index + 1 == scene.frames
    return View(
        sequence="clip",
        frame=index,
        normal=frame.normal.astype(np.float32),
        valid=frame.valid,
        image=frame.rgb,
        depth=frame.depth.astype(np.float32),
        flow=None if last else frame.flow.astype(np.float32),
        flow_to=None if last else index + 1,
        occluded=None if last else frame.occluded,
        intrinsics=frame.intrinsics,
        cam_to_world=frame.cam_to_world,
    )


def plain_view(image, frame=0, **parts):
    size = image.shape[:2]
    return View("clip", frame, np.zeros((*size, 3), np.float32), np.zeros(size, bool), image=image, **parts)


@pytest.fixture(scope="module")
def clip():
    """Four frames of a room: a moving camera, and bodies of which some move."""
    scene = make_scene("room", 1, 4, 144, 192)
    return [view_of_render(scene, index) for index in range(4)]


def end_point_error(flow, truth, mask):
    return float(np.linalg.norm(flow - truth, axis=-1)[mask].mean())


def test_gt_gives_the_files_flow(clip):
    match = GtFlow().match(clip[0], clip[1])
    np.testing.assert_array_equal(match.flow, clip[0].flow)
    np.testing.assert_array_equal(match.visible, ~clip[0].occluded)
    assert (GtFlow().name, GtFlow().estimated) == ("gt", False)


def test_gt_backward_agrees_with_geometry(clip):
    """The room's walls stand still: their backward motion follows from depth and poses."""
    back, rigid = GtFlow().match(clip[1], clip[0]), RigidFlow().match(clip[1], clip[0])
    both = back.visible & rigid.visible
    assert both.sum() > 0.8 * both.size
    assert np.median(np.linalg.norm(back.flow - rigid.flow, axis=-1)[both]) < 0.005
    assert (both & cycle_consistent(back.flow, clip[0].flow, 0.01)).sum() > 0.98 * both.sum()
    np.testing.assert_array_equal(back.visible, np.isfinite(back.flow).all(-1))


def test_gt_without_occlusion_does_not_guess_it(clip):
    bare = replace(clip[0], occluded=None)
    assert GtFlow().match(bare, clip[1]).visible is None
    assert GtFlow().match(clip[1], bare).visible is None


def test_gt_knows_neighbours_alone(clip):
    with pytest.raises(ScoreError, match="no flow between frames 0 and 2. Use source 'rigid'"):
        GtFlow().match(clip[0], clip[2])
    with pytest.raises(ScoreError, match="no flow between"):
        GtFlow().match(clip[0], replace(clip[1], sequence="another"))


def test_rigid_matches_the_renderer_where_nothing_moves(clip):
    truth, match = GtFlow().match(clip[0], clip[1]), RigidFlow().match(clip[0], clip[1])
    both = truth.visible & match.visible
    distance = np.linalg.norm(match.flow - truth.flow, axis=-1)[both]
    assert np.median(distance) < 1e-4
    assert both.sum() > 0.9 * truth.visible.sum()


def test_rigid_reaches_across_frames(clip):
    """0 to 3 equals the steps 0 to 1 to 2 to 3 where all are visible and nothing moves."""
    direct = RigidFlow().match(clip[0], clip[3])
    chained, seen = np.zeros_like(direct.flow), np.ones(direct.visible.shape, bool)
    for k in range(3):
        step = RigidFlow().match(clip[k], clip[k + 1])
        moved, inside = backward_warp(np.where(step.visible[..., None], step.flow, np.nan), chained)
        chained, seen = chained + moved, seen & inside & np.isfinite(moved).all(-1)
    both = seen & direct.visible
    assert both.sum() > 0.5 * both.size
    assert np.median(np.linalg.norm(chained - direct.flow, axis=-1)[both]) < 0.01


def test_rigid_says_what_is_missing(clip):
    with pytest.raises(ScoreError, match="frame 1: flow source 'rigid' needs .*; missing: depth, a pose"):
        RigidFlow().match(clip[0], replace(clip[1], depth=None, cam_to_world=None))
    with pytest.raises(ScoreError, match="one sequence and size"):
        RigidFlow().match(clip[0], replace(clip[1], sequence="another"))
    assert RigidFlow().name == "rigid"
    assert RigidFlow(RigidSettings(tolerance=0.05)).name == "rigid-0.05"


def test_dis_on_the_renderer(clip):
    """Small motion: within half a pixel, better at full scale, and no match for the truth."""
    truth = GtFlow().match(clip[0], clip[1])
    error = {
        finest: end_point_error(
            DisFlow(DisSettings(finest_scale=finest)).match(*clip[:2]).flow, truth.flow, truth.visible
        )
        for finest in (None, 0)
    }
    still = end_point_error(np.zeros_like(truth.flow), truth.flow, truth.visible)
    assert error[0] <= error[None] < 0.5 < still
    assert warp_beats_zero(clip[0].image, clip[1].image, DisFlow().match(*clip[:2]).flow).passed


def test_dis_is_named_by_its_settings_and_ignores_threads(clip):
    assert DisFlow().name == "dis-medium"
    assert DisFlow(DisSettings(finest_scale=0)).name == "dis-medium-scale0"
    assert DisFlow().estimated
    threads = cv2.getNumThreads()
    try:
        flows = []
        for count in (1, 3):
            cv2.setNumThreads(count)
            flows.append(DisFlow().match(*clip[:2]))
        np.testing.assert_array_equal(flows[0].flow, flows[1].flow)
        assert flows[0].visible is None
    finally:
        cv2.setNumThreads(threads)


def test_dis_needs_two_pictures_of_one_size(clip):
    with pytest.raises(ScoreError, match="frame 1: flow source 'dis-medium' looks at pictures, and there is none"):
        DisFlow().match(clip[0], replace(clip[1], image=None))
    with pytest.raises(ScoreError, match="pictures of one size"):
        DisFlow().match(clip[0], plain_view(np.zeros((50, 60, 3), np.uint8), 1))
    small = plain_view(np.zeros((11, 60, 3), np.uint8))
    with pytest.raises(ScoreError, match=r"at least 12 x 12 pixels, got \(11, 60\)"):
        DisFlow().match(small, small)


@pytest.fixture(scope="module")
def alley():
    """Frames 1 and 2 of Sintel's alley_1, and the true flow between them."""
    if not ALLEY.is_dir():
        pytest.skip("the real files are not here")
    flow = read_flo(ALLEY / "flow" / "frame_0001.flo")
    images = [cv2.imread(str(ALLEY / "rgb" / f"frame_{k:04d}.png"))[..., ::-1].copy() for k in (1, 2)]
    return plain_view(images[0], 1, flow=flow, flow_to=2), plain_view(images[1], 2)


@pytest.mark.real
def test_the_true_flow_of_sintel_explains_the_next_picture(alley):
    """Measured elsewhere on the same pair: mean absolute error 2.61 warped, 10.04 unwarped."""
    check = warp_beats_zero(alley[0].image, alley[1].image, GtFlow().match(*alley).flow)
    assert check.warped == pytest.approx(2.61, abs=0.1)
    assert check.still == pytest.approx(10.04, abs=0.1)


@pytest.mark.real
@pytest.mark.parametrize(("finest", "worst"), [(None, 0.35), (0, 0.32)])
def test_dis_on_sintel(alley, finest, worst):
    """Measured elsewhere: 0.28 pixels over what stays visible."""
    truth = alley[0].flow
    there = DisFlow(DisSettings(finest_scale=finest)).match(*alley)
    back = GtFlow().match(alley[1], alley[0])
    # no occlusion map lies here: what the true flow and its inverse agree on is visible in both
    seen = cycle_consistent(truth, np.nan_to_num(back.flow, nan=1e6), 0.5)
    assert seen.mean() > 0.8
    assert end_point_error(there.flow, truth, seen) < worst
