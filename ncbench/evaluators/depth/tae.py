"""Temporal alignment error: depth of one frame, carried into the next by the true poses, against the next one's.

As in Video Depth Anything (Chen et al., CVPR 2025), whose released script this follows but for the camera: the script
crops the maps and leaves the principal point where it was, 8 and 11 pixels off. Here the intrinsics come with the view
and have to follow its crop (``ncbench.evaluators.framing.crop_view``).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncbench.geometry.cameras import invert_pose
from ncbench.jit import jit

BoolMap = NDArray[np.bool_]
DoubleMap = NDArray[np.float64]
Matrix = NDArray[np.float64]
Surface = Literal["last", "nearest"]


def carried_depth(
    depth: NDArray[np.floating[Any]], camera: Matrix, other_camera: Matrix, transform: Matrix, surface: Surface
) -> DoubleMap:
    """Carry a depth map into another camera, each point to the pixel nearest to its projection.

    Args:
        depth: (H, W) z-depth in metres; what is not positive and finite is left out.
        camera: (3, 3) its intrinsics.
        other_camera: (3, 3) intrinsics of the other camera.
        transform: (4, 4) from the first camera's axes to the other's.
        surface: Which of several points counts that fall into one pixel: the ``last`` in reading order, whatever its
            depth, or the ``nearest``.

    Returns:
        (H, W) float64 z-depth in the other camera; 0 where no point falls.

    Raises:
        ValueError: A matrix has another shape.
    """
    matrices = [np.asarray(camera, np.float64), np.asarray(other_camera, np.float64), np.asarray(transform, np.float64)]
    if depth.ndim != 2 or [matrix.shape for matrix in matrices] != [(3, 3), (3, 3), (4, 4)]:
        raise ValueError(
            f"expected depth (H, W), two 3 x 3 cameras and a 4 x 4 transform, got {depth.shape} and "
            f"{[matrix.shape for matrix in matrices]}"
        )
    first, second, motion = matrices
    # a pixel (x, y, 1) times its depth becomes a homogeneous pixel of the other camera
    rotate = second @ motion[:3, :3] @ np.linalg.inv(first)
    carried = np.zeros(depth.shape)
    _carry(np.ascontiguousarray(depth, np.float64), rotate, second @ motion[:3, 3], surface == "nearest", carried)
    return carried


@jit()
def _carry(depth: DoubleMap, rotate: Matrix, shift: DoubleMap, nearest: bool, carried: DoubleMap) -> None:
    height, width = depth.shape
    for row in range(height):
        for column in range(width):
            own = depth[row, column]
            if not 0 < own < math.inf:
                continue
            x = own * (rotate[0, 0] * column + rotate[0, 1] * row + rotate[0, 2]) + shift[0]
            y = own * (rotate[1, 0] * column + rotate[1, 1] * row + rotate[1, 2]) + shift[1]
            z = own * (rotate[2, 0] * column + rotate[2, 1] * row + rotate[2, 2]) + shift[2]
            if not z > 0:
                continue
            u, v = np.rint(x / z), np.rint(y / z)
            if not (0 <= u < width and 0 <= v < height):
                continue
            line, place = int(v), int(u)
            if not (nearest and 0 < carried[line, place] < z):
                carried[line, place] = z


def tae(
    depth_a: NDArray[np.floating[Any]],
    depth_b: NDArray[np.floating[Any]],
    cameras: tuple[Matrix, Matrix],
    poses: tuple[Matrix, Matrix],
    masks: tuple[BoolMap, BoolMap] | None = None,
    surface: Surface = "last",
) -> tuple[float, tuple[int, int]]:
    """Measure how far two depth maps disagree about one static scene, both ways.

    For each direction: mean of |d_b - d_ab| / d_b, where d_ab is frame a's depth carried into b. There is no test for
    occlusion, so that true depth scores above 0 too, by what parts hide and by rounding to pixels.

    Args:
        depth_a: (H, W) depth of frame a in metres, in the scale of the poses.
        depth_b: (H, W) depth of frame b.
        cameras: (3, 3) intrinsics of a and b.
        poses: (4, 4) camera-to-world poses of a and b.
        masks: (H, W) bool, pixels of a and of b to compare at; None for all. Depth that is 0 never counts.
        surface: As in ``carried_depth``.

    Returns:
        Percent, the mean of the two directions; NaN where either has no pixel (the published script counts 0 there, as
        if all were right). And the numbers of pixels compared in b and in a.

    Raises:
        ValueError: A pose is not rigid, or a matrix has another shape.
    """
    b_from_a = invert_pose(poses[1]) @ np.asarray(poses[0], np.float64)
    maps = (np.asarray(depth_a, np.float64), np.asarray(depth_b, np.float64))
    means, pixels = [], []
    for source, transform in ((0, b_from_a), (1, invert_pose(b_from_a))):
        target = 1 - source
        carried = carried_depth(maps[source], cameras[source], cameras[target], transform, surface)
        compared = (carried > 0) & (maps[target] > 0)
        if masks is not None:
            compared &= masks[target]
        true = maps[target][compared]
        means.append(float((np.abs(true - carried[compared]) / true).mean()) if true.size else math.nan)
        pixels.append(true.size)
    return 50 * (means[0] + means[1]), (pixels[0], pixels[1])
