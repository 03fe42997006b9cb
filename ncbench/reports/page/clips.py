"""Which frames the viewer holds, and how many of their pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.reports.page.codes import pack, quantize

LEAST_SEQUENCES = 3
"""The hardest, the easiest and one between: a viewer of one scene alone says little."""
MOST_PIXELS = 80_000
"""Of a picture; more than the page can show of it beside others."""
MOST_MODELS = 12
"""Of a protocol, so that a large table keeps a small page."""
PAGE_BYTES = 52_000_000
"""Of all maps together, as they lie in the folder."""
_TEXT = 4 / 3  # base64


@dataclass(frozen=True)
class Clip:
    """Neighbouring frames of one sequence.

    Attributes:
        sequence: Its name.
        frames: Frame indices, ascending.
        total: How many frames the protocol has of it.
    """

    sequence: str
    frames: tuple[int, ...]
    total: int


def choose_clips(
    sequences: Mapping[str, Sequence[int]],
    difficulty: Mapping[str, float],
    hardest_frames: Mapping[str, int],
    budget: int,
) -> list[Clip]:
    """Choose neighbouring frames from sequences spread evenly from the hardest to the easiest.

    Args:
        sequences: The protocol's frames.
        difficulty: Mean error of a sequence; those that are missing count as easiest.
        hardest_frames: The frame of a sequence that a clip must hold.
        budget: How many frames in all.

    Returns:
        Clips, hardest first; whole sequences where the budget allows.
    """
    if budget < 1 or not sequences:
        return []
    order = sorted(sequences, key=lambda name: (-difficulty.get(name, -1.0), name))
    usual = sorted(len(frames) for frames in sequences.values())[len(order) // 2]
    count = min(len(order), budget, max(LEAST_SEQUENCES, budget // usual))
    chosen = [order[index] for index in np.linspace(0, len(order) - 1, count).round().astype(int).tolist()]
    return [_clip(name, list(sequences[name]), hardest_frames.get(name), budget // count) for name in chosen]


def _clip(name: str, frames: list[int], hardest: int | None, length: int) -> Clip:
    middle = frames.index(hardest) if hardest in frames else 0
    start = max(0, min(middle - length // 2, len(frames) - length))
    return Clip(name, tuple(frames[start : start + length]), len(frames))


def choose_stride(samples: Sequence[NDArray[np.float32]], frames: int, budget: float) -> int:
    """Find how many pixels to leave out, so that pictures are no larger than useful and the page stays small.

    Args:
        samples: One (H, W, 3) map of each kind that will be written, all of one size.
        frames: How many maps of each kind there will be.
        budget: Bytes for all of them.

    Returns:
        Every how many-th pixel of every how many-th row is kept, from 1.
    """
    height, width = samples[0].shape[:2]
    stride = max(1, math.ceil(math.sqrt(height * width / MOST_PIXELS)))
    while stride < min(height, width):
        size = sum(len(pack(quantize(thin(sample, stride)))) for sample in samples)
        if size * frames * _TEXT <= budget:
            break
        stride += 1
    return stride


def thin(values: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
    """Keep the middle pixel of every stride x stride block: true values, never means of different surfaces.

    Args:
        values: (H, W, 3) map.
        stride: Side of a block; column x of the result is column x * stride + stride // 2 of the map.

    Returns:
        The smaller map.
    """
    start = stride // 2
    return np.ascontiguousarray(values[start::stride, start::stride])
