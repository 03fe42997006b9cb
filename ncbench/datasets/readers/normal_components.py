"""Which channel of a file holds which component of a normal: applied, and checked against depth at ingest.

Several data sets were published with loaders that read EXR as BGR and never said so. The order is therefore a setting
with the documented default, and every frame with depth tests it against all 48 signed orders.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from ncbench.datasets.formats.exr import read_exr
from ncbench.datasets.formats.normal_maps import unit_normals
from ncbench.datasets.frame import BoolMap, FloatMap
from ncbench.errors import SourceError
from ncbench.settings import Settings

Channel = Literal["R", "G", "B"]
_CHANNELS: tuple[Channel, ...] = ("R", "G", "B")
_ORDERS = tuple(itertools.permutations(range(3)))
_SIGNS = tuple(itertools.product((1, -1), repeat=3))
_SAMPLE = 2048  # pixels that the check looks at
_ENOUGH = 64  # fewer usable pixels than this decide nothing
_PLAUSIBLE = (0.05, 5000.0)  # metres between which the median depth of a scene lies
_FITS = 30.0  # degrees; an order with a greater median angle does not agree with the depth either
_MARGIN = 5.0  # degrees by which another order must fit better to count as the true one


class Components(Settings):
    """How a file's channels become a vector: ``v[i] = signs[i] * channels[i]``.

    Attributes:
        channels: The OpenEXR channels that hold x, y and z.
        signs: What to multiply them with, 1 or -1.
        max_away: Largest share of a frame's normals that may point away from the camera; more means wrong axes.
    """

    channels: tuple[Channel, Channel, Channel]
    signs: tuple[Literal[1, -1], Literal[1, -1], Literal[1, -1]] = (1, 1, 1)
    max_away: float = Field(default=0.2, ge=0, le=1)

    @field_validator("channels")
    @classmethod
    def _all_three(cls, channels: tuple[Channel, Channel, Channel]) -> tuple[Channel, Channel, Channel]:
        if set(channels) != set(_CHANNELS):
            raise ValueError("each of R, G and B must be named once")
        return channels

    def apply(self, rgb: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the vectors.

        Args:
            rgb: (..., 3) channels in the order R, G, B.

        Returns:
            (..., 3) float32 vectors (x, y, z).
        """
        order = [_CHANNELS.index(channel) for channel in self.channels]
        return rgb[..., order] * np.array(self.signs, dtype=np.float32)


def exr_channels(path: Path, names: Iterable[str]) -> NDArray[np.float32]:
    """Read named channels of an OpenEXR file.

    Args:
        path: The file.
        names: Channels, such as R, G, B.

    Returns:
        (H, W, N) float32, NaN and infinity as stored.

    Raises:
        SourceError: Unreadable, or a channel is missing.
    """
    wanted = list(names)

    def choose(found: Iterable[str]) -> list[str]:
        missing = [name for name in wanted if name not in set(found)]
        if missing:
            raise LookupError(f"expected channels {', '.join(wanted)}, but {', '.join(missing)} is missing")
        return wanted

    return np.stack(list(read_exr(path, choose).values()), axis=-1)


def exr_depth(path: Path, preferred: str) -> NDArray[np.float32]:
    """Read a depth map that is stored as the only channel of an OpenEXR file, or repeated in several.

    Args:
        path: The file.
        preferred: The channel to take where there are several.

    Returns:
        (H, W) float32 as stored.

    Raises:
        SourceError: Unreadable, or several channels without the preferred one.
    """

    def choose(found: Iterable[str]) -> list[str]:
        names = list(found)
        if len(names) > 1 and preferred not in names:
            raise LookupError(f"expected one channel of depth, or one called '{preferred}' among several")
        return names if len(names) == 1 else [preferred]

    return next(iter(read_exr(path, choose).values()))


