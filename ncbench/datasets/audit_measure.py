"""What an audit measures in one frame, as sums that add up over frames: pure functions of arrays."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.frame import Frame, Matrix
from ncbench.geometry.cameras import hypersim_rays, pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product

Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]

SIGNS: tuple[tuple[int, int, int], ...] = tuple(itertools.product((1, -1), repeat=3))  # type: ignore[arg-type]  # repeat=3 gives triples
"""All ways to change the signs of x, y, z; the first changes none."""
WORLD_AXES: Doubles = np.concatenate([np.eye(3), -np.eye(3)])
"""+x, +y, +z, -x, -y, -z."""
ANGLE_BINS = 360
"""Bins of half a degree from 0 to 180."""
SAMPLE = 8192
"""Pixels a frame on which angles are measured, evenly spread over the valid ones."""
_FLOOR_DEGREES = 20.0


@dataclass(frozen=True)
class Sums:
    """Measures of one frame, or added over many.

    Attributes:
        pixels: Number of pixels.
        valid: Pixels with a normal.
        known_depth: Pixels with depth.
        known_flow: Pixels with flow.
        length_error: Largest | |n| - 1 | of a valid normal; joined by maximum.
        rays: Sampled valid pixels with a known viewing ray.
        away: (8,) of these, pixels that face away from the camera (n . ray > 0) under each choice of ``SIGNS``.
        slant: (360,) histogram of the angle between the normal and the direction to the camera.
        pairs: Sampled pixels with both a stored normal n and a normal d from depth.
        moment: (3, 3) sum of n_i d_j over the pairs.
        angles: (8, 360) histograms of the angle between n and d under each choice of ``SIGNS``.
        world: Sampled pixels with a known pose.
        near: (6,) of these, pixels whose normal in the world is within 20 degrees of each of ``WORLD_AXES``.
        near_sum: (6, 3) sums of these normals.
        camera_up: (3,) sum over frames of the camera's up direction in the world.
    """

    pixels: int
    valid: int
    known_depth: int
    known_flow: int
    length_error: float
    rays: int
    away: Counts
    slant: Counts
    pairs: int
    moment: Doubles
    angles: Counts
    world: int
    near: Counts
    near_sum: Doubles
    camera_up: Doubles

    @classmethod
    def none(cls) -> Sums:
        """Give the measures of no frame."""
        return cls(
            pixels=0,
            valid=0,
            known_depth=0,
            known_flow=0,
            length_error=0.0,
            rays=0,
            away=np.zeros(8, np.int64),
            slant=np.zeros(ANGLE_BINS, np.int64),
            pairs=0,
            moment=np.zeros((3, 3)),
            angles=np.zeros((8, ANGLE_BINS), np.int64),
            world=0,
            near=np.zeros(6, np.int64),
            near_sum=np.zeros((6, 3)),
            camera_up=np.zeros(3),
        )


@dataclass(frozen=True)
class FrameMeasure:
    """One frame's measures and identity; ``picture`` is a digest of the encoded picture, empty without one."""

    sequence: str
    frame: int
    height: int
    width: int
    picture: str
    sums: Sums


def total(items: Iterable[Sums]) -> Sums:
    """Add measures up; none gives zeros."""
    result = Sums.none()
    for item in items:
        added: dict[str, Any] = {
            field.name: getattr(result, field.name) + getattr(item, field.name) for field in fields(Sums)
        }
        result = Sums(**{**added, "length_error": max(result.length_error, item.length_error)})
    return result


