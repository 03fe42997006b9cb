"""The data set's own motion: exact, but only between a frame and the one its flow leads to."""

from __future__ import annotations

import numpy as np

from ncbench.errors import ScoreError
from ncbench.evaluators.flow.base import Correspondence, FlowSource
from ncbench.evaluators.flow.inversion import invert_flow
from ncbench.evaluators.view import BoolMap, FloatMap, View
from ncbench.settings import Settings


class GtSettings(Settings):
    """The data set's own flow has nothing to set."""


class GtFlow(FlowSource):
    """Reads ``View.flow`` and ``View.occluded``; backward motion is the forward flow inverted (``invert_flow``).

    Frames farther apart are refused: flows cannot be chained through occlusion.
    """

    def __init__(self, settings: GtSettings | None = None) -> None:
        self.settings = settings or GtSettings()

    @property
    def name(self) -> str:
        """``gt``."""
        return "gt"

    def match(self, a: View, b: View) -> Correspondence:
        """Find the pixels of frame a in frame b; see ``FlowSource.match``.

        Forward, ``visible`` is where the flow is known and not ``occluded``; None where the data set does not say what
        is occluded. Backward it is where an unoccluded pixel of the earlier frame leads, and None likewise.
        """
        if a.flow is not None and a.sequence == b.sequence and a.flow_to == b.frame:
            visible = _shown(a.flow, a.occluded)
            return Correspondence(a.flow, None if a.occluded is None else visible)
        if b.flow is not None and a.sequence == b.sequence and b.flow_to == a.frame:
            back = invert_flow(b.flow, _shown(b.flow, b.occluded))
            return Correspondence(back, None if b.occluded is None else _known(back))
        raise ScoreError(
            f"sequence '{a.sequence}': the data set has no flow between frames {a.frame} and {b.frame}. "
            "Use source 'rigid' (depth and poses) or 'dis' (pictures) for this pair."
        )


def _known(flow: FloatMap) -> BoolMap:
    return np.asarray(np.isfinite(flow).all(axis=-1))


def _shown(flow: FloatMap, occluded: BoolMap | None) -> BoolMap:
    known = _known(flow)
    return known if occluded is None else known & ~occluded
