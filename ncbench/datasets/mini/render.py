"""Render a scene: a picture, and the exact geometry and motion behind every pixel.

Geometry is sampled at pixel centres in float64; only the picture is supersampled, where solids or sides meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.mini.lighting import LightTable, encode, haze_over, pack_light, shade, sky_colour
from ncbench.datasets.mini.primitives import Solids, blocked, first_hit, surface_normal, to_object, to_world
from ncbench.datasets.mini.scene import Matrix, Scene, pack_solids
from ncbench.datasets.mini.textures import Finishes, albedo, pack_textures
from ncbench.datasets.mini.vectors import FloatArray, Vector, along, dot, minus, rotate, rotate_back, row, unit
from ncbench.jit import jit

_SAME_POINT = 1e-7  # relative distance within which the next camera's ray counts as reaching the point itself
_ALIKE = 0.9  # cosine between neighbouring normals above which a pixel is smooth
_BORDER = 1e-6  # pixels; a point that stays on the outermost pixel centre must not leave the picture by rounding
_BEHIND = 1e-6  # metres in front of the camera below which a point has no projection


@dataclass(frozen=True, slots=True)
class RenderedFrame:
    """One frame with its exact truth. OpenCV camera axes, metres, the centre of the top-left pixel is (0, 0).

    Attributes:
        rgb: (H, W, 3) uint8, sRGB.
        normal: (H, W, 3) float64, unit, facing the camera; zero where nothing is hit.
        valid: (H, W) bool, True where a surface is hit.
        depth: (H, W) float64 z-depth, 0 where nothing is hit.
        ids: (H, W) int32, 1 + index of the body hit, 0 for none.
        flow: (H, W, 2) float64, (u, v) in pixels to the next frame; NaN for the sky, for a point that the next camera
            has behind it, and in the last frame.
        occluded: (H, W) bool, False only where the next frame shows the same surface point: True also for points whose
            projection falls outside the rectangle of pixel centres, and wherever ``flow`` is NaN.
        intrinsics: (3, 3) pinhole matrix in pixels.
        cam_to_world: (4, 4) camera pose.
        motions: (N, 4, 4) rigid motion of body ``k`` (id ``k + 1``) in the world from this frame to the next;
            identities in the last frame.
    """

    rgb: NDArray[np.uint8]
    normal: NDArray[np.float64]
    valid: NDArray[np.bool_]
    depth: NDArray[np.float64]
    ids: NDArray[np.int32]
    flow: NDArray[np.float64]
    occluded: NDArray[np.bool_]
    intrinsics: Matrix
    cam_to_world: Matrix
    motions: Matrix


class View(NamedTuple):
    """A camera for the kernels.

    Attributes:
        rotation: (1, 3, 3) camera-to-world.
        position: (1, 3) metres.
        lens: (3,) focal length and principal point, pixels.
    """

    rotation: FloatArray
    position: FloatArray
    lens: FloatArray


def render_frame(scene: Scene, index: int) -> RenderedFrame:
    """Render one frame; a pure function of its arguments.

    Args:
        scene: The scene.
        index: Frame, 0 to ``scene.frames - 1``.

    Returns:
        The picture and its truth.

    Raises:
        IndexError: No such frame.
    """
    if not 0 <= index < scene.frames:
        raise IndexError(f"expected a frame from 0 to {scene.frames - 1}, got {index}")
    poses = scene.body_poses(index)
    solids, view = pack_solids(scene, poses), _view(scene, index)
    depth, normal, ids = _trace_geometry(solids, view, scene.height, scene.width)
    flow = np.full((scene.height, scene.width, 2), np.nan)
    occluded = np.ones((scene.height, scene.width), dtype=np.bool_)
    motions = np.tile(np.eye(4), (len(scene.bodies), 1, 1))
    if index + 1 < scene.frames:
        next_poses = scene.body_poses(index + 1)
        flow, occluded = _trace_flow(solids, view, pack_solids(scene, next_poses), _view(scene, index + 1), depth, ids)
        motions = next_poses @ np.linalg.inv(poses)
    finishes = pack_textures([body.texture for body in scene.bodies])
    return RenderedFrame(
        rgb=_paint(solids, finishes, pack_light(scene.light), view, normal, ids),
        normal=normal,
        valid=ids > 0,
        depth=depth,
        ids=ids,
        flow=flow,
        occluded=occluded,
        intrinsics=scene.intrinsics,
        cam_to_world=scene.camera.pose(index),
        motions=motions,
    )


def _view(scene: Scene, index: int) -> View:
    pose, k = scene.camera.pose(index), scene.intrinsics
    return View(
        np.ascontiguousarray(pose[None, :3, :3]),
        np.ascontiguousarray(pose[None, :3, 3]),
        np.array([k[0, 0], k[0, 2], k[1, 2]]),
    )


@jit()
def _ray(view: View, x: float, y: float) -> tuple[Vector, Vector, float]:
    """Start and unit direction of a pixel's ray in the world, and the ray's length for each metre of z-depth."""
    f, cx, cy = view.lens
    v = ((x - cx) / f, (y - cy) / f, 1.0)
    return row(view.position, 0), rotate(view.rotation, 0, unit(v)), math.sqrt(dot(v, v))


@jit()
def _facing_normal(solids: Solids, k: int, local: Vector, direction: Vector) -> Vector:
    """Unit world normal of solid ``k`` at a point in its coordinates, turned against the ray."""
    n = rotate(solids.rotation, k, surface_normal(solids.code[k], row(solids.size, k), local))
    return (-n[0], -n[1], -n[2]) if dot(n, direction) > 0.0 else n


@jit()
def _trace_geometry(
    solids: Solids, view: View, height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """Depth (H, W), camera-space normals (H, W, 3) and ids (H, W) at the pixel centres."""
    depth = np.zeros((height, width))
    normal = np.zeros((height, width, 3))
    ids = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            origin, direction, stretch = _ray(view, x, y)
            t, k = first_hit(solids, origin, direction, math.inf)
            if k < 0:
                continue
            local = to_object(solids, k, along(origin, direction, t))
            n = rotate_back(view.rotation, 0, _facing_normal(solids, k, local, direction))
            depth[y, x] = t / stretch
            ids[y, x] = k + 1
            normal[y, x, 0], normal[y, x, 1], normal[y, x, 2] = n
    return depth, normal, ids


@jit()
def _visible(solids: Solids, view: View, point: Vector) -> bool:
    """Whether nothing stands between a camera and a world point."""
    origin = row(view.position, 0)
    offset = minus(point, origin)
    distance = math.sqrt(dot(offset, offset))
    return not blocked(solids, origin, unit(offset), distance * (1.0 - _SAME_POINT))


@jit()
def _trace_flow(
    now: Solids, view: View, after: Solids, next_view: View, depth: NDArray[np.float64], ids: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Flow (H, W, 2) to the next frame and occlusion (H, W): carry each point with its solid, project, look for it."""
    height, width = depth.shape
    flow = np.full((height, width, 2), np.nan)
    occluded = np.ones((height, width), np.bool_)
    f, cx, cy = next_view.lens
    for y in range(height):
        for x in range(width):
            k = ids[y, x] - 1
            if k < 0:
                continue
            origin, direction, stretch = _ray(view, x, y)
            local = to_object(now, k, along(origin, direction, depth[y, x] * stretch))
            point = to_world(after, k, local)
            seen = rotate_back(next_view.rotation, 0, minus(point, row(next_view.position, 0)))
            if seen[2] <= _BEHIND:
                continue
            u, v = f * seen[0] / seen[2] + cx, f * seen[1] / seen[2] + cy
            flow[y, x, 0], flow[y, x, 1] = u - x, v - y
            if -_BORDER <= u <= width - 1 + _BORDER and -_BORDER <= v <= height - 1 + _BORDER:
                occluded[y, x] = not _visible(after, next_view, point)
    return flow, occluded


