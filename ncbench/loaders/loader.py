"""Epochs of batches over ranks and workers, that resume anywhere from a few numbers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ncbench.cards import digest
from ncbench.errors import CardError, NcbenchError, StoreError
from ncbench.loaders.batch import Batch
from ncbench.loaders.clips import NormalClips, check_rank, start_worker
from ncbench.loaders.mixture import ClipRef

_STATE_VERSION = 1
_REPORT_SECONDS = 0.5


@dataclass(frozen=True)
class Position:
    """A place in the endless row of batches that all ranks share.

    Attributes:
        epoch: Number of the epoch.
        batches: How many of its batches come before.
    """

    epoch: int
    batches: int


class Loader:
    """Batches of clips for training or evaluation.

    All ranks walk one row of batches together: of R ranks, rank r takes every R-th, from the r-th on. The row depends
    on the card, the stores and the epoch alone, so that ranks and workers change speed and nothing else, and every clip
    comes exactly once an epoch. Nothing is padded; the last batches may be smaller.

    Iterating gives one epoch, or the rest of the one that ``load_state_dict`` points into; the next iteration gives the
    next epoch. An iteration that is left early starts over.

    Args:
        clips: The data; the card's ``batch_size`` counts for one rank.
        rank: Number of this process.
        world: How many processes train together.
        workers: Threads or processes of this rank that load ahead; 0 loads when asked.
        backend: ``threads`` share this process's memory, so that a batch is never copied between processes; decoding
            and resizing leave Python's lock alone. ``processes`` are torch's ``DataLoader`` workers.
        endless: Go on into the next epochs for ever, for training by steps: no rank then runs dry before another.
        drop_uneven: Leave out the last batches of an epoch if there are not enough for all ranks, because a collective
            operation would wait for ever; otherwise some ranks get one batch more.
        pin_memory: Put batches into page-locked memory, for copies to a GPU.
        prefetch: Batches that each worker prepares ahead.
        start_method: How processes start: ``fork``, ``spawn`` or ``forkserver``; None is the system's default.

    Raises:
        CardError: The rank is none, or ``drop_uneven`` is given with ``endless``.

    Examples:
        ```py
        loader = Loader(NormalClips(store, length=(1, 4), batch_size=2), workers=2)
        for batch in loader:
            loss(model(batch["image"]), batch["normal"], batch["valid"])
        ```
    """

    def __init__(
        self,
        clips: NormalClips,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        backend: Literal["threads", "processes"] = "threads",
        endless: bool = False,
        drop_uneven: bool = False,
        pin_memory: bool = False,
        prefetch: int = 2,
        start_method: str | None = None,
    ) -> None:
        check_rank(rank, world)
        if endless and drop_uneven:
            raise CardError("an endless loader gives all ranks the same number of batches: leave drop_uneven out")
        self.clips, self._rank, self._world = clips, rank, world
        self._endless, self._drop = endless, drop_uneven
        self._threads, self._ahead, self._pin = workers if backend == "threads" else 0, prefetch * workers, pin_memory
        self._options: dict[str, Any] = {"num_workers": 0 if self._threads else workers, "pin_memory": pin_memory}
        if self._options["num_workers"]:
            context = {"prefetch_factor": prefetch, "multiprocessing_context": start_method}
            self._options |= context | {"worker_init_fn": start_worker}
        self._start = Position(0, 0)
        self._now = self._start

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch, of the one that comes next."""
        return len(range(self._rank, self._batches(self._start.epoch), self._world))

    def __iter__(self) -> Iterator[Batch]:
        self._now = self._start
        order = _Order(self, self._start)
        for batch in self._load_in_threads(order) if self._threads else self._load(order):
            if isinstance(batch, _Failure):
                raise batch.error
            self._now = self._after(self._now)
            yield batch
        self._start = self._now = Position(self._start.epoch + 1, 0)

    def state_dict(self) -> dict[str, Any]:
        """Return where all ranks are, once each of them has taken as many batches as this one.

        Returns:
            Plain numbers and text, the same on every rank: epoch and batches in it, and what they only count for: the
            seed and the digest of card and data.
        """
        card = self.clips.card
        position = {"epoch": self._now.epoch, "batches": self._now.batches}
        return {"version": _STATE_VERSION, **position, "seed": card.seed, "digest": self._digest()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a loader stopped, with any number of ranks and workers.

        Args:
            state: From ``state_dict``.

        Raises:
            CardError: The state is of another recipe, seed or data, or is none.
        """
        known = {"version", "epoch", "batches", "seed", "digest"}
        if set(state) != known or state["version"] != _STATE_VERSION:
            raise CardError(
                f"expected a loader state with {', '.join(sorted(known))}, version {_STATE_VERSION}; got {state}"
            )
        if (state["seed"], state["digest"]) != (self.clips.card.seed, self._digest()):
            raise CardError(
                f"recipe '{self.clips.card.name}': the state belongs to other settings, seed or data, so that its "
                "position means nothing here. Resume with what it was saved with, or start anew."
            )
        self._start = self._now = Position(int(state["epoch"]), int(state["batches"]))

    def batches_from(self, position: Position) -> Iterator[list[ClipRef]]:
        """List the batches of this rank from a position of all ranks on, in order."""
        epoch, index = position.epoch, position.batches + self._rank
        while True:
            plan, stop = self.clips.plan(epoch), self._batches(epoch)
            while index < stop:
                yield plan.batch(index)
                index += self._world
            if not self._endless:
                return
            index -= stop
            epoch += 1

    def _batches(self, epoch: int) -> int:
        count = len(self.clips.plan(epoch).batches)
        return count - count % self._world if self._drop else count

    def _after(self, position: Position) -> Position:
        epoch, batches = position.epoch, position.batches + self._world
        while batches >= (count := self._batches(epoch)):
            epoch, batches = epoch + 1, batches - count if self._endless else 0
        return Position(epoch, batches)

    def _digest(self) -> str:
        stores = {member.name: member.store.manifest.digest for member in self.clips.mixture.members}
        return digest({"card": self.clips.card.shaping(), "stores": stores})

    def _load_in_threads(self, order: _Order) -> Iterator[Any]:
        reads, coming = _Reads(self.clips), deque[Future[Any]]()

        def read(refs: list[ClipRef]) -> Any:  # noqa: ANN401 - a batch or a failure
            batch: Any = reads[refs]
            return _pinned(batch) if self._pin and not isinstance(batch, _Failure) else batch

        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="ncbench-loader")
        try:
            for refs in order:
                coming.append(pool.submit(read, refs))
                if len(coming) > self._ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, order: _Order) -> Iterator[Any]:
        reads = _Reads(self.clips)
        batches: DataLoader[Any] = DataLoader(
            reads, sampler=order, batch_size=None, collate_fn=_unchanged, **self._options
        )
        try:
            yield from batches
        except (RuntimeError, ConnectionError, EOFError) as error:
            reason = _death(error)
            if reason is None:
                raise
            raise self._died(reason) from error

    def _died(self, reason: str) -> NcbenchError:
        card, members = self.clips.card, self.clips.mixture.members
        waiting = []
        for ref in next(self.batches_from(self._now), []):
            sequence, frame = members[ref.member].store.locate(ref.first)
            waiting.append(f"'{members[ref.member].name}' sequence '{sequence}' frame {frame}")
        return StoreError(
            f"recipe '{card.name}': a loading process died ({reason}) at or after the batch with "
            f"{', '.join(waiting)}. Often memory ran out: use fewer workers, a smaller prefetch or batch; with "
            "workers=0 the cause shows."
        )


def _death(error: Exception) -> str | None:
    """Say how a worker ended, where that is what an error of the ``DataLoader`` means."""
    if "DataLoader worker" in str(error):
        return None if "Caught" in str(error) else str(error).splitlines()[0]
    if isinstance(error, RuntimeError):
        return None
    try:  # its connection broke first: the system's report follows, and torch raises it wherever Python is just then
        time.sleep(_REPORT_SECONDS)
    except RuntimeError as report:
        return str(report).splitlines()[0]
    return str(error)


class _Order(Sampler[list[ClipRef]]):
    """The batches that a ``DataLoader`` is to read."""

    def __init__(self, loader: Loader, start: Position) -> None:
        self._loader, self._start = loader, start

    def __iter__(self) -> Iterator[list[ClipRef]]:
        return self._loader.batches_from(self._start)


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker, so that its message arrives without the worker's traceback."""

    error: NcbenchError


class _Reads(Dataset[Any]):
    """Reads the batch that it is asked for."""

    def __init__(self, clips: NormalClips) -> None:
        self._clips = clips

    def __getitem__(self, refs: list[ClipRef]) -> Batch | _Failure:
        try:
            return self._clips.read(refs)
        except NcbenchError as error:
            return _Failure(type(error)(f"recipe '{self._clips.card.name}': {error}"))


def _pinned(batch: Batch) -> Any:  # noqa: ANN401 - TypedDict by name
    values: Any = batch
    return {key: value.pin_memory() if isinstance(value, Tensor) else value for key, value in values.items()}


def _unchanged(batch: Any) -> Any:  # noqa: ANN401 - a batch or a failure
    return batch
