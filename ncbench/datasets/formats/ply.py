"""Replica's meshes: binary PLY with quads, vertex colours and vertex normals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.arrays import DAMAGED
from ncbench.errors import SourceError

_POSITION, _COLOUR = ("x", "y", "z"), ("red", "green", "blue")
_LISTS = ("vertex_indices", "vertex_index")  # both names are in use


@dataclass(frozen=True, slots=True)
class QuadMesh:
    """A mesh of quads.

    Attributes:
        vertices: (V, 3) float32, metres.
        colours: (V, 3) uint8, sRGB.
        quads: (F, 4) int32 indices, in order around the face.
    """

    vertices: NDArray[np.float32]
    colours: NDArray[np.uint8]
    quads: NDArray[np.int32]

    def triangles(self) -> NDArray[np.int32]:
        """Split every quad along the diagonal from its first to its third corner: (2F, 3), pairs in order."""
        return np.ascontiguousarray(self.quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3))


def read_quad_mesh(path: Path) -> QuadMesh:
    """Read a mesh.

    Args:
        path: A PLY file whose vertices have x, y, z, red, green, blue and whose faces all have four corners.

    Returns:
        The mesh.

    Raises:
        SourceError: Missing, not PLY, truncated, another kind of mesh, or an index that points nowhere.
    """
    import plyfile

    try:
        data = plyfile.PlyData.read(path, known_list_len={"face": dict.fromkeys(_LISTS, 4)})
        vertex, face = data["vertex"].data, data["face"].data
        vertices = np.stack([vertex[name] for name in _POSITION], axis=-1).astype(np.float32)
        colours = np.stack([vertex[name] for name in _COLOUR], axis=-1)
        name = next(name for name in _LISTS if name in (face.dtype.names or ()))
        quads = np.asarray(face[name])
    except (OSError, plyfile.PlyParseError, ValueError, KeyError, StopIteration, OverflowError, MemoryError) as error:
        problem = f"expected a PLY mesh of quads with vertex colours, but it does not read ({error!r})"
        raise SourceError.at(path, problem, DAMAGED) from error
    if quads.ndim != 2 or quads.shape[1] != 4 or not len(quads) or colours.dtype != np.uint8:
        problem = f"expected quads and 8-bit colours, found faces {quads.shape} and {colours.dtype}"
        raise SourceError.at(path, problem, DAMAGED)
    if not np.isfinite(vertices).all() or quads.min() < 0 or quads.max() >= len(vertices):
        raise SourceError.at(path, "a vertex is not finite, or a face names one that is not there", DAMAGED)
    return QuadMesh(vertices, colours, quads.astype(np.int32))
