"""Replica's official meshes in miniature: rooms with boxes, as binary PLY of quads with colours and normals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.settings import Settings

_VERTEX = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")] + [(name, "u1") for name in ("red", "green", "blue")]
)
_FACE = np.dtype([("count", "u1"), ("vertex_indices", "<i4", (4,))])
_HEADER = """ply
format binary_little_endian 1.0
element vertex {vertices}
property float x
property float y
property float z
property float nx
property float ny
property float nz
property uchar red
property uchar green
property uchar blue
element face {faces}
property list uchar int vertex_indices
end_header
"""


class ReplicaMeshLayout(Settings):
    """A miniature of the meshes.

    Attributes:
        seed: Seed of all scenes.
        scenes: Their names.
        boxes: Boxes in each room.
        cells: Quads along each side of a face.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    scenes: Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z]+(_[a-z]+)?_\d+$")], ...], Field(min_length=1)]
    boxes: Annotated[int, Field(ge=0, le=50)] = 6
    cells: Annotated[int, Field(ge=1, le=200)] = 24


class Block(NamedTuple):
    """A box turned about the vertical; the room itself is one, seen from inside.

    Attributes:
        centre: (3,) metres, z up.
        half: (3,) half extents.
        yaw: Radians.
        inside: Whether its faces look inward.
        colour: (3,) mean colour in [0, 255].
    """

    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    yaw: float
    inside: bool
    colour: NDArray[np.float64]


def room_blocks(settings: ReplicaMeshLayout, scene: str) -> list[Block]:
    """Furnish a room: a pure function of the settings and the scene's name. The room comes first."""
    rng = np.random.default_rng([settings.seed, *scene.encode()])
    half = np.array([rng.uniform(2.0, 3.0), rng.uniform(2.0, 3.0), 1.3])
    blocks = [Block(np.array([0.0, 0.0, 1.3]), half, 0.0, True, np.array([190.0, 185.0, 175.0]))]
    for index in range(settings.boxes):
        angle, size = 2 * np.pi * index / settings.boxes, rng.uniform(0.15, 0.45, 3)
        place = 0.72 * half[:2] * [np.cos(angle), np.sin(angle)]
        centre = np.array([*place, size[2]])
        blocks.append(Block(centre, size, rng.uniform(0, np.pi), False, rng.uniform(60, 230, 3)))
    return blocks


def write_replica_mesh_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write ``<scene>/mesh.ply`` with the attributes, types and byte order of the release.

    Args:
        out: An empty folder.
        settings: See :class:`ReplicaMeshLayout`.

    Raises:
        CardError: The settings are wrong.
    """
    checked = ReplicaMeshLayout.parse(settings, "generator of the Replica mesh layout")
    for scene in checked.scenes:
        pieces = [
            _grid(block, axis, side, checked.cells)
            for block in room_blocks(checked, scene)
            for axis in range(3)
            for side in (-1, 1)
        ]
        vertices = np.concatenate([piece[0] for piece in pieces])
        starts = np.cumsum([0, *(len(piece[0]) for piece in pieces[:-1])])
        quads = np.concatenate([piece[1] + start for piece, start in zip(pieces, starts, strict=True)])
        faces = np.zeros(len(quads), _FACE)
        faces["count"], faces["vertex_indices"] = 4, quads
        (out / scene).mkdir()
        header = _HEADER.format(vertices=len(vertices), faces=len(faces)).encode()
        (out / scene / "mesh.ply").write_bytes(header + vertices.tobytes() + faces.tobytes())


def _grid(block: Block, axis: int, side: int, cells: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """One face of a box as a grid of quads that run counter-clockwise seen from the side they face."""
    steps = np.linspace(-1, 1, cells + 1)
    a, b = np.meshgrid(steps, steps, indexing="ij")
    local = np.empty((a.size, 3))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    local[:, axis], local[:, first], local[:, second] = side, a.ravel(), b.ravel()
    cos, sin = np.cos(block.yaw), np.sin(block.yaw)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    outward = turn[:, axis] * side
    vertices = np.zeros(len(local), _VERTEX)
    points, normal = block.centre + (local * block.half) @ turn.T, -outward if block.inside else outward
    wave = 25 * np.sin(4 * points[:, :1] + 3 * points[:, 1:2]) * np.sin(5 * points[:, 2:] + axis)
    colour = np.clip(block.colour + wave + 8 * axis, 0, 255)
    for index, name in enumerate("xyz"):
        vertices[name], vertices[f"n{name}"] = points[:, index], normal[index]
        vertices[("red", "green", "blue")[index]] = np.rint(colour[:, index])
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()
    quads = corner[:, None] + np.array([0, cells + 1, cells + 2, 1])
    # first x second = axis, so this order faces +axis
    return vertices, quads if (side > 0) != block.inside else quads[:, ::-1]
