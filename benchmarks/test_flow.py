"""Flow sources side by side on one pair, the inversion of a flow, and the fit of a video, in one run.

``python -m pytest benchmarks/test_flow.py -s`` prints the medians; ``extra_info`` holds the error of every answer
against the renderer's truth. The pair is of Sintel's size, with 8 pixels of motion on average.
"""

import cv2
import numpy as np
import pytest
import skimage.registration
import torch
from scipy.interpolate import griddata

from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.evaluators.depth.align import Moments, predicted_disparity, solve
from ncbench.evaluators.depth.tae import tae
from ncbench.evaluators.flow.cache import CachedFlow
from ncbench.evaluators.flow.checks import cycle_consistent, edge_distance_mask
from ncbench.evaluators.flow.dis import DisFlow, DisSettings
from ncbench.evaluators.flow.inversion import invert_flow
from ncbench.evaluators.flow.rigid import RigidFlow
from ncbench.evaluators.view import View
from ncbench.geometry.rigid_flow import occluded_by_depth, rigid_flow

HEIGHT, WIDTH = 436, 1024


@pytest.fixture(scope="module")
def frames():
    scene = make_scene("room", 1, 2, HEIGHT, WIDTH)
    return render_frame(scene, 0), render_frame(scene, 1)


@pytest.fixture(scope="module")
def pair(frames):
    return [
        View(
            "clip",
            index,
            frame.normal.astype(np.float32),
            frame.valid,
            image=frame.rgb,
            depth=frame.depth.astype(np.float32),
            intrinsics=frame.intrinsics,
            cam_to_world=frame.cam_to_world,
        )
        for index, frame in enumerate(frames)
    ]


@pytest.fixture(scope="module")
def backward(frames):
    """Truth of the second frame's motion back to the first, and where it is visible there."""
    a, b = frames
    motions = {k + 1: np.linalg.inv(motion) for k, motion in enumerate(a.motions)}
    flow, z = rigid_flow(b.depth, b.intrinsics, b.cam_to_world, a.cam_to_world, a.intrinsics, b.ids, motions)
    return flow, ~occluded_by_depth(a.depth, flow, z)


def record(benchmark, flow, truth, visible):
    error = np.linalg.norm(flow - truth, axis=-1)[visible]
    known = np.isfinite(error)
    benchmark.extra_info["error_pixels"] = float(error[known].mean())
    benchmark.extra_info["known"] = float(known.mean())


def estimate(benchmark, frames, function, *arguments):
    """Time one estimate; the answer's error over what stays visible goes into the record."""
    flow = benchmark.pedantic(function, arguments, rounds=5, warmup_rounds=1)
    record(benchmark, flow, frames[0].flow, ~frames[0].occluded)


@pytest.mark.benchmark(group="estimate the flow of a pair, 436 x 1024")
@pytest.mark.parametrize("finest_scale", [None, 0])
def test_dis(benchmark, frames, pair, finest_scale):
    source = DisFlow(DisSettings(finest_scale=finest_scale))
    estimate(benchmark, frames, lambda: source.match(*pair).flow)


@pytest.mark.benchmark(group="estimate the flow of a pair, 436 x 1024")
def test_farneback(benchmark, frames, pair):
    grey = [cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY) for view in pair]
    estimate(benchmark, frames, cv2.calcOpticalFlowFarneback, *grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)


@pytest.mark.benchmark(group="estimate the flow of a pair, 436 x 1024")
def test_skimage_ilk(benchmark, frames, pair):
    grey = [cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY) / np.float32(255) for view in pair]

    def ilk():
        return np.stack(skimage.registration.optical_flow_ilk(*grey)[::-1], -1)

    flow = benchmark.pedantic(ilk, rounds=2)
    record(benchmark, flow, frames[0].flow, ~frames[0].occluded)


@pytest.mark.benchmark(group="estimate the flow of a pair, 436 x 1024")
def test_cached(benchmark, frames, pair, tmp_path):
    cached = CachedFlow(DisFlow(), tmp_path)
    estimate(benchmark, frames, lambda: cached.match(*pair).flow)


@pytest.mark.benchmark(group="estimate the flow of a pair, 436 x 1024")
def test_rigid(benchmark, frames, pair):
    """Not an estimate: depth and poses. Bodies that move on their own make its error."""
    estimate(benchmark, frames, lambda: RigidFlow().match(*pair).flow)


@pytest.mark.benchmark(group="backward flow from forward flow, 436 x 1024")
def test_inversion(benchmark, frames, backward):
    invert_flow(frames[0].flow, ~frames[0].occluded)  # compile
    back = benchmark.pedantic(invert_flow, (frames[0].flow, ~frames[0].occluded), rounds=10)
    record(benchmark, back, *backward)


