"""Where a run computes: workers, devices, weights; none of it shapes a prediction but precision and seed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from ncbench.cards import ModelCard
from ncbench.errors import ModelError
from ncbench.models.base import NormalModel, Precision, Runtime
from ncbench.models.memory import Device
from ncbench.models.weights import LocalWeights, find_weights

Progress = Callable[[int, int], None]

_held: dict[str, BaseFileLock] = {}  # devices that this process took; until it ends


@dataclass(frozen=True)
class RunOptions:
    """What a user chooses of a run.

    Attributes:
        weights: Folder of weights, for work offline; None takes the Hub's cache, and downloads what it lacks.
        devices: In torch's spelling, one worker each; empty takes ``cuda:0`` for a model with weights where there is
            one, else the CPU.
        jobs: Worker processes on the CPU.
        precision: Number format of the network.
        compile: Whether to compile the network.
        seed: What all randomness is drawn from.
        batch_size: Frames at a time, for a model that takes each frame on its own; None finds it.
    """

    weights: Path | None = None
    devices: Sequence[str] = ()
    jobs: int = 1
    precision: Precision = "fp32"
    compile: bool = False
    seed: int = 0
    batch_size: int | None = None


@dataclass(frozen=True)
class Execution:
    """What each worker of a run needs to know; picklable.

    Attributes:
        options: What the user chose.
        devices: All devices of the run, checked.
        weights: The weights, checked.
        scratch: Folder for the run's locks.
        log: File that the cost of each sequence is added to; None keeps none.
        progress: Called with (frames done, frames in all) of the sequence at hand; only where one process computes.
    """

    options: RunOptions = RunOptions()
    devices: tuple[str, ...] = ("cpu",)
    weights: LocalWeights | None = None
    scratch: Path | None = None
    log: Path | None = None
    progress: Progress | None = None

    @property
    def workers(self) -> int:
        """How many processes compute."""
        return max(self.options.jobs, len(self.devices))

    def claim(self) -> str:
        """Take a device for this process until it ends.

        Returns:
            Its name; no other worker of the run has it.

        Raises:
            ModelError: All are taken.
        """
        if len(self.devices) == 1 or self.scratch is None:
            return self.devices[0]
        for device in self.devices:
            path = str(self.scratch / f"{device.replace(':', '_')}.lock")
            lock = FileLock(path, blocking=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            _held[path] = lock
            return device
        raise ModelError(f"all devices of this run are taken: {', '.join(self.devices)}")

    def runtime(self, device: str) -> Runtime:
        """Say to an adapter where and how to compute."""
        chosen = self.options
        folder = None if self.weights is None else self.weights.folder
        return Runtime(folder, device, chosen.precision, chosen.compile, chosen.seed)

    def share_processors(self, device: str) -> None:
        """Keep several workers on the CPU from each taking all of its cores."""
        torch = sys.modules.get("torch")
        if torch is not None and self.workers > 1 and not Device(device).is_cuda:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.workers))


def plan_execution(
    card: ModelCard,
    adapter: NormalModel,
    options: RunOptions,
    scratch: Path,
    log: Path,
    progress: Progress | None = None,
) -> Execution:
    """Check what the user chose, and bring the weights here.

    Args:
        card: The model's card.
        adapter: Its adapter, not loaded.
        options: What the user chose.
        scratch: Folder for the run's locks; exists.
        log: File for the cost of each sequence.
        progress: As the attribute; left out where several processes compute, which cannot call it.

    Returns:
        What the workers need to know.

    Raises:
        ModelError: Choices contradict each other, a device is not here, or weights are missing or not the pinned ones.
    """
    if options.batch_size is not None and not adapter.per_frame:
        raise ModelError(
            f"model '{card.name}' looks at {adapter.clip_length} frames together, so that --batch-size has no meaning "
            "for it. Its card's settings decide."
        )
    if options.jobs < 1 or (options.batch_size is not None and options.batch_size < 1):
        raise ModelError(f"--jobs and --batch-size must be at least 1, got {options.jobs} and {options.batch_size}")
    devices = tuple(options.devices) or _default_devices(card)
    if len(set(devices)) < len(devices):
        raise ModelError(f"--devices names a device twice: {', '.join(devices)}")
    for device in devices:
        Device(device).require()
    if options.jobs > 1 and devices != ("cpu",):
        raise ModelError(
            f"--jobs {options.jobs} is for work on the CPU, and the model runs on {', '.join(devices)}. Name one "
            "device for each worker with --devices, or 'cpu'."
        )
    alone = max(options.jobs, len(devices)) == 1
    return Execution(options, devices, find_weights(card, options.weights), scratch, log, progress if alone else None)


def _default_devices(card: ModelCard) -> tuple[str, ...]:
    if card.weights is None:
        return ("cpu",)
    import torch

    return ("cuda:0",) if torch.cuda.is_available() else ("cpu",)
