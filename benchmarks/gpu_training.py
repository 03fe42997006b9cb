"""What a training step costs at the published size: time, memory, share of the GPU's peak; and what deferring saves.

``python benchmarks/gpu_training.py`` on a machine with a CUDA device: Stable Video Diffusion XT's sizes, random
weights, bf16; stage 1 with 14 frames of 576 x 768, stage 2 with 4. ``--tiny`` runs the same code on a CPU in a minute.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ncbench.training.latent_stage import LatentStage
from ncbench.training.pixel_stage import PixelStage
from ncbench.training.stage import Stage

PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40": 181e12, "4090": 165e12}  # dense bf16, vendors' sheets


@dataclass(frozen=True)
class Size:
    """Networks, and what they are given."""

    networks: dict[str, Any]
    semantic: dict[str, Any]
    height: int
    width: int
    frames: dict[str, int]
    device: str


PUBLISHED = Size(
    networks={},  # the descriptions' defaults
    semantic={"random": {"hidden": 768, "layers": 12, "heads": 12, "patch": 16}},
    height=576,
    width=768,
    frames={"latent": 14, "pixel": 4},
    device="cuda",
)
TINY = Size(
    networks={
        "unet": {"channels": [64, 64, 64], "heads": [2, 2, 2], "layers": 1, "time_embedding": 8},
        "vae": {"channels": [32, 32, 64, 64], "layers": 1},
        "image_encoder": {"hidden": 16, "layers": 1, "heads": 2, "patch": 56, "token": 16},
    },
    semantic={"random": {"hidden": 32, "patch": 16}, "hidden": 32},
    height=96,
    width=128,
    frames={"latent": 6, "pixel": 4},
    device="cpu",
)


def make_stage(kind: str, size: Size, **changes: Any) -> Stage:
    """Make a stage with random weights, on its device."""
    settings = {"networks": size.networks, "semantic": size.semantic, **changes}
    stage = {"latent": LatentStage, "pixel": PixelStage}[kind](settings)
    stage.load(None, 0)
    return stage.to(size.device).train()


def make_batch(kind: str, size: Size) -> dict[str, torch.Tensor]:
    """Draw one clip."""
    drawn = torch.Generator().manual_seed(0)
    shape = (1, size.frames[kind], 3, size.height, size.width)
    normal = torch.nn.functional.normalize(torch.randn(shape, generator=drawn), dim=2)
    batch = {"image": torch.rand(shape, generator=drawn) * 2 - 1, "normal": normal}
    batch["valid"] = torch.ones(1, size.frames[kind], size.height, size.width, dtype=torch.bool)
    return {name: value.to(size.device) for name, value in batch.items()}


def backward(stage: Stage, batch: dict[str, torch.Tensor], size: Size) -> None:
    """Compute the gradients of one step."""
    with torch.autocast(size.device, torch.bfloat16):
        loss = stage(batch, torch.Generator().manual_seed(0))["loss"]
    loss.backward()


@contextlib.contextmanager
def peak_of(size: Size) -> Iterator[list[int]]:
    """Measure the most bytes on the GPU at a time; nothing on a CPU."""
    found: list[int] = []
    if size.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield found
    found.append(torch.cuda.max_memory_allocated() if size.device == "cuda" else 0)


def now(size: Size) -> float:
    """Read the clock when the device has done its work."""
    if size.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_steps(kind: str, size: Size, repeats: int, **changes: Any) -> None:
    """Print what a step with AdamW costs."""
    stage, batch = make_stage(kind, size, **changes), make_batch(kind, size)
    optimizer = torch.optim.AdamW(stage.trainable().values(), lr=1e-5, fused=size.device == "cuda")
    seconds = []
    with peak_of(size) as peak:
        for _ in range(repeats + 2):
            started = now(size)
            backward(stage, batch, size)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds.append(now(size) - started)
    with FlopCounterMode(display=False) as counter:
        backward(stage, batch, size)
    median = statistics.median(seconds[2:])  # the first two warm up and make the optimizer's state
    rate = counter.get_total_flops() / median
    name = torch.cuda.get_device_name() if size.device == "cuda" else "cpu"
    best = next((value for part, value in PEAK.items() if part in name), None)
    share = f", {rate / best:.0%} of {name}'s {best / 1e12:.0f}" if best else f" on {name}"
    print(
        f"{kind} {changes or ''}: {size.frames[kind]} frames of {size.width} x {size.height}, "
        f"{sum(value.numel() for value in stage.trainable().values()) / 1e6:.1f} M parameters learn\n"
        f"  {median:.3f} s a step (worst {max(seconds[2:]):.3f}), {1 / median:.2f} clips/s, "
        f"{size.frames[kind] / median:.2f} frames/s, {_memory(peak)}, "
        f"{counter.get_total_flops() / 1e12:.2f} TFLOP, {rate / 1e12:.2f} TFLOP/s{share}"
    )


def measure_deferred(size: Size, repeats: int) -> None:
    """Print time and memory of the second stage's gradients, deferred and plain, and how far they are apart."""
    results = {}
    for deferred in (False, True):
        stage = make_stage("pixel", size, decode_chunk=1, deferred=deferred)
        batch, seconds = make_batch("pixel", size), []
        with peak_of(size) as peak:
            for _ in range(repeats + 1):
                stage.zero_grad(set_to_none=True)
                started = now(size)
                backward(stage, batch, size)
                seconds.append(now(size) - started)
        slope = torch.cat([value.grad.flatten().cpu() for value in stage.trainable().values()])
        results[deferred] = (statistics.median(seconds[1:]), peak[0], slope)
        del stage
    (plain, large, expected), (slow, small, found) = results[False], results[True]
    apart = ((found - expected).norm() / expected.norm()).item()
    print(
        f"deferred / plain, one frame a chunk: time {slow:.3f} / {plain:.3f} s = {slow / plain:.2f}, "
        f"{_memory([small, large])}, gradients {apart:.1e} apart"
    )


def _memory(peaks: list[int]) -> str:
    shown = " / ".join(f"{peak / 2**30:.2f}" for peak in peaks)
    return f"peak {shown} GiB" if any(peaks) else "peak memory not measured on a CPU"


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small networks on the CPU")
    parser.add_argument("--repeats", type=int, default=5, help="measured steps; the median is printed")
    options = parser.parse_args()
    size = TINY if options.tiny else PUBLISHED
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    measure_steps("latent", size, options.repeats)
    measure_steps("pixel", size, options.repeats)
    measure_steps("pixel", size, options.repeats, gradient_checkpointing=False)
    measure_deferred(size, options.repeats)


if __name__ == "__main__":
    main()
