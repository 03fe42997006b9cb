"""Light: one lamp or sun with cast shadows, ambient light from above and below, sky and haze."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.mini.primitives import Solids, blocked, first_hit
from ncbench.datasets.mini.textures import clamp, fractal_noise
from ncbench.datasets.mini.vectors import FloatArray, Vector, along, dot, minus, row, unit
from ncbench.jit import jit

_LIFT = 1e-4  # metres that a shadow ray starts above its surface, so that the surface does not shade itself
_CORNERS = ((0.577, 0.577, 0.577), (0.577, -0.577, -0.577), (-0.577, 0.577, -0.577), (-0.577, -0.577, 0.577))


@dataclass(frozen=True, slots=True)
class Light:
    """The light of a scene; colours are linear RGB.

    Attributes:
        source: The lamp's position in metres, or, for a sun, the direction to it (any length).
        is_sun: Whether ``source`` is a direction.
        colour: Irradiance by the sun, or by the lamp at one reach's distance, seen straight on.
        reach: Metres at which a lamp has half of its near brightness; unused by a sun.
        softness: Radius of the lamp in metres, or of the sun in radians: blurs the shadow's edge.
        above: Ambient light on a surface that looks up.
        below: Ambient light on a surface that looks down.
        corner: Radius in metres within which other surfaces dim the ambient light.
        zenith: Colour of the sky overhead.
        haze: Colour of the sky at the horizon, into which distant surfaces fade.
        haze_density: Share of the light lost to haze per metre.
    """

    source: Vector
    is_sun: bool
    colour: Vector
    reach: float
    softness: float
    above: Vector
    below: Vector
    corner: float
    zenith: Vector
    haze: Vector
    haze_density: float


class LightTable(NamedTuple):
    """``Light`` packed for the kernels: every colour a row of ``colours``, every number a place in ``numbers``."""

    source: FloatArray  # (3,), unit for a sun
    colours: FloatArray  # (5, 3): colour, above, below, zenith, haze
    numbers: FloatArray  # (5,): is_sun, reach, softness, corner, haze_density


def pack_light(light: Light) -> LightTable:
    """Lay a light out as arrays."""
    source = np.array(light.source, dtype=np.float64)
    if light.is_sun:
        source /= np.linalg.norm(source)
    colours: NDArray[np.float64] = np.array([light.colour, light.above, light.below, light.zenith, light.haze])
    numbers = np.array([float(light.is_sun), light.reach, light.softness, light.corner, light.haze_density])
    return LightTable(source, colours, numbers)


@jit()
def sky_colour(table: LightTable, direction: Vector) -> Vector:
    """Linear RGB of the sky in a direction: haze to zenith, clouds, and a glow about the sun."""
    zenith, haze = row(table.colours, 3), row(table.colours, 4)
    height = max(direction[2], 0.0)
    blue = math.sqrt(height)
    cloud = 0.0
    if height > 0.02:  # clouds lie on a plane one unit up
        p = (direction[0] / height, direction[1] / height, 0.3)
        cloud = 0.8 * clamp(1.3 * fractal_noise(p, 0.9, 0.01 / height, 5)) * clamp(6.0 * height)
    s = table.source
    toward = max(dot(direction, (s[0], s[1], s[2])), 0.0)
    glow = 0.25 * toward**8 + 2.0 * toward**800
    c = row(table.colours, 0)
    return (
        (haze[0] + blue * (zenith[0] - haze[0])) * (1.0 - cloud) + cloud * 0.9 + glow * c[0],
        (haze[1] + blue * (zenith[1] - haze[1])) * (1.0 - cloud) + cloud * 0.9 + glow * c[1],
        (haze[2] + blue * (zenith[2] - haze[2])) * (1.0 - cloud) + cloud * 0.9 + glow * c[2],
    )


@jit()
def _toward_light(table: LightTable, p: Vector, sample: int) -> tuple[Vector, float, float]:
    """Unit direction and distance to the light's sample, and how bright it is here."""
    s, corner, softness = table.source, _CORNERS[sample], table.numbers[2]
    aim = (s[0] + softness * corner[0], s[1] + softness * corner[1], s[2] + softness * corner[2])
    if table.numbers[0] > 0.5:
        return unit(aim), math.inf, 1.0
    offset = (aim[0] - p[0], aim[1] - p[1], aim[2] - p[2])
    distance = math.sqrt(dot(offset, offset))
    ratio = distance / table.numbers[1]
    return unit(offset), distance, 2.0 / (1.0 + ratio * ratio)


