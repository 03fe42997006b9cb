"""Label maps against closed forms, brute force, and rendered scenes with exact truth."""

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.errors import CardError, ScoreError
from ncbench.evaluators.slices.base import Slice, digitized, range_labels
from ncbench.evaluators.slices.depth_edges import depth_edges, edge_distance
from ncbench.evaluators.slices.standard import (
    SLICES,
    border_slice,
    class_slice,
    depth_edge_slice,
    depth_slice,
    disocclusion_slice,
    motion_slice,
    named_slices,
    occlusion_slice,
    plane_slice,
    slant_slice,
)
from ncbench.evaluators.slices.visibility import seen_before
from ncbench.evaluators.view import View
from ncbench.geometry.cameras import field_of_view_intrinsics, pinhole_rays
from ncbench.geometry.rigid_flow import occluded_by_depth, rigid_flow

HEIGHT, WIDTH = 60, 80


def view(**columns):
    shape = columns.pop("shape", (HEIGHT, WIDTH))
    normal = np.zeros((*shape, 3), np.float32)
    normal[..., 2] = -1
    defaults = {"sequence": "s", "frame": 0, "normal": normal, "valid": np.ones(shape, bool)}
    return View(**(defaults | columns))


def rendered(kind, index, scale=1):
    frame = render_frame(make_scene(kind, 0, 4, scale * HEIGHT, scale * WIDTH), index)
    columns = {name: getattr(frame, name).astype(np.float32) for name in ("normal", "depth", "flow")}
    return frame, View(
        sequence="s",
        frame=index,
        valid=frame.valid,
        occluded=frame.occluded,
        flow_to=index + 1,
        intrinsics=frame.intrinsics,
        **columns,
    )


def plane_depth(normal, distance):
    rays = pinhole_rays(field_of_view_intrinsics(HEIGHT, WIDTH, 60), HEIGHT, WIDTH)
    return (distance / (rays @ np.asarray(normal, float))).astype(np.float32)


@given(st.lists(st.floats(-5, 200), min_size=1, max_size=30))
def test_bins_are_half_open(values):
    edges = (0.0, 2.0, 5.0, 10.0)
    labels = digitized(np.array(values), edges)
    for value, label in zip(values, labels, strict=True):
        assert label == sum(value >= edge for edge in edges) - 1
    assert digitized(np.array([np.nan, np.inf]), edges).tolist() == [-1, 3]
    assert range_labels(edges, "px") == ("0-2 px", "2-5 px", "5-10 px", "10+ px")


def test_a_step_is_an_edge_on_both_sides_and_distances_count_from_there():
    depth = np.full((HEIGHT, WIDTH), 2, np.float32)
    depth[:, 40:] = 3
    columns = np.arange(WIDTH)
    expected = np.where(columns < 40, 39 - columns, columns - 40)
    np.testing.assert_array_equal(edge_distance(depth), np.broadcast_to(expected, depth.shape))
    labels = depth_edge_slice().label(view(depth=depth), None)
    np.testing.assert_array_equal(labels[0], np.select([expected < 2, expected < 5, expected < 10], [0, 1, 2], 3))
    assert not depth_edges(np.where(depth == 3, np.float32(2.09), depth)).any()
    assert depth_edges(np.where(depth == 3, np.float32(2.11), depth))[:, 39:41].all()


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.8, 0, 0.3), (0, 0.95, 0.08), (0.5, 0.6, 0.5)])
def test_a_plane_has_no_edge_however_slanted(normal):
    depth = plane_depth(normal, 1.0)
    depth = np.where(depth > 0, depth, 0).astype(np.float32)  # behind the camera: unknown
    assert not depth_edges(depth).any()


