"""The probe as a whole: every mistake is named, and nothing honest is blamed."""

import importlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ncbench.datasets.formats.images import read_depth_file
from ncbench.datasets.readers.motorcycle import SEQUENCE, MotorcycleReader, export_motorcycle
from ncbench.errors import ScoreError, SourceError
from ncbench.evaluators.probe import Probe, ProbeOptions, probe_frames
from ncbench.evaluators.view import View, view_of
from ncbench.geometry.axes import AXES, convert_axes
from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.geometry.plane_fit import normals_by_plane_fit

ROOT = Path(__file__).resolve().parents[3]
REAL = ROOT.parent / "shared" / "real" / "redwood_livingroom1"
QUIET = ("fits", "cannot_tell")
FRONTAL = np.array([0, 0, -1], np.float32)


def benchmark_module(name):
    """Import from ``benchmarks``, wherever pytest was started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        return importlib.import_module(f"benchmarks.{name}")


predictions = benchmark_module("probe_predictions")
mistakes = benchmark_module("probe_mistakes")
SIZE = {"frames": 5, "height": 64, "width": 88}


@pytest.fixture(scope="module")
def views():
    return predictions.clip("room", 1, **SIZE) + predictions.clip("objects", 2, **SIZE)


def probe(preds, views, axes="opencv", **options):
    tool = Probe(ProbeOptions(axes=axes, **options))
    for pred, view in zip(preds, views, strict=True):
        tool.add(np.asarray(pred, np.float32), view)
    return tool.diagnose()


@pytest.mark.parametrize("name", mistakes.MISTAKES)
def test_every_mistake_is_named(views, name):
    rng = np.random.default_rng(len(name))
    maps = predictions.noisy(views, rng, 8)
    trial, right = mistakes.MISTAKES[name](rng, views, maps)
    assert mistakes.detectable(name, trial, views, maps)
    found = mistakes.probe(trial)
    assert right(found), found
    assert found.fix
    assert found.message


@pytest.mark.parametrize("name", predictions.HONEST)
def test_honest_predictions_are_not_blamed(views, name):
    rng = np.random.default_rng(len(name))
    for level in (3, 25):
        chosen = views if level == 3 else mistakes.without_poses(views[:5])
        preds = predictions.HONEST[name](chosen, rng, level)
        files = [m @ mistakes.TO_FILE["dsine"].T for m in preds]
        found = mistakes.probe(mistakes.Trial(files, chosen, "dsine"))
        assert found.kind in QUIET, found
        assert not found.fatal
        assert found.fix == ""


def test_perfect_predictions_fit(views):
    found = probe([view.normal for view in views], views)
    assert (found.kind, found.axes, found.alternatives, found.frames) == ("fits", "opencv", (), 10)
    assert found.error_declared < 0.01
    found.require("anything")


def test_the_message_names_both_conventions_and_the_line_to_change(views):
    as_read = [convert_axes(convert_axes(view.normal, "opencv", "dsine"), "opengl", "opencv") for view in views]
    found = probe(as_read, views, axes="opengl")
    assert (found.kind, found.axes, found.fix, found.fatal) == ("axes", "dsine", "axes: dsine", True)
    assert "The card says axes: opengl" in found.message
    assert "your files are `dsine`" in found.message
    error = np.concatenate(
        [mistakes.angle(a, view.normal)[view.valid] for a, view in zip(as_read, views, strict=True)]
    ).mean()
    assert found.error_declared == pytest.approx(error, abs=1.5)
    with pytest.raises(ScoreError, match=r"theirs on rooms: .* Remedy: axes: dsine$"):
        found.require("theirs on rooms")


@pytest.mark.parametrize("direction", [(0.0, 0.0, -1.0), (0.0, -0.8, -0.6), (0.48, -0.6, -0.64)])
def test_a_single_wall_cannot_tell_even_where_it_is_read_wrongly(direction):
    """Another reading fits, but so do many: the truth does not vary."""
    wall = np.broadcast_to(np.array(direction, np.float32), (48, 64, 3)).copy()
    rng = np.random.default_rng(0)
    flat = tuple(View("a", k, wall, np.ones((48, 64), bool)) for k in range(4))
    for signs in ((1, 1, 1), (-1, 1, 1), (1, -1, 1)):
        maps = predictions.noisy(flat, rng, 5)
        assert probe([m * signs for m in maps], flat).kind == "cannot_tell"


def test_a_floor_leaves_the_sign_of_x_open():
    """A floor and a wall head-on look the same in opencv and ldf; the two others are still found wrong."""
    normal = np.broadcast_to(FRONTAL, (48, 64, 3)).copy()
    normal[24:] = (0, -1, 0)
    scene = tuple(View("a", k, normal, np.ones((48, 64), bool)) for k in range(4))
    found = probe([normal] * 4, scene)
    assert (found.kind, found.alternatives) == ("cannot_tell", ("ldf",))
    as_read = [convert_axes(normal, "dsine", "opencv")] * 4
    found = probe(as_read, scene, axes="opencv")
    assert found.kind == "axes"
    assert {found.axes, *found.alternatives} == {"dsine", "opengl"}
    assert found.fix == f"axes: {found.axes} or axes: {found.alternatives[0]}"


def test_nothing_to_look_at(views):
    assert Probe().diagnose().kind == "cannot_tell"
    nothing = [np.zeros_like(view.normal) for view in views]
    found = probe(nothing, views)
    assert (found.kind, found.frames) == ("cannot_tell", 0)
    assert probe([view.normal[:10] for view in views], views).frames == 0
    broken = [np.where(np.arange(88)[:, None] % 2, view.normal, np.nan) for view in views]
    assert probe(broken, views).kind == "fits"


def test_one_frame_is_enough_for_axes(views):
    found = probe([views[0].normal * [1, -1, -1]], views[:1])
    assert (found.kind, found.axes) == ("axes", "opengl")


def test_a_tilted_model_is_not_taken_for_world_axes(views):
    """One camera direction: world axes would be a single rotation of 30 degrees, which is a bias like any other."""
    turn = Rotation.from_euler("xyz", [20, 15, 10], degrees=True).as_matrix()
    pose = np.eye(4)
    pose[:3, :3] = turn
    still = tuple(replace(view, cam_to_world=pose) for view in views)
    assert probe([view.normal @ turn.T for view in views], still).kind in QUIET
    # the same files with cameras that turn cannot be a bias
    turned = []
    for k, view in enumerate(views):
        moved = np.eye(4)
        moved[:3, :3] = Rotation.from_euler("y", 6 * k - 30, degrees=True).as_matrix()
        turned.append(replace(view, cam_to_world=moved))
    files = [view.normal @ view.cam_to_world[:3, :3].T for view in turned]
    assert probe(files, turned).kind in ("world", *QUIET)
    wide = [replace(view, cam_to_world=view.cam_to_world @ view.cam_to_world) for view in turned]
    assert probe([view.normal @ view.cam_to_world[:3, :3].T for view in wide], wide).kind == "world"


def test_lengths_and_the_draw_do_not_matter(views):
    preds = [view.normal * [-1, 1, 1] * 0.3 for view in views]
    found = [probe(preds, views, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert {one.kind for one in found} == {"axes"}
    assert abs(found[0].error_declared - found[2].error_declared) < 2


def test_memory_is_bounded(views):
    tool = Probe(ProbeOptions(frames=4, placed_frames=4, pixels=100))
    for k in range(100):
        view = views[k % 5]
        tool.add(view.normal, View(view.sequence, k, view.normal, view.valid))
    found = tool.diagnose()
    assert found.frames <= 4
    assert found.pixels <= 400


def test_only_neighbours_are_compared_as_neighbours(views):
    """Frames that do not follow one another make no window, so that an offset cannot be found."""
    late = mistakes.stepped([view.normal for view in views], views, -1)
    tool = Probe()
    for pred, view in zip(late, views, strict=True):
        tool.add(pred, view, follows=False)
    assert tool.diagnose().kind in QUIET
    assert probe(late, views).kind == "frame_offset"


def test_frames_that_cannot_be_read_are_passed_over(views):
    by_place = {(view.sequence, view.frame): view for view in views}
    plan = {name: [view.frame for view in views if view.sequence == name] for name in ("room-1", "objects-2")}

    def read(sequence, frame):
        if frame == 2:
            raise SourceError("broken")
        view = by_place[sequence, frame]
        return -view.normal, None, view

    found = probe_frames(plan, read, ProbeOptions(axes="opencv"))
    assert (found.kind, found.axes, found.frames) == ("axes", "dsine", 8)
    assert probe_frames(plan, read, budget=6).frames == 4


@pytest.mark.parametrize("bad", [{"axes": "opngl"}, {"frames": 1}, {"placed_frames": 0}, {"pixels": 0}])
def test_bad_options_are_refused(bad):
    with pytest.raises(ScoreError, match="opengl" if "axes" in bad else "at least"):
        ProbeOptions(**bad)


@pytest.fixture(scope="module")
def motorcycle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motorcycle")
    export_motorcycle(folder, {})
    views = tuple(view_of(frame, None) for frame in MotorcycleReader(folder, {}).read(SEQUENCE, (0, 1)))
    preds = []
    for view in views:
        normal, valid = normals_by_cross_product(view.depth, pinhole_rays(view.intrinsics, *view.size))
        preds.append(np.where(valid[..., None], normal, FRONTAL))
    return views, preds


@pytest.mark.parametrize(("true", "declared"), list(itertools.product(AXES, AXES)))
def test_conventions_on_real_pictures(motorcycle, true, declared):
    """Normals of the measured depth by another method than the truth's; about 13 degrees off it."""
    views, preds = motorcycle
    as_read = [convert_axes(convert_axes(pred, "opencv", true), declared, "opencv") for pred in preds]
    found = probe(as_read, views, axes=declared)
    assert (found.kind, found.axes) == ("fits" if true == declared else "axes", true)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real sample files")
def test_conventions_on_a_real_scan():
    camera = json.loads((REAL / "camera_primesense.json").read_text())["intrinsic_matrix"]
    rays = pinhole_rays(np.array(camera, np.float64).reshape(3, 3).T, 480, 640)
    views, preds = [], []
    for k, path in enumerate(sorted((REAL / "depth").glob("*.png"))[:6]):
        depth = read_depth_file(path) / 1000
        normal, valid = normals_by_plane_fit(depth, rays, 7, 0.02)
        other, known = normals_by_cross_product(depth, rays)
        views.append(View("redwood", k, normal, valid))
        preds.append(np.where(known[..., None], other, FRONTAL))
    assert probe(preds, views).kind == "fits"
    for signs, name in (((1, -1, -1), "opengl"), ((-1, -1, -1), "dsine"), ((-1, 1, 1), "ldf")):
        found = probe([pred * np.float32(signs) for pred in preds], views)
        assert (found.kind, found.axes) == ("axes", name)
    assert probe([pred[..., ::-1] for pred in preds], views).kind == "bgr"
