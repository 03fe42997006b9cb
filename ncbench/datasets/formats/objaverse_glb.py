"""Binary glTF (GLB) to plain triangles with normals and colours, without trust in the file.

Objects come from strangers: what a header claims is checked before memory is asked for, external files are never
opened, and whatever the parser does with a broken file ends as one kind of error.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.arrays import DAMAGED, MAX_PIXELS, read_bytes
from ncbench.errors import SourceError

_MAGIC = b"glTF"
_JSON_CHUNK = b"JSON"
_COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
_GREY = 0.8  # glTF's default base colour is white; a bit less keeps highlights

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Opacity:
    """A surface is cut out where its alpha, that of a texture times ``factor``, is below ``cutoff``.

    Attributes:
        texture: (h, w) uint8, at the surface's ``uv``, or None for an alpha of 1.
        factor: In [0, 1].
        cutoff: Least alpha of a surface that is there.
    """

    texture: NDArray[np.uint8] | None
    factor: float
    cutoff: float


@dataclass(frozen=True, slots=True)
class Surface:
    """The looks of a range of triangles; one of the three sources of colour, times ``factor``.

    Attributes:
        texture: (h, w, 3) uint8 sRGB, or None.
        uv: (V, 2) coordinates of the part's vertices, v upwards; with a texture only.
        vertex_colour: (V, 3) in [0, 1], or None.
        factor: (3,) in [0, 1].
        opacity: Where it is cut out; None where it is not.
    """

    texture: NDArray[np.uint8] | None
    uv: Doubles | None
    vertex_colour: Doubles | None
    factor: Doubles
    opacity: Opacity | None


@dataclass(frozen=True, slots=True)
class Mesh:
    """A whole object in glTF's world (right-handed, y up).

    Attributes:
        vertices: (V, 3).
        faces: (F, 3) int64 indices of vertices.
        normals: (V, 3) unit vertex normals as the file has them, or as they follow from the faces.
        part: (F,) int64, index of each face's surface.
        first_vertex: For each surface the index of its first vertex.
        surfaces: Looks.
    """

    vertices: Doubles
    faces: NDArray[np.int64]
    normals: Doubles
    part: NDArray[np.int64]
    first_vertex: tuple[int, ...]
    surfaces: tuple[Surface, ...]


def read_glb(path: Path, max_faces: int, blend_cutoff: float = 0.5) -> Mesh:
    """Read an object.

    Args:
        path: A ``.glb`` file, version 2.
        max_faces: Most triangles, all instances counted.
        blend_cutoff: Alpha below which a material that blends (glTF's ``BLEND``) is cut out; ``MASK`` names its own.

    Returns:
        Its triangles; nodes' transforms applied.

    Raises:
        SourceError: Unreadable, not GLB, compressed, inconsistent, too large, or without triangles.
    """
    content = read_bytes(path, "a binary glTF (GLB)")
    _check_glb(path, content, max_faces)
    try:
        import trimesh

        # a stream, not a path: without a folder to resolve them in, links to other files are not followed
        scene = trimesh.load_scene(io.BytesIO(content), file_type="glb", process=False)
        return _assemble(path, scene, max_faces, blend_cutoff)
    except SourceError:
        raise
    except ImportError as error:
        raise SourceError.at(path, f"reading it needs trimesh ({error})", "Install trimesh and embreex") from error
    except Exception as error:
        problem = f"expected a binary glTF, but it does not parse ({type(error).__name__}: {error})"
        raise SourceError.at(path, problem, DAMAGED) from error


def _check_glb(path: Path, content: bytes, max_faces: int) -> None:
    """Check the header's lengths, the claimed counts, and that nodes form trees."""
    if len(content) < 20 or content[:4] != _MAGIC:
        raise SourceError.at(path, f"expected a binary glTF, found {content[:4]!r} at its start", DAMAGED)
    version, length, json_length = struct.unpack("<III", content[4:16])
    if version != 2 or length != len(content) or content[16:20] != _JSON_CHUNK or 20 + json_length > length:
        problem = f"expected glTF version 2 of {len(content)} bytes with JSON first, found version {version}, {length}"
        raise SourceError.at(path, problem, DAMAGED)
    try:
        tree = json.loads(content[20 : 20 + json_length])
        _check_counts(tree, 3 * max_faces)
        _check_nodes(tree.get("nodes", []))
        packed = _compression(tree)
    except (ValueError, TypeError, KeyError, LookupError, AttributeError, RecursionError) as error:
        problem = f"expected a consistent glTF ({type(error).__name__}: {error})"
        raise SourceError.at(path, problem, DAMAGED) from error
    if packed:
        problem = f"expected plain meshes, found them compressed ({', '.join(packed)})"
        raise SourceError.at(
            path, problem, "Unpack them with a glTF tool such as gltf-transform, or leave this object out"
        )


def _compression(tree: Mapping[str, Any]) -> list[str]:
    """Ways of compression without which there is no geometry: required, or with nothing beside the packed data."""
    needed = set(tree.get("extensionsRequired", []))
    accessors = tree.get("accessors", [])
    for mesh in tree.get("meshes", []):
        for primitive in mesh["primitives"]:
            if "bufferView" not in accessors[primitive["attributes"]["POSITION"]]:
                needed.update(primitive.get("extensions", {}))
    return sorted(needed.intersection(_COMPRESSIONS))


def _check_counts(tree: Mapping[str, Any], most: int) -> None:
    for accessor in tree.get("accessors", []):
        if not 0 <= int(accessor["count"]) <= most:
            raise ValueError(f"an accessor claims {accessor['count']} elements, more than {most}")


def _check_nodes(nodes: list[Mapping[str, Any]]) -> None:
    """Each node has at most one parent; with as many steps as nodes, a walk up must reach a root."""
    parents: dict[int, int] = {}
    for index, node in enumerate(nodes):
        for child in node.get("children", []):
            if child in parents or not 0 <= int(child) < len(nodes):
                raise ValueError(f"node {child} has two parents or does not exist")
            parents[int(child)] = index
    rooted: set[int] = set()
    for start in parents:
        trail: list[int] = []
        at = start
        while at in parents and at not in rooted:
            trail.append(at)
            if len(trail) > len(nodes):
                raise ValueError("the nodes go round in a circle")
            at = parents[at]
        rooted.update(trail)


def _assemble(path: Path, scene: Any, max_faces: int, blend_cutoff: float) -> Mesh:  # noqa: ANN401 - trimesh's types are loose
    total = sum(len(geometry.faces) for _, geometry in _instances(scene))
    if not 0 < total <= max_faces:
        raise SourceError.at(path, f"expected 1 to {max_faces} triangles, found {total}", "Leave this object out")
    vertices, faces, normals, part = [], [], [], []
    first: list[int] = []
    surfaces: list[Surface] = []
    count = 0
    for matrix, geometry in _instances(scene):
        places = np.asarray(geometry.vertices, dtype=np.float64)
        linear = matrix[:3, :3]
        vertices.append(places @ linear.T + matrix[:3, 3])
        # a normal is a plane's, so it goes with the inverse transpose; the adjugate needs no division
        normals.append(np.asarray(geometry.vertex_normals, dtype=np.float64) @ _adjugate(linear))
        faces.append(np.asarray(geometry.faces, dtype=np.int64) + count)
        part.append(np.full(len(geometry.faces), len(surfaces), dtype=np.int64))
        first.append(count)
        surfaces.append(_surface(geometry, blend_cutoff))
        count += len(places)
    mesh = Mesh(
        np.concatenate(vertices),
        np.concatenate(faces),
        _unit(np.concatenate(normals)),
        np.concatenate(part),
        tuple(first),
        tuple(surfaces),
    )
    if not np.isfinite(mesh.vertices).all() or mesh.faces.min() < 0 or mesh.faces.max() >= count:
        raise SourceError.at(path, "a vertex is not finite, or a triangle names one that is not there", DAMAGED)
    return mesh


def _instances(scene: Any) -> Iterator[tuple[Doubles, Any]]:  # noqa: ANN401 - trimesh's types are loose
    """Transform and geometry of each node that holds triangles, in a fixed order."""
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        geometry = scene.geometry[name]
        if hasattr(geometry, "faces"):
            yield np.asarray(matrix, dtype=np.float64), geometry


def _surface(geometry: Any, blend_cutoff: float) -> Surface:  # noqa: ANN401 - trimesh's types are loose
    visual = geometry.visual
    material = getattr(visual, "material", None)
    uv = getattr(visual, "uv", None)
    picture = getattr(material, "baseColorTexture", None)
    texture = None
    if picture is not None and uv is not None and len(uv) == len(geometry.vertices):
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"a texture claims {picture.width} x {picture.height} pixels")
        texture = np.asarray(picture.convert("RGBA"))
    painted = material is None and visual.kind == "vertex"
    return Surface(
        texture=None if texture is None else texture[..., :3],
        uv=None if texture is None else np.asarray(uv, dtype=np.float64),
        vertex_colour=np.asarray(visual.vertex_colors[:, :3], dtype=np.float64) / 255 if painted else None,
        factor=_factor(material, plain=texture is None and not painted),
        opacity=_opacity(material, None if texture is None else texture[..., 3], blend_cutoff),
    )


