"""The checks on flow against closed forms and brute force."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.evaluators.flow.checks import (
    cycle_consistent,
    edge_distance_mask,
    motion_warning,
    warp_beats_zero,
)

HEIGHT, WIDTH = 20, 30
COLUMNS, ROWS = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))


def constant(u, v):
    return np.full((HEIGHT, WIDTH, 2), (u, v), np.float32)


@settings(deadline=None, max_examples=30)
@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(-1.5, 1.5))
def test_a_shift_and_its_return_leave_what_stays_inside(u, v, off):
    """||F + B|| = |off| for all pixels that land in the picture, and the others fail."""
    u, v = float(np.float32(u)), float(np.float32(v))
    lands = (COLUMNS + u >= 0) & (COLUMNS + u <= WIDTH - 1) & (ROWS + v >= 0) & (ROWS + v <= HEIGHT - 1)
    kept = cycle_consistent(constant(u, v), constant(-u + off, -v), 1.0)
    if abs(abs(off) - 1) > 1e-3 and min(abs(u % 1), abs(v % 1), 1 - u % 1, 1 - v % 1) > 1e-3:
        np.testing.assert_array_equal(kept, lands & (abs(off) <= 1))


def test_the_return_is_sampled_where_the_flow_lands():
    """F(x) = a x needs B(y) = -a y / (1 + a): exact under bilinear sampling, and far off if B were read at x."""
    a = 0.2
    there = np.zeros((HEIGHT, WIDTH, 2))
    there[..., 0] = a * COLUMNS
    back = np.zeros_like(there)
    back[..., 0] = -a * COLUMNS / (1 + a)
    inside = COLUMNS * (1 + a) <= WIDTH - 1
    np.testing.assert_array_equal(cycle_consistent(there, back, 1e-6), inside)
    assert np.abs(there + back)[inside].max() > 0.5


def test_unknown_flow_never_passes():
    there, back = constant(0, 0), constant(0, 0)
    there[2, 3] = np.nan
    back[10, 11] = np.nan
    expected = np.ones((HEIGHT, WIDTH), bool)
    expected[2, 3] = expected[10, 11] = False
    np.testing.assert_array_equal(cycle_consistent(there, back, 0.5), expected)


def brute_force(edges, distance):
    places = np.argwhere(edges)
    away = np.abs(np.stack([ROWS, COLUMNS], -1)[:, :, None] - places).sum(-1)
    return away.min(-1) >= distance


@pytest.mark.parametrize("distance", [0, 1, 3, 6])
def test_distance_to_edges_of_any_component_is_in_city_blocks(distance):
    """Two steps, in different components: a vertical one in x, a horizontal one in y."""
    normal = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    normal[..., 2] = -1
    normal[:, 15:, 0] = 0.9
    normal[12:, :, 1] = -0.9
    levels = ((normal.astype(np.float64) + 1) * 127.5).astype(np.uint8)
    edges = np.any([cv2.Canny(np.ascontiguousarray(levels[..., c]), 100, 200) > 0 for c in range(3)], axis=0)
    assert edges[:, 14:16].any(axis=1).mean() > 0.8
    np.testing.assert_array_equal(edge_distance_mask(normal, distance), brute_force(edges, distance))


def test_colour_is_turned_to_grey():
    """Red and green of equal luminance show no edge in grey, a black square does."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:, :15] = (255, 0, 0)
    picture[:, 15:] = (0, round(255 * 0.299 / 0.587), 0)
    assert edge_distance_mask(picture).all()
    picture[5:12, 5:12] = 255
    kept = edge_distance_mask(picture)
    np.testing.assert_array_equal(kept, edge_distance_mask(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)))
    assert not kept[5:12, 5].any()
    assert kept[:, 20:].all()


def test_thresholds_and_unknown_normals():
    normal = np.full((HEIGHT, WIDTH, 3), (0, 0, -1), np.float32)
    normal[:, 15:] = (0.3, 0, -0.954)  # 38 grey levels: a gradient of 153
    assert not edge_distance_mask(normal, 1, 50, 100).all()
    assert edge_distance_mask(normal, 1, 400, 800).all()
    normal[3, 3] = np.nan
    assert edge_distance_mask(normal).dtype == np.bool_


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 3), np.int32), np.zeros((4, 4, 2), np.float32), np.zeros((4, 4), np.float32)]
)
def test_other_arrays_have_no_edges(bad):
    with pytest.raises(ValueError, match=r"expected normals \(H, W, 3\)"):
        edge_distance_mask(bad)


def texture(shift):
    wave = 120 + 60 * np.sin((COLUMNS + shift) / 3) + 40 * np.cos(ROWS / 2)
    return np.repeat(wave[..., None], 3, -1).astype(np.uint8)


def test_the_right_motion_beats_none_and_the_wrong_one_does_not():
    """Frame b is frame a moved right by two pixels."""
    a, b = texture(0), texture(-2)
    right = warp_beats_zero(a, b, constant(2, 0))
    assert right.passed
    assert right.warped == 0
    inside = COLUMNS + 2 <= WIDTH - 1
    assert right.pixels == inside.sum()
    assert right.still == pytest.approx(np.abs(a.astype(float) - b)[inside].mean())
    assert not warp_beats_zero(a, b, constant(-2, 0)).passed
    assert not warp_beats_zero(a, b, constant(0, 0)).passed  # what a near-zero flow of a moving scene comes down to


def test_a_still_scene_needs_no_motion():
    assert warp_beats_zero(texture(0), texture(0), constant(0, 0)).passed


def test_nothing_to_compare_does_not_pass():
    assert not warp_beats_zero(texture(0), texture(0), constant(99, 0)).passed
    mask = np.zeros((HEIGHT, WIDTH), bool)
    assert warp_beats_zero(texture(0), texture(-2), constant(2, 0), mask).pixels == 0
    mask[:, :5] = True
    assert warp_beats_zero(texture(0), texture(-2), constant(2, 0), mask).pixels == 5 * HEIGHT
    with pytest.raises(ValueError, match="equal shape"):
        warp_beats_zero(texture(0), texture(0)[:5], constant(0, 0))


def test_long_motion_is_pointed_out_for_classical_sources():
    flow = constant(3, 4)
    assert motion_warning(flow, "dis-medium") is None
    flow[:2] = (24, 32)  # 40 pixels, on a tenth of the rows
    warning = motion_warning(flow, "dis-medium-scale0")
    assert warning is not None
    assert warning.startswith("10% of the pixels move by more than 30 pixels, where flow source 'dis-medium-scale0'")
    assert motion_warning(flow, "raft-large-12-0123abcd") is None
    assert motion_warning(np.full_like(flow, np.nan), "dis-medium") is None
