"""Order the frames of a block into clips: pictures taken one after another along a street or a flight line.

The files are numbered block by block, not along a path. NormalCrafter (Bin et al., 2025) says that it reorders them by
their extrinsics and gives no more; this is a greedy chain to the nearest neighbour.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from ncbench.settings import Settings


class ClipRule(Settings):
    """What may follow what within a clip.

    Attributes:
        max_step: Greatest distance in metres between successive cameras. MatrixCity's street pictures are 5 m apart,
            1 m in its dense part.
        max_turn: Greatest angle in degrees between successive viewing directions.
        min_frames: Shorter clips are left out; 1 keeps every frame.
        max_frames: A clip that has this many frames is closed.
    """

    max_step: float = Field(default=12.0, gt=0)
    max_turn: float = Field(default=45.0, gt=0, le=180)
    min_frames: int = Field(default=1, ge=1)
    max_frames: int = Field(default=60, ge=1)


def order_clips(poses: Mapping[int, NDArray[np.float64]], rule: ClipRule) -> list[tuple[int, ...]]:
    """Chain frames greedily.

    A clip starts at the lowest number left and grows at whichever of its two ends has the nearer neighbour left, by the
    sum of distance over ``max_step`` and angle over ``max_turn`` (the later end, then the lower number, where two tie),
    until no frame is within both limits. Growing at both ends keeps a clip that starts amid a path from leaping back.

    Args:
        poses: Frame number -> (4, 4) camera-to-world, metres. The third column must be the viewing direction or its
            opposite, alike for all.
        rule: The limits.

    Returns:
        The clips in the order of the numbers that they started at, each a tuple of frame numbers in viewing order.
    """
    if not poses:
        return []
    numbers = np.array(sorted(poses))
    field = _Field(
        np.array([poses[int(number)][:3, 3] for number in numbers]),
        np.array([poses[int(number)][:3, 2] for number in numbers]),
        rule,
    )
    chains = [field.chain(start) for start in range(len(numbers)) if field.left[start]]
    return [tuple(numbers[chain].tolist()) for chain in chains if len(chain) >= rule.min_frames]


class _Field:
    """Cameras, and which of them belong to no clip yet."""

    def __init__(self, places: NDArray[np.float64], views: NDArray[np.float64], rule: ClipRule) -> None:
        self._places, self._views, self._rule = places, views, rule
        self._tree = cKDTree(places)
        self.left = np.ones(len(places), dtype=np.bool_)

    def chain(self, start: int) -> list[int]:
        """Grow one clip and take its frames."""
        chain = deque([start])
        self.left[start] = False
        while len(chain) < self._rule.max_frames:
            (tail_cost, after), (head_cost, before) = self._nearest(chain[-1]), self._nearest(chain[0])
            if math.isinf(min(tail_cost, head_cost)):
                break
            if tail_cost <= head_cost:
                chain.append(after)
            else:
                chain.appendleft(before)
            self.left[[chain[0], chain[-1]]] = False
        return list(chain)

    def _nearest(self, at: int) -> tuple[float, int]:
        """Cost and index of the best neighbour left; an infinite cost where there is none."""
        near = np.array(sorted(self._tree.query_ball_point(self._places[at], self._rule.max_step)), dtype=np.int64)
        near = near[self.left[near]]
        sine = np.linalg.norm(np.cross(self._views[near], self._views[at]), axis=-1)
        turn = np.degrees(np.arctan2(sine, self._views[near] @ self._views[at]))
        step = np.linalg.norm(self._places[near] - self._places[at], axis=-1)
        cost = np.where(turn <= self._rule.max_turn, step / self._rule.max_step + turn / self._rule.max_turn, np.inf)
        best = int(np.argmin(cost)) if len(near) else -1
        return (float(cost[best]), int(near[best])) if best >= 0 else (math.inf, -1)
