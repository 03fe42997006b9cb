"""Cut the frames of a data set into clips, each frame once.

A run is a stretch of rows that may share a clip. One pass over a data set draws a stride for each run, splits the run
into that many interleaved tracks, and cuts each track into clips of random lengths: uniform, but that the last clip of
a track takes what is left. Only where a track's length is no sum of allowed lengths do frames stay out of a pass, at
its two ends in random parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ncbench.jit import jit
from ncbench.loaders.randomness import mixed

Indices = NDArray[np.int64]


def runs_of(frames: Sequence[Sequence[int]], first_rows: Sequence[int], *, split: bool) -> Indices:
    """List the runs of sequences.

    Args:
        frames: Frame indices of each sequence, ascending.
        first_rows: Row of each sequence's first frame.
        split: End a run where the step between frame numbers is not the sequence's most common one.

    Returns:
        (runs, 2) int64: first row and number of rows, in row order.
    """
    found: list[Indices] = []
    for numbers, first in zip(frames, first_rows, strict=True):
        starts = np.zeros(1, np.int64)
        if split and len(numbers) > 2:
            steps = np.diff(np.asarray(numbers, np.int64))
            usual = steps[0] if (steps == steps[0]).all() else np.bincount(steps).argmax()
            starts = np.concatenate([starts, np.flatnonzero(steps != usual) + 1])
        ends = np.append(starts[1:], len(numbers))
        found.append(np.stack([first + starts, ends - starts], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def random_clips(runs: Indices, length: tuple[int, int], stride: tuple[int, int], key: np.uint64) -> Indices:
    """Cut runs into clips of random lengths.

    Args:
        runs: (runs, 2) from ``runs_of``.
        length: Shortest and longest clip, frames.
        stride: Smallest and largest step, rows.
        key: Decides what is drawn; what a run becomes depends on the key and its first row alone.

    Returns:
        (clips, 3) int64: first row, step, number of frames; by run, then by track, then in time.
    """
    clips = np.empty((int(runs[:, 1].sum()) // length[0], 3), np.int64)
    found = _cut(runs, *length, *stride, key, clips)
    return clips[:found]


def plain_clips(runs: Indices, longest: int, step: int) -> Indices:
    """Cut runs into clips of one length, the last of a track as short as need be: every frame once, none twice.

    Args:
        runs: (runs, 2) from ``runs_of``.
        longest: Frames a clip.
        step: Rows between frames of a clip.

    Returns:
        (clips, 3) int64 as ``random_clips``.
    """
    found = []
    for first, count in runs.tolist():
        for track in range(min(step, count)):
            rows = -(-(count - track) // step)
            starts = np.arange(0, rows, longest)
            counts = np.minimum(longest, rows - starts)
            found.append(np.stack([first + track + starts * step, np.full_like(starts, step), counts], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 3), np.int64)


@jit()
def _cut(
    runs: Indices,
    shortest: int,
    longest: int,
    low_stride: int,
    high_stride: int,
    key: np.uint64,
    clips: Indices,
) -> int:
    found = 0
    for index in range(runs.shape[0]):
        first, count = runs[index, 0], runs[index, 1]
        state = mixed(key ^ mixed(np.uint64(first) + np.uint64(0x9E3779B97F4A7C15)))
        stride = low_stride + np.int64(state % np.uint64(high_stride - low_stride + 1))
        for track in range(min(stride, count)):
            left = (count - track + stride - 1) // stride
            place = first + track
            usable = left if (left + longest - 1) // longest * shortest <= left else left // longest * longest
            state = mixed(state + np.uint64(0x9E3779B97F4A7C15))
            place += stride * np.int64(state % np.uint64(left - usable + 1))
            left = usable
            while left > 0:
                state = mixed(state + np.uint64(0x9E3779B97F4A7C15))
                size = _length(left, shortest, longest, state)
                clips[found, 0], clips[found, 1], clips[found, 2] = place, stride, size
                found += 1
                place += stride * size
                left -= size
    return found


@jit()
def _length(left: int, shortest: int, longest: int, state: np.uint64) -> int:
    """Draw a length, cut to what is left; where the rest could not be cut then, the next one after which it can."""
    choices = longest - shortest + 1
    drawn = int(state % np.uint64(choices))
    for index in range(choices):
        size: int = min(shortest + (drawn + index) % choices, left)
        rest = left - size
        if size >= shortest and (rest + longest - 1) // longest * shortest <= rest:
            return size
    return left