@jit()
def _radiance(
    solids: Solids, finishes: Finishes, light: LightTable, view: View, x: float, y: float, first: int, count: int
) -> Vector:
    """Linear RGB that arrives along the ray through (x, y), lit by ``count`` samples of the light."""
    origin, direction, _ = _ray(view, x, y)
    t, k = first_hit(solids, origin, direction, math.inf)
    if k < 0:
        return sky_colour(light, direction)
    point = along(origin, direction, t)
    local = to_object(solids, k, point)
    own = surface_normal(solids.code[k], row(solids.size, k), local)
    normal = _facing_normal(solids, k, local, direction)
    # a pixel covers more of a slanted surface; the geometric mean of its two extents serves for both axes
    pixel = t / view.lens[0] / math.sqrt(max(-dot(normal, direction), 0.05))
    colour = albedo(finishes, k, solids.code[k], row(solids.size, k), local, own, pixel)
    lit = shade(solids, light, point, normal, direction, colour, finishes.gloss[k], first, count)
    return haze_over(light, lit, t)


@jit()
def _is_smooth(normal: NDArray[np.float64], ids: NDArray[np.int32], x: int, y: int) -> bool:
    """Whether the four neighbours of a pixel show the same solid with nearly the same normal."""
    height, width = ids.shape
    for step in range(4):
        i, j = y + (step == 0) - (step == 1), x + (step == 2) - (step == 3)
        if not (0 <= i < height and 0 <= j < width):
            continue
        same = normal[y, x, 0] * normal[i, j, 0] + normal[y, x, 1] * normal[i, j, 1] + normal[y, x, 2] * normal[i, j, 2]
        if ids[i, j] != ids[y, x] or (ids[y, x] > 0 and same < _ALIKE):
            return False
    return True


@jit()
def _paint(
    solids: Solids,
    finishes: Finishes,
    light: LightTable,
    view: View,
    normal: NDArray[np.float64],
    ids: NDArray[np.int32],
) -> NDArray[np.uint8]:
    """The picture (H, W, 3): one sample in smooth pixels, the mean of 2 x 2 on edges, encoded as sRGB."""
    height, width = ids.shape
    rgb = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            c = (0.0, 0.0, 0.0)
            if _is_smooth(normal, ids, x, y):
                c = _radiance(solids, finishes, light, view, x, y, 0, 4)
            else:
                for sample in range(4):
                    dx, dy = 0.5 * (sample % 2) - 0.25, 0.5 * (sample // 2) - 0.25
                    c = along(c, _radiance(solids, finishes, light, view, x + dx, y + dy, sample, 1), 0.25)
            rgb[y, x, 0], rgb[y, x, 1], rgb[y, x, 2] = encode(c[0]), encode(c[1]), encode(c[2])
    return rgb
