"""Torch data sets over stores: random access to clips and frames, and streams of batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ncbench.datasets.store import Store
from ncbench.errors import CardError
from ncbench.loader_card import LoaderCard
from ncbench.loaders.batch import Batch, read_batch
from ncbench.loaders.memory import Memory
from ncbench.loaders.mixture import ClipRef, Epoch, Mixture

Sample = dict[str, Any]
"""A ``Batch`` without its first axis."""

_KEPT_EPOCHS = 2


class NormalClips(Dataset[Sample]):
    """Clips of one or more data sets: what they show is a pure function of (seed, pass, clip).

    Without arguments beside the stores, every frame is a clip of its own, in random order, as stored. Settings are
    those of `ncbench.loader_card.LoaderCard`, for example ``length=(1, 14), resize={"short_edge": 576}, flip=0.5``.

    ``clips[index]`` reads a clip of the epoch that ``set_epoch`` chose; `ncbench.loaders.loader.Loader` is the easier
    and faster way to batches.

    Args:
        stores: An open store, or several by name.
        card: A recipe; its sets are looked up in ``stores``.
        settings: In place of a card.

    Raises:
        CardError: The settings are wrong, name a set that is not there, or ask for clips longer than any sequence.

    Examples:
        ```py
        clips = NormalClips(ncbench.open_store("data/stores/rooms"), length=(1, 4), flip=0.5)
        clips[0]["normal"].shape  # (frames, 3, height, width)
        ```
    """

    def __init__(
        self,
        stores: Store | Mapping[str, Store],
        card: LoaderCard | None = None,
        **settings: Any,  # noqa: ANN401 - the fields of LoaderCard, checked by it
    ) -> None:
        named = {stores.manifest.name: stores} if isinstance(stores, Store) else dict(stores)
        if card is not None and settings:
            raise CardError(f"give a card or settings, not both; got card '{card.name}' and {', '.join(settings)}")
        self.mixture = Mixture(named, card or _card_of(named, settings))
        self._epoch = 0
        self._memory = Memory()
        self._plan = lru_cache(maxsize=_KEPT_EPOCHS)(self.mixture.epoch)

    @property
    def card(self) -> LoaderCard:
        """The settings."""
        return self.mixture.card

    def __getstate__(self) -> dict[str, Any]:
        return {"mixture": self.mixture, "_epoch": self._epoch}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._memory = Memory()
        self._plan = lru_cache(maxsize=_KEPT_EPOCHS)(self.mixture.epoch)

    def plan(self, epoch: int) -> Epoch:
        """Return which clips an epoch holds, in their order and batches; the same on every rank and worker."""
        return self._plan(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose clips ``len`` and ``[]`` mean; before a ``DataLoader`` starts its workers."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.plan(self._epoch).refs)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return self.sample(self.plan(self._epoch).ref(index))

    def sample(self, ref: ClipRef) -> Sample:
        """Read one clip, (T, ...).

        Raises:
            StoreError: A shard or cell is damaged or missing.
        """
        batch = self.read([ref])
        return {key: value[0] for key, value in batch.items()}  # type: ignore[index]  # tensors and lists

    def read(self, refs: list[ClipRef]) -> Batch:
        """Read clips of one kind as a batch, (B, T, ...).

        Raises:
            StoreError: A shard or cell is damaged or missing.
        """
        return read_batch(self.mixture, refs, self._memory)

    def stream(self, rank: int = 0, world: int = 1) -> ClipStream:
        """Return an iterable data set of batches, one epoch long, for ``DataLoader(..., batch_size=None)``.

        Args:
            rank: Number of this process.
            world: How many processes share the epoch.
        """
        return ClipStream(self, rank, world)


class NormalFrames(NormalClips):
    """Single frames: as ``NormalClips`` with clips of one frame, and without the axis T.

    Examples:
        ```py
        frames = NormalFrames(ncbench.open_store("data/stores/rooms"), crop={"height": 128, "width": 128})
        frames[0]["normal"].shape  # (3, 128, 128)
        ```
    """

    def __init__(
        self,
        stores: Store | Mapping[str, Store],
        card: LoaderCard | None = None,
        **settings: Any,  # noqa: ANN401 - as NormalClips
    ) -> None:
        super().__init__(stores, card, **settings)
        if any(member.length != (1, 1) for member in self.mixture.members):
            raise CardError(f"recipe '{self.card.name}': single frames need length [1, 1]. Use NormalClips.")

    def read(self, refs: list[ClipRef]) -> Batch:
        """Read frames as a batch, (B, ...); errors as ``NormalClips.read``."""
        batch: Any = super().read(refs)
        timed = ("image", "normal", "valid", "frames", *self.card.columns)
        return batch | {key: batch[key][:, 0] for key in timed}  # type: ignore[no-any-return]  # TypedDict by name


class ClipStream(IterableDataset[Batch]):
    """Batches of one epoch as a stream; ranks and workers take them in turn.

    The batches come in the same order whatever the number of workers, and each in exactly one rank. Call ``set_epoch``
    between epochs. `ncbench.loaders.loader.Loader` does that, and resumes.
    """

    def __init__(self, clips: NormalClips, rank: int, world: int) -> None:
        super().__init__()
        check_rank(rank, world)
        self.clips, self._rank, self._world, self._epoch = clips, rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration streams."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        plan = self.clips.plan(self._epoch)
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in range(self._rank + first * self._world, len(plan.batches), step * self._world):
            yield self.clips.read(plan.batch(index))


def check_rank(rank: int, world: int) -> None:
    """Refuse a rank that is none.

    Raises:
        CardError: Unless 0 <= rank < world.
    """
    if not 0 <= rank < world:
        raise CardError(f"expected a rank from 0 to world - 1, got rank {rank} of {world}")


def start_worker(_number: int) -> None:
    """Keep a worker process to one core."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _card_of(stores: Mapping[str, Store], settings: Mapping[str, Any]) -> LoaderCard:
    sets = [{"dataset": name} for name in stores]
    values = {"name": "settings", "version": "1.0.0", "title": "", "summary": "", "sets": sets, **settings}
    return LoaderCard.parse(values, where="loader settings")
