"""Things built of a few solids: furniture, toys, buildings, trees, vehicles.

Each function returns the bodies of one thing that stands at ``spot`` and is turned by ``yaw`` about the vertical.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ncbench.datasets.mini import palette
from ncbench.datasets.mini.primitives import Box, Cone, Cylinder, Plane, Solid, Sphere
from ncbench.datasets.mini.scene import Body, Path3
from ncbench.datasets.mini.textures import Texture
from ncbench.datasets.mini.vectors import Vector

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a thing stands: point on the ground (metres, world) and turn about the vertical (radians)."""

    x: float
    y: float
    z: float = 0.0
    yaw: float = 0.0

    def put(self, solid: Solid, texture: Texture, at: Vector) -> Body:
        """A resting body whose origin lies at ``at`` in the thing's own frame."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        centre = (self.x + cos * at[0] - sin * at[1], self.y + sin * at[0] + cos * at[1], self.z + at[2])
        return Body(solid, texture, Path3(centre), turn=(0.0, 0.0, self.yaw))


def table(rng: Rng, spot: Spot) -> list[Body]:
    """A table of about 1.2 x 0.8 m with three things on it."""
    texture, top = palette.wood(rng, 6.0), 0.74
    bodies = [spot.put(Box(0.62, 0.42, 0.03), texture, (0.0, 0.0, top - 0.03))]
    leg = Cylinder(0.035, 0.5 * top - 0.03)
    bodies += [spot.put(leg, texture, (x, y, 0.5 * top - 0.03)) for x in (-0.54, 0.54) for y in (-0.34, 0.34)]
    radius = float(rng.uniform(0.11, 0.16))
    bodies.append(spot.put(Sphere(radius), palette.toy(rng, 9.0), (-0.3, 0.1, top + radius)))
    bodies.append(spot.put(Cone(0.14, 0.0, 0.17), palette.toy(rng, 10.0), (0.05, -0.16, top + 0.17)))
    bodies.append(spot.put(Cylinder(0.09, 0.13), palette.toy(rng, 10.0), (0.36, 0.12, top + 0.13)))
    return bodies


def sofa(rng: Rng, spot: Spot) -> list[Body]:
    """A sofa of about 1.5 m; it faces +x of its own frame."""
    texture = palette.cloth(rng, 5.0)
    cushion = palette.cloth(rng, 9.0)
    return [
        spot.put(Box(0.4, 0.75, 0.21), texture, (0.0, 0.0, 0.21)),
        spot.put(Box(0.12, 0.75, 0.21), texture, (-0.28, 0.0, 0.63)),
        *(spot.put(Box(0.4, 0.1, 0.3), texture, (0.0, side, 0.3)) for side in (-0.85, 0.85)),
        spot.put(Box(0.1, 0.2, 0.2), cushion, (-0.06, float(rng.uniform(-0.4, 0.4)), 0.62)),
    ]


def shelf(rng: Rng, spot: Spot) -> list[Body]:
    """A cupboard of man's height with a vase on top."""
    height, body = float(rng.uniform(1.2, 1.7)), palette.wood(rng, 5.0)
    return [
        spot.put(Box(0.25, 0.55, 0.5 * height), body, (0.0, 0.0, 0.5 * height)),
        spot.put(Box(0.02, 0.5, 0.4 * height), palette.toy(rng, 4.0), (0.26, 0.0, 0.52 * height)),
        spot.put(Cone(0.07, 0.14, 0.14), palette.toy(rng, 10.0), (0.0, float(rng.uniform(-0.3, 0.3)), height + 0.14)),
    ]


def lamp(rng: Rng, spot: Spot) -> list[Body]:
    """A standing lamp: foot, rod and a conical shade."""
    metal = palette.surface(rng, "plain", (palette.DARK, "6a6f7a"), 1.0, 8.0, 0.2, 0.3)
    return [
        spot.put(Cylinder(0.2, 0.025), metal, (0.0, 0.0, 0.025)),
        spot.put(Cylinder(0.025, 0.65), metal, (0.0, 0.0, 0.7)),
        spot.put(Cone(0.3, 0.16, 0.18), palette.cloth(rng, 7.0), (0.0, 0.0, 1.5)),
    ]


def plant(rng: Rng, spot: Spot) -> list[Body]:
    """A pot with a round or a pointed bush."""
    green, pot = palette.foliage(rng), palette.toy(rng, 7.0)
    bodies = [spot.put(Cone(0.2, 0.28, 0.2), pot, (0.0, 0.0, 0.2))]
    if rng.random() < 0.5:
        return [*bodies, spot.put(Sphere(0.36), green, (0.0, 0.0, 0.7))]
    return [*bodies, spot.put(Cone(0.34, 0.0, 0.5), green, (0.0, 0.0, 0.9))]


def podium(rng: Rng, spot: Spot) -> list[Body]:
    """A turning box on a pillar: it moves."""
    height = float(rng.uniform(0.5, 0.8))
    half = float(rng.uniform(0.2, 0.26))
    spin = float(rng.choice((-1.0, 1.0)) * rng.uniform(0.05, 0.08))
    path = Path3((spot.x, spot.y, spot.z + height + 0.08 + 1.25 * half), (0.0, 0.0, 0.05), period=30.0)
    turning = Body(
        Box(half, half, 1.25 * half), palette.toy(rng, 6.0), path, turn=(0.0, 0.0, spot.yaw), spin=(0.0, 0.0, spin)
    )
    return [spot.put(Cylinder(0.3, 0.5 * height), palette.stone(rng, 4.0), (0.0, 0.0, 0.5 * height)), turning]


