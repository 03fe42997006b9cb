"""Cast any bundle of rays into a scene: exact geometry for cameras that are no plain pinhole, and linear radiance."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.mini.lighting import LightTable, haze_over, pack_light, shade, sky_colour
from ncbench.datasets.mini.primitives import Solids, first_hit, surface_normal, to_object
from ncbench.datasets.mini.scene import Scene, pack_solids
from ncbench.datasets.mini.textures import Finishes, albedo, pack_textures
from ncbench.datasets.mini.vectors import along, dot, rotate, row
from ncbench.jit import jit

DoubleMap = NDArray[np.float64]


class Cast(NamedTuple):
    """What a bundle of rays meets.

    Attributes:
        distance: (H, W) Euclidean distance in metres, NaN where nothing is hit.
        normal: (H, W, 3) unit world normals against the ray, NaN where nothing is hit.
        ids: (H, W) int32, 1 + index of the body hit, 0 for none.
        radiance: (H, W, 3) linear RGB.
    """

    distance: DoubleMap
    normal: DoubleMap
    ids: NDArray[np.int32]
    radiance: DoubleMap


def cast_rays(scene: Scene, frame: float, origin: DoubleMap, directions: DoubleMap) -> Cast:
    """Cast one ray a pixel, all from one place.

    Args:
        scene: The scene.
        frame: When.
        origin: (3,) world metres.
        directions: (H, W, 3) unit vectors, world.

    Returns:
        The geometry and the light.
    """
    solids = pack_solids(scene, scene.body_poses(frame))
    finishes = pack_textures([body.texture for body in scene.bodies])
    height, width, _ = directions.shape
    # a pixel's extent is needed only to blur fine texture: the mean angle between neighbours serves everywhere
    spread = float(np.linalg.norm(np.diff(directions, axis=1), axis=-1).mean())
    found = Cast(
        np.full((height, width), np.nan),
        np.full((height, width, 3), np.nan),
        np.zeros((height, width), np.int32),
        np.zeros((height, width, 3)),
    )
    _cast(solids, finishes, pack_light(scene.light), np.ascontiguousarray(origin[None]), directions, spread, found)
    return found


@jit()
def _cast(
    solids: Solids,
    finishes: Finishes,
    light: LightTable,
    start: DoubleMap,
    directions: DoubleMap,
    spread: float,
    found: Cast,
) -> None:
    origin = row(start, 0)
    for y in range(directions.shape[0]):
        for x in range(directions.shape[1]):
            direction = row(directions[y], x)
            t, k = first_hit(solids, origin, direction, math.inf)
            colour = sky_colour(light, direction)
            if k >= 0:
                point = along(origin, direction, t)
                local = to_object(solids, k, point)
                size, code = row(solids.size, k), solids.code[k]
                own = surface_normal(code, size, local)
                n = rotate(solids.rotation, k, own)
                facing = dot(n, direction)
                if facing > 0.0:
                    n = (-n[0], -n[1], -n[2])
                pixel = t * spread / math.sqrt(max(abs(facing), 0.05))
                paint = albedo(finishes, k, code, size, local, own, pixel)
                lit = shade(solids, light, point, n, direction, paint, finishes.gloss[k], 0, 4)
                colour = haze_over(light, lit, t)
                found.distance[y, x], found.ids[y, x] = t, k + 1
                found.normal[y, x, 0], found.normal[y, x, 1], found.normal[y, x, 2] = n
            for channel in range(3):
                found.radiance[y, x, channel] = colour[channel]