def _opacity(material: Any, alpha: NDArray[np.uint8] | None, blend_cutoff: float) -> Opacity | None:  # noqa: ANN401 - as above
    """Read glTF's alpha mode; an opaque material, which is the default, has an alpha that means nothing."""
    mode = getattr(material, "alphaMode", None)
    if mode not in ("MASK", "BLEND"):
        return None
    stored = getattr(material, "alphaCutoff", None)
    cutoff = blend_cutoff if mode == "BLEND" else 0.5 if stored is None else float(stored)
    factor = 1.0 if material.baseColorFactor is None else float(_shares(material.baseColorFactor)[3])
    least = 1.0 if alpha is None else float(alpha.min()) / 255
    return None if least * factor >= cutoff else Opacity(alpha, factor, cutoff)


def _factor(material: Any, *, plain: bool) -> Doubles:  # noqa: ANN401 - trimesh's types are loose
    stored = getattr(material, "baseColorFactor", None)
    if stored is None:
        return np.full(3, _GREY if plain else 1.0)
    return _shares(stored)[:3]


def _shares(stored: Any) -> Doubles:  # noqa: ANN401 - whatever trimesh gives: bytes or numbers up to 1
    values = np.asarray(stored)
    return values.astype(np.float64) / (255 if values.dtype.kind in "iu" else 1)


def _adjugate(linear: Doubles) -> Doubles:
    """Rows that, multiplied from the right, take normals along: the inverse times the determinant's sign and size."""
    a, b, c = linear
    cofactors = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
    return np.asarray(cofactors.T)


def _unit(vectors: Doubles) -> Doubles:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1))
