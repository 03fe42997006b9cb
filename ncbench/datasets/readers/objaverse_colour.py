"""Colour and opacity of a mesh at places on its triangles."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.objaverse_glb import Mesh, Opacity, Surface

Doubles = NDArray[np.float64]
Faces = NDArray[np.int64]


def base_colour(mesh: Mesh, faces: Faces, weights: Doubles) -> Doubles:
    """Linear colour of the surface before light.

    Args:
        mesh: The mesh.
        faces: (N,) triangles.
        weights: (N, 3) barycentric coordinates on them.

    Returns:
        (N, 3) in [0, 1].
    """
    colour = np.empty((len(faces), 3))
    for chosen, surface, corners in _by_surface(mesh, faces):
        colour[chosen] = _colour(surface, corners, weights[chosen]) * surface.factor
    return np.clip(colour, 0, 1)


def is_there(mesh: Mesh, faces: Faces, weights: Doubles) -> NDArray[np.bool_]:
    """Tell where a surface is not cut out.

    Args:
        mesh: The mesh.
        faces: (N,) triangles.
        weights: (N, 3) barycentric coordinates on them.

    Returns:
        (N,) bool.
    """
    there = np.ones(len(faces), dtype=np.bool_)
    for chosen, surface, corners in _by_surface(mesh, faces):
        if surface.opacity is not None:
            alpha = _alpha(surface, surface.opacity, corners, weights[chosen])
            there[chosen] = alpha >= surface.opacity.cutoff
    return there


def to_linear(srgb: Doubles) -> Doubles:
    """Light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.asarray(np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4))


def to_srgb(linear: Doubles) -> Doubles:
    """The sRGB values in [0, 1] of some light (IEC 61966-2-1)."""
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


_LINEAR = to_linear(np.arange(256) / 255)
_ALPHA = np.arange(256) / 255  # alpha is a share, not a colour


def _by_surface(mesh: Mesh, faces: Faces) -> Iterator[tuple[NDArray[np.bool_], Surface, Faces]]:
    """Places by the surface that they are on, with the corners of their triangles counted from its first vertex."""
    part = mesh.part[faces]
    for index in np.unique(part):
        chosen = part == index
        yield chosen, mesh.surfaces[index], mesh.faces[faces[chosen]] - mesh.first_vertex[index]


def _colour(surface: Surface, corners: Faces, weights: Doubles) -> Doubles:
    if surface.texture is not None and surface.uv is not None:
        return _sample(_LINEAR, surface.texture, np.einsum("nk,nki->ni", weights, surface.uv[corners]))
    if surface.vertex_colour is not None:
        return np.asarray(np.einsum("nk,nki->ni", weights, surface.vertex_colour[corners]))
    return np.ones((len(corners), 3))


def _alpha(surface: Surface, opacity: Opacity, corners: Faces, weights: Doubles) -> Doubles:
    if opacity.texture is not None and surface.uv is not None:
        uv = np.einsum("nk,nki->ni", weights, surface.uv[corners])
        return _sample(_ALPHA, opacity.texture[..., None], uv)[:, 0] * opacity.factor
    return np.full(len(corners), opacity.factor)


def _sample(table: Doubles, texture: NDArray[np.uint8], uv: Doubles) -> Doubles:
    """Bilinear, repeating, v upwards; values are looked up in the table before the mean."""
    height, width = texture.shape[:2]
    finite = np.nan_to_num(uv, posinf=0.0, neginf=0.0)
    x, y = (finite[:, 0] % 1) * width - 0.5, ((1 - finite[:, 1]) % 1) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = (x - left)[:, None], (y - top)[:, None]

    def texel(row: NDArray[np.int64], column: NDArray[np.int64]) -> Doubles:
        return np.asarray(table[texture[row % height, column % width]])

    upper = (1 - across) * texel(top, left) + across * texel(top, left + 1)
    lower = (1 - across) * texel(top + 1, left) + across * texel(top + 1, left + 1)
    return np.asarray((1 - down) * upper + down * lower)
