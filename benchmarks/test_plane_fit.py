"""Plane fitting against the same fit written with a batched singular value decomposition, in one run.

``python -m pytest benchmarks/test_plane_fit.py`` prints both; ``extra_info`` holds the rates in Mpixel/s and the worst
angle between the two. The peer is what one writes first in torch: unfold the window, centre it, decompose.
"""

import numpy as np
import pytest
import torch

from ncbench.geometry.cameras import field_of_view_intrinsics, pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.geometry.plane_fit import normals_by_plane_fit

HEIGHT, WIDTH = 480, 640
WINDOW, GAMMA, LEAST = 5, 0.05, 4


@pytest.fixture(scope="module")
def scene():
    """A bent wall with a step, one percent of holes and two millimetres of noise."""
    rng = np.random.default_rng(0)
    columns, rows = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    depth = 2 + 0.4 * np.sin(columns / 50) + 0.2 * np.cos(rows / 70) + 0.9 * (columns > 400)
    depth += 0.002 * rng.standard_normal(depth.shape)
    depth[rng.random(depth.shape) < 0.01] = 0
    return depth, pinhole_rays(field_of_view_intrinsics(HEIGHT, WIDTH, 60), HEIGHT, WIDTH)


def svd_normals(depth, rays, rows_at_once=HEIGHT):
    """The peer, in the dtype of ``depth``; by bands of rows where memory is short."""
    radius = WINDOW // 2
    points = torch.from_numpy(depth[..., None] * rays.astype(depth.dtype)).permute(2, 0, 1)[None]
    padded = torch.nn.functional.pad(points, (radius,) * 4)
    normals = []
    for top in range(0, HEIGHT, rows_at_once):
        band = padded[:, :, top : top + rows_at_once + 2 * radius]
        around = torch.nn.functional.unfold(band, WINDOW).view(3, WINDOW**2, -1).permute(2, 1, 0)
        centre = around[:, WINDOW**2 // 2, :]
        z, own = around[..., 2], centre[:, None, 2]
        near = (z > 0) & ((z - own).abs() < GAMMA * own)
        count = near.sum(1)
        mean = (around * near[..., None]).sum(1) / count.clamp(min=1)[:, None]
        centred = (around - mean[:, None]) * near[..., None]
        direction = torch.linalg.svd(centred, full_matrices=False).Vh[:, 2]
        facing = (direction * centre).sum(1, keepdim=True)
        normals.append(torch.where((count >= LEAST)[:, None], -direction * facing.sign(), 0))
    return torch.cat(normals).view(HEIGHT, WIDTH, 3).numpy()


def record(benchmark, **extra):
    benchmark.extra_info["Mpixel/s"] = HEIGHT * WIDTH / benchmark.stats.stats.min / 1e6
    benchmark.extra_info.update(extra)


@pytest.mark.benchmark(group="normals from depth, 480 x 640")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_plane_fit(benchmark, scene, dtype):
    depth, rays = scene
    normals_by_plane_fit(depth.astype(dtype), rays, WINDOW, GAMMA, LEAST)  # compile
    benchmark(normals_by_plane_fit, depth.astype(dtype), rays, WINDOW, GAMMA, LEAST)
    record(benchmark)


@pytest.mark.benchmark(group="normals from depth, 480 x 640")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_plain_svd_in_torch(benchmark, scene, dtype):
    depth, rays = scene
    reference = benchmark.pedantic(svd_normals, (depth.astype(dtype), rays, 60), rounds=2)
    normals, valid = normals_by_plane_fit(depth.astype(dtype), rays, WINDOW, GAMMA, LEAST, dtype="float64")
    a, b = normals[valid], reference[valid].astype(np.float64)
    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))
    if dtype == np.float64:
        assert valid.mean() > 0.98
        assert angle.max() < 1e-6
    record(benchmark, worst_angle_degrees=float(angle.max()), mean_angle_degrees=float(angle.mean()))


@pytest.mark.benchmark(group="normals from depth, 480 x 640")
def test_cross_product(benchmark, scene):
    normals_by_cross_product(*scene)
    benchmark(normals_by_cross_product, *scene)
    record(benchmark)
