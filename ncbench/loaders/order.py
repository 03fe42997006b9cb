"""The order of clips: which belong to an epoch, in what order, and in which batches. Numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.loaders.randomness import permutation, uniforms

Indices = NDArray[np.int64]


def shard_order(shards: Indices, window: int, key: np.uint64) -> Indices:
    """Shuffle clips so that only a few shards are read at a time.

    Shards are shuffled and taken in groups of ``window``; the clips of a group are shuffled among themselves. A window
    of all shards is a plain shuffle.

    Args:
        shards: (N,) the shard that each clip begins in.
        window: Shards a group.
        key: Decides the order.

    Returns:
        (N,) positions in the new order.
    """
    present, shard = np.unique(shards, return_inverse=True)
    group = permutation(key, len(present)).argsort()[shard] // window
    clips = permutation(key ^ np.uint64(0x5851F42D4C957F2D), len(shards))
    return clips[np.argsort(group[clips], kind="stable")]


def within(counts: Indices, start: int, stop: int) -> Indices:
    """Find the clips whose first frame falls into a stretch of a stream of frames.

    Args:
        counts: (N,) frames of each clip, in stream order.
        start: First frame of the stretch, counted from the beginning of the stream.
        stop: Frame after the last.

    Returns:
        Positions of the clips, ascending.

    Examples:
        >>> within(np.array([3, 2, 4]), 1, 6).tolist()
        [1, 2]
    """
    first = np.cumsum(counts) - counts
    return np.flatnonzero((first >= start) & (first < stop))


def interleave(lengths: Sequence[int], key: np.uint64) -> Indices:
    """Merge lists evenly, each in its own order: everywhere in the result their shares are those of the whole.

    Args:
        lengths: Length of each list.
        key: Decides the small irregularities.

    Returns:
        Positions in the concatenation of the lists, in merged order.

    Examples:
        >>> merged = interleave([6, 3], np.uint64(1))
        >>> sorted(merged.tolist()), [int(place) for place in merged if place < 6]
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5])
    """
    places = [np.arange(length) / length for length in lengths if length]
    jitter = uniforms(key, sum(lengths)) / np.repeat(lengths, lengths)
    return np.argsort(np.concatenate(places) + jitter, kind="stable") if places else np.zeros(0, np.int64)


@dataclass(frozen=True)
class Batches:
    """Batches of clips.

    Attributes:
        clips: (N,) positions of clips, batch after batch.
        ends: (batches,) where in ``clips`` each batch ends.
    """

    clips: Indices
    ends: Indices

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Indices:
        start = self.ends[index - 1] if index else 0
        return self.clips[start : self.ends[index]]


def bucket(kinds: Indices, size: int) -> Batches:
    """Put clips of one kind together, in order of arrival.

    A batch comes when its last clip has arrived; what is left of each kind at the end makes a smaller batch.

    Args:
        kinds: (N,) a number for each clip, in order; only equal ones can share a batch.
        size: Clips a batch.

    Returns:
        Every clip in exactly one batch.

    Examples:
        >>> batches = bucket(np.array([7, 8, 7, 8, 8]), 2)
        >>> [batches[index].tolist() for index in range(len(batches))]
        [[0, 2], [1, 3], [4]]
    """
    if not len(kinds):
        return Batches(np.zeros(0, np.int64), np.zeros(0, np.int64))
    _, kind, totals = np.unique(kinds, return_inverse=True, return_counts=True)
    by_kind = np.argsort(kind, kind="stable")
    rank = np.arange(len(kinds)) - np.repeat(np.cumsum(totals) - totals, totals)
    begins = np.flatnonzero(rank % size == 0)
    lengths = np.diff(np.append(begins, len(kinds)))
    arrival = np.argsort(by_kind[begins + lengths - 1], kind="stable")
    ends = np.cumsum(lengths[arrival])
    picks = np.repeat(begins[arrival] - ends + lengths[arrival], lengths[arrival]) + np.arange(len(kinds))
    return Batches(by_kind[picks], ends)
