"""A seeded camera and light for each object: once round it, rising and sinking on a smooth random path."""

from __future__ import annotations

import math
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.frame import Matrix
from ncbench.datasets.readers.objaverse_render import Light
from ncbench.settings import Settings

_WAVES = 3  # sines of which the elevation is made


class OrbitRule(Settings):
    """How the camera goes round an object; angles in degrees.

    Attributes:
        turns: Rounds in a clip; the last frame stops one step short of the first.
        lowest: Least elevation over the horizon.
        highest: Greatest elevation.
        field_of_view: Across the width.
        closest: Least distance, in multiples of the one at which the object's ball just fits the picture.
        farthest: Greatest such distance.
    """

    turns: float = Field(default=1.0, gt=0)
    lowest: float = Field(default=-15.0, ge=-80, le=80)
    highest: float = Field(default=60.0, ge=-80, le=80)
    field_of_view: float = Field(default=50.0, gt=0, lt=170)
    closest: float = Field(default=1.05, ge=1)
    farthest: float = Field(default=1.35, ge=1)


class Orbit(NamedTuple):
    """One object's camera path and light.

    Attributes:
        poses: (N, 4, 4) camera-to-world, OpenCV axes, in a world with y up and the object's ball about the origin.
        light: The light.
    """

    poses: Matrix
    light: Light


def make_orbit(rule: OrbitRule, seed: int, uid: str, frames: int, radius: float, picture: tuple[int, int]) -> Orbit:
    """Draw a path and a light; a pure function of its arguments.

    Args:
        rule: The limits.
        seed: Seed of the data set.
        uid: Name of the object, which gives it a path of its own.
        frames: Length of the clip.
        radius: Radius of the ball about the origin that holds the object.
        picture: Height and width.

    Returns:
        The poses and the light.
    """
    rng = np.random.default_rng([seed, zlib.crc32(uid.encode())])
    way, start = rng.choice((-1.0, 1.0)), rng.uniform(0, 2 * math.pi)
    azimuth = start + way * 2 * math.pi * rule.turns * np.arange(frames) / frames
    elevation = np.radians(rule.lowest + (rule.highest - rule.lowest) * _wander(rng, frames))
    height, width = picture
    half = math.atan(math.tan(math.radians(rule.field_of_view) / 2) * min(1.0, height / width))
    distance = radius / math.sin(half) * rng.uniform(rule.closest, max(rule.closest, rule.farthest))
    places = distance * np.stack(
        [np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)], axis=-1
    )
    lamp = rng.uniform(-1, 1, 3) + np.array([0, 1.2, 0])
    light = Light(lamp / np.linalg.norm(lamp), float(rng.uniform(0.5, 1.0)), float(rng.uniform(0.25, 0.5)))
    return Orbit(np.stack([_look_at_origin(place) for place in places]), light)


def _wander(rng: np.random.Generator, frames: int) -> NDArray[np.float64]:
    """A smooth path within [0, 1] that closes after the clip: a few sines of random strength and phase."""
    time = 2 * math.pi * np.arange(frames) / frames
    strength, phase = rng.dirichlet(np.ones(_WAVES)), rng.uniform(0, 2 * math.pi, _WAVES)
    waves = [s * np.sin((index + 1) * time + p) for index, (s, p) in enumerate(zip(strength, phase, strict=True))]
    return np.asarray(0.5 + 0.5 * np.sum(waves, axis=0))


def _look_at_origin(place: NDArray[np.float64]) -> Matrix:
    forward = -place / np.linalg.norm(place)
    right = np.cross(forward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, place
    return pose