def measure(frame: Frame) -> FrameMeasure:
    """Measure one frame.

    Viewing rays come from the card-specific column ``ray_matrix`` (9 numbers: Hypersim's ``M_cam_from_uv``, see
    ``hypersim_rays``), else from the intrinsics.

    Args:
        frame: A canonical frame.

    Returns:
        Its measures.
    """
    height, width = frame.size
    flow = 0 if frame.flow is None else int(np.count_nonzero(np.isfinite(frame.flow[..., 0])))
    depth = 0 if frame.depth is None else int(np.count_nonzero(frame.depth > 0))
    sums = replace(Sums.none(), pixels=height * width, valid=int(frame.valid.sum()), known_depth=depth, known_flow=flow)
    rays = frame_rays(frame)
    sample = _sample(frame.valid)
    normals = frame.normal.reshape(-1, 3)[sample].astype(np.float64)
    if sample.size:
        lengths = np.linalg.norm(normals, axis=1)
        sums = replace(sums, length_error=float(np.abs(lengths - 1).max()))
        if rays is not None:
            sums = _add_facing(sums, normals, rays.reshape(-1, 3)[sample])
            sums = _add_agreement(sums, frame, rays)
        if frame.cam_to_world is not None:
            sums = _add_world(sums, normals, frame.cam_to_world)
    digest = "" if frame.image is None else hashlib.blake2b(frame.image, digest_size=16).hexdigest()
    return FrameMeasure(frame.sequence, frame.frame, height, width, digest, sums)


def frame_rays(frame: Frame) -> Doubles | None:
    """Give the viewing rays of a frame, (H, W, 3) float64 with z = 1; None where its camera is unknown."""
    height, width = frame.size
    stated = frame.extra.get("ray_matrix")
    if stated is not None:
        return _cached_rays("uv", np.asarray(stated, np.float64).tobytes(), height, width)
    if frame.intrinsics is not None:
        return _cached_rays("pinhole", frame.intrinsics.tobytes(), height, width)
    return None


@lru_cache(maxsize=2)
def _cached_rays(kind: str, matrix: bytes, height: int, width: int) -> Doubles:
    numbers = np.frombuffer(matrix, np.float64).reshape(3, 3)
    rays = hypersim_rays(numbers, height, width) if kind == "uv" else pinhole_rays(numbers, height, width)
    rays.setflags(write=False)
    return rays


def angles_between(a: Doubles, b: Doubles) -> Doubles:
    """Give the angle between vectors (N, 3) in degrees, (N,) float64."""
    cross = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.asarray(np.degrees(np.arctan2(cross, np.einsum("ni,ni->n", a, b))))


def median_angle(histogram: Counts) -> float:
    """Read the median out of a histogram over [0, 180] degrees, to within half a bin; NaN where it is empty."""
    cumulated = np.cumsum(histogram)
    if cumulated[-1] == 0:
        return float("nan")
    half = cumulated[-1] / 2
    index = int(np.searchsorted(cumulated, half))
    before = cumulated[index] - histogram[index]
    return float((index + (half - before) / histogram[index]) * 180 / len(histogram))


def _sample(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Choose at most ``SAMPLE`` set pixels, evenly spread, always the same."""
    found = np.flatnonzero(mask)
    return found[:: max(1, -(-found.size // SAMPLE))]


def _histogram(angles: Doubles) -> Counts:
    counts, _ = np.histogram(angles, bins=ANGLE_BINS, range=(0, 180))
    return counts.astype(np.int64)


def _add_facing(sums: Sums, normals: Doubles, rays: Doubles) -> Sums:
    products = normals * rays
    away = np.array([int(np.count_nonzero(products @ np.array(signs) > 0)) for signs in SIGNS])
    return replace(sums, rays=len(normals), away=away, slant=_histogram(angles_between(normals, -rays)))


def _add_agreement(sums: Sums, frame: Frame, rays: Doubles) -> Sums:
    if frame.depth is None:
        return sums
    derived, known = normals_by_cross_product(frame.depth, rays)
    sample = _sample(known & frame.valid)
    n = frame.normal.reshape(-1, 3)[sample].astype(np.float64)
    d = derived.reshape(-1, 3)[sample].astype(np.float64)
    angles = np.stack([_histogram(angles_between(n * np.array(signs), d)) for signs in SIGNS])
    return replace(sums, pairs=len(n), moment=n.T @ d, angles=angles)


def _add_world(sums: Sums, normals: Doubles, pose: Matrix) -> Sums:
    world = normals @ pose[:3, :3].T
    near = world @ WORLD_AXES.T > np.cos(np.radians(_FLOOR_DEGREES))
    return replace(
        sums,
        world=len(world),
        near=near.sum(axis=0),
        near_sum=near.T.astype(np.float64) @ world,
        camera_up=-pose[:3, 1],
    )
