"""Temporal metrics on real depth: what two ways to make normals from it are worth over time."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ncbench.evaluators.flow.dis import DisFlow
from ncbench.evaluators.flow.rigid import RigidFlow
from ncbench.evaluators.temporal.options import TemporalOptions
from ncbench.evaluators.temporal.scorer import TemporalScorer
from ncbench.evaluators.view import View
from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.geometry.plane_fit import normals_by_plane_fit

REDWOOD = Path(__file__).resolve().parents[3].parent / "shared" / "real" / "redwood_livingroom1"
K = np.array([[525.0, 0, 319.5], [0, 525.0, 239.5], [0, 0, 1]])
RAYS = pinhole_rays(K, 480, 640)

pytestmark = [pytest.mark.real, pytest.mark.skipif(not REDWOOD.exists(), reason="real sample files are not here")]


@pytest.fixture(scope="module")
def views():
    lines = (REDWOOD / "trajectory_open3d_estimate.log").read_text().splitlines()
    found = []
    for index in range(3):
        pose = np.array([line.split() for line in lines[5 * index + 1 : 5 * index + 5]], float)
        depth = cv2.imread(str(REDWOOD / "depth" / f"{index:05d}.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        image = cv2.cvtColor(cv2.imread(str(REDWOOD / "image" / f"{index:05d}.jpg")), cv2.COLOR_BGR2RGB)
        normal, valid = normals_by_plane_fit(depth, RAYS)
        found.append(View("redwood", index, normal, valid, image, depth, intrinsics=K, cam_to_world=pose))
    return found


@pytest.mark.parametrize("flow", [RigidFlow(), DisFlow()], ids=["rigid", "dis"])
def test_normals_from_depth_over_time(views, flow):
    options = TemporalOptions(rc_steps=(1, 2), track_window=3)
    predictions = {
        "same": [view.normal for view in views],
        "wide": [normals_by_plane_fit(view.depth, RAYS, 9)[0] for view in views],
        "cross": [normals_by_cross_product(view.depth, RAYS)[0] for view in views],
        "constant": [np.broadcast_to(np.float32([0, 0, -1]), view.normal.shape) for view in views],
    }
    values = {}
    for name, preds in predictions.items():
        scorer = TemporalScorer(options, flow, RigidFlow())
        for pred, view in zip(preds, views, strict=True):
            scorer.add(pred, view)
        values[name] = scorer.summary()
        assert min(scorer.coverage()[metric] for metric in ("opw", "rc_deg", "rc@2", "bfd_rmse")) > 0.5
        assert {*scorer.missing()} == {"sharpness_ratio"}
    assert values["same"]["bfd_rmse"] == pytest.approx(0, abs=1e-3)
    assert values["same"]["tge_deg"] == pytest.approx(0, abs=1e-3)
    # a fit to 81 points is steadier than one to 25, and that is steadier than a cross product of neighbours
    for metric in ("rc_deg", "rc@2", "accel_deg", "opw"):
        assert values["wide"][metric] < values["same"][metric] < values["cross"][metric], metric
    assert values["cross"]["bfd_flicker"] > 2 * values["wide"]["bfd_flicker"]
    # the constant is the steadiest by opw, and the worst by the split
    assert values["constant"]["opw"] < 1e-9
    assert values["constant"]["bfd_rmse"] > 5 * values["cross"]["bfd_rmse"]
