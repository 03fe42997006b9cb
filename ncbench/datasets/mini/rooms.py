"""The families of scenes: a furnished room, a street under the sky, and toys on a table."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from ncbench.datasets.mini import palette, pieces
from ncbench.datasets.mini.lighting import Light
from ncbench.datasets.mini.pieces import Rng, Spot
from ncbench.datasets.mini.primitives import Box, Cone, Cylinder, Plane, Solid, Sphere
from ncbench.datasets.mini.scene import Body, Camera, Path3, Scene
from ncbench.settings import suggest

Kind = Literal["room", "outdoor", "objects"]
Contents = tuple[list[Body], Camera, Light]


def make_scene(kind: str, seed: int, frames: int, height: int, width: int) -> Scene:
    """Furnish a scene; a pure function of its arguments.

    The bodies and their motion depend on ``kind`` and ``seed`` alone: more frames continue the clip, another picture
    size samples the same scene.

    Args:
        kind: "room", "outdoor" or "objects".
        seed: Any integer from 0.
        frames: Length of the clip, at least 1.
        height: Picture's height in pixels, at least 2.
        width: Picture's width in pixels, at least 2.

    Returns:
        The scene.

    Raises:
        ValueError: Unknown kind, negative seed, or a size that is too small.
    """
    if kind not in _BUILDERS:
        raise ValueError(f"unknown kind of scene {kind!r}. {suggest(kind, _BUILDERS)}")
    if seed < 0 or frames < 1 or min(height, width) < 2:
        raise ValueError(
            f"expected seed >= 0, frames >= 1, height and width >= 2, got {seed}, {frames}, {height}, {width}"
        )
    bodies, camera, light = _BUILDERS[kind](np.random.default_rng([seed, zlib.crc32(kind.encode())]))
    return Scene(kind, tuple(bodies), camera, light, frames, height, width)


def _between(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _sign(rng: Rng) -> float:
    return float(rng.choice((-1.0, 1.0)))


def _room_light(rng: Rng, x: float, y: float, z: float) -> Light:
    warm = _between(rng, 0.8, 1.0)
    return Light(
        source=(x, y, z),
        is_sun=False,
        colour=(1.0, 0.7 + 0.25 * warm, 0.45 + 0.45 * warm),
        reach=3.0,
        softness=0.12,
        above=(0.42, 0.44, 0.48),
        below=(0.36, 0.33, 0.30),
        corner=0.6,
        zenith=(0.0, 0.0, 0.0),
        haze=(0.0, 0.0, 0.0),
        haze_density=0.0,
    )


def _pictures(rng: Rng, half_x: float, half_y: float) -> list[Body]:
    """A framed picture amid each wall."""
    bodies = []
    for wall in range(4):
        yaw = 0.5 * math.pi * wall
        distance = half_x if wall % 2 == 0 else half_y
        spot = Spot(distance * math.cos(yaw), distance * math.sin(yaw), yaw=yaw)
        side, up = _between(rng, -0.5, 0.5), _between(rng, 1.55, 1.75)
        wide, tall = _between(rng, 0.4, 0.6), _between(rng, 0.3, 0.42)
        frame = palette.wood(rng, 8.0)
        bodies.append(spot.put(Box(0.03, wide + 0.05, tall + 0.05), frame, (-0.03, side, up)))
        bodies.append(spot.put(Box(0.01, wide, tall), palette.toy(rng, 4.0), (-0.07, side, up)))
    return bodies


def _room(rng: Rng) -> Contents:
    """Five pieces of furniture along the sides away from the camera's corner, a ball that rolls, a box that turns."""
    half_x, half_y, height = _between(rng, 2.6, 3.1), _between(rng, 2.6, 3.1), _between(rng, 2.6, 2.9)
    sx, sy = _sign(rng), _sign(rng)  # the corner opposite the camera
    places = [
        (sx * (half_x - 0.6), sy * (half_y - 1.05)),
        (-sx * 0.5, sy * (half_y - 0.6)),
        (sx * (half_x - 0.6), -sy * 0.6),
        (sx * 0.55, sy * 0.55),
        (-sx * (half_x - 0.5), sy * (half_y - 0.5)),
        (sx * (half_x - 0.5), -sy * (half_y - 0.5)),
    ]
    builders = [pieces.shelf, pieces.sofa, pieces.lamp, pieces.plant]
    order = rng.permutation(4)
    walls_first = [builders[i] for i in order]
    chosen = [walls_first[0], walls_first[1], walls_first[2], pieces.table, pieces.podium, walls_first[3]]
    bodies = pieces.walls(rng, half_x, half_y, height) + _pictures(rng, half_x, half_y)
    for (x, y), build in zip(places, chosen, strict=True):
        inward = math.atan2(-y, -x) if build is not pieces.table else _between(rng, 0.0, math.pi)
        yaw = 0.5 * math.pi * round(inward / (0.5 * math.pi)) if build in {pieces.shelf, pieces.sofa} else inward
        bodies += build(rng, Spot(x, y, yaw=yaw))
    rug = palette.cloth(rng, 4.0)
    bodies.append(Spot(-sx * 0.2, -sy * 0.2, yaw=_between(rng, 0.0, 0.6)).put(Plane(1.3, 0.9), rug, (0.0, 0.0, 0.006)))
    bodies.append(pieces.rolling_ball(rng, -sx * 0.8, -sy * 0.45, 0.5, _between(rng, 0.17, 0.23), 0.006))
    eye = (-sx * _between(rng, 1.1, 1.5), -sy * (half_y - 0.6), _between(rng, 1.7, 1.9))
    turn, way = _between(rng, 0.0, 2.0 * math.pi), _sign(rng)
    camera = Camera(
        Path3(eye, (0.45, 0.3, 0.12), (turn, turn + 0.5 * math.pi, turn), way * 28.0),
        Path3(
            (sx * 0.35, sy * 0.9, _between(rng, 0.3, 0.45)),
            (0.3, 0.2, 0.08),
            (turn + 2.5, turn, turn + 1.0),
            way * 36.0,
        ),
        math.radians(_between(rng, 62.0, 70.0)),
        _between(rng, -0.04, 0.04),
    )
    return bodies, camera, _room_light(rng, -sx * 0.6, sy * 0.2, height - 0.35)