def rolling_ball(rng: Rng, x: float, y: float, reach: float, radius: float, z: float = 0.0) -> Body:
    """A ball that goes round on the ground within ``reach`` metres of a point, and turns as it goes."""
    start = float(rng.uniform(0.0, 2.0 * math.pi))
    path = Path3(
        (x, y, z + radius),
        (reach, 0.6 * reach, 0.0),
        (start, start + 0.5 * math.pi, 0.0),
        float(rng.uniform(36.0, 48.0)),
    )
    return Body(Sphere(radius), palette.toy(rng, 1.6 / radius), path, spin=(0.06, -0.04, 0.05))


def walls(rng: Rng, half_x: float, half_y: float, height: float) -> list[Body]:
    """Floor, ceiling and four walls of a closed room about the origin."""
    floor = palette.wood(rng, 5.0) if rng.random() < 0.5 else palette.stone(rng, 2.0)
    paper, accent = palette.wallpaper(rng), palette.wallpaper(rng)
    ceiling = palette.surface(rng, "plain", ("efece4", "e2ded4"), 1.0, 2.0, 0.05)
    up, quarter = 0.5 * height, 0.5 * math.pi
    flat_x, flat_y = Plane(half_x, up), Plane(half_y, up)
    turned = 2.0 * math.pi / 3.0 / math.sqrt(3.0)  # about (1, 1, 1): z to x, so that the pattern's y axis stays upright
    return [
        Body(Plane(half_x, half_y), floor, Path3((0.0, 0.0, 0.0))),
        Body(Plane(half_x, half_y), ceiling, Path3((0.0, 0.0, height))),
        *(Body(flat_x, paper, Path3((0.0, side, up)), turn=(quarter, 0.0, 0.0)) for side in (-half_y, half_y)),
        *(Body(flat_y, accent, Path3((side, 0.0, up)), turn=(turned, turned, turned)) for side in (-half_x, half_x)),
    ]


def building(rng: Rng, spot: Spot, half_x: float, half_y: float, height: float) -> list[Body]:
    """A house with rows of windows and a flat slab for a roof."""
    colour = palette.pick(rng, palette.FACADES)
    front = palette.surface(
        rng, "windows", (colour, palette.pick(rng, ("4a5a6b", "6d8496", "3f4a55"))), 0.42, 0.8, 0.16
    )
    roof = palette.surface(rng, "plain", (palette.dim(colour, 0.55), palette.dim(colour, 0.7)), 1.0, 0.8, 0.2)
    return [
        spot.put(Box(half_x, half_y, 0.5 * height), front, (0.0, 0.0, 0.5 * height)),
        spot.put(Box(half_x + 0.3, half_y + 0.3, 0.25), roof, (0.0, 0.0, height + 0.25)),
    ]


def tree(rng: Rng, spot: Spot) -> list[Body]:
    """A trunk with a round or a pointed crown."""
    bark = palette.surface(rng, "plain", ("6e5138", "503a28"), 1.0, 3.0, 0.3)
    green, size = palette.foliage(rng), float(rng.uniform(0.8, 1.3))
    trunk = spot.put(Cylinder(0.16 * size, 0.8 * size), bark, (0.0, 0.0, 0.8 * size))
    if rng.random() < 0.5:
        return [trunk, spot.put(Sphere(1.25 * size), green, (0.0, 0.0, 2.5 * size))]
    return [trunk, spot.put(Cone(1.3 * size, 0.0, 1.8 * size), green, (0.0, 0.0, 2.9 * size))]


def van(rng: Rng, x: float, y: float, reach: float, phase: float) -> list[Body]:
    """A delivery van that goes to and fro along y within ``reach`` metres: it moves as one rigid group."""
    paint = palette.toy(rng, 1.4)
    glass = palette.surface(rng, "plain", ("33404d", "4a5a6b"), 1.0, 2.0, 0.1, 0.4)
    tyre = palette.surface(rng, "plain", ("2b2b2e", "3d3d42"), 1.0, 4.0, 0.2)
    period = float(rng.uniform(60.0, 80.0))

    def part(solid: Solid, texture: Texture, at: Vector, turn: Vector = (0.0, 0.0, 0.0)) -> Body:
        path = Path3((x + at[0], y + at[1], at[2]), (0.0, reach, 0.0), (0.0, phase, 0.0), period)
        return Body(solid, texture, path, turn=turn)

    wheel, lying = Cylinder(0.42, 0.14), (0.0, 0.5 * math.pi, 0.0)
    return [
        part(Box(1.0, 1.5, 1.05), paint, (0.0, -0.6, 1.55)),
        part(Box(0.95, 0.7, 0.75), paint, (0.0, 1.6, 1.25)),
        part(Box(0.9, 0.72, 0.28), glass, (0.0, 1.62, 1.6)),
        *(part(wheel, tyre, (side, along, 0.42), lying) for side in (-0.95, 0.95) for along in (-1.4, 1.5)),
    ]


def balloon(rng: Rng, x: float, y: float, z: float) -> list[Body]:
    """A balloon with a basket that drifts and bobs: it moves as one rigid group."""
    cover, basket = palette.toy(rng, 0.9), palette.wood(rng, 3.0)
    phase = float(rng.uniform(0.0, 2.0 * math.pi))

    def part(solid: Solid, texture: Texture, height: float) -> Body:
        path = Path3((x, y, z + height), (1.5, 1.0, 0.6), (phase, phase + 1.0, phase + 2.0), 64.0)
        return Body(solid, texture, path, spin=(0.0, 0.0, 0.02))

    return [
        part(Sphere(1.8), cover, 0.0),
        part(Cone(0.5, 1.32, 0.55), cover, -1.75),
        part(Box(0.4, 0.4, 0.3), basket, -2.95),
    ]
