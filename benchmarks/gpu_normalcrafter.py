"""NormalCrafter and Marigold at their published sizes on a GPU, with random weights: no network, no downloads.

    python benchmarks/gpu_normalcrafter.py --out results.json      # a CUDA device with 24 GB or more
    python benchmarks/gpu_normalcrafter.py --tiny                  # the same on the CPU, to see that it runs

NormalCrafter: Stable Video Diffusion XT's widths, 24 frames of 1024 x 576 in fp16, streamed as here against a plain
loop in the manner of diffusers' pipeline, with how far both answers are apart. Marigold: Stable Diffusion 2's widths,
frames of 768 x 576, the adapter against its networks' calls alone on tensors that lie ready on the device.
"""

import argparse
import gc
import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from normalcrafter_support import SVD_XT, TINY, Size, angles, measure, ours, pictures, plain_loop

from ncbench.models.adapters.hub_layout import DTYPES
from ncbench.models.adapters.latent_diffusion import LatentDiffusion, bring
from ncbench.models.adapters.marigold import Marigold
from ncbench.models.base import Clip, Runtime

STEPS = 4


def main() -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="few channels, small frames, on the CPU")
    parser.add_argument("--precision", choices=sorted(DTYPES), help="default: fp16, with --tiny fp32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also measure ours with torch.compile")
    parser.add_argument("--only", choices=["normalcrafter", "marigold"])
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    chosen = parser.parse_args()
    if not chosen.tiny and not torch.cuda.is_available():
        parser.error("no CUDA device is here; --tiny runs on the CPU")
    size = TINY if chosen.tiny else SVD_XT
    size = replace(size, precision=chosen.precision or size.precision)
    found: dict[str, Any] = {"machine": machine(size.device), "repeats": chosen.repeats, "precision": size.precision}
    if chosen.only != "marigold":
        found["normalcrafter"] = normalcrafter(size, chosen.repeats, compiled=chosen.compile)
    if chosen.only != "normalcrafter":
        found["marigold"] = marigold(size, chosen.repeats)
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=2) + "\n")


def machine(device: str) -> dict[str, str]:
    """Name what was measured on."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, diffusers {diffusers.__version__}")
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__, "python": platform.python_version()}
    return {"device": name, **versions}


def normalcrafter(size: Size, repeats: int, *, compiled: bool) -> dict[str, Any]:
    """Compare streaming with the plain loop, one after the other, each with the device to itself."""
    images = pictures(size)
    frames, height, width = size.frames
    print(f"\nNormalCrafter, {frames} frames of {width} x {height}, {size.precision}")
    makers: dict[str, Callable[[], Callable[[np.ndarray], np.ndarray]]] = {
        "plain loop": lambda: plain_loop(size),
        "streamed": lambda: ours(size)[1],
    }
    if compiled:
        makers["streamed, compiled"] = lambda: ours(size, compiled=True)[1]
    rows: dict[str, Any] = {}
    answers: dict[str, np.ndarray] = {}
    for name, make in makers.items():
        run = make()
        answers[name] = run(images)
        spent = measure(lambda run=run: run(images), size.device, repeats)
        apart = angles(answers["plain loop"], answers[name])
        rows[name] = {
            "frames_per_second": spent.rate(frames),
            "seconds": spent.seconds,
            "peak_bytes": spent.peak,
            "degrees_from_plain": {"median": float(np.median(apart)), "99.9 %": float(np.percentile(apart, 99.9))},
        }
        print(
            f"{name:20}{spent.rate(frames):8.3f} frames/s  peak {spent.peak / 2**30:6.2f} GiB  from the plain loop: "
            f"median {np.median(apart):.4f}, 99.9 % {np.percentile(apart, 99.9):.4f} degrees"
        )
        del run
        release(size.device)
    return rows


def marigold(size: Size, repeats: int) -> dict[str, Any]:
    """Compare the adapter with its networks' calls alone, at several batch sizes."""
    tiny = size is TINY or size.device == "cpu"
    height, width = (96, 128) if tiny else (576, 768)
    model = random_marigold(size, tiny=tiny)
    print(f"\nMarigold, {STEPS} steps, frames of {width} x {height}, {size.precision}")
    rows: dict[str, Any] = {}
    for batch in (1, 2, 4) if tiny else (1, 2, 4, 8, 16):
        images = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        clip = Clip("random", tuple(range(batch)), images)
        with torch.inference_mode():
            whole = measure(lambda clip=clip: model.predict(clip), size.device, repeats)
            alone = measure(networks_alone(model, batch, height, width), size.device, repeats)
        share = alone.rate(1) / whole.rate(1)
        rows[str(batch)] = {
            "frames_per_second": whole.rate(batch),
            "networks_alone": alone.rate(batch),
            "seconds_over_networks": share,
            "peak_bytes": whole.peak,
            "networks_peak_bytes": alone.peak,
        }
        print(
            f"{batch:3} at a time {whole.rate(batch):8.3f} frames/s  networks alone {alone.rate(batch):8.3f}  "
            f"time {share:5.3f} of theirs  peak {whole.peak / 2**30:5.2f} GiB, theirs {alone.peak / 2**30:5.2f}"
        )
    return rows


def random_marigold(size: Size, *, tiny: bool) -> Marigold:
    """Make the adapter with Stable Diffusion 2's widths, or few channels, and random weights."""
    torch.manual_seed(0)
    device, dtype = torch.device(size.device), DTYPES[size.precision]
    with device:
        unet = UNet2DConditionModel(
            in_channels=8,
            block_out_channels=(32, 64, 64, 64) if tiny else (320, 640, 1280, 1280),
            layers_per_block=1 if tiny else 2,
            cross_attention_dim=32 if tiny else 1024,
            attention_head_dim=(2, 4, 4, 4) if tiny else (5, 10, 20, 20),
            use_linear_projection=True,
        )
        vae = AutoencoderKL(
            block_out_channels=(32, 32, 64, 64) if tiny else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1 if tiny else 2,
        )
        prompt = torch.randn(1, 2, 32 if tiny else 1024, dtype=dtype)
    for network in (unet, vae):
        torch.nn.Module.to(network.eval().requires_grad_(requires_grad=False), dtype)
    model = Marigold({"steps": STEPS, "processing_resolution": 0})
    model.runtime = Runtime(device=size.device, precision=size.precision)
    model._networks = bring(LatentDiffusion(unet, vae, prompt, device, dtype), compiled=False)  # noqa: SLF001
    model._scheduler = DDIMScheduler(  # noqa: SLF001
        prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False
    )
    return model


def networks_alone(model: Marigold, batch: int, height: int, width: int) -> Callable[[], object]:
    """Return the calls that nobody can do without: one encoding, ``STEPS`` times the U-Net, one decoding."""
    networks = model._networks  # noqa: SLF001
    assert networks is not None
    device, dtype = networks.device, networks.dtype
    pixels = torch.rand(batch, 3, height, width, device=device, dtype=dtype) * 2 - 1
    latents = torch.randn(batch, 8, height // 8, width // 8, device=device, dtype=dtype)
    prompt = networks.prompt.expand(batch, -1, -1)
    timestep = torch.tensor(500, device=device)

    def run() -> object:
        networks.vae.encode(pixels).latent_dist.mode()
        for _ in range(STEPS):
            networks.unet(latents, timestep, encoder_hidden_states=prompt)
        return networks.vae.decode(latents[:, :4]).sample

    return run


def release(device: str) -> None:
    """Let go of what nobody holds, before the next one is measured."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