def metric_depth(origin: str, stored: NDArray[np.float32], scale: float, max_depth: float) -> FloatMap:
    """Bring the depth of a scene to metres and drop what lies beyond a limit.

    Args:
        origin: The file, for the message.
        stored: (H, W) z-depth as stored.
        scale: Metres per stored unit.
        max_depth: Metres from which on a pixel counts as sky.

    Returns:
        (H, W) float32 metres, 0 where unknown, not finite, or too far.

    Raises:
        SourceError: The median known depth is under 5 cm or over 5 km: the unit cannot be right.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        metres = (stored.astype(np.float64) * scale).astype(np.float32)
        depth = np.where((metres > 0) & (metres < max_depth), metres, np.float32(0))
    near, far = _PLAUSIBLE
    median = float(np.median(depth[depth > 0])) if depth.any() else near
    if not near <= median <= far:
        problem = f"expected a scene, found a median depth of {median:.3g} m at {scale} m a unit"
        raise SourceError.at(origin, problem, "Correct depth_scale in the card")
    return depth


def check_order(
    origin: str, components: Components, rgb: NDArray[np.float32], expected: NDArray[np.floating], usable: BoolMap
) -> None:
    """Check that the configured order of channels is the one that agrees with the depth.

    Args:
        origin: The file, for the message.
        components: The configured order and signs.
        rgb: (H, W, 3) stored channels R, G, B, finite and not zero where ``usable``.
        expected: (H, W, 3) unit normals derived from depth, in the axes that ``components`` should give.
        usable: (H, W) bool, where both are known. With fewer than 64 such pixels nothing is checked.

    Raises:
        SourceError: Another order fits, and better by more than 5 degrees in the median; the message names it.
    """
    places = np.flatnonzero(usable)
    if len(places) < _ENOUGH:
        return
    places = places[np.linspace(0, len(places) - 1, min(_SAMPLE, len(places))).astype(np.int64)]
    stored = rgb.reshape(-1, 3)[places].astype(np.float64)
    stored /= np.linalg.norm(stored, axis=-1, keepdims=True)
    wanted = expected.reshape(-1, 3)[places].astype(np.float64)
    order, signs = _best_order(stored, wanted)
    best = _median_angle(stored[:, order] * np.array(signs), wanted)
    chosen = [_CHANNELS.index(name) for name in components.channels]
    configured = _median_angle(stored[:, chosen] * np.array(components.signs), wanted)
    if configured > best + _MARGIN and best < _FITS:
        fitting = [_CHANNELS[index] for index in order]
        problem = (
            f"expected normals that agree with the depth when x, y, z are channels {list(components.channels)} times "
            f"{list(components.signs)}, found a median angle of {configured:.1f} degrees"
        )
        remedy = f"{fitting} times {signs} fits ({best:.1f} degrees): set channels and signs to these"
        raise SourceError.at(origin, problem, remedy)


def facing_normals(
    origin: str, normal: NDArray[np.float32], usable: BoolMap, rays: NDArray[np.float64], max_away: float
) -> tuple[FloatMap, BoolMap]:
    """Bring normals to unit length and leave out those that point away from the camera.

    Args:
        origin: The file, for the message.
        normal: (H, W, 3) in OpenCV axes, finite and not zero where ``usable``.
        usable: (H, W) bool.
        rays: (H, W, 3) viewing rays.
        max_away: Largest share of usable normals that may point away.

    Returns:
        (H, W, 3) float32 unit normals, zero where invalid; (H, W) bool.

    Raises:
        SourceError: More than ``max_away`` point away.
    """
    away = usable & (np.einsum("hwc,hwc->hw", normal, rays) >= 0)
    share = float(away.sum()) / max(int(usable.sum()), 1)
    if share > max_away:
        problem = f"expected normals that face the camera, but {100 * share:.1f} % of them point away"
        raise SourceError.at(origin, problem, "Correct the axes, channels or signs in the card, or raise max_away")
    valid = usable & ~away
    return unit_normals(normal, valid), valid


def finite_rows(values: NDArray[np.floating], shortest: float, longest: float) -> BoolMap:
    """Tell where vectors are finite and of a plausible length.

    Args:
        values: (H, W, 3).
        shortest: Least length.
        longest: Greatest length.

    Returns:
        (H, W) bool.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.sqrt(np.einsum("...i,...i", values, values, dtype=np.float64))
    return np.asarray(np.isfinite(length) & (length >= shortest) & (length <= longest), dtype=np.bool_)


def _best_order(stored: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Find the signed order of channels with the smallest median angle, which is that of the greatest median cosine.

    Turning all three signs negates every cosine, so that half of the 48 medians tell the other half.
    """
    best, found = -np.inf, (_ORDERS[0], _SIGNS[0])
    for order in _ORDERS:
        x, y, z = (stored[:, order] * wanted).T
        for signs in _SIGNS[: len(_SIGNS) // 2]:
            median = float(np.median(x + signs[1] * y + signs[2] * z))
            if abs(median) > best:
                turn = 1 if median > 0 else -1
                best, found = abs(median), (order, (turn, turn * signs[1], turn * signs[2]))
    return list(found[0]), list(found[1])


def _median_angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Degrees between unit vectors; the half-angle form is exact at both ends."""
    half = np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))
    return float(np.degrees(2 * np.median(half)))
