"""One sequence through one model: how many frames at a time, less where memory runs out, and what it cost."""

from __future__ import annotations

import random
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ncbench.errors import ModelError
from ncbench.models.base import Answer, Clip
from ncbench.models.memory import Device, OutOfMemoryError
from ncbench.models.registry import LoadedModel

Read = Callable[[tuple[int, ...]], Clip]
"""Reads some frames of a sequence."""

_LARGEST_BATCH = 32  # past it no network that we know runs quicker
_FULL = 0.8  # of the device's memory: the rest is for what a larger picture or the allocator's holes need


@dataclass(frozen=True)
class Cost:
    """What one sequence cost.

    Attributes:
        sequence: Its name.
        frames: How many.
        seconds: In the model, with the device's queue emptied before and after; without reading and writing.
        reading_seconds: To read and decode the pictures.
        peak_memory_bytes: Of CUDA memory for this sequence; on the CPU of the process since it began.
        device: Where it ran.
        batch: Frames handed over at a time, at the end.
        notes: What went differently than asked.
    """

    sequence: str
    frames: int
    seconds: float
    reading_seconds: float
    peak_memory_bytes: int | None
    device: str
    batch: int
    notes: tuple[str, ...] = ()


class SequenceRunner:
    """Runs one loaded model, sequence after sequence.

    A model whose frames are independent is given as many at a time as was asked for or, on CUDA, as fit: the number
    doubles while twice the peak fits into four fifths of the memory. Where memory runs out it is halved for good. Any
    other model is given its own ``clip_length``, and is asked to use less memory.

    Args:
        model: The model.
        device: Where it computes.
        batch_size: Frames at a time for a model of independent frames; None finds it.
        progress: Called with (frames done, frames in all) of the sequence at hand.

    Attributes:
        cost: Of the last sequence that ran to its end.
    """

    cost: Cost

    def __init__(
        self,
        model: LoadedModel,
        device: Device,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._model = model
        self._progress = progress
        self._device = device
        self._batch = batch_size or model.adapter.clip_length
        self._grows = batch_size is None and device.is_cuda and model.adapter.per_frame
        self._notes: list[str] = []
        self._reading = 0.0

    def run(self, sequence: str, frames: Sequence[int], read: Read, seed: int) -> Iterator[Answer]:
        """Predict a sequence.

        Args:
            sequence: Its name.
            frames: Its frame indices.
            read: Reads some of them.
            seed: With the sequence's name, what the global random generators start from.

        Yields:
            Answers for runs of frames, in order; together they cover each frame once.

        Raises:
            ModelError: The model failed, or memory ran out with nothing left to lower.
        """
        seed_everything(seed, sequence)
        shortage = self._device.shortage(self._model.adapter.memory)
        self._notes, self._reading = [shortage] if shortage else [], 0.0
        answers = self._in_batches(frames, read) if self._model.adapter.per_frame else self._streamed(frames, read)
        self._device.reset_peak()
        seconds, done = 0.0, 0
        while True:
            started = self._now()
            answer = next(answers, None)
            seconds += self._now() - started
            if answer is None:
                break
            yield answer
            done += _frames_in(answer)
            if self._progress is not None:
                self._progress(done, len(frames))
        self.cost = Cost(
            sequence=sequence,
            frames=len(frames),
            seconds=round(max(seconds - self._reading, 0.0), 6),
            reading_seconds=round(self._reading, 6),
            peak_memory_bytes=self._device.peak_bytes(),
            device=self._device.describe(),
            batch=self._batch,
            notes=tuple(self._notes),
        )

    def _in_batches(self, frames: Sequence[int], read: Read) -> Iterator[Answer]:
        start = 0
        while start < len(frames):
            chunk = tuple(frames[start : start + self._batch])
            answer = self._tried(self._timed(read, chunk))
            if answer is not None:
                start += len(chunk)
                self._grow(len(chunk))
                yield answer

    def _tried(self, clip: Clip) -> Answer | None:
        """Answer, or take note that fewer frames fit; the failed try has let go of its memory when this returns."""
        try:
            return self._model.answer(clip)
        except OutOfMemoryError as error:
            if len(clip.frames) == 1:
                raise ModelError(f"{error}. One frame alone is too large: take another device.") from None
        self._grows, self._batch = False, len(clip.frames) // 2
        self._note(f"memory ran out at {len(clip.frames)} frames at a time, went on with {self._batch}")
        self._device.release()
        return None

    def _grow(self, done: int) -> None:
        total = self._device.total_bytes()
        if not self._grows or total is None or done < self._batch:
            return
        peak = self._device.peak_bytes() or total
        if 2 * self._batch <= _LARGEST_BATCH and 2 * peak < _FULL * total:
            self._batch *= 2
        else:
            self._grows = False

    def _streamed(self, frames: Sequence[int], read: Read) -> Iterator[Answer]:
        given = 0
        while True:
            clips = (self._timed(read, chunk) for chunk in _cut(frames, self._batch))
            done = 0
            try:
                for answer, chunk in zip(self._model.stream(clips), _cut(frames, self._batch), strict=True):
                    done += len(chunk)
                    if done > given:  # after a new start, the first answers are out already
                        given = done
                        yield answer
                return
            except OutOfMemoryError as error:
                if not self._model.adapter.use_less_memory():
                    raise ModelError(
                        f"{error}. Take another device, or smaller chunks in the card's settings."
                    ) from None
            self._note("memory ran out, went on with smaller chunks")
            self._device.release()

    def _timed(self, read: Read, chunk: tuple[int, ...]) -> Clip:
        started = time.perf_counter()
        clip = read(chunk)
        self._reading += time.perf_counter() - started
        return clip

    def _now(self) -> float:
        self._device.synchronize()
        return time.perf_counter()

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)


def _frames_in(answer: Answer) -> int:
    part = answer.depth if answer.normal is None else answer.normal
    return 0 if part is None else len(part)


def seed_everything(seed: int, sequence: str) -> None:
    """Start the global random generators (Python, numpy, torch where it is loaded) from a seed and a sequence's name.

    A sequence so has the same random numbers whichever process predicts it and whatever ran before.
    """
    mixed = (seed + zlib.crc32(sequence.encode())) % 2**32
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - for other people's code, which draws from it
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(mixed)


def _cut(frames: Sequence[int], length: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(frames), length):
        yield tuple(frames[start : start + length])
