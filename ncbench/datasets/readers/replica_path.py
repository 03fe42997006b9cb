"""A smooth camera path through a room that nobody has walked: seeded, and clear of every surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.formats.ply import QuadMesh
from ncbench.datasets.frame import Matrix
from ncbench.datasets.readers.replica_raycast import MeshCaster
from ncbench.settings import Settings

_PROBES = 512  # directions that measure how free a place is
_MOST_MISSED = 0.2  # share of probes that may leave through holes; outside the room far more do


class GeneratedPath(Settings):
    """A generated path. The world's z axis points up, as in Replica.

    Attributes:
        frames: Length of the clip.
        seed: Seed of the path, the same for every scene.
        candidates: Places that are tried for the middle of the path; the freest is taken.
        reach: Size of the path as a share of the distance to the nearest surface; below 1 it meets none.
        period: Frames for one round of the path.
        turn_degrees: How far the view turns about the vertical from one frame to the next (mean).
        pitch_degrees: How far the view nods up and down, about 15 degrees below the horizon.
    """

    frames: int = Field(default=300, ge=1, le=100_000)
    seed: int = Field(default=0, ge=0)
    candidates: int = Field(default=64, ge=1, le=10_000)
    reach: float = Field(default=0.5, gt=0, lt=1)
    period: float = Field(default=240.0, gt=1)
    turn_degrees: float = Field(default=1.2, ge=-90, le=90)
    pitch_degrees: float = Field(default=15.0, ge=0, le=60)


def generate_path(mesh: QuadMesh, caster: MeshCaster, settings: GeneratedPath) -> Matrix:
    """Lay a path through a mesh.

    The middle is the candidate whose nearest surface is farthest away, among those from which nearly every probe hits
    something (so that it lies inside). The path is a closed Lissajous curve within a ball of ``reach`` times that
    distance, so it meets no surface that the probes see.

    Args:
        mesh: The scene, z up.
        caster: The same mesh, ready for rays.
        settings: The path.

    Returns:
        (frames, 4, 4) float64 camera-to-world, OpenCV axes, metres.
    """
    rng = np.random.default_rng(settings.seed)
    low, high = np.percentile(mesh.vertices, [5, 95], axis=0)
    places = rng.uniform(low, high, (settings.candidates, 3))
    probes = _directions(_PROBES)
    best, free = (low + high) / 2, 0.0
    for place in places:
        distance = caster.distances(place, probes)
        if float(np.isinf(distance).mean()) <= _MOST_MISSED and float(distance.min()) > free:
            best, free = place, float(distance.min())
    phase = rng.uniform(0, 2 * np.pi, 5)
    time = 2 * np.pi * np.arange(settings.frames) / settings.period
    # each coordinate within 1/sqrt(3) of the radius, so that the curve stays inside the ball
    amplitude = settings.reach * free / np.sqrt(3.0) * np.array([1.0, 1.0, 0.5])
    sway = np.sin(np.outer(time, [1.0, 2.0, 1.0]) + phase[:3])
    yaw = np.radians(settings.turn_degrees) * np.arange(settings.frames) + phase[3] + 0.2 * np.sin(2 * time)
    pitch = np.radians(-15.0 + settings.pitch_degrees * np.sin(time + phase[4]))
    return _poses(best + amplitude * sway, yaw, pitch)


def _poses(places: NDArray[np.float64], yaw: NDArray[np.float64], pitch: NDArray[np.float64]) -> Matrix:
    """Upright cameras that look along (yaw, pitch); z is up."""
    cos, sin = np.cos(pitch), np.sin(pitch)
    zero = np.zeros_like(yaw)
    poses = np.tile(np.eye(4), (len(yaw), 1, 1))
    poses[:, :3, 0] = np.stack([np.sin(yaw), -np.cos(yaw), zero], axis=-1)
    poses[:, :3, 1] = np.stack([sin * np.cos(yaw), sin * np.sin(yaw), -cos], axis=-1)
    poses[:, :3, 2] = np.stack([cos * np.cos(yaw), cos * np.sin(yaw), sin], axis=-1)
    poses[:, :3, 3] = places
    return poses


def _directions(count: int) -> NDArray[np.float64]:
    """Unit vectors spread evenly over the sphere (Fibonacci lattice)."""
    index = np.arange(count)
    z = 1 - (2 * index + 1) / count
    angle = index * np.pi * (3 - np.sqrt(5.0))
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=-1)