def test_a_grazing_floor_against_a_wall_shows_only_its_far_step():
    floor = plane_depth((0, 1, 0.02), 1.0)
    depth = np.where((floor > 0) & (floor < 8), floor, 20).astype(np.float32)
    ratio = depth[:-1] / depth[1:]
    assert (ratio[(depth[:-1] < 8)] > 1.05).any(), "without looking at the slope the floor itself would be edges"
    expected = np.zeros(depth.shape, bool)
    step = (depth[:-1] == 20) & (depth[1:] < 20)
    expected[:-1] |= step
    expected[1:] |= step
    found = depth_edges(depth)
    vertical = found[:, 5:-5]
    np.testing.assert_array_equal(vertical, expected[:, 5:-5])


def test_thin_things_and_mixed_pixels_are_edges():
    depth = np.full((5, 20), 4, np.float32)
    depth[:, 8] = 2  # a pole
    depth[:, 14] = 3  # a pixel between 4 and 2
    depth[:, 15:] = 2
    edges = depth_edges(depth)
    np.testing.assert_array_equal(np.flatnonzero(edges[2]), [7, 8, 9, 13, 14, 15])


def test_unknown_depth_is_no_edge_and_not_applicable():
    depth = np.full((HEIGHT, WIDTH), 2, np.float32)
    depth[20:30, 20:30] = 0
    depth[40, 40] = np.nan
    assert not depth_edges(depth).any()
    labels = depth_edge_slice().label(view(depth=depth), None)
    np.testing.assert_array_equal(labels == -1, ~(depth > 0))
    assert (labels[depth > 0] == 3).all(), "no edge in the frame: all are far from one"


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_distance_is_scipys_transform(seed):
    rng = np.random.default_rng(seed)
    depth = np.where(rng.random((24, 31)) < 0.02, 1.0, 2.0).astype(np.float32)
    edges = depth_edges(depth)
    if edges.any():
        np.testing.assert_allclose(edge_distance(depth), scipy.ndimage.distance_transform_edt(~edges), atol=1e-4)


def test_edges_of_rendered_scenes_lie_where_bodies_meet():
    frame, seen = rendered("objects", 0)
    edges = depth_edges(seen.depth)
    ids = frame.ids
    meet = np.zeros(ids.shape, bool)
    for axis in (0, 1):
        differ = np.diff(ids, axis=axis) != 0
        pad = [(0, 0), (0, 0)]
        pad[axis] = (0, 1)
        first = np.pad(differ, pad)
        pad[axis] = (1, 0)
        meet |= first | np.pad(differ, pad)
    near = scipy.ndimage.binary_dilation(meet, iterations=2)
    assert edges.sum() > 50
    # a body may hide a part of itself (a box's corner, a torus), hence not all
    assert (near & edges).sum() / edges.sum() > 0.9


def test_depth_bins():
    depth = np.array([[0.0, 0.5, 2.0, 4.99, 5.0, 60.0, np.nan, np.inf]], np.float32)
    labels = depth_slice().label(view(shape=(1, 8), depth=depth), None)
    assert labels.tolist() == [[-1, 0, 1, 1, 2, 5, -1, -1]]


def test_slant_of_a_fronto_parallel_wall_is_the_angle_of_the_ray():
    intrinsics = field_of_view_intrinsics(HEIGHT, WIDTH, 100)
    labels = slant_slice().label(view(intrinsics=intrinsics), None)
    rays = pinhole_rays(intrinsics, HEIGHT, WIDTH)
    degrees = np.degrees(np.arccos(1 / np.linalg.norm(rays, axis=-1)))
    np.testing.assert_array_equal(labels, (degrees >= 30).astype(int))
    assert labels.max() == 1


def test_slant_of_truth_that_faces_away_and_of_invalid_truth():
    away = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    away[..., 2] = 1
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[0] = False
    intrinsics = field_of_view_intrinsics(HEIGHT, WIDTH, 60)
    labels = slant_slice().label(view(normal=away, valid=valid, intrinsics=intrinsics), None)
    assert (labels[0] == -1).all()
    assert (labels[1:] == 4).all()


