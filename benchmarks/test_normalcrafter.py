"""NormalCrafter: what streaming costs around its networks, and how it compares with a plain loop over diffusers.

``python -m pytest benchmarks/test_normalcrafter.py -s`` prints the numbers of docs/normalcrafter.md. For a CUDA device
and the published size see ``gpu_normalcrafter.py``.
"""

import copy
import gc
import statistics

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from normalcrafter_support import (
    CHUNK,
    TINY,
    WINDOW,
    LiveBytes,
    angles,
    clock,
    measure,
    ours,
    pictures,
    plain_loop,
    seconds,
)

from ncbench.models.adapters.normalcrafter_decode import blend_in_place
from ncbench.models.adapters.normalcrafter_unet import OneTokenAttention


def test_overhead():
    """The share of time outside the networks, on the CPU; the two sides alternate."""
    networks, run = ours(TINY)
    images = pictures(TINY)
    inside = {"networks": 0.0}
    vae = networks.vae
    for module in (networks.image_encoder, networks.unet, vae.encoder, vae.decoder):
        module.register_forward_pre_hook(lambda *_: inside.update(start=clock("cpu")))
        module.register_forward_hook(lambda *_: inside.update(networks=inside["networks"] + _since(inside)))
    run(images)
    shares = []
    for _ in range(5):
        inside["networks"] = 0.0
        total = seconds(lambda: run(images), "cpu")
        shares.append(1 - inside["networks"] / total)
    print(f"\noutside the networks: {statistics.median(shares):.2%} (each run: {[f'{s:.2%}' for s in shares]})")


def _since(inside: dict[str, float]) -> float:
    return clock("cpu") - inside["start"]


def test_against_the_plain_loop():
    """Frames a second and peak memory of both, and how far their answers are apart."""
    images = pictures(TINY)
    figures, answers = {}, {}
    for name, run in (("plain", plain_loop(TINY)), ("ours", ours(TINY)[1])):
        answers[name] = run(images)
        found = measure(lambda run=run: run(images), TINY.device, 3)
        figures[name] = (found.rate(len(images)), found.peak)
        gc.collect()
    angle = angles(answers["plain"], answers["ours"])
    degrees = f"median {np.median(angle):.4f}, 99.9 % {np.percentile(angle, 99.9):.4f}, worst {angle.max():.4f} degrees"
    rate, memory = (figures["ours"][index] / figures["plain"][index] for index in (0, 1))
    print(f"\n{'':8}{'frames/s':>10}{'peak MiB':>10}")
    for name, (speed, peak) in figures.items():
        print(f"{name:8}{speed:10.3f}{peak / 2**20:10.0f}")
    print(f"ratio   {rate:10.2f}{memory:10.2f}   angle apart: {degrees}")


@pytest.mark.parametrize(("channels", "heads", "height", "width"), [(320, 5, 24, 40), (640, 10, 12, 20)])
def test_one_token_attention(channels: int, heads: int, height: int, width: int):
    """A transformer of SVD's width over 14 frames, with and without what a single token makes superfluous."""
    torch.manual_seed(0)
    full = TransformerSpatioTemporalModel(heads, channels // heads, channels, cross_attention_dim=1024)
    full.eval().requires_grad_(requires_grad=False)
    spared = copy.deepcopy(full)
    for module in spared.modules():
        if isinstance(module, Attention) and module.is_cross_attention:
            module.set_processor(OneTokenAttention())
    told = (torch.randn(WINDOW, channels, height, width), torch.randn(WINDOW, 1, 1024), torch.zeros(1, WINDOW))
    variants = {"all attention": full, "one token": spared}
    times: dict[str, list[float]] = {name: [] for name in variants}
    print()
    with torch.inference_mode():
        for _ in range(6):
            for name, network in variants.items():
                times[name].append(seconds(lambda network=network: network(*told), "cpu"))
        for name, network in variants.items():
            with LiveBytes() as live:
                network(*told)
            kept = times[name][1:]
            spread = f"{statistics.median(kept):.3f} CPU seconds ({min(kept):.3f} to {max(kept):.3f})"
            print(f"{channels} channels, {name:14}{spread}, peak {live.peak / 2**20:.0f} MiB")
        same = torch.equal(full(*told, return_dict=False)[0], spared(*told, return_dict=False)[0])
        print(f"bit for bit equal: {same}")


def test_decoder_memory():
    """Peak of live tensors and time to decode 7 frames as diffusers does and blending in place; half of SVD's width."""
    side = 64
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(64, 128, 256, 256), down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=2
    ).requires_grad_(requires_grad=False)
    latents = torch.randn(CHUNK, 4, side // 8, side // 8)
    print()
    with torch.inference_mode():
        for name in ("diffusers", "ours"):
            if name == "ours":
                blend_in_place(vae)
            times = [seconds(lambda: vae.decode(latents, num_frames=CHUNK), "cpu") for _ in range(6)]
            with LiveBytes() as live:
                vae.decode(latents, num_frames=CHUNK)
            floats = live.peak / CHUNK / side**2 / 4
            print(f"{name:10}{floats:6.0f} floats a pixel and frame, {statistics.median(times[1:]):.3f} CPU seconds")
