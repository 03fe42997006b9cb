"""Which clips of which data set an epoch holds, as a pure function of (seed, epoch).

Each data set is an endless stream of passes: pass t cuts it anew into clips and shuffles them, with keys that depend on
the seed, the set's name and t alone. An epoch takes the next stretch of each stream, as many frames as the set's share.
So every clip of every pass comes exactly once, whatever the shares, and with shares by frames an epoch is one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.store import Store
from ncbench.errors import CardError
from ncbench.loader_card import LoaderCard, SetEntry
from ncbench.loaders.order import Batches, bucket, interleave, shard_order, within
from ncbench.loaders.partition import plain_clips, random_clips, runs_of
from ncbench.loaders.randomness import key_of
from ncbench.loaders.spatial import resized_size
from ncbench.settings import suggest

Indices = NDArray[np.int64]


class ClipRef(NamedTuple):
    """One clip of one pass; says all that a worker needs to know.

    Attributes:
        member: Number of the data set in the mixture.
        turn: Number of the pass over that set.
        first: Row of the first frame.
        step: Rows between frames.
        frames: How many.
    """

    member: int
    turn: int
    first: int
    step: int
    frames: int

    @property
    def rows(self) -> range:
        """The clip's rows, in time order."""
        return range(self.first, self.first + self.step * self.frames, self.step)


@dataclass(frozen=True)
class Epoch:
    """The clips of one epoch in their order, and how they come in batches.

    Attributes:
        refs: (N, 5) the fields of ``ClipRef``.
        batches: Positions in ``refs``.
    """

    refs: Indices
    batches: Batches

    def ref(self, index: int) -> ClipRef:
        """Return one clip."""
        return ClipRef(*self.refs[index].tolist())

    def batch(self, index: int) -> list[ClipRef]:
        """Return the clips of one batch."""
        return [ClipRef(*row) for row in self.refs[self.batches[index]].tolist()]


