"""Temporal alignment error against a plain loop, closed forms, and the renderer with its camera moved and cropped."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.evaluators.depth.tae import carried_depth, tae
from ncbench.evaluators.framing import crop_view
from ncbench.evaluators.view import View
from ncbench.protocol_card import Crop

HEIGHT, WIDTH = 24, 32
K = np.array([[30.0, 0, 14.5], [0, 28, 12.25], [0, 0, 1]])


def pose(rotation=(0, 0, 0), translation=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def looped(depth, k, transform, surface):
    """One point after the other."""
    carried = np.zeros(depth.shape)
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            z = depth[row, column]
            if not z > 0:
                continue
            x, y, z = (
                transform[:3, :3] @ ((column - k[0, 2]) / k[0, 0] * z, (row - k[1, 2]) / k[1, 1] * z, z)
                + transform[:3, 3]
            )
            if z <= 0:
                continue
            u, v = round(k[0, 0] * x / z + k[0, 2]), round(k[1, 1] * y / z + k[1, 2])
            if 0 <= u < depth.shape[1] and 0 <= v < depth.shape[0]:
                covered = surface == "nearest" and 0 < carried[v, u] < z
                carried[v, u] = carried[v, u] if covered else z
    return carried


@pytest.mark.parametrize("surface", ["last", "nearest"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_against_a_loop(surface, seed):
    rng = np.random.default_rng(seed)
    depths = rng.uniform(1, 6, (2, HEIGHT, WIDTH))
    depths[0, rng.random((HEIGHT, WIDTH)) < 0.1] = 0
    poses = pose((0.1, -0.2, 0.05), (1, 2, 3)), pose((0.13, -0.1, 0.02), (1.2, 2.1, 2.6))
    there = np.linalg.inv(poses[1]) @ poses[0]
    errors = []
    for source, transform in ((0, there), (1, np.linalg.inv(there))):
        carried = looped(depths[source], K, transform, surface)
        np.testing.assert_allclose(carried_depth(depths[source], K, K, transform, surface), carried, rtol=1e-12)
        target = depths[1 - source]
        both = (carried > 0) & (target > 0)
        errors.append((np.abs(target - carried)[both] / target[both]).mean())
    value, _ = tae(depths[0], depths[1], (K, K), poses, None, surface)
    assert value == pytest.approx(50 * sum(errors), rel=1e-12)


def test_a_wall_that_comes_nearer():
    """Depth 2 and 1.5 half a metre on agree; 2 and 1.8 differ by 0.3 / 1.8 one way and 0.3 / 2 the other."""
    poses = pose(), pose(translation=(0, 0, 0.5))
    wall = np.full((HEIGHT, WIDTH), 2.0)
    value, pixels = tae(wall, wall - 0.5, (K, K), poses)
    assert value == pytest.approx(0, abs=1e-12)
    assert min(pixels) > 0.3 * wall.size
    value, _ = tae(wall, np.full_like(wall, 1.8), (K, K), poses)
    assert value == pytest.approx(50 * (0.3 / 1.8 + 0.3 / 2))


def test_masks_and_nothing_in_common():
    poses = pose(), pose(translation=(0, 0, 0.5))
    wall, mask = np.full((HEIGHT, WIDTH), 2.0), np.zeros((HEIGHT, WIDTH), bool)
    mask[10:14, 10:20] = True
    _, pixels = tae(wall, wall, (K, K), poses, (mask, ~mask))
    assert pixels[1] <= mask.sum() < pixels[0]
    behind = pose((0, math.pi, 0))
    value, pixels = tae(wall, wall, (K, K), (pose(), behind))
    assert math.isnan(value)
    assert pixels == (0, 0)


def test_bad_matrices_are_refused():
    wall = np.full((HEIGHT, WIDTH), 2.0)
    with pytest.raises(ValueError, match="two 3 x 3 cameras and a 4 x 4 transform"):
        carried_depth(wall, K, K, np.eye(3), "last")
    with pytest.raises(ValueError, match="expected a rotation and translation"):
        tae(wall, wall, (K, K), (np.eye(4), 2 * np.eye(4)))


def rendered(height, width, frames=6):
    scene = make_scene("room", 1, frames, height, width)
    clip = []
    for index in (0, frames - 1):
        frame = render_frame(scene, index)
        depth = frame.depth.astype(np.float32)
        clip.append(
            View(
                "clip",
                index,
                frame.normal.astype(np.float32),
                frame.valid,
                depth=depth,
                intrinsics=frame.intrinsics,
                cam_to_world=frame.cam_to_world,
            )
        )
    return clip


def of_truth(clip, cameras=None):
    cameras = cameras or (clip[0].intrinsics, clip[1].intrinsics)
    poses = (clip[0].cam_to_world, clip[1].cam_to_world)
    return tae(clip[0].depth, clip[1].depth, cameras, poses, None, "nearest")[0]


def test_the_crop_has_to_move_the_principal_point():
    """Cropped depth with the camera of the uncropped picture is the mistake of the published script."""
    clip = rendered(120, 160)
    crop = Crop(top=8, bottom=4, left=11, right=5)
    cropped = [crop_view(view, crop) for view in clip]
    right = of_truth(cropped)
    wrong = of_truth(cropped, (clip[0].intrinsics, clip[1].intrinsics))
    assert right == pytest.approx(of_truth(clip), rel=0.3)
    assert wrong > 1.3 * right
    np.testing.assert_allclose(cropped[0].intrinsics[:2, 2], clip[0].intrinsics[:2, 2] - (11, 8))


def test_the_floor_of_true_depth_falls_with_the_pixel():
    """What rounding costs halves with the size of a pixel; occlusion stays."""
    coarse, fine = of_truth(rendered(60, 80)), of_truth(rendered(240, 320))
    assert fine < 0.6 * coarse
    assert fine < 2.5
