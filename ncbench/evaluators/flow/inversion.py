"""The backward flow of a pair of frames from its forward flow.

Data sets with true motion (Sintel, KITTI) hold it in one direction only. Its inverse at a pixel p of the later frame is
minus the flow of that place q of the earlier frame which moves exactly onto p. Negating the flow in place, or carrying
whole pixels over, is off by the flow's change over up to a pixel; this solves q + F(q) = p between the pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.geometry.warp import BORDER_SLACK
from ncbench.jit import jit

BoolMap = NDArray[np.bool_]
DoubleMap = NDArray[np.float64]

STRETCH = 0.5
"""Most that either component of the flow may change within a square of 2 x 2 pixels, in pixels. Above, two surfaces
part there, and a mix of their motions would lead into the gap that opens between them."""

_ROUNDS = 32  # the iteration shrinks the error by the flow's slope, at most STRETCH, each time
_CLOSE = 1e-5  # pixels


def invert_flow(flow: NDArray[np.floating[Any]], usable: BoolMap) -> NDArray[np.float32]:
    """Turn the flow from frame a to frame b into the flow from b to a.

    Args:
        flow: (H, W, 2) displacement (u, v) in pixels from a to b.
        usable: (H, W) bool, pixels of a to take: those that b shows. With pixels that are hidden in b, the wrong one of
            two surfaces may be found.

    Returns:
        (H, W, 2) float32 displacement from b to a. It is NaN where no usable pixel of a lands, that is where a does not
        show what b shows, and where it would have to be read from a square of pixels with more change than ``STRETCH``.

    Raises:
        ValueError: Shapes disagree.
    """
    if flow.ndim != 3 or flow.shape[-1] != 2 or usable.shape != flow.shape[:2]:
        raise ValueError(f"expected a flow (H, W, 2) and a mask (H, W), got {flow.shape} and {usable.shape}")
    motion = np.ascontiguousarray(flow, np.float64)
    known = np.ascontiguousarray(usable & np.isfinite(motion).all(axis=-1))
    back = np.full(motion.shape, np.nan, np.float32)
    _solve(motion, known, _landed(motion, known), back)
    return back


@jit()
def _landed(flow: DoubleMap, usable: BoolMap) -> NDArray[np.int64]:
    """For each pixel of b the pixel of a (row * W + column) that lands nearest, within one pixel; -1 for none."""
    height, width = usable.shape
    source = np.full((height, width), -1, np.int64)
    nearest = np.full((height, width), np.inf)
    for row in range(height):
        for column in range(width):
            if not usable[row, column]:
                continue
            x, y = column + flow[row, column, 0], row + flow[row, column, 1]
            if not (-1 < x < width and -1 < y < height):
                continue
            left, top = math.floor(x), math.floor(y)
            for line in range(max(top, 0), min(top + 2, height)):
                for place in range(max(left, 0), min(left + 2, width)):
                    distance = (place - x) ** 2 + (line - y) ** 2
                    if distance < nearest[line, place]:
                        nearest[line, place] = distance
                        source[line, place] = row * width + column
    return source


@jit()
def _solve(flow: DoubleMap, usable: BoolMap, source: NDArray[np.int64], back: NDArray[np.float32]) -> None:
    """Iterate q = p - F(q) from the pixel that landed nearest."""
    height, width = usable.shape
    for row in range(height):
        for column in range(width):
            if source[row, column] < 0:
                continue
            x, y = float(source[row, column] % width), float(source[row, column] // width)
            for _ in range(_ROUNDS):
                u, v = _sample(flow, usable, x, y)
                step = max(abs(column - u - x), abs(row - v - y))
                x, y = column - u, row - v
                if not step > _CLOSE:  # arrived, or NaN
                    break
            # on the way the place may leave the picture, in the end it may not
            inside_x = -BORDER_SLACK <= x <= width - 1 + BORDER_SLACK
            if step <= _CLOSE and inside_x and -BORDER_SLACK <= y <= height - 1 + BORDER_SLACK:
                back[row, column, 0], back[row, column, 1] = x - column, y - row


@jit()
def _sample(flow: DoubleMap, usable: BoolMap, x: float, y: float) -> tuple[float, float]:
    """Bilinear flow at a place, moved into the picture; NaN beside an unusable pixel, and across a step."""
    height, width = usable.shape
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    u = v = 0.0
    low_u = low_v = math.inf
    high_u = high_v = -math.inf
    for line in range(int(y), math.ceil(y) + 1):
        for place in range(int(x), math.ceil(x) + 1):
            if not usable[line, place]:
                return math.nan, math.nan
            weight = (1 - abs(x - place)) * (1 - abs(y - line))
            own_u, own_v = flow[line, place, 0], flow[line, place, 1]
            u += weight * own_u
            v += weight * own_v
            low_u, high_u = min(low_u, own_u), max(high_u, own_u)
            low_v, high_v = min(low_v, own_v), max(high_v, own_v)
    if max(high_u - low_u, high_v - low_v) > STRETCH:
        return math.nan, math.nan
    return u, v
