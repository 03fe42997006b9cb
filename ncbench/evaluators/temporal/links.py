"""Two frames brought together: which pixels correspond, and what the other frame shows there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.flow.base import Correspondence, FlowSource
from ncbench.evaluators.flow.checks import cycle_consistent, edge_distance_mask, warp_beats_zero
from ncbench.evaluators.temporal.metrics import Matrix, lengths, rotation_between
from ncbench.evaluators.temporal.options import TemporalOptions
from ncbench.evaluators.view import BoolMap, FloatMap, View
from ncbench.geometry.warp import backward_warp

AnyMap = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Moment:
    """One frame with its prediction.

    Attributes:
        view: The truth.
        preds: (H, W, 3) float32 unit normals, NaN where there is no answer.
        smooth: (H, W) bool, far enough from the edges that the mask goes by.
        still: (H, W) bool, false where something moves by itself; None where that is not known.
    """

    view: View
    preds: FloatMap
    smooth: BoolMap
    still: BoolMap | None = None

    @property
    def truth(self) -> FloatMap:
        """The (H, W, 3) true normals, NaN where invalid."""
        return np.where(self.view.valid[..., None], self.view.normal, np.float32(np.nan))


@dataclass(frozen=True, slots=True)
class Link:
    """The pixels of one frame and what another frame shows of the same surface points.

    Attributes:
        reference: The frame whose pixels are asked about.
        other: The frame that is fetched.
        flow: (H, W, 2) displacement from the reference to the other frame.
        inside: (H, W) bool, where the flow is known and stays in the picture.
        seen: (H, W) bool, where moreover the other frame is known to show the same surface.
        warped: (H, W, 3) predictions of the other frame, not brought to unit length; NaN where there is no answer.
        true_warped: (H, W, 3) its true normals; NaN where invalid.
        both_valid: (H, W) bool, where both frames have a true normal.
        usable: (H, W) bool, the pixels that count for every metric but ``opw`` with its special masks.
    """

    reference: Moment
    other: Moment
    flow: FloatMap
    inside: BoolMap
    seen: BoolMap
    warped: AnyMap
    true_warped: AnyMap
    both_valid: BoolMap
    usable: BoolMap

    @property
    def rotation(self) -> Matrix:
        """The (3, 3) rotation from the other camera to the reference.

        Raises:
            ScoreError: A pose is unknown.
        """
        pose_a, pose_b = self.reference.view.cam_to_world, self.other.view.cam_to_world
        if pose_a is None or pose_b is None:
            raise ScoreError(f"needs camera poses: {place(self.reference.view)} or the next has none")
        return rotation_between(pose_a, pose_b)


def make_moment(preds: AnyMap, view: View, options: TemporalOptions) -> Moment:
    """Prepare a frame.

    Args:
        preds: (H, W, 3) normals; a vector that is zero or not finite is no answer.
        view: The truth.
        options: Which edges to keep away from.

    Returns:
        The moment.

    Raises:
        ScoreError: Sizes disagree, or the options ask for edges of a picture that is not there.
    """
    if preds.shape != (*view.size, 3):
        raise ScoreError(f"{place(view)}: expected preds of shape {(*view.size, 3)}, got {preds.shape}")
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.linalg.norm(preds.astype(np.float64), axis=-1, keepdims=True)
        known = np.isfinite(length) & (length > 0)
        answers = np.where(known, preds / np.where(known, length, 1), np.nan).astype(np.float32)
    return Moment(view, answers, _smooth(view, options))


def away_from_edges(image: NDArray[Any], options: TemporalOptions) -> BoolMap:
    """Tell which pixels of a map of normals or a picture are far enough from its edges: (H, W) bool."""
    if options.edge_distance == 0:
        return np.ones(image.shape[:2], np.bool_)
    return edge_distance_mask(image, options.edge_distance, options.canny_low, options.canny_high)


def connect(a: Moment, b: Moment, source: FlowSource | None, options: TemporalOptions) -> tuple[Link, Link | None]:
    """Bring two frames together, both ways.

    Where the source cannot tell what is visible, a pixel counts if the flow leads it home again. An estimate is not
    trusted at all where it explains the picture worse than no motion does.

    Args:
        a: The earlier frame.
        b: The later frame.
        source: Where the motion comes from.
        options: The cycle's threshold.

    Returns:
        The link from a to b, and the one from b to a; the latter is None where the source knows motion forward alone.

    Raises:
        ScoreError: There is no source, it lacks what it needs, or its estimate is worse than no motion.
    """
    if source is None:
        raise ScoreError("needs a flow source, and none is given")
    ahead = source.match(a.view, b.view)
    try:
        back = source.match(b.view, a.view)
    except ScoreError:
        if source.estimated:
            raise
        return make_link(a, b, ahead, None, options), None
    if not source.estimated and ahead.visible is not None and back.visible is not None:
        return make_link(a, b, ahead, None, options), make_link(b, a, back, None, options)
    home_a = cycle_consistent(ahead.flow, back.flow, options.cycle_threshold)
    home_b = cycle_consistent(back.flow, ahead.flow, options.cycle_threshold)
    if source.estimated:
        _require_sane(a.view, b.view, ahead, home_a, source.name)
    return make_link(a, b, ahead, home_a, options), make_link(b, a, back, home_b, options)


def make_link(a: Moment, b: Moment, match: Correspondence, home: BoolMap | None, options: TemporalOptions) -> Link:
    """Fetch what frame b shows of the pixels of frame a.

    Args:
        a: The reference.
        b: The other frame.
        match: Where the pixels of a lie in b.
        home: (H, W) bool, where the cycle check passed; None for a flow that needs none.
        options: Whether the truth's mask applies.

    Returns:
        The link.
    """
    warped, inside = backward_warp(b.preds, match.flow)
    true_warped, _ = backward_warp(b.truth, match.flow)
    seen = inside
    for condition in (match.visible, home):
        seen = seen if condition is None else seen & condition
    both_valid = a.view.valid & inside & np.isfinite(true_warped[..., 0])
    usable = seen & a.smooth
    usable = usable if options.mask == "image" else usable & both_valid
    return Link(a, b, match.flow, inside, seen, warped, true_warped, both_valid, usable)


def unmoved(flow: FloatMap, rigid: FloatMap, threshold: float) -> BoolMap:
    """Tell which pixels move with the static scene.

    Args:
        flow: (H, W, 2) displacement as it is; NaN where unknown.
        rigid: (H, W, 2) displacement by depth and poses alone; NaN where unknown.
        threshold: Pixels by which they may differ.

    Returns:
        (H, W) bool; true where either is unknown.
    """
    return np.asarray(~(lengths(flow - rigid) > threshold))


def place(view: View) -> str:
    """Name a frame for messages."""
    return f"sequence '{view.sequence}', frame {view.frame}"


def _smooth(view: View, options: TemporalOptions) -> BoolMap:
    if options.mask != "image":
        return away_from_edges(view.normal, options)
    if view.image is None:
        raise ScoreError(f"{place(view)}: mask 'image' needs the picture. Use mask 'truth'.")
    return away_from_edges(view.image, options)


def _require_sane(a: View, b: View, ahead: Correspondence, home: BoolMap, name: str) -> None:
    if a.image is None or b.image is None:
        return
    check = warp_beats_zero(a.image, b.image, ahead.flow, home)
    if not check.passed:
        raise ScoreError(
            f"{place(a)}: flow source '{name}' explains frame {b.frame} no better than no motion does "
            f"(mean difference {check.warped:.2f} against {check.still:.2f} grey levels). Use a better source."
        )
