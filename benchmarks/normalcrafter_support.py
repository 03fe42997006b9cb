"""What the benchmarks of NormalCrafter share: random networks of a size, a plain loop over diffusers, clocks."""

import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ncbench.models.adapters.hub_layout import DTYPES
from ncbench.models.adapters.normalcrafter_networks import Networks
from ncbench.models.adapters.normalcrafter_sequence import SequencePredictor
from ncbench.models.adapters.normalcrafter_settings import NormalCrafterSettings
from ncbench.models.adapters.normalcrafter_weights import Parts, assemble
from ncbench.models.adapters.normalcrafter_windows import schedule
from ncbench.models.base import Runtime

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
WINDOW, STRIDE, CHUNK = 14, 10, 7


@dataclass(frozen=True)
class Size:
    """Widths of the networks, and the video."""

    unet: tuple[int, ...]
    heads: tuple[int, ...]
    vae: tuple[int, ...]
    layers: int
    clip: tuple[int, int, int, int]  # hidden size, layers, heads, patch
    token: int
    frames: tuple[int, int, int]  # T, H, W
    precision: str
    device: str


SVD_XT = Size(
    unet=(320, 640, 1280, 1280),
    heads=(5, 10, 20, 20),
    vae=(128, 256, 512, 512),
    layers=2,
    clip=(1280, 32, 16, 14),
    token=1024,
    frames=(24, 576, 1024),
    precision="fp16",
    device="cuda",
)
TINY = Size(
    unet=(64, 128, 128, 128),
    heads=(2, 4, 4, 4),
    vae=(32, 32, 64, 64),
    layers=1,
    clip=(64, 2, 2, 32),
    token=32,
    frames=(24, 128, 192),
    precision="fp32",
    device="cpu",
)


def random_parts(size: Size, seed: int = 0) -> Parts:
    """Make networks of a size with random weights, on the device itself."""
    torch.manual_seed(seed)
    hidden, layers, heads, patch = size.clip
    with torch.device(size.device):
        unet = UNetSpatioTemporalConditionModel(
            block_out_channels=size.unet,
            num_attention_heads=size.heads,
            cross_attention_dim=size.token,
            layers_per_block=size.layers,
        )
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=size.vae,
            down_block_types=("DownEncoderBlock2D",) * 4,
            layers_per_block=size.layers,
            sample_size=768,
        )
        clip = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=hidden,
                intermediate_size=4 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                patch_size=patch,
                projection_dim=size.token,
                hidden_act="gelu",
            )
        )
    dtype = DTYPES[size.precision]
    for network in (unet, vae, clip):
        torch.nn.Module.to(network.eval().requires_grad_(requires_grad=False), dtype)
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        timestep_type="continuous",
        sigma_min=0.002,
        sigma_max=700.0,
    )
    return Parts(unet, vae, clip, scheduler, (MEAN, STD))


def ours(size: Size, *, compiled: bool = False) -> tuple[Networks, Callable[[np.ndarray], np.ndarray]]:
    runtime = Runtime(device=size.device, precision=size.precision, compile=compiled)
    networks = assemble(random_parts(size), runtime)

    def run(images: np.ndarray) -> np.ndarray:
        predictor = SequencePredictor(networks, NormalCrafterSettings())
        found = []
        for start in range(0, len(images), WINDOW):
            found.extend(predictor.push(images[start : start + WINDOW]))
        return np.concatenate([*found, *predictor.finish()])

    return networks, run