class Member:
    """One data set of a mixture and the rules by which it is cut into clips.

    Args:
        store: The open store.
        entry: The card's entry.
        card: The card.

    Raises:
        CardError: The entry names a sequence that the store has not, no sequence is long enough for a clip, or a crop
            is larger than a picture.
    """

    def __init__(self, store: Store, entry: SetEntry, card: LoaderCard) -> None:
        self.name, self.store, self.card = entry.dataset, store, card
        self.length = entry.length or card.length
        self.stride = entry.stride or card.stride
        self.reverse = card.reverse if entry.reverse is None else entry.reverse
        self._where = f"recipe '{card.name}', data set '{entry.dataset}'"
        clips = store.manifest.sequences
        self._starts = np.cumsum([0, *(len(clip.frames) for clip in clips)])
        kept = range(len(clips)) if entry.sequences is None else self._numbers(entry.sequences)
        self.runs = runs_of(
            [clips[number].frames for number in kept],
            [int(self._starts[number]) for number in kept],
            split=(entry.gaps or card.gaps) == "split",
        )
        self.frames = int(self.runs[:, 1].sum())
        self.sizes = np.array([self._final_size(clip.height, clip.width) for clip in clips], np.int64)
        if not self.frames:
            raise CardError(f"{self._where}: has no frames. Leave it out, or prepare it again.")
        if card.shuffle != "none" and not len(self.cut(0)):
            longest = int(self.runs[:, 1].max())
            raise CardError(
                f"{self._where}: expected clips of at least {self.length[0]} frames, but the longest stretch without a "
                f"gap has {longest}. Lower 'length' or 'stride', or set gaps: chain where frames may be far apart."
            )

    def _numbers(self, names: list[str]) -> list[int]:
        numbers = {clip.name: number for number, clip in enumerate(self.store.manifest.sequences)}
        for name in names:
            if name not in numbers:
                raise CardError(f"{self._where}: no sequence '{name}'. {suggest(name, numbers)}")
        return sorted({numbers[name] for name in names})

    def _final_size(self, height: int, width: int) -> tuple[int, int]:
        resize, crop = self.card.resize, self.card.crop
        smallest = resized_size((height, width), resize, resize.scale[0] if resize else 1.0)
        if crop is None:
            return smallest
        if crop.height > smallest[0] or crop.width > smallest[1]:
            raise CardError(
                f"{self._where}: a crop of {crop.height} x {crop.width} does not fit into pictures of {height} x "
                f"{width} that become {smallest[0]} x {smallest[1]}. Lower the crop, or raise 'resize'."
            )
        return crop.height, crop.width

    def cut(self, turn: int) -> Indices:
        """Cut the set into the clips of one pass, in row order: (clips, 3) first row, step, frames."""
        if self.card.shuffle == "none":
            return plain_clips(self.runs, self.length[1], self.stride[0])
        return random_clips(self.runs, self.length, self.stride, key_of(self.card.seed, "cut", self.name, turn))

    def turn(self, turn: int) -> Indices:
        """List the clips of one pass in the order that they are to be read in, as ``cut``."""
        clips = self.cut(turn)
        if self.card.shuffle == "none":
            return clips
        shards = np.searchsorted(self._shard_ends, clips[:, 0], side="right")
        window = self.card.shuffle_shards if self.card.shuffle == "shards" else len(self._shard_ends)
        return clips[shard_order(shards, window, key_of(self.card.seed, "order", self.name, turn))]

    @cached_property
    def _shard_ends(self) -> Indices:
        return np.cumsum([shard.rows for shard in self.store.manifest.shards])

    @cached_property
    def mean_length(self) -> float:
        """Mean length of the clips of the first pass, frames."""
        return float(self.cut(0)[:, 2].mean())

    def stretch(self, start: int, stop: int) -> Indices:
        """Take the clips of a stretch of the set's endless stream of frames.

        Args:
            start: First frame, counted from the beginning of pass 0.
            stop: Frame after the last.

        Returns:
            (clips, 4) int64: pass, first row, step, frames.
        """
        parts = []
        for turn in range(start // self.frames, -(-stop // self.frames)):
            clips = self.turn(turn)
            taken = clips[within(clips[:, 2], start - turn * self.frames, stop - turn * self.frames)]
            parts.append(np.concatenate([np.full((len(taken), 1), turn), taken], axis=1))
        return np.concatenate(parts) if parts else np.zeros((0, 4), np.int64)

    def sequence_numbers(self, rows: Indices) -> Indices:
        """Find the sequences that rows belong to, by number in the manifest."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def stored_size(self, row: int) -> tuple[int, int]:
        """Return height and width of a row's frame as stored."""
        clip = self.store.manifest.sequences[int(np.searchsorted(self._starts, row, side="right")) - 1]
        return clip.height, clip.width


class Mixture:
    """Data sets with their shares.

    Args:
        stores: Open stores by name.
        card: The settings; each set of it is in ``stores``.

    Raises:
        CardError: A set is not in ``stores``, or as ``Member``.
    """

    def __init__(self, stores: Mapping[str, Store], card: LoaderCard) -> None:
        for entry in card.sets:
            if entry.dataset not in stores:
                raise CardError(
                    f"recipe '{card.name}': no data set '{entry.dataset}'. {suggest(entry.dataset, stores)}"
                )
        self.card = card
        self.members = [Member(stores[entry.dataset], entry, card) for entry in card.sets]

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """(members,) what the card asks for: shares of the frames or of the samples, that sum to 1."""
        weights = [entry.weight or member.frames for entry, member in zip(self.card.sets, self.members, strict=True)]
        even = np.asarray(weights, np.float64) ** (1 / self.card.temperature)
        return np.asarray(even / even.sum())

    @cached_property
    def quotas(self) -> list[int]:
        """Frames that each set gives to an epoch; they sum to its length. Without shuffling, each gives all it has."""
        if self.card.shuffle == "none":
            return [member.frames for member in self.members]
        total = self.card.frames_per_epoch or sum(member.frames for member in self.members)
        shares = self.shares
        if self.card.balance == "samples":
            shares = shares * [member.mean_length for member in self.members]
        exact = total * shares / shares.sum()
        quotas = np.floor(exact + 1e-9).astype(np.int64)
        missing = total - int(quotas.sum())
        quotas[np.argsort(quotas - exact, kind="stable")[:missing]] += 1
        return [int(quota) for quota in quotas]

    def epoch(self, number: int) -> Epoch:
        """Plan one epoch.

        Args:
            number: Counted from 0; without shuffling all epochs are the same.

        Returns:
            Its clips and batches.
        """
        turn = 0 if self.card.shuffle == "none" else number
        parts = [
            _numbered(index, member.stretch(turn * quota, (turn + 1) * quota))
            for index, (member, quota) in enumerate(zip(self.members, self.quotas, strict=True))
        ]
        refs = np.concatenate(parts)
        if self.card.shuffle != "none":
            refs = refs[interleave([len(part) for part in parts], key_of(self.card.seed, "mix", number))]
        return Epoch(refs, bucket(self._kinds(refs), self.card.batch_size))

    def _kinds(self, refs: Indices) -> Indices:
        """Number clips by length and size: only those of one kind can be stacked."""
        sizes = np.empty((len(refs), 2), np.int64)
        for index, member in enumerate(self.members):
            mine = refs[:, 0] == index
            sizes[mine] = member.sizes[member.sequence_numbers(refs[mine, 2])]
        return (refs[:, 4] << 40) + (sizes[:, 0] << 20) + sizes[:, 1]


def _numbered(member: int, clips: Indices) -> Indices:
    return np.concatenate([np.full((len(clips), 1), member), clips], axis=1)
