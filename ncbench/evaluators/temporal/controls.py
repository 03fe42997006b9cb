"""The controls on a room whose camera turns at a known rate: what every temporal metric says about known faults.

The room stands still, its normals, depth and motion are exact, and the camera turns about an oblique axis while it
slides sideways. A metric that is worth reporting gives the same numbers however fast the camera turns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from ncbench.datasets.mini.render import RenderedFrame, render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.datasets.mini.scene import Body, Camera, Matrix, Path3, Scene
from ncbench.evaluators.angular import angular_error
from ncbench.evaluators.flow.base import Correspondence, FlowSource
from ncbench.evaluators.temporal.options import TemporalOptions
from ncbench.evaluators.temporal.scorer import TemporalScorer
from ncbench.evaluators.view import View
from ncbench.models.base import Clip, Normals, Truth
from ncbench.models.controls import Bias, Blur, Flicker, Frontal, Frozen

NOISE = 0.05
"""Standard deviation of each component of the ``noise`` control, before vectors are made unit again."""

_AXIS = np.ones(3) / math.sqrt(3)
_SLIDE = 0.01  # metres a frame
_BLUR = 9 / 218  # standard deviation as a share of the height


@dataclass(frozen=True, slots=True)
class TurningCamera(Camera):
    """A camera that turns at a constant rate about its own axis (1, 1, 1) while it slides along the world's x axis.

    Attributes:
        degrees: Turn in each frame.
        metres: Slide in each frame.
    """

    degrees: float = 0.0
    metres: float = 0.0

    def pose(self, frame: float) -> Matrix:
        """Camera-to-world (4, 4) at a frame, OpenCV axes."""
        pose = super(TurningCamera, self).pose(0)
        turn: Matrix = Rotation.from_rotvec(_AXIS * self.degrees * frame, degrees=True).as_matrix()
        pose[:3, :3] = pose[:3, :3] @ turn
        pose[0, 3] += self.metres * frame
        return pose


def turning_room(degrees: float, frames: int, height: int, width: int) -> Scene:
    """Make a furnished room in which nothing moves but the camera.

    Args:
        degrees: The camera's rotation in each frame.
        frames: Length of the clip.
        height: Picture's height in pixels.
        width: Picture's width in pixels.

    Returns:
        The scene.
    """
    scene = make_scene("room", 0, frames, height, width)
    base = {field.name: getattr(scene.camera, field.name) for field in fields(Camera)}
    camera = TurningCamera(**base, degrees=degrees, metres=_SLIDE)
    return replace(scene, bodies=tuple(_at_rest(body) for body in scene.bodies), camera=camera)


def rendered_view(frame: RenderedFrame, sequence: str, index: int, last: bool) -> View:
    """Hand a rendered frame to the metrics."""
    return View(
        sequence=sequence,
        frame=index,
        normal=frame.normal.astype(np.float32),
        valid=frame.valid,
        image=frame.rgb,
        depth=frame.depth.astype(np.float32),
        flow=None if last else frame.flow.astype(np.float32),
        flow_to=None if last else index + 1,
        occluded=None if last else frame.occluded,
        intrinsics=frame.intrinsics,
        cam_to_world=frame.cam_to_world,
    )


def render_views(scene: Scene, sequence: str) -> list[View]:
    """Render all frames of a scene for the metrics."""
    last = scene.frames - 1
    return [rendered_view(render_frame(scene, k), sequence, k, k == last) for k in range(scene.frames)]


def control_predictions(views: Sequence[View]) -> Iterator[tuple[str, Normals]]:
    """Make the controls' predictions for a clip.

    Args:
        views: All frames; every truth is valid.

    Yields:
        Name and (T, H, W, 3) float32 unit normals: ``gt`` (the truth), ``constant`` (faces the camera everywhere),
        ``frozen`` (the first frame's truth), ``blur`` (the truth smoothed by a twenty-fourth of the height), ``bias10``
        (turned by 10 degrees about one camera axis), ``flicker5`` (each frame turned by 5 degrees about its own axis),
        ``noise`` (0.05 on each component of each pixel), ``lag`` (the truth of the frame before), ``absent`` (no
        answer anywhere).
    """
    truth = np.stack([view.normal for view in views])
    clip = Clip(
        sequence=views[0].sequence,
        frames=tuple(view.frame for view in views),
        images=np.zeros((*truth.shape[:3], 3), np.uint8),
        truth=Truth(truth, np.stack([view.valid for view in views]), None, "analytic"),
    )
    models: dict[str, Frontal | Frozen | Blur | Bias | Flicker] = {
        "constant": Frontal({}),
        "frozen": Frozen({}),
        "blur": Blur({"sigma_pixels": _BLUR * truth.shape[1]}),
        "bias10": Bias({"degrees": 10}),
        "flicker5": Flicker({"degrees": 5}),
    }
    yield "gt", truth
    for name, model in models.items():
        yield name, model.predict(clip)
    noisy = truth + np.random.default_rng(0).normal(0, NOISE, truth.shape)
    yield "noise", (noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)).astype(np.float32)
    yield "lag", np.concatenate([truth[:1], truth[:-1]])
    yield "absent", np.zeros_like(truth)


def control_table(
    degrees: float, frames: int, size: tuple[int, int], flow: FlowSource, rigid: FlowSource, options: TemporalOptions
) -> pd.DataFrame:
    """Score all controls.

    Args:
        degrees: The camera's rotation in each frame.
        frames: Length of the clip.
        size: Height and width in pixels.
        flow: Motion between neighbours.
        rigid: Motion of the static scene.
        options: What to compute.

    Returns:
        One row a control, named by the index; columns ``mae`` (mean angular error, an answer of none left out) and the
        scorer's summary.
    """
    # one name for every rate: the controls draw their random axes from it
    views = render_views(turning_room(degrees, frames, *size), "turn")
    once, once_rigid = _Remembered(flow), _Remembered(rigid)
    rows: dict[str, dict[str, Any]] = {}
    for name, preds in control_predictions(views):
        scorer = TemporalScorer(options, once, once_rigid)
        errors = []
        for pred, view in zip(preds, views, strict=True):
            scorer.add(pred, view, reference=view.normal)
            errors.append(angular_error(pred, view.normal)[view.valid])
        known = np.concatenate(errors)
        known = known[~np.isnan(known)]
        rows[name] = {"mae": float(known.mean()) if known.size else math.nan} | scorer.summary()
    return pd.DataFrame.from_dict(rows, orient="index")


class _Remembered(FlowSource):
    """Asks a source once for each pair of frames, since all controls share them."""

    def __init__(self, source: FlowSource) -> None:
        self.estimated = source.estimated  # type: ignore[misc]  # a property of the source it stands for
        self._source = source
        self._known: dict[tuple[int, int], Correspondence] = {}

    @property
    def name(self) -> str:
        return self._source.name

    def match(self, a: View, b: View) -> Correspondence:
        key = (a.frame, b.frame)
        if key not in self._known:
            self._known[key] = self._source.match(a, b)
        return self._known[key]


def _at_rest(body: Body) -> Body:
    return replace(body, path=Path3(body.path.at(0)), spin=(0.0, 0.0, 0.0))
