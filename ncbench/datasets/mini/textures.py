"""Procedural textures in object coordinates: a pattern in the surface's plane times value noise of several octaves.

A texture is a pure function of the point, so it moves with its object. Every edge and octave is softened by the width
of a pixel on the surface, so that distant patterns fade to their mean instead of shimmering.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.mini.primitives import BALL, BOX, PLANE
from ncbench.datasets.mini.vectors import FloatArray, Vector
from ncbench.jit import jit

Pattern = Literal["plain", "checker", "stripes", "bricks", "tiles", "planks", "windows", "marble"]
_PLAIN, _CHECKER, _STRIPES, _BRICKS, _TILES, _PLANKS, _WINDOWS, _MARBLE = range(8)
_OCTAVES = 4


@dataclass(frozen=True, slots=True)
class Texture:
    """How a surface looks.

    Attributes:
        pattern: The drawing in the surface's plane.
        colours: Two linear RGB albedos, 0 to 1: field and drawing (mortar, second square, window, vein).
        frequency: Cells of the pattern per metre.
        noise_frequency: Cells of the coarsest octave of noise per metre.
        noise_amplitude: Relative change of brightness by the noise, 0 to 1.
        gloss: Strength of the highlight, 0 (matt) to 1.
        seed: Which noise.
    """

    pattern: Pattern
    colours: tuple[Vector, Vector]
    frequency: float
    noise_frequency: float
    noise_amplitude: float
    gloss: float
    seed: int


class Finishes(NamedTuple):
    """Textures of N solids, packed for the kernels; arrays of N rows, columns as in ``Texture``."""

    pattern: NDArray[np.int64]
    colours: FloatArray  # (N, 2, 3)
    frequency: FloatArray
    noise_frequency: FloatArray
    noise_amplitude: FloatArray
    gloss: FloatArray
    seed: NDArray[np.int64]


def pack_textures(textures: Sequence[Texture]) -> Finishes:
    """Lay textures out as arrays, in order."""
    names = get_args(Pattern)
    return Finishes(
        pattern=np.array([names.index(t.pattern) for t in textures], dtype=np.int64),
        colours=np.array([t.colours for t in textures], dtype=np.float64),
        frequency=np.array([t.frequency for t in textures], dtype=np.float64),
        noise_frequency=np.array([t.noise_frequency for t in textures], dtype=np.float64),
        noise_amplitude=np.array([t.noise_amplitude for t in textures], dtype=np.float64),
        gloss=np.array([t.gloss for t in textures], dtype=np.float64),
        seed=np.array([t.seed for t in textures], dtype=np.int64),
    )


@jit()
def clamp(x: float) -> float:
    """Limit to [0, 1]."""
    return min(max(x, 0.0), 1.0)


@jit()
def cell_hash(x: int, y: int, z: int, seed: int) -> float:
    """A number in [0, 1] that looks random, from integers: two rounds of multiply and xor-shift in 32 bits."""
    h = (x * 374761393 + y * 668265263 + z * 1442695041 + seed * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 668265263) & 0xFFFFFFFF
    return (h ^ (h >> 15)) / 4294967295.0


@jit()
def value_noise(x: float, y: float, z: float, seed: int) -> float:
    """Trilinear blend (smoothstep weights) of ``cell_hash`` at the eight lattice corners; in [0, 1]."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v), w * w * (3.0 - 2.0 * w)
    total = 0.0
    for c in range(2):
        for b in range(2):
            weight = (w if c else 1.0 - w) * (v if b else 1.0 - v)
            low = cell_hash(i, j + b, k + c, seed)
            high = cell_hash(i + 1, j + b, k + c, seed)
            total += weight * (low + u * (high - low))
    return total


@jit()
def fractal_noise(p: Vector, frequency: float, width: float, seed: int) -> float:
    """Sum of octaves of value noise, each of half the amplitude at twice the frequency.

    Args:
        p: Point, metres.
        frequency: Lattice cells per metre of the first octave.
        width: Size of a pixel on the surface, metres; octaves too fine for it fade out.
        seed: Which noise.

    Returns:
        About -1 to 1, zero on average.
    """
    total, amplitude = 0.0, 1.0
    for octave in range(_OCTAVES):
        visible = clamp(2.0 - 2.0 * width * frequency)
        if visible == 0.0:
            break
        noise = value_noise(p[0] * frequency, p[1] * frequency, p[2] * frequency, seed + octave)
        total += amplitude * visible * (2.0 * noise - 1.0)
        amplitude *= 0.5
        frequency *= 2.0
    return total