@pytest.mark.benchmark(group="backward flow from forward flow, 436 x 1024")
def test_inversion_by_scattered_interpolation(benchmark, frames, backward):
    """The peer: scipy's piecewise linear interpolation between the places where the pixels land."""
    rows, columns = np.nonzero(~frames[0].occluded)
    motion = frames[0].flow[rows, columns]
    landed = np.stack([columns, rows], -1) + motion
    grid = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    back = benchmark.pedantic(griddata, (landed, -motion, tuple(grid)), rounds=1)
    record(benchmark, back, *backward)


@pytest.mark.benchmark(group="checks of a pair, 436 x 1024")
def test_cycle_check(benchmark, frames, backward):
    there = frames[0].flow.astype(np.float32)
    benchmark(cycle_consistent, there, backward[0], 1.0)


@pytest.mark.benchmark(group="checks of a pair, 436 x 1024")
def test_edge_distance(benchmark, pair):
    benchmark(edge_distance_mask, pair[0].normal)


@pytest.mark.benchmark(group="fit scale and shift, 20 frames of 436 x 1024")
def test_streaming_fit(benchmark, pair):
    depth = pair[0].depth

    def fit():
        moments = Moments()
        for _ in range(20):
            disparity, answered = predicted_disparity(1 / depth, "disparity")
            moments += Moments.of(disparity[answered], 1 / depth[answered].astype(np.float64))
        return solve(moments, "affine")

    assert benchmark.pedantic(fit, rounds=3).scale == pytest.approx(1)


@pytest.mark.benchmark(group="fit scale and shift, 20 frames of 436 x 1024")
def test_stacked_least_squares(benchmark, pair):
    """The peer: the whole video in memory and one call of numpy's least squares, as the published scripts do."""
    depth = np.stack([pair[0].depth] * 20)

    def fit():
        pred = np.clip(1 / depth, 1e-3, None).reshape(-1, 1).astype(np.float64)
        return np.linalg.lstsq(np.concatenate([pred, np.ones_like(pred)], -1), 1 / depth.ravel().astype(np.float64))[0]

    assert benchmark.pedantic(fit, rounds=3)[0] == pytest.approx(1)


def carried_in_torch(depth, camera, transform):
    """One direction of the published computation, in torch on the CPU: whole arrays, last write wins."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    rays = torch.stack([(columns - camera[0, 2]) / camera[0, 0], (rows - camera[1, 2]) / camera[1, 1]], -1).double()
    points = torch.cat([rays, torch.ones(HEIGHT, WIDTH, 1, dtype=torch.float64)], -1) * depth[..., None]
    x, y, z = (points.reshape(-1, 3) @ transform[:3, :3].T + transform[:3, 3]).T
    u, v = (
        torch.round(x / z * camera[0, 0] + camera[0, 2]).long(),
        torch.round(y / z * camera[1, 1] + camera[1, 2]).long(),
    )
    seen = (u >= 0) & (u < WIDTH) & (v >= 0) & (v < HEIGHT)
    carried = torch.zeros_like(depth)
    carried[v[seen], u[seen]] = z[seen]
    return carried


@pytest.mark.benchmark(group="temporal alignment error of a pair, 436 x 1024")
def test_tae_in_torch(benchmark, pair):
    a, b = pair
    depths = [torch.from_numpy(view.depth).double() for view in pair]
    there = torch.from_numpy(np.linalg.inv(b.cam_to_world) @ a.cam_to_world)

    def both_ways():
        total = 0.0
        for source, transform in ((0, there), (1, torch.linalg.inv(there))):
            carried, target = carried_in_torch(depths[source], a.intrinsics, transform), depths[1 - source]
            compared = (carried > 0) & (target > 0)
            total += ((target - carried).abs()[compared] / target[compared]).mean().item()
        return 50 * total

    benchmark.extra_info["percent_of_true_depth"] = benchmark.pedantic(both_ways, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="temporal alignment error of a pair, 436 x 1024")
@pytest.mark.parametrize("surface", ["last", "nearest"])
def test_tae(benchmark, pair, surface):
    a, b = pair
    tae(a.depth, b.depth, (a.intrinsics, b.intrinsics), (a.cam_to_world, b.cam_to_world))  # compile
    cameras, poses = (a.intrinsics, b.intrinsics), (a.cam_to_world, b.cam_to_world)
    value, _ = benchmark.pedantic(tae, (a.depth, b.depth, cameras, poses, None, surface), rounds=5)
    benchmark.extra_info["percent_of_true_depth"] = value
