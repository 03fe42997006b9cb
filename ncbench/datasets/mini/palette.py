"""Colours and textures that go together, drawn at random from a seeded generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ncbench.datasets.mini.textures import Pattern, Texture
from ncbench.datasets.mini.vectors import Vector

WALLS = ("e8dcc8", "d9e0d3", "cfdce6", "ead3c2", "dcd6e4", "efe6b8", "c9d8d4")
WOODS = ("b98a5a", "8f5f3a", "d2ab7a", "6e4a30")
FABRICS = ("4f7a94", "b5533c", "6d8b5b", "c9973f", "7a5c86", "3f6f6b", "a8475c", "56628a")
BRIGHT = ("e0523f", "f2a93b", "3f8fc4", "4fae7b", "8e5fb0", "ef7f9a", "2f6f8f", "f3d250", "49b8a8")
STONES = ("b9b2a6", "9c958b", "cbbfae", "a7aeb4", "8a8f96")
FACADES = ("d08a5c", "e0c088", "bd5a4e", "86a9c4", "d9b45f", "b7c4a0", "d99a92", "c9c0b0")
LEAVES = ("5d8a48", "7a9c4c", "44703f", "94a552")
WHITE, DARK = "f2eee6", "3a3f4a"


def linear(colour: str) -> Vector:
    """Linear RGB of an sRGB colour written as six hex digits."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)]) / 255.0
    r, g, b = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).tolist()
    return r, g, b


def dim(colour: str, factor: float) -> str:
    """The colour with each sRGB value scaled, limited to 255."""
    return "".join(f"{min(255, round(int(colour[i : i + 2], 16) * factor)):02x}" for i in (0, 2, 4))


def pick(rng: np.random.Generator, colours: Sequence[str]) -> str:
    """One of the colours."""
    return colours[int(rng.integers(len(colours)))]


def surface(
    rng: np.random.Generator,
    pattern: Pattern,
    colours: tuple[str, str],
    frequency: float,
    noise_frequency: float = 4.0,
    noise_amplitude: float = 0.2,
    gloss: float = 0.0,
) -> Texture:
    """A texture from sRGB colours, with noise of its own; the arguments are those of ``Texture``."""
    return Texture(
        pattern=pattern,
        colours=(linear(colours[0]), linear(colours[1])),
        frequency=frequency,
        noise_frequency=noise_frequency,
        noise_amplitude=noise_amplitude,
        gloss=gloss,
        seed=int(rng.integers(1 << 20)),
    )


def wood(rng: np.random.Generator, frequency: float) -> Texture:
    """Planks of one wood."""
    colour = pick(rng, WOODS)
    return surface(rng, "planks", (colour, dim(colour, 0.62)), frequency, 3.0, 0.22, 0.06)


def cloth(rng: np.random.Generator, frequency: float) -> Texture:
    """A woven or plain fabric."""
    colour = pick(rng, FABRICS)
    patterns: tuple[Pattern, ...] = ("plain", "stripes", "checker")
    other = (dim(colour, 0.7), dim(colour, 1.25), pick(rng, (WHITE, dim(colour, 0.6))))
    choice = int(rng.integers(3))
    return surface(rng, patterns[choice], (colour, other[choice]), frequency, 6.0, 0.3)


def toy(rng: np.random.Generator, frequency: float) -> Texture:
    """Two bright colours in a lively pattern with a soft highlight."""
    first = pick(rng, BRIGHT)
    second = pick(rng, (WHITE, dim(first, 0.55), *(c for c in BRIGHT if c != first)))
    patterns: tuple[Pattern, ...] = ("checker", "stripes", "marble", "tiles", "bricks")
    pattern = patterns[int(rng.integers(len(patterns)))]
    if pattern in {"tiles", "bricks"}:
        second = WHITE
    return surface(rng, pattern, (first, second), frequency, 1.5 * frequency, 0.25, 0.25)


def stone(rng: np.random.Generator, frequency: float) -> Texture:
    """Slabs, veined or plain stone."""
    colour = pick(rng, STONES)
    patterns: tuple[Pattern, ...] = ("tiles", "marble", "checker")
    pattern = patterns[int(rng.integers(3))]
    return surface(rng, pattern, (colour, dim(colour, 0.68)), frequency, 2.0, 0.25, 0.08)


def wallpaper(rng: np.random.Generator) -> Texture:
    """A pale wall: stripes, bricks or rough plaster."""
    colour = pick(rng, WALLS)
    patterns: tuple[Pattern, ...] = ("stripes", "bricks", "plain")
    choice = int(rng.integers(3))
    return surface(rng, patterns[choice], (colour, dim(colour, 0.86)), (3.0, 4.0, 1.0)[choice], 2.5, 0.12)


def foliage(rng: np.random.Generator) -> Texture:
    """Mottled green."""
    colour = pick(rng, LEAVES)
    return surface(rng, "plain", (dim(colour, 0.6), dim(colour, 1.2)), 1.0, 2.5, 0.35)
