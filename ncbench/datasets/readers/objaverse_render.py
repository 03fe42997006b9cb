"""Views of a triangle mesh: exact depth and normals at pixel centres, a shaded picture, flow and occlusion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.frame import BoolMap, FloatMap, Matrix
from ncbench.datasets.readers.objaverse_colour import base_colour, to_linear, to_srgb
from ncbench.datasets.readers.objaverse_tracer import Hits, NormalKind, Tracer
from ncbench.geometry.cameras import pinhole_rays, project, transform_points

_SAME_POINT = 1e-4  # relative distance within which the next camera's ray counts as reaching the point itself
_BORDER = 1e-6  # pixels; a point on the outermost pixel centre must not leave the picture by rounding

Doubles = NDArray[np.float64]


class Light(NamedTuple):
    """A distant lamp and light from all sides.

    Attributes:
        direction: (3,) unit vector towards the lamp.
        lamp: Strength of the lamp, linear.
        ambient: Strength of the light from all sides, linear.
    """

    direction: Doubles
    lamp: float
    ambient: float


class View(NamedTuple):
    """A camera: (3, 3) intrinsics in pixels, (4, 4) camera-to-world in OpenCV axes, height and width."""

    intrinsics: Matrix
    cam_to_world: Matrix
    height: int
    width: int


class Geometry(NamedTuple):
    """What a view shows at its pixel centres.

    Attributes:
        depth: (H, W) float32 z-depth, 0 for none.
        normal: (H, W, 3) float32 in camera axes, unit, facing the camera, 0 for none.
        valid: (H, W) bool.
        points: (H, W, 3) float64 in the world, NaN for none.
    """

    depth: FloatMap
    normal: FloatMap
    valid: BoolMap
    points: Doubles


def render_geometry(tracer: Tracer, view: View, kind: NormalKind) -> Geometry:
    """Cast a ray through each pixel centre.

    Args:
        tracer: The mesh.
        view: The camera.
        kind: See ``Tracer.normals``.

    Returns:
        Depth, normals, mask and points.
    """
    directions = _directions(view, 1)
    hits = tracer.trace(view.cam_to_world[:3, 3], directions)
    seen = hits.face >= 0
    normal = np.zeros(directions.shape)
    normal[seen] = tracer.normals(_select(hits, seen), directions[seen], kind) @ view.cam_to_world[:3, :3]
    shape = view.height, view.width
    points = view.cam_to_world[:3, 3] + hits.t[:, None] * directions
    return Geometry(
        np.nan_to_num(hits.t).astype(np.float32).reshape(shape),
        normal.astype(np.float32).reshape(*shape, 3),
        seen.reshape(shape),
        points.reshape(*shape, 3),
    )


def render_picture(
    tracer: Tracer, view: View, light: Light, background: tuple[int, int, int], samples: int
) -> NDArray[np.uint8]:
    """Paint the object with Lambert's law.

    Args:
        tracer: The mesh.
        view: The camera.
        light: The light.
        background: sRGB colour where no surface is.
        samples: Rays along each side of a pixel, averaged.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    directions = _directions(view, samples)
    hits = tracer.trace(view.cam_to_world[:3, 3], directions)
    colour = np.broadcast_to(to_linear(np.array(background) / 255), directions.shape).copy()
    seen = hits.face >= 0
    found = _select(hits, seen)
    normal = tracer.normals(found, directions[seen], "smooth")
    strength = light.ambient + light.lamp * np.maximum(normal @ light.direction, 0)
    colour[seen] = np.minimum(base_colour(tracer.mesh, found.face, found.weights) * strength[:, None], 1)
    grid = colour.reshape(view.height, samples, view.width, samples, 3).mean(axis=(1, 3))
    return np.rint(to_srgb(grid) * 255).astype(np.uint8)


def render_flow(tracer: Tracer, points: Doubles, following: View) -> tuple[FloatMap, BoolMap]:
    """Follow the points of one view into the next; the object stands still.

    Args:
        tracer: The mesh.
        points: (H, W, 3) in the world, NaN for none.
        following: The next camera.

    Returns:
        (H, W, 2) float32 flow in pixels, NaN where there is no surface; (H, W) bool, True where the next view does not
        show the point: outside the pixel centres, behind another surface, or no surface at all.
    """
    height, width = points.shape[:2]
    pixels, _ = project(transform_points(points, np.linalg.inv(following.cam_to_world)), following.intrinsics)
    x, y = pixels[..., 0], pixels[..., 1]
    inside = (x >= -_BORDER) & (x <= width - 1 + _BORDER) & (y >= -_BORDER) & (y <= height - 1 + _BORDER)
    occluded = np.ones((height, width), dtype=np.bool_)
    origin = following.cam_to_world[:3, 3]
    hits = tracer.trace(origin, points[inside] - origin)
    occluded[inside] = ~(hits.t >= 1 - _SAME_POINT)  # a ray that meets nothing touched an edge: hidden, to be safe
    flow = pixels - np.stack(np.broadcast_arrays(np.arange(width), np.arange(height)[:, None]), axis=-1)
    return flow.astype(np.float32), occluded


def _directions(view: View, samples: int) -> Doubles:
    """World directions (N, 3) with a camera z of 1, row by row, ``samples`` x ``samples`` within each pixel."""
    scale = np.diag([samples, samples, 1.0])
    scale[:2, 2] = 0.5 * samples - 0.5  # pixel centres of the finer grid
    rays = pinhole_rays(scale @ view.intrinsics, view.height * samples, view.width * samples)
    return np.asarray(rays.reshape(-1, 3) @ view.cam_to_world[:3, :3].T)


def _select(hits: Hits, mask: NDArray[np.bool_]) -> Hits:
    return Hits(hits.face[mask], hits.t[mask], hits.weights[mask])
