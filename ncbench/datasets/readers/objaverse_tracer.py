"""Rays against a triangle mesh, with holes where a texture cuts them out.

The ray caster (embree, single precision) only says which triangle a ray meets; where on it is computed in double.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.objaverse_glb import Mesh
from ncbench.datasets.readers.objaverse_colour import is_there
from ncbench.errors import SourceError

_LAYERS = 64  # cut-out triangles that a ray is followed through; behind them it meets nothing
_STEP = 1e-5  # of the way so far: how far behind a cut-out triangle a ray goes on, in single precision's reach

Doubles = NDArray[np.float64]
NormalKind = Literal["smooth", "face"]


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
        """Find the first triangle on each ray that is there and not cut out.

        Args:
            origin: (3,).
            directions: (N, 3), of any length but 0.

        Returns:
            The hits, placed in double precision.
        """
        hits = self._first(origin, origin, directions)
        if not any(surface.opacity for surface in self.mesh.surfaces):
            return hits
        under_way = np.flatnonzero(hits.face >= 0)
        for _ in range(_LAYERS):
            there = is_there(self.mesh, hits.face[under_way], hits.weights[under_way])
            under_way = under_way[~there]
            if not len(under_way):
                return hits
            along = directions[under_way]
            behind = origin + (hits.t[under_way] * (1 + _STEP))[:, None] * along
            following = self._first(origin, behind, along)
            for kept, found in zip(hits, following, strict=True):
                kept[under_way] = found
            under_way = under_way[following.face >= 0]
        hits.face[under_way] = -1
        hits.t[under_way] = hits.weights[under_way] = np.nan
        return hits

    def _first(self, origin: Doubles, starts: Doubles, directions: Doubles) -> Hits:
        """The first triangles behind ``starts``, which lie on the rays from ``origin``."""
        hit = np.asarray(self._embree.intersects_first(np.broadcast_to(starts, directions.shape), directions))
        result = Hits(
            np.full(len(directions), -1, dtype=np.int64),
            np.full(len(directions), np.nan),
            np.full(directions.shape, np.nan),
        )
        rays = np.flatnonzero(hit >= 0)
        face, along = hit[rays], directions[rays]
        plane, start = self.face_normals[face], self._start[face]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = dot(plane, start - origin) / dot(plane, along)
            inside = origin + t[:, None] * along - start
            area = dot(plane, plane)
            second = dot(inside, self._across[face]) / area
            third = dot(inside, self._down[face]) / area
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
        flat = unit(self.face_normals[hits.face])
        flat *= np.where(dot(flat, directions) > 0, -1.0, 1.0)[:, None]
        if kind == "face":
            return flat
        corners = self.mesh.normals[self.mesh.faces[hits.face]]
        smooth = unit(np.einsum("nk,nki->ni", hits.weights, corners))
        smooth *= np.where(dot(smooth, flat) < 0, -1.0, 1.0)[:, None]
        facing = dot(smooth, directions) < 0
        return np.where(facing[:, None], smooth, flat)


def dot(a: Doubles, b: Doubles) -> Doubles:
    """Dot products of two times N vectors."""
    return np.asarray(np.einsum("ni,ni->n", a, b))


def unit(vectors: Doubles) -> Doubles:
    """Vectors at unit length; those of length 0 stay."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1))
