"""Ray casting of a triangle mesh: exact depth and normals at pixel centres, a shaded picture, flow and occlusion.

The tracer (embree, single precision) only says which triangle a ray meets; where on it is computed in double.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.objaverse_glb import Mesh, Surface
from ncbench.datasets.frame import BoolMap, FloatMap, Matrix
from ncbench.errors import SourceError
from ncbench.geometry.cameras import pinhole_rays, project, transform_points

_SAME_POINT = 1e-4  # relative distance within which the next camera's ray counts as reaching the point itself
_BORDER = 1e-6  # pixels; a point on the outermost pixel centre must not leave the picture by rounding

Doubles = NDArray[np.float64]
NormalKind = Literal["smooth", "face"]


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


class Hits(NamedTuple):
    """Where N rays meet the mesh.

    Attributes:
        face: (N,) index of the triangle, -1 for none.
        t: (N,) how many times its direction a ray travels; NaN for none.
        weights: (N, 3) barycentric coordinates; NaN for none.
    """

    face: NDArray[np.int64]
    t: Doubles
    weights: Doubles


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


class Tracer:
    """A mesh made ready for rays.

    Args:
        mesh: The mesh; degenerate triangles are never hit.

    Raises:
        SourceError: The ray tracing libraries are not installed.
    """

    def __init__(self, mesh: Mesh) -> None:
        try:
            import trimesh
            from trimesh.ray.ray_pyembree import RayMeshIntersector
        except ImportError as error:
            raise SourceError(f"rendering objects needs trimesh and embreex ({error}). Install both.") from error
        self.mesh = mesh
        # a handful of triangles far from the origin would suffer from single precision: the reader centres objects
        self._embree: Any = RayMeshIntersector(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False))
        corners = mesh.vertices[mesh.faces]
        self._start = corners[:, 0]
        first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        self.face_normals = np.cross(first, second)
        # a place within a triangle, dotted with these, gives its barycentric coordinates times twice the area, squared
        self._across = np.cross(second, self.face_normals)
        self._down = np.cross(self.face_normals, first)

    def trace(self, origin: Doubles, directions: Doubles) -> Hits:
        """Find the first triangle on each ray.

        Args:
            origin: (3,).
            directions: (N, 3), of any length but 0.

        Returns:
            The hits, placed in double precision.
        """
        hit = np.asarray(self._embree.intersects_first(np.broadcast_to(origin, directions.shape), directions))
        result = Hits(
            np.full(len(directions), -1, dtype=np.int64),
            np.full(len(directions), np.nan),
            np.full(directions.shape, np.nan),
        )
        rays = np.flatnonzero(hit >= 0)
        face, along = hit[rays], directions[rays]
        plane, start = self.face_normals[face], self._start[face]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = _dot(plane, start - origin) / _dot(plane, along)
            inside = origin + t[:, None] * along - start
            area = _dot(plane, plane)
            second = _dot(inside, self._across[face]) / area
            third = _dot(inside, self._down[face]) / area
        good = np.isfinite(second + third) & (t > 0)  # false for t that is not finite, too
        rays = rays[good]
        result.face[rays], result.t[rays] = face[good], t[good]
        result.weights[rays] = np.stack([1 - second - third, second, third], axis=-1)[good]
        return result

    def normals(self, hits: Hits, directions: Doubles, kind: NormalKind) -> Doubles:
        """Unit world normals that face the rays.

        A smooth normal is turned to its triangle's visible side; where it then still points away from the ray, as
        happens at a silhouette, the triangle's own normal takes its place.

        Args:
            hits: From ``trace``; every ray must have one.
            directions: (N, 3) of the same rays.
            kind: Interpolated vertex normals or the triangle's.

        Returns:
            (N, 3) float64.
        """
        flat = _unit(self.face_normals[hits.face])
        flat *= np.where(_dot(flat, directions) > 0, -1.0, 1.0)[:, None]
        if kind == "face":
            return flat
        corners = self.mesh.normals[self.mesh.faces[hits.face]]
        smooth = _unit(np.einsum("nk,nki->ni", hits.weights, corners))
        smooth *= np.where(_dot(smooth, flat) < 0, -1.0, 1.0)[:, None]
        facing = _dot(smooth, directions) < 0
        return np.where(facing[:, None], smooth, flat)


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
    colour = np.broadcast_to(_to_linear(np.array(background) / 255), directions.shape).copy()
    seen = hits.face >= 0
    found = _select(hits, seen)
    normal = tracer.normals(found, directions[seen], "smooth")
    strength = light.ambient + light.lamp * np.maximum(normal @ light.direction, 0)
    colour[seen] = np.minimum(base_colour(tracer.mesh, found) * strength[:, None], 1)
    grid = colour.reshape(view.height, samples, view.width, samples, 3).mean(axis=(1, 3))
    return np.rint(_to_srgb(grid) * 255).astype(np.uint8)


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


def base_colour(mesh: Mesh, hits: Hits) -> Doubles:
    """Linear colour of the surface before light.

    Args:
        mesh: The mesh.
        hits: Every one on a triangle.

    Returns:
        (N, 3) in [0, 1].
    """
    colour = np.empty((len(hits.face), 3))
    part = mesh.part[hits.face]
    for index in np.unique(part):
        chosen = part == index
        surface, first = mesh.surfaces[index], mesh.first_vertex[index]
        corners = mesh.faces[hits.face[chosen]] - first
        colour[chosen] = _surface_colour(surface, corners, hits.weights[chosen]) * surface.factor
    return np.clip(colour, 0, 1)


def _surface_colour(surface: Surface, corners: NDArray[np.int64], weights: Doubles) -> Doubles:
    if surface.texture is not None and surface.uv is not None:
        return _sample(surface.texture, np.einsum("nk,nki->ni", weights, surface.uv[corners]))
    if surface.vertex_colour is not None:
        return np.asarray(np.einsum("nk,nki->ni", weights, surface.vertex_colour[corners]))
    return np.ones((len(corners), 3))


def _sample(texture: NDArray[np.uint8], uv: Doubles) -> Doubles:
    """Bilinear, repeating, v upwards; decoded to linear before the mean."""
    height, width = texture.shape[:2]
    finite = np.nan_to_num(uv, posinf=0.0, neginf=0.0)
    x, y = (finite[:, 0] % 1) * width - 0.5, ((1 - finite[:, 1]) % 1) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = (x - left)[:, None], (y - top)[:, None]
    table = _to_linear(np.arange(256) / 255)

    def texel(row: NDArray[np.int64], column: NDArray[np.int64]) -> Doubles:
        return np.asarray(table[texture[row % height, column % width]])

    upper = (1 - across) * texel(top, left) + across * texel(top, left + 1)
    lower = (1 - across) * texel(top + 1, left) + across * texel(top + 1, left + 1)
    return np.asarray((1 - down) * upper + down * lower)


def _directions(view: View, samples: int) -> Doubles:
    """World directions (N, 3) with a camera z of 1, row by row, ``samples`` x ``samples`` within each pixel."""
    scale = np.diag([samples, samples, 1.0])
    scale[:2, 2] = 0.5 * samples - 0.5  # pixel centres of the finer grid
    rays = pinhole_rays(scale @ view.intrinsics, view.height * samples, view.width * samples)
    return np.asarray(rays.reshape(-1, 3) @ view.cam_to_world[:3, :3].T)


def _select(hits: Hits, mask: NDArray[np.bool_]) -> Hits:
    return Hits(hits.face[mask], hits.t[mask], hits.weights[mask])


def _dot(a: Doubles, b: Doubles) -> Doubles:
    return np.asarray(np.einsum("ni,ni->n", a, b))


def _unit(vectors: Doubles) -> Doubles:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1))


def _to_linear(srgb: Doubles) -> Doubles:
    return np.asarray(np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4))


def _to_srgb(linear: Doubles) -> Doubles:
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))