@jit()
def surface_coordinates(code: int, size: Vector, p: Vector, n: Vector, frequency: float) -> tuple[float, float]:
    """Coordinates of a surface point in its surface, in cells of the pattern.

    A flat side is measured by its two axes; a round side by angle and height, where the circumference is rounded to an
    even number of cells so that the pattern closes without a seam.
    """
    if code == BALL:
        cells = 2.0 * max(1.0, round(math.pi * size[0] * frequency))
        return math.atan2(p[1], p[0]) / (2.0 * math.pi) * cells, math.asin(p[2] / size[0]) / (2.0 * math.pi) * cells
    if code == PLANE or abs(n[2]) > 0.999:
        return p[0] * frequency, p[1] * frequency
    if code == BOX:
        return (p[1] if abs(n[0]) > 0.5 else p[0]) * frequency, p[2] * frequency
    cells = 2.0 * max(1.0, round(0.5 * math.pi * (size[0] + size[1]) * frequency))
    return math.atan2(p[1], p[0]) / (2.0 * math.pi) * cells, p[2] * frequency


@jit()
def _wave(x: float, width: float) -> float:
    """Square wave of period 2 (1 on the even cells), edges ``width`` wide."""
    distance = abs(x - 2.0 * math.floor(0.5 * x) - 0.5)
    return clamp((0.5 - min(distance, 2.0 - distance)) / width + 0.5)


@jit()
def _line(x: float, half: float, width: float) -> float:
    """Lines of half-thickness ``half`` at every integer; fainter where a pixel is wider than the line."""
    distance = abs(x - math.floor(x + 0.5))
    return clamp((half - distance) / width + 0.5) * min(1.0, 2.0 * half / width)


@jit()
def _masonry(x: float, y: float, half: float, width: float, seed: int) -> tuple[float, float]:
    """Joints around unit cells, and a brightness for each cell."""
    joint = max(_line(x, half, width), _line(y, half, width))
    tint = cell_hash(math.floor(x), math.floor(y), 17, seed) - 0.5
    return joint, tint * clamp(1.5 - width)


@jit()
def _draw(pattern: int, x: float, y: float, width: float, seed: int) -> tuple[float, float]:
    """The drawing at (x, y): share of the second colour, and change of brightness of the cell."""
    if pattern == _CHECKER:
        a, b = _wave(x, width), _wave(y, width)
        return a + b - 2.0 * a * b, 0.0
    if pattern == _STRIPES:
        return _wave(x, width), 0.0
    if pattern == _BRICKS:
        row = math.floor(y)
        return _masonry(0.5 * x + 0.5 * (row % 2), y, 0.06, width, seed)
    if pattern == _TILES:
        return _masonry(x, y, 0.03, width, seed)
    if pattern == _PLANKS:
        row = math.floor(y)
        joint, tint = _masonry(0.15 * x + cell_hash(row, 3, 5, seed), y, 0.025, width, seed)
        grain = value_noise(0.7 * x + 9.0 * row, 9.0 * y, 0.5, seed) - 0.5
        return max(joint, clamp(0.3 + 0.7 * grain * clamp(1.5 - 6.0 * width))), tint
    fx, fy = x - math.floor(x) - 0.5, y - math.floor(y) - 0.5  # windows
    across = clamp((0.28 - abs(fx)) / width + 0.5) * min(1.0, 0.56 / width)
    up = clamp((0.32 - abs(fy)) / width + 0.5) * min(1.0, 0.64 / width)
    return across * up, 0.0


@jit()
def albedo(
    finishes: Finishes, k: int, code: int, size: Vector, p: Vector, n: Vector, width: float
) -> tuple[float, float, float]:
    """Linear RGB albedo of solid ``k`` at a surface point.

    Args:
        finishes: Textures of all solids.
        k: Index of the solid.
        code: Kind of the solid.
        size: Its size.
        p: Surface point, object coordinates.
        n: Unit normal there, object coordinates.
        width: Size of a pixel on the surface, metres.

    Returns:
        Three albedos, about 0 to 1.
    """
    frequency, seed, pattern = finishes.frequency[k], finishes.seed[k], finishes.pattern[k]
    noise = fractal_noise(p, finishes.noise_frequency[k], width, seed)
    share, tint = 0.0, 0.0
    if pattern == _PLAIN:
        share = clamp(0.5 + 0.6 * noise)
    elif pattern == _MARBLE:
        phase = (p[0] + 0.7 * p[1] + 0.5 * p[2]) * frequency + 1.6 * noise
        share = (0.5 + 0.5 * math.sin(math.pi * phase)) ** 3 * clamp(1.5 - width * frequency)
    else:
        x, y = surface_coordinates(code, size, p, n, frequency)
        share, tint = _draw(pattern, x, y, max(width * frequency, 1e-6), seed)
    shade = (1.0 + finishes.noise_amplitude[k] * noise) * (1.0 + 0.45 * tint)
    c = finishes.colours[k]
    return (
        clamp((c[0, 0] + share * (c[1, 0] - c[0, 0])) * shade),
        clamp((c[0, 1] + share * (c[1, 1] - c[0, 1])) * shade),
        clamp((c[0, 2] + share * (c[1, 2] - c[0, 2])) * shade),
    )
