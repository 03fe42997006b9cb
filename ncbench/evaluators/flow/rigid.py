"""Motion of a static scene from depth, poses and intrinsics, between any two frames of a clip."""

from __future__ import annotations

from pydantic import Field

from ncbench.errors import ScoreError
from ncbench.evaluators.flow.base import Correspondence, FlowSource
from ncbench.evaluators.view import FloatMap, Matrix, View
from ncbench.geometry.rigid_flow import occluded_by_depth, rigid_flow
from ncbench.settings import Settings

_TOLERANCE = 0.03


class RigidSettings(Settings):
    """Settings of ``RigidFlow``.

    Attributes:
        tolerance: Relative difference of depths that still counts as the same surface.
    """

    tolerance: float = Field(default=_TOLERANCE, gt=0, lt=1)


class RigidFlow(FlowSource):
    """Carries each pixel's point into the other camera; the z-test there tells what is hidden.

    What moves by itself gets the flow of a point at rest. The z-test takes it out where it has left its place, not
    where it moves along its own surface or by less than the tolerance.
    """

    def __init__(self, settings: RigidSettings | None = None) -> None:
        self.settings = settings or RigidSettings()

    @property
    def name(self) -> str:
        """``rigid``, or ``rigid-<tolerance>`` where that is not 0.03."""
        return "rigid" if self.settings.tolerance == _TOLERANCE else f"rigid-{self.settings.tolerance:g}"

    def match(self, a: View, b: View) -> Correspondence:
        """Find the pixels of frame a in frame b; see ``FlowSource.match``. ``visible`` is always given."""
        depth_a, k_a, pose_a = _geometry(a)
        depth_b, k_b, pose_b = _geometry(b)
        if a.sequence != b.sequence or depth_a.shape != depth_b.shape:
            raise ScoreError(
                f"expected two frames of one sequence and size, got {_where(a)} of {depth_a.shape} and {_where(b)} of "
                f"{depth_b.shape}"
            )
        flow, z = rigid_flow(depth_a, k_a, pose_a, pose_b, k_b)
        return Correspondence(flow, ~occluded_by_depth(depth_b, flow, z, self.settings.tolerance))


def _geometry(view: View) -> tuple[FloatMap, Matrix, Matrix]:
    if view.depth is None or view.intrinsics is None or view.cam_to_world is None:
        parts = {"depth": view.depth, "intrinsics": view.intrinsics, "a pose": view.cam_to_world}
        missing = ", ".join(name for name, part in parts.items() if part is None)
        raise ScoreError(
            f"{_where(view)}: flow source 'rigid' needs depth, intrinsics and a pose; missing: {missing}. "
            "Use source 'gt' or 'dis'."
        )
    return view.depth, view.intrinsics, view.cam_to_world


def _where(view: View) -> str:
    return f"sequence '{view.sequence}', frame {view.frame}"