def _hills(rng: Rng, turned: float) -> list[Body]:
    """Large balls sunk in the ground far away."""
    bodies = []
    for side in np.linspace(-0.9, 0.9, 6):
        radius, distance = _between(rng, 25.0, 45.0), _between(rng, 65.0, 85.0)
        x, y = distance * math.sin(side + turned), distance * math.cos(side + turned)
        bodies.append(Body(Sphere(radius), palette.foliage(rng), Path3((x, y, -_between(rng, 0.6, 0.75) * radius))))
    return bodies


def _outdoor(rng: Rng) -> Contents:
    """Houses and trees on both sides of a road along y, vans on it, a balloon above, hills behind."""
    grass = palette.surface(rng, "plain", ("6f8f4a", "98a860"), 1.0, 0.5, 0.3)
    tar = palette.surface(rng, "plain", ("6b6b70", "7f7f83"), 1.0, 1.2, 0.25)
    pavement = palette.stone(rng, 1.0)
    bodies = [
        Body(Plane(160.0, 160.0), grass, Path3((0.0, 0.0, 0.0))),
        Body(Plane(2.8, 30.0), tar, Path3((0.0, 5.0, 0.02))),
        *(Body(Plane(0.9, 30.0), pavement, Path3((side, 5.0, 0.03))) for side in (-3.7, 3.7)),
        *_hills(rng, 0.0),
    ]
    dash = palette.surface(rng, "plain", ("e8e4d8", "d8d4c8"), 1.0, 2.0, 0.1)
    bodies += [Body(Plane(0.12, 1.0), dash, Path3((0.0, 4.0 * i, 0.04))) for i in range(-1, 8)]
    for side in (-1.0, 1.0):
        y = _between(rng, 4.0, 6.0)
        while y < 28.0:
            deep, long, height = _between(rng, 2.8, 3.6), _between(rng, 2.8, 3.8), _between(rng, 4.0, 7.0)
            yaw = side * _between(rng, 0.45, 0.7)  # turned towards the viewer
            bodies += pieces.building(rng, Spot(side * (6.4 + deep), y + long, yaw=yaw), deep, long, height)
            bodies += pieces.tree(rng, Spot(side * 5.2, y + 2.0 * long + 1.8))
            y += 2.0 * long + _between(rng, 4.0, 5.0)
    for x in (-9.6, 0.0, 9.6):  # the end of the road
        half, height = _between(rng, 3.6, 4.4), _between(rng, 4.0, 7.0)
        bodies += pieces.building(rng, Spot(x, 40.0, yaw=_between(rng, -0.1, 0.1)), half, 3.0, height)
    bodies += pieces.van(rng, 1.4, _between(rng, 11.0, 13.0), 4.0, 0.0)
    bodies += pieces.van(rng, -1.4, _between(rng, 18.0, 22.0), 4.0, math.pi)
    bodies += pieces.balloon(
        rng, _sign(rng) * _between(rng, 2.5, 3.5), _between(rng, 21.0, 25.0), _between(rng, 7.6, 8.4)
    )
    turn, side = _between(rng, 0.0, 2.0 * math.pi), _sign(rng)
    camera = Camera(
        Path3((side * 2.0, -2.0, _between(rng, 6.0, 6.8)), (1.2, 1.6, 0.3), (turn, turn + 0.5 * math.pi, turn), 28.0),
        Path3(
            (-side * _between(rng, 3.5, 4.5), 12.0, _between(rng, 1.2, 1.5)),
            (0.8, 0.0, 0.3),
            (turn + 2.0, 0.0, turn),
            52.0,
        ),
        math.radians(_between(rng, 56.0, 62.0)),
        _between(rng, -0.03, 0.03),
    )
    sun = Light(
        source=(side * _between(rng, 0.7, 1.1), -_between(rng, 0.8, 1.1), _between(rng, 0.8, 1.1)),
        is_sun=True,
        colour=(1.75, 1.55, 1.2),
        reach=1.0,
        softness=0.015,
        above=(0.36, 0.42, 0.54),
        below=(0.24, 0.23, 0.20),
        corner=2.0,
        zenith=(0.08, 0.24, 0.66),
        haze=(0.55, 0.70, 0.88),
        haze_density=0.003,
    )
    return bodies, camera, sun


