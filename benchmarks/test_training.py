"""Training: what deferred back-propagation and checkpointing cost in time and save in memory, on the CPU.

``python -m pytest benchmarks/test_training.py -s``. Both sides of a ratio run in one process, taking turns; times are
the process's own seconds, medians. ``gpu_training.py`` measures the published size.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from gpu_training import TINY, make_batch, make_stage
from normalcrafter_support import LiveBytes

ROUNDS = 5
# what is compared: stage, the plain settings, the sparing ones
CASES = {
    "deferred, 1 frame a chunk": (
        "pixel",
        {"decode_chunk": 1, "deferred": False, "gradient_checkpointing": False},
        {"decode_chunk": 1, "deferred": True, "gradient_checkpointing": False},
    ),
    "deferred, 2 frames a chunk": (
        "pixel",
        {"decode_chunk": 2, "deferred": False, "gradient_checkpointing": False},
        {"decode_chunk": 2, "deferred": True, "gradient_checkpointing": False},
    ),
    "checkpointed decoder, 4 frames a chunk": (
        "pixel",
        {"decode_chunk": 4, "deferred": False, "gradient_checkpointing": False},
        {"decode_chunk": 4, "deferred": False, "decoder_checkpointing": True, "gradient_checkpointing": False},
    ),
    "checkpointed U-Net": ("latent", {"gradient_checkpointing": False}, {"gradient_checkpointing": True}),
}


class Saved:
    """Counts the bytes that a forward pass keeps for the backward pass, each storage once, parameters not."""

    def __init__(self, parameters: Any) -> None:
        self._known = {value.untyped_storage().data_ptr() for value in parameters}
        self.bytes = 0

    def pack(self, value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return value


def run(stage: Any, batch: Any) -> float:
    stage.zero_grad(set_to_none=True)
    started = time.process_time()
    stage(batch, torch.Generator().manual_seed(0))["loss"].backward()
    return time.process_time() - started


@pytest.mark.parametrize("name", CASES)
def test_sparing(name: str):
    torch.set_num_threads(1)
    kind, plain, sparing = CASES[name]
    batch = make_batch(kind, TINY)
    stages = [make_stage(kind, TINY, **changes) for changes in (plain, sparing)]
    slopes, peaks, saved = [], [], []
    for stage in stages:
        run(stage, batch)
        slopes.append(torch.cat([value.grad.flatten() for value in stage.trainable().values()]))
        stage.zero_grad(set_to_none=True)
        with LiveBytes() as live:
            stage(batch, torch.Generator().manual_seed(0))["loss"].backward()
        peaks.append(live.peak)
        counted = Saved(stage.parameters())
        with torch.autograd.graph.saved_tensors_hooks(counted.pack, lambda value: value):
            stage(batch, torch.Generator().manual_seed(0))
        saved.append(counted.bytes)
    seconds: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for times, stage in zip(seconds, stages, strict=True):
            times.append(run(stage, batch))
    medians = [statistics.median(times) for times in seconds]
    apart = ((slopes[1] - slopes[0]).norm() / slopes[0].norm()).item()
    print(
        f"\n{name}: time {medians[1]:.3f} / {medians[0]:.3f} s = {medians[1] / medians[0]:.2f}; peak of live tensors "
        f"{peaks[1] / 2**20:.1f} / {peaks[0] / 2**20:.1f} MiB = {peaks[1] / peaks[0]:.2f}; saved by the forward pass "
        f"{saved[1] / 2**20:.1f} / {saved[0] / 2**20:.1f} MiB; gradients {apart:.1e} apart"
    )
    assert apart < 1e-3