def plain_loop(size: Size) -> Callable[[np.ndarray], np.ndarray]:
    """The whole clip through each network in turn, as diffusers' pipeline for Stable Video Diffusion does it.

    The weights are those of ``ours``. Diffusers' U-Net cannot be told of each frame, so hooks swap its tokens.
    """
    parts = random_parts(size)
    dtype, device = DTYPES[size.precision], torch.device(size.device)
    swapped: dict[str, torch.Tensor] = {}

    def swap(_: torch.nn.Module, args: object, kwargs: dict[str, object]) -> object:
        return args, {**kwargs, "encoder_hidden_states": swapped["tokens"]}

    for block in [*parts.unet.down_blocks, parts.unet.mid_block, *parts.unet.up_blocks]:
        if getattr(block, "has_cross_attention", False):
            block.register_forward_pre_hook(swap, with_kwargs=True)

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2)
        small = (_resize_with_antialiasing(pixels * 2 - 1, (224, 224)) + 1) / 2
        small = (small - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        tokens = parts.image_encoder(small.to(device, dtype)).image_embeds[:, None]
        torch.nn.Module.to(parts.vae, torch.float32)
        seen = (pixels * 2 - 1).to(device)
        told = torch.cat([parts.vae.encode(chunk).latent_dist.mode() for chunk in seen.split(CHUNK)]).to(dtype)
        torch.nn.Module.to(parts.vae, dtype)
        ids = torch.tensor([[7.0, 127.0, 0.0]], device=device, dtype=dtype)
        merged: torch.Tensor | None = None
        for start, stop in schedule(len(images), WINDOW, STRIDE):
            noisy = torch.zeros_like(told[start:stop])
            count = 0 if merged is None else len(merged) - start
            if merged is not None:
                noisy[:count] = merged[start:]
            swapped["tokens"] = tokens[start:stop]
            parts.scheduler.set_timesteps(1)  # for every window: the scheduler counts the steps it has made
            step = parts.scheduler.timesteps[0].to(device)
            scaled = parts.scheduler.scale_model_input(noisy, step)
            sample = torch.cat([scaled, told[start:stop]], dim=1)[None]
            velocity = parts.unet(sample, step, tokens[start : start + 1], ids, return_dict=False)[0][0]
            new = parts.scheduler.step(velocity, step, noisy).prev_sample
            if merged is not None:
                share = torch.linspace(1, 0, count + 2)[1:-1].to(device)[:, None, None, None]
                new[:count] = merged[start:] * share + new[:count] * (1 - share)
                new = torch.cat([merged[:start], new])
            merged = new
        assert merged is not None
        scaled = merged / parts.vae.config.scaling_factor
        decoded = [parts.vae.decode(chunk, num_frames=len(chunk)).sample for chunk in scaled.split(CHUNK)]
        frames = torch.cat(decoded).float().clamp(-1, 1).permute(0, 2, 3, 1).cpu().numpy()
        return frames / np.maximum(np.linalg.norm(frames, axis=-1, keepdims=True), 1e-12)

    return run


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, while they live; the same on every machine."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()  # noqa: SLF001 - the storage's identity
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def clock(device: str) -> float:
    """Read the clock: the process's own seconds on the CPU, where other processes take turns with this one."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds(run: Callable[[], object], device: str) -> float:
    started = clock(device)
    run()
    return clock(device) - started


def pictures(size: Size) -> np.ndarray:
    frames, height, width = size.frames
    coarse = torch.rand(frames, 3, 9, 16, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).permute(0, 2, 3, 1).to(torch.uint8).numpy()


@dataclass(frozen=True)
class Measured:
    """Seconds of each repetition, and the peak of memory in bytes (live tensors alone, on the CPU)."""

    seconds: tuple[float, ...]
    peak: int

    def rate(self, items: int) -> float:
        """Return items a second, by the median."""
        return items / statistics.median(self.seconds)


def measure(run: Callable[[], object], device: str, repeats: int) -> Measured:
    """Run once to warm up, then as often as asked."""
    run()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        times = tuple(seconds(run, device) for _ in range(repeats))
        return Measured(times, torch.cuda.max_memory_allocated())
    times = tuple(seconds(run, device) for _ in range(repeats))
    with LiveBytes() as live:
        run()
    return Measured(times, live.peak)


def angles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return degrees between unit vectors."""
    cross = np.linalg.norm(np.cross(one.astype(np.float64), other), axis=-1)
    return np.degrees(np.arctan2(cross, np.sum(one.astype(np.float64) * other, axis=-1)))