def test_slant_takes_the_data_sets_own_rays_first():
    # Hypersim's matrix of a camera with half the field of view
    half = np.diag([np.tan(np.radians(25)), np.tan(np.radians(25)) * HEIGHT / WIDTH, -1.0])
    intrinsics = field_of_view_intrinsics(HEIGHT, WIDTH, 100)
    both = view(intrinsics=intrinsics, extra={"ray_matrix": half.ravel().tolist()})
    alone = view(intrinsics=field_of_view_intrinsics(HEIGHT, WIDTH, 50))
    np.testing.assert_array_equal(slant_slice().label(both, None), slant_slice().label(alone, None))
    only = view(extra={"ray_matrix": half.ravel().tolist()})
    assert slant_slice().missing(only, None) == ()
    assert slant_slice().missing(view(), None) == ("intrinsics|extra.ray_matrix",)


def test_motion_and_occlusion():
    flow = np.zeros((1, 5, 2), np.float32)
    flow[0, :, 0] = [0, 0.6, 3, 24, np.nan]
    flow[0, :, 1] = [0, 0.8, 4, 32, 0]
    occluded = np.array([[False, True, False, False, True]])
    seen = view(shape=(1, 5), flow=flow, occluded=occluded)
    assert motion_slice().label(seen, None).tolist() == [[0, 1, 1, 3, -1]]
    assert occlusion_slice().label(seen, None).tolist() == [[0, 1, 0, 0, 1]]


def test_border():
    labels = border_slice((0, 2, 4)).label(view(shape=(9, 11)), None)
    rows, columns = np.mgrid[:9, :11]
    side = np.minimum.reduce([rows, columns, 8 - rows, 10 - columns])
    np.testing.assert_array_equal(labels, np.select([side < 2, side < 4], [0, 1], 2))


def test_planes_of_ibims():
    walls, tables, floors = (np.zeros((2, 3), np.uint8) for _ in range(3))
    walls[0, 0] = 2
    tables[0, 1] = floors[0, 1] = 1
    floors[1, 2] = 7
    seen = view(shape=(2, 3), extra={"mask_wall": walls, "mask_table": tables, "mask_floor": floors})
    assert plane_slice().bins == ("wall", "table", "floor", "other")
    assert plane_slice().label(seen, None).tolist() == [[0, 1, 3], [3, 3, 2]]
    partly = dataclasses.replace(seen, extra={"mask_wall": walls, "mask_table": None})
    assert plane_slice().missing(partly, None) == ("extra.mask_table", "extra.mask_floor")


def test_classes_by_number():
    numbers = np.array([[1, 2, 3], [7, -1, 0]])
    one = class_slice("semantic", {1: "wall", 2: "floor", 7: "wall"})
    assert one.bins == ("wall", "floor")
    assert one.label(view(shape=(2, 3), extra={"semantic": numbers}), None).tolist() == [[0, 1, -1], [0, -1, -1]]
    with pytest.raises(ScoreError, match="shape"):
        one.label(view(shape=(4, 3), extra={"semantic": numbers}), None)


def test_a_square_that_moves_uncovers_a_strip_and_a_pan_brings_in_a_column():
    flow = np.zeros((20, 30, 2), np.float32)
    occluded = np.zeros((20, 30), bool)
    flow[5:10, 8:14, 0] = 2  # moves right by two
    occluded[5:10, 14:16] = True
    labels = seen_before(flow, occluded)
    expected = np.zeros((20, 30), int)
    expected[5:10, 8:10] = 1
    np.testing.assert_array_equal(labels, expected)
    pan = np.zeros((20, 30, 2), np.float32)
    pan[..., 0] = -3
    expected = np.zeros((20, 30), int)
    expected[:, 27:] = 1
    np.testing.assert_array_equal(seen_before(pan, None), expected)


