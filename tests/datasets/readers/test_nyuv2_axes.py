"""Checks of axes out of a part of the pixels, against all of them and against every wrong choice of signs."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from ncbench.datasets.readers.depth_normals import rays_of
from ncbench.datasets.readers.nyuv2_axes import check_against_depth, check_facing, share_away
from ncbench.errors import SourceError

CAMERA = np.array([[90.0, 0.5, 60.3], [0, 95.0, 41.7], [0, 0, 1]])
SHAPE = 83, 117  # not a multiple of any step


def pixel_rays():
    """Rays by the definition, one pixel at a time."""
    inverse = np.linalg.inv(CAMERA)
    return np.array([[inverse @ (x, y, 1) for x in range(SHAPE[1])] for y in range(SHAPE[0])])


def corner():
    """Three walls of a box seen from inside, with their depth: normals along all three axes."""
    rays = pixel_rays()
    normals = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
    turn = np.array([[0.8, 0, 0.6], [0.36, 0.8, -0.48], [-0.48, 0.6, 0.64]])  # a rotation; no wall is along the view
    walls = normals @ turn.T
    with np.errstate(divide="ignore"):
        depths = -2.0 / (rays @ walls.T)
    depths[~(depths > 0)] = np.inf
    nearest = depths.argmin(axis=-1)
    return walls[nearest].astype(np.float32), depths.min(axis=-1).astype(np.float32)


def test_share_away_is_that_of_every_fourth_pixel():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(*SHAPE, 3)).astype(np.float32)
    valid = rng.random(SHAPE) > 0.3
    places = [(y, x) for y in range(0, SHAPE[0], 4) for x in range(0, SHAPE[1], 4) if valid[y, x]]
    rays = pixel_rays()
    for grazing in (0.0, 0.7):
        away = np.mean([normal[place].astype(np.float64) @ rays[place] > grazing for place in places])
        assert share_away(normal, valid, CAMERA, grazing) == pytest.approx(away, abs=1e-12)
    along = np.mean([normal[place][2] > 0 for place in places])
    assert share_away(normal, valid, None) == pytest.approx(along, abs=1e-12)
    assert share_away(normal, np.zeros(SHAPE, bool), CAMERA) == 0


def test_most_normals_must_face_the_camera():
    normal = np.broadcast_to(np.array([0, 0, -1], np.float32), (*SHAPE, 3)).copy()
    valid = np.ones(SHAPE, bool)
    for camera in (None, CAMERA):
        check_facing(normal, valid, camera, Path("a.png"), "dsine")
        with pytest.raises(SourceError, match=r"a\.png: expected normals in dsine axes, .* 100 % of them point away"):
            check_facing(-normal, valid, camera, Path("a.png"), "dsine")


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_signs_that_contradict_the_depth_are_named(signs):
    normal, depth = corner()
    valid = np.ones(SHAPE, bool)
    rays = rays_of(CAMERA, SHAPE, Path("camera.txt"))
    stored = normal * np.array(signs, np.float32)
    if signs == (1, 1, 1):
        check_against_depth(stored, valid, depth, rays, Path("n.mat"), "dsine", slack=10)
        return
    with pytest.raises(SourceError) as raised:
        check_against_depth(stored, valid, depth, rays, Path("n.mat"), "dsine", slack=10)
    assert f"multiplied by {signs}" in str(raised.value)


def test_too_few_pixels_decide_nothing():
    normal, depth = corner()
    valid = np.zeros(SHAPE, bool)
    valid[16, :99] = True
    rays = rays_of(CAMERA, SHAPE, Path("camera.txt"))
    check_against_depth(-normal, valid, depth, rays, Path("n.mat"), "dsine", slack=10)
    valid[16, 99] = True
    with pytest.raises(SourceError):
        check_against_depth(-normal, valid, depth, rays, Path("n.mat"), "dsine", slack=10)


def test_rays_are_those_of_the_camera_asked_for():
    first = rays_of(CAMERA, SHAPE, Path("a"))
    np.testing.assert_allclose(first, pixel_rays(), rtol=1e-12, atol=1e-12)
    other = CAMERA + np.diag([10.0, 0, 0])
    assert not np.array_equal(rays_of(other, SHAPE, Path("a")), first)
    assert rays_of(CAMERA, (40, 30), Path("a")).shape == (40, 30, 3)
    np.testing.assert_array_equal(rays_of(CAMERA, SHAPE, Path("a")), first)
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 0
