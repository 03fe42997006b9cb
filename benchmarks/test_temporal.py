"""Temporal metrics: what they say about controls and real clips, and what they cost.

``python -m pytest benchmarks/test_temporal.py::test_controls -s`` and ``::test_real`` print the tables of
docs/temporal.md; ``::test_cost`` measures time beside the flow that the metrics need, and beside the formulas written
in plain numpy. Run from the repository root.
"""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from benchmarks import temporal_support as support
from ncbench.evaluators.flow.registry import load_flow
from ncbench.evaluators.temporal.controls import control_table, render_views, turning_room
from ncbench.evaluators.temporal.metrics import tge_error
from ncbench.evaluators.temporal.options import TemporalOptions
from ncbench.evaluators.temporal.scorer import TemporalScorer
from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.geometry.plane_fit import normals_by_plane_fit

FRAMES, SIZE = 24, (240, 320)
COST_SIZE = (436, 1024)
COLUMNS = [
    "mae",
    "opw",
    "opw_truth",
    "rc_deg",
    "rc@4",
    "rc@16",
    "tge_deg",
    "dtheta_deg",
    "accel_deg",
    "bfd_rmse",
    "bfd_bias",
    "bfd_flicker",
    "bfd_fast",
    "sharpness_ratio",
]


def markdown(table, names):
    """Write a table with one row for each entry of the index."""
    columns = [name for name in COLUMNS if name in table]
    lines = ["| " + " | ".join([*names, *(f"`{name}`" for name in columns)]) + " |"]
    lines.append("|" + "---|" * (len(columns) + len(names)))
    for index, row in table[columns].iterrows():
        cells = [f"{row[name]:.4f}" if name.startswith("opw") else f"{row[name]:.2f}" for name in columns]
        cells = ["-" if "nan" in cell else cell for cell in cells]
        lines.append("| " + " | ".join([*([index] if isinstance(index, str) else index), *cells]) + " |")
    return "\n".join(lines)


@pytest.mark.parametrize("degrees", [0, 1, 2])
@pytest.mark.parametrize("flow", ["gt", "dis"])
def test_controls(benchmark, flow, degrees):
    options = TemporalOptions()
    table = benchmark.pedantic(
        control_table, (degrees, FRAMES, SIZE, load_flow(flow), load_flow("rigid"), options), rounds=1
    )
    benchmark.extra_info["table"] = table.round(6).replace({np.nan: None}).to_dict("index")
    print(f"\n{degrees} degrees a frame, flow {flow}\n{markdown(table, ['prediction'])}")


@pytest.mark.skipif(not support.REDWOOD.exists(), reason="real sample files are not here")
def test_real(benchmark):
    table = benchmark.pedantic(score_real, rounds=1)
    benchmark.extra_info["table"] = {" ".join(key): row for key, row in table.round(6).T.to_dict().items()}
    print("\n" + markdown(table, ["clip", "flow", "prediction"]))


def score_real():
    rows = {}
    for views in (support.redwood_views(range(FRAMES)), support.icl_views()):
        rays = pinhole_rays(views[0].intrinsics, *views[0].size)
        predictions = {
            "the truth (plane fit, 5 x 5)": [view.normal for view in views],
            "plane fit, 9 x 9": [normals_by_plane_fit(view.depth, rays, 9)[0] for view in views],
            "cross product": [normals_by_cross_product(view.depth, rays)[0] for view in views],
            "constant": [np.broadcast_to(np.float32([0, 0, -1]), view.normal.shape) for view in views],
        }
        for flow in ("rigid", "dis") if len(views) > 2 else ("rigid",):
            for name, preds in predictions.items():
                summary = score(preds, views, TemporalOptions(), flow).summary()
                rows[views[0].sequence, flow, name] = {
                    column: summary.get(column, math.nan) for column in COLUMNS[1:-1]
                }
    return pd.DataFrame.from_dict(rows, orient="index")


def score(preds, views, options, flow):
    scorer = TemporalScorer(options, None if flow is None else load_flow(flow), load_flow("rigid"))
    for pred, view in zip(preds, views, strict=True):
        scorer.add(pred, view)
    return scorer


@pytest.fixture(scope="module")
def clip():
    views = render_views(turning_room(1, 6, *COST_SIZE), "turn")
    rng = np.random.default_rng(0)
    preds = [(view.normal + rng.normal(0, 0.05, view.normal.shape)).astype(np.float32) for view in views]
    return preds, views


@pytest.mark.benchmark(group="a clip of 6 frames, 436 x 1024")
@pytest.mark.parametrize("metrics", ["opw", "rc", "tge", "dtheta", "accel", "bfd", "rc_at", "sharpness", "all"])
def test_cost(benchmark, clip, metrics):
    options = (
        TemporalOptions(track_window=6) if metrics == "all" else TemporalOptions(metrics=[metrics], track_window=6)
    )
    score(*clip, options, "rigid")
    benchmark.pedantic(score, (*clip, options, "rigid"), rounds=3)
    benchmark.extra_info["seconds a frame"] = benchmark.stats.stats.median / 6


@pytest.mark.benchmark(group="a clip of 6 frames, 436 x 1024")
@pytest.mark.parametrize("flow", ["rigid", "dis", "gt"])
def test_flow_alone(benchmark, clip, flow):
    _, views = clip
    source = load_flow(flow)

    def both_ways():
        for a, b in itertools.pairwise(views):
            source.match(a, b), source.match(b, a)

    both_ways()
    benchmark.pedantic(both_ways, rounds=3)
    benchmark.extra_info["seconds a frame"] = benchmark.stats.stats.median / 6


def tge_in_numpy(p, q, t, s, rotation):
    """The peer: what one writes first."""
    p, q, t, s = (each.astype(np.float64) for each in (p, q, t, s))
    p, q, t, s = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (p, q, t, s))
    return np.degrees(np.linalg.norm(p - t - (q - s) @ rotation.T, axis=-1))


@pytest.mark.benchmark(group="tge of 436 x 1024 pixels")
@pytest.mark.parametrize("body", [tge_error, tge_in_numpy], ids=["ncbench", "numpy"])
def test_formula(benchmark, clip, body):
    preds, views = clip
    parts = (preds[0], preds[1], views[0].normal, views[1].normal, np.eye(3))
    np.testing.assert_allclose(body(*parts), tge_in_numpy(*parts), atol=1e-6)
    benchmark(body, *parts)
    benchmark.extra_info["Mpixel/s"] = COST_SIZE[0] * COST_SIZE[1] / benchmark.stats.stats.median / 1e6