def _toys(rng: Rng, top: float, reach: float) -> list[Body]:
    """Toys on a round table, none touching another, the middle left free."""
    bodies: list[Body] = []
    taken: list[tuple[float, float, float]] = [(0.0, 0.0, 0.34)]
    for _attempt in range(400):
        size = _between(rng, 0.10, 0.19)
        away, angle = (reach - size) * math.sqrt(rng.random()), _between(rng, 0.0, 2.0 * math.pi)
        x, y = away * math.cos(angle), away * math.sin(angle)
        if any(math.hypot(x - a, y - b) < 1.15 * (size + r) for a, b, r in taken):
            continue
        taken.append((x, y, size))
        tall = _between(rng, 0.8, 1.5)
        shapes: tuple[tuple[Solid, float], ...] = (
            (Sphere(size), size),
            (Box(0.7 * size, 0.7 * size, tall * size), tall * size),
            (Cylinder(0.85 * size, tall * size), tall * size),
            (Cone(size, 0.0, tall * size), tall * size),
            (Cone(0.9 * size, 0.5 * size, tall * size), tall * size),
        )
        solid, up = shapes[len(bodies) % len(shapes)]
        bodies.append(
            Spot(x, y, top, yaw=_between(rng, 0.0, math.pi)).put(solid, palette.toy(rng, 0.9 / size), (0.0, 0.0, up))
        )
        if len(bodies) == 11:
            break
    return bodies


def _objects(rng: Rng) -> Contents:
    """A round table with toys in a room; the camera circles it, a box turns amid it and a ball flies round."""
    top, reach = 0.75, 1.0
    bodies = pieces.walls(rng, 3.6, 3.6, 3.0) + _pictures(rng, 3.6, 3.6)
    bodies.append(Body(Cylinder(reach, 0.03), palette.wood(rng, 5.0), Path3((0.0, 0.0, top - 0.03))))
    bodies.append(Body(Cone(0.35, 0.12, 0.345), palette.wood(rng, 8.0), Path3((0.0, 0.0, 0.345))))
    bodies += _toys(rng, top, reach)
    half, start = _between(rng, 0.13, 0.17), _between(rng, 0.0, 2.0 * math.pi)
    lifted = Path3((0.0, 0.0, top + 0.12 + 1.5 * half), (0.0, 0.0, 0.03), period=30.0)
    spin = _sign(rng) * 0.08
    bodies.append(
        Body(Box(half, half, half), palette.toy(rng, 8.0), lifted, turn=(0.5, 0.3, 0.0), spin=(0.0, 0.0, spin))
    )
    orbit = Path3((0.0, 0.0, top + 0.78), (0.62, 0.62, 0.04), (start, start + 0.5 * math.pi, 0.0), -_sign(rng) * 60.0)
    bodies.append(Body(Sphere(_between(rng, 0.09, 0.12)), palette.toy(rng, 12.0), orbit, spin=(0.05, 0.05, 0.08)))
    turn = _between(rng, 0.0, 2.0 * math.pi)
    camera = Camera(
        Path3(
            (0.0, 0.0, _between(rng, 1.75, 2.0)), (1.9, 1.9, 0.1), (turn, turn + 0.5 * math.pi, 0.0), _sign(rng) * 150.0
        ),
        Path3((0.0, 0.0, top + 0.08), (0.06, 0.06, 0.02), (turn, 0.0, 0.0), 50.0),
        math.radians(_between(rng, 54.0, 60.0)),
    )
    return bodies, camera, _room_light(rng, 0.9, -0.7, 2.6)


_BUILDERS: dict[str, Callable[[Rng], Contents]] = {"room": _room, "outdoor": _outdoor, "objects": _objects}
KINDS: tuple[str, ...] = get_args(Kind)