@jit()
def _openness(solids: Solids, start: Vector, n: Vector, radius: float, sample: int) -> float:
    """How free the hemisphere is along one of four directions about the normal, 0 to 1, by the distance to a hit."""
    corner = _CORNERS[sample]
    direction = unit((n[0] + 0.9 * corner[0], n[1] + 0.9 * corner[1], n[2] + 0.9 * corner[2]))
    t, _ = first_hit(solids, start, direction, radius)
    return t / radius


@jit()
def shade(
    solids: Solids,
    table: LightTable,
    p: Vector,
    n: Vector,
    view: Vector,
    colour: Vector,
    gloss: float,
    first: int,
    count: int,
) -> Vector:
    """Light that a surface point sends to the eye.

    The light has four samples: four points of the lamp and four directions for the ambient light. A pixel that is
    smooth takes all four at its centre; one on an edge takes a different one at each of its four places.

    Args:
        solids: What can cast a shadow.
        table: The light.
        p: The point, world metres.
        n: Unit normal that faces the eye, world.
        view: Unit direction from the eye to the point, world.
        colour: Linear RGB albedo.
        gloss: Strength of the highlight.
        first: First of the four samples to take.
        count: How many to take and average.

    Returns:
        Linear RGB before haze.
    """
    start = along(p, n, _LIFT)
    direct, spark, openness = 0.0, 0.0, 0.0
    for sample in range(first, first + count):
        openness += _openness(solids, start, n, table.numbers[3], sample)
        to_light, distance, power = _toward_light(table, p, sample)
        facing = dot(n, to_light)
        if facing > 0.0 and not blocked(solids, start, to_light, distance):
            direct += facing * power
            spark += gloss * power * max(dot(n, unit(minus(to_light, view))), 0.0) ** 40
    direct, spark = direct / count, spark / count
    ambient = 0.25 + 0.75 * openness / count
    up = 0.5 + 0.5 * n[2]
    c, above, below = row(table.colours, 0), row(table.colours, 1), row(table.colours, 2)
    return (
        colour[0] * (c[0] * direct + ambient * (below[0] + up * (above[0] - below[0]))) + c[0] * spark,
        colour[1] * (c[1] * direct + ambient * (below[1] + up * (above[1] - below[1]))) + c[1] * spark,
        colour[2] * (c[2] * direct + ambient * (below[2] + up * (above[2] - below[2]))) + c[2] * spark,
    )


@jit()
def haze_over(table: LightTable, colour: Vector, distance: float) -> Vector:
    """Fade a colour into the haze with distance in metres."""
    haze = row(table.colours, 4)
    clear = math.exp(-table.numbers[4] * distance)
    return (
        haze[0] + clear * (colour[0] - haze[0]),
        haze[1] + clear * (colour[1] - haze[1]),
        haze[2] + clear * (colour[2] - haze[2]),
    )


@jit()
def encode(linear: float) -> float:
    """Linear light to an 8-bit value: compress highlights (Reinhard et al. 2002, eq. 4, white = 2), then sRGB."""
    x = clamp(linear * (1.0 + 0.25 * linear) / (1.0 + 0.5 * linear))
    y = 12.92 * x if x <= 0.0031308 else 1.055 * x ** (1.0 / 2.4) - 0.055
    return math.floor(255.0 * y + 0.5)