@pytest.mark.parametrize("growth", [1.05, 1.3, 1.49])
def test_a_picture_that_grows_leaves_no_gaps(growth):
    rows, columns = np.mgrid[:41, :61].astype(np.float32)
    flow = np.stack([(growth - 1) * (columns - 30), (growth - 1) * (rows - 20)], -1).astype(np.float32)
    assert (seen_before(flow, None) == 0).all()


def test_where_motion_is_unknown_nothing_is_said_nearby():
    flow = np.zeros((20, 40, 2), np.float32)
    flow[..., 0] = -4
    flow[8:12, 30:32] = np.nan
    labels = seen_before(flow, None)
    rows, columns = np.mgrid[:20, :40]
    to_unknown = np.hypot(np.clip(8 - rows, 0, None) + np.clip(rows - 11, 0, None), np.clip(columns - 31, 0, None))
    new = columns >= 36
    hole = (rows >= 8) & (rows < 12) & (columns >= 26) & (columns < 28)
    np.testing.assert_array_equal(labels == 0, ~new & ~hole)
    np.testing.assert_array_equal(labels == 1, new & (to_unknown > 4.75))
    assert (labels[hole] == -1).all()
    assert (seen_before(np.full((4, 5, 2), np.nan, np.float32), None) == -1).all()


@pytest.mark.parametrize("kind", ["room", "objects", "outdoor"])
def test_disocclusion_agrees_with_going_back_by_depth_and_motion(kind):
    for index in (1, 2, 3):
        before, previous = rendered(kind, index - 1, scale=2)
        now, current = rendered(kind, index, scale=2)
        motions = {k + 1: np.linalg.inv(motion) for k, motion in enumerate(before.motions)}
        back, z = rigid_flow(
            now.depth, now.intrinsics, now.cam_to_world, before.cam_to_world, before.intrinsics, now.ids, motions
        )
        reference = occluded_by_depth(before.depth, back, z)
        labels = disocclusion_slice().label(current, previous)
        told = current.valid & (labels >= 0)
        assert told.sum() > 0.5 * current.valid.sum()
        assert ((labels == 1) == reference)[told].mean() > 0.95
        # what differs lies along outlines, where the reference is strict: two pixels inside either region all agree
        inner = scipy.ndimage.binary_erosion(reference, iterations=2) & told
        assert (labels[inner] == 1).all()
        assert kind != "objects" or inner.sum() > 100
        inner = scipy.ndimage.binary_erosion(~reference, iterations=2) & told
        assert (labels[inner] == 0).mean() > 0.999


def test_names():
    assert [one.name for one in named_slices(SLICES)] == list(SLICES)
    with pytest.raises(ScoreError, match="Did you mean 'motion'"):
        named_slices(["depth", "motoin"])
    with pytest.raises(ScoreError, match="different names"):
        Slice("twice", ("a", "a"), (), lambda view, _: np.zeros(view.size, np.int8))


def test_slices_of_other_packages_come_by_their_import_path(tmp_path, monkeypatch):
    module = tmp_path / "slices_of_mine.py"
    module.write_text(
        "import numpy as np\n"
        "from ncbench.evaluators.slices.base import Slice\n"
        "def halves():\n"
        "    def label(view, previous):\n"
        "        return np.broadcast_to(np.arange(view.size[1]) >= view.size[1] // 2, view.size).astype(np.int8)\n"
        "    return Slice('halves', ('left', 'right'), (), label)\n"
        "def number():\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    border, own = named_slices(["border", "slices_of_mine:halves"])
    assert (border.name, own.name) == ("border", "halves")
    labels = own.label(view(), None)
    assert (labels[:, : WIDTH // 2] == 0).all()
    assert (labels[:, WIDTH // 2 :] == 1).all()
    with pytest.raises(ScoreError, match=r"slices_of_mine:number.*got int"):
        named_slices(["slices_of_mine:number"])
    with pytest.raises(CardError, match="has no 'nothing'"):
        named_slices(["slices_of_mine:nothing"])
