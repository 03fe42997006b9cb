"""Inverted flow against closed forms and against rigid motion computed backward in rendered scenes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.evaluators.flow.inversion import invert_flow
from ncbench.geometry.rigid_flow import occluded_by_depth, rigid_flow

HEIGHT, WIDTH = 24, 40
COLUMNS, ROWS = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
ALL = np.ones((HEIGHT, WIDTH), bool)


@settings(deadline=None, max_examples=40)
@given(st.floats(-0.24, 0.24), st.floats(-0.24, 0.24), st.floats(-0.24, 0.24), st.floats(-4, 4), st.floats(-4, 4))
def test_an_affine_motion_is_inverted_exactly(xx, xy, yy, u, v):
    """y = A x + t has the inverse A^-1 (y - t); bilinear sampling is exact on it."""
    matrix = np.array([[1 + xx, xy], [-xy, 1 + yy]])
    here = np.stack([COLUMNS, ROWS], -1)
    back = invert_flow(here @ matrix.T + (u, v) - here, ALL)
    origin = (here - (u, v)) @ np.linalg.inv(matrix).T
    expected = origin - here
    inside = ((origin >= 0.01) & (origin <= (WIDTH - 1.01, HEIGHT - 1.01))).all(-1)
    known = np.isfinite(back).all(-1)
    np.testing.assert_allclose(back[known], expected[known], atol=1e-4)
    assert known[inside].all()


def test_a_square_before_a_wall_uncovers_unknown_ground():
    """A square moves right by 4 over a still wall; the wall behind its old place is not in frame a."""
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[8:16, 10:18, 0] = 4
    usable = ALL.copy()
    usable[8:16, 18:22] = False  # wall that the square hides in b
    back = invert_flow(flow, usable)
    np.testing.assert_array_equal(back[8:16, 14:22], np.broadcast_to((-4, 0), (8, 8, 2)))
    assert np.isnan(back[8:16, 10:14]).all()  # uncovered: not a mix of the two motions
    rest = np.ones_like(ALL)
    rest[8:16, 10:22] = False
    np.testing.assert_array_equal(back[rest], 0)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="expected a flow"):
        invert_flow(np.zeros((4, 5, 3)), np.ones((4, 5), bool))


@pytest.mark.parametrize(("kind", "seed"), [("room", 1), ("objects", 2), ("outdoor", 3)])
def test_against_motion_computed_backward(kind, seed):
    """Reference: the later frame's depth, poses and the inverse motions of its bodies, with a z-test."""
    scene = make_scene(kind, seed, 2, 120, 160)
    a, b = render_frame(scene, 0), render_frame(scene, 1)
    motions = {k + 1: np.linalg.inv(motion) for k, motion in enumerate(a.motions)}
    expected, z = rigid_flow(b.depth, b.intrinsics, b.cam_to_world, a.cam_to_world, a.intrinsics, b.ids, motions)
    hidden = occluded_by_depth(a.depth, expected, z)
    back = invert_flow(a.flow, ~a.occluded)
    known = np.isfinite(back).all(-1)
    error = np.linalg.norm(back - expected, axis=-1)[known & (b.ids > 0)]
    assert np.median(error) < 0.003
    assert np.percentile(error, 99) < 0.25
    seen = ~hidden & (b.ids > 0)
    assert (known & seen).sum() > 0.9 * seen.sum()
    assert (known & hidden & (b.ids > 0)).sum() < 0.02 * known.sum()
