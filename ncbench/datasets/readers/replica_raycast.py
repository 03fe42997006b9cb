"""Cast rays into a mesh: which triangle by Embree, where on it in float64."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.ply import QuadMesh
from ncbench.jit import jit

DoubleMap = NDArray[np.float64]
Vector = tuple[float, float, float]

_EDGE_ON = 1e-12  # cosine below which a ray runs within the triangle's plane


class Hits(NamedTuple):
    """What a bundle of rays meets; N rays.

    Attributes:
        hit: (N,) bool.
        distance: (N,) float64 multiple of the ray's direction, infinite where nothing is hit.
        normal: (N, 3) float64 unit normal of the triangle, turned against the ray; 0 where nothing is hit.
        back: (N,) bool, True where the triangle is seen from behind (its corners run clockwise).
        colour: (N, 3) float64 in [0, 255], interpolated between the triangle's corners; 0 where nothing is hit.
    """

    hit: NDArray[np.bool_]
    distance: DoubleMap
    normal: DoubleMap
    back: NDArray[np.bool_]
    colour: DoubleMap


class MeshCaster:
    """A mesh made ready for rays.

    Embree answers in float32 which triangle comes first; distance and normal are then those of that triangle's plane in
    float64, so that depth, normals and flow are consistent to rounding.

    Args:
        mesh: The mesh.
    """

    def __init__(self, mesh: QuadMesh) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self._vertices, self._colours, self._triangles = mesh.vertices, mesh.colours, mesh.triangles()
        self._scene: Any = EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(mesh.vertices), self._triangles)

    def distances(self, origin: DoubleMap, directions: DoubleMap) -> DoubleMap:
        """Cast rays for their distances alone; see :meth:`cast`."""
        return self.cast(origin, directions).distance

    def cast(self, origin: DoubleMap, directions: DoubleMap) -> Hits:
        """Cast rays from one place.

        Args:
            origin: (3,) world metres.
            directions: (N, 3), any length above 0.

        Returns:
            The hits.
        """
        count = len(directions)
        starts = np.ascontiguousarray(np.broadcast_to(origin, (count, 3)), dtype=np.float32)
        first = self._scene.run(starts, np.ascontiguousarray(directions, dtype=np.float32))
        found = Hits(
            np.zeros(count, np.bool_),
            np.full(count, np.inf),
            np.zeros((count, 3)),
            np.zeros(count, np.bool_),
            np.zeros((count, 3)),
        )
        rays, eye = np.ascontiguousarray(directions, dtype=np.float64), np.asarray(origin, dtype=np.float64)
        mesh = self._vertices, self._colours, self._triangles
        _meet_planes(*mesh, np.asarray(first, dtype=np.int64), eye, rays, found)
        return found


@jit()
def _meet_planes(
    vertices: NDArray[np.float32],
    colours: NDArray[np.uint8],
    triangles: NDArray[np.int32],
    first: NDArray[np.int64],
    origin: DoubleMap,
    directions: DoubleMap,
    found: Hits,
) -> None:
    """Meet each ray with the plane of the triangle that it hits first; degenerate and edge-on ones count as missed."""
    start = (origin[0], origin[1], origin[2])
    for ray in range(first.size):
        if first[ray] < 0:
            continue
        corners = triangles[first[ray]]
        a, b, c = _corner(vertices, corners[0]), _corner(vertices, corners[1]), _corner(vertices, corners[2])
        direction = (directions[ray, 0], directions[ray, 1], directions[ray, 2])
        across, upward = _minus(b, a), _minus(c, a)
        n = _cross(across, upward)
        square, facing = _dot(n, n), _dot(n, direction)
        if not abs(facing) > _EDGE_ON * math.sqrt(square * _dot(direction, direction)):
            continue
        reach = _dot(n, _minus(a, start)) / facing
        place = _minus(_along(start, direction, reach), a)
        second = min(max(_dot(_cross(place, upward), n) / square, 0.0), 1.0)
        third = min(max(_dot(_cross(across, place), n) / square, 0.0), 1.0 - second)
        scale = -math.copysign(1.0 / math.sqrt(square), facing)
        found.hit[ray], found.distance[ray], found.back[ray] = True, reach, facing > 0
        for k in range(3):
            found.normal[ray, k] = n[k] * scale
            found.colour[ray, k] = (
                (1.0 - second - third) * colours[corners[0], k]
                + second * colours[corners[1], k]
                + third * colours[corners[2], k]
            )


@jit()
def _corner(vertices: NDArray[np.float32], k: int) -> Vector:
    return (float(vertices[k, 0]), float(vertices[k, 1]), float(vertices[k, 2]))


@jit()
def _cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


@jit()
def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@jit()
def _minus(a: Vector, b: Vector) -> Vector:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


@jit()
def _along(origin: Vector, direction: Vector, t: float) -> Vector:
    return (origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2])
