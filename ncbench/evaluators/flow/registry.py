"""From the name of a flow source, as a protocol writes it, to the source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ncbench.errors import CardError
from ncbench.evaluators.flow.base import FlowSource
from ncbench.evaluators.flow.dis import DisFlow, DisSettings
from ncbench.evaluators.flow.gmflow import GmflowFlow, GmflowSettings
from ncbench.evaluators.flow.gt import GtFlow, GtSettings
from ncbench.evaluators.flow.raft import RaftFlow, RaftSettings
from ncbench.evaluators.flow.rigid import RigidFlow, RigidSettings
from ncbench.evaluators.view import View
from ncbench.settings import suggest

FLOW_SOURCES = ("gt", "rigid", "dis", "raft", "gmflow")
"""Names that ``load_flow`` knows."""


def load_flow(name: str, settings: Mapping[str, Any] | None = None) -> FlowSource:
    """Make a flow source.

    Args:
        name: One of ``FLOW_SOURCES``.
        settings: Its settings, as a card holds them.

    Returns:
        The source; its own ``name`` says the settings too.

    Raises:
        CardError: Unknown name or setting.
        ModelError: A learned source lacks its package or its weights.
    """
    values, where = settings or {}, f"flow source '{name}'"
    match name:
        case "gt":
            return GtFlow(GtSettings.parse(values, where))
        case "rigid":
            return RigidFlow(RigidSettings.parse(values, where))
        case "dis":
            return DisFlow(DisSettings.parse(values, where))
        case "raft":
            return RaftFlow(RaftSettings.parse(values, where))
        case "gmflow":
            return GmflowFlow(GmflowSettings.parse(values, where))
    raise CardError(f"unknown flow source '{name}'. {suggest(name, FLOW_SOURCES)} See docs/flow.md.")


def choose_flow(*views: View) -> FlowSource:
    """Take the best source that the data allow: its own flow, else geometry, else the pictures.

    Args:
        views: Some frames of the data set, two or more of a clip (a clip's last frame has no flow).

    Returns:
        ``gt`` where any frame has flow; ``rigid`` where all have depth, intrinsics and a pose; else ``dis``. Frames
        that are not neighbours need ``rigid`` or ``dis`` whatever this says.
    """
    if any(view.flow is not None for view in views):
        return GtFlow()
    if views and all(part is not None for view in views for part in (view.depth, view.intrinsics, view.cam_to_world)):
        return RigidFlow()
    return DisFlow()
