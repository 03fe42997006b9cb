"""Scores one clip frame by frame, with memory that does not grow with its length."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.flow.base import FlowSource
from ncbench.evaluators.flow.checks import motion_warning
from ncbench.evaluators.temporal.links import Link, Moment, connect, make_link, make_moment, place, unmoved
from ncbench.evaluators.temporal.options import BFD_METRICS, Family, TemporalOptions
from ncbench.evaluators.temporal.pairs import (
    Measure,
    measure_accel,
    measure_dtheta,
    measure_opw,
    measure_rc,
    measure_tge,
)
from ncbench.evaluators.temporal.sharpness import measure_sharpness
from ncbench.evaluators.temporal.tracks import Tracker, in_degrees
from ncbench.evaluators.view import View

_PAIRWISE: tuple[Family, ...] = ("opw", "rc", "tge", "dtheta", "accel")


class TemporalScorer:
    """Temporal metrics of one clip.

    Frames are handed over one by one, in order. What is kept are the last frames that a metric looks back to (16 for
    ``rc@16``), without pictures, and the sums of the tracks under way. Steps and windows count the frames handed over,
    whatever their indices.

    Args:
        options: What to compute.
        flow: Where the motion between neighbouring frames comes from; None where there is none.
        rigid: The motion of the static scene by depth and poses; None where these are unknown. May be ``flow`` itself.
    """

    def __init__(self, options: TemporalOptions, flow: FlowSource | None, rigid: FlowSource | None) -> None:
        self._options, self._flow, self._rigid = options, flow, rigid
        steps = options.rc_steps if "rc_at" in options.metrics else ()
        self._past: deque[Moment] = deque(maxlen=max(steps, default=1))
        self._back: Link | None = None  # from the latest frame to the one before
        self._tracker = Tracker(options, flow, rigid)
        self._measures: list[Measure] = []
        self._reasons: dict[str, str] = {}
        self._warnings: list[str] = []
        self._sequence: str | None = None
        self._frames = 0

    def add(
        self, preds: NDArray[np.floating[Any]], view: View, reference: NDArray[np.floating[Any]] | None = None
    ) -> None:
        """Take in the next frame.

        Args:
            preds: (H, W, 3) normals in OpenCV axes; a vector that is zero or not finite is no answer, and is charged.
            view: The truth of that frame.
            reference: (H, W, 3) another prediction that ``sharpness_ratio`` compares with.

        Raises:
            ScoreError: Sizes disagree, or the frame does not follow the one before in the same clip.
        """
        self._require_next(view)
        moment = make_moment(preds, view, self._options)
        wanted = self._options.metrics
        if "sharpness" in wanted:
            base = None if reference is None else make_moment(reference, view, self._options)
            self._record("sharpness", view, view, lambda: measure_sharpness(moment, base, self._options))
        ahead = self._pair(moment) if self._past else None
        if "rc_at" in wanted:
            self._look_back(moment, ahead)
        if "bfd" in wanted:
            self._record("bfd", view, view, lambda: self._tracker.add(moment, ahead))
        self._past.append(moment)
        self._sequence = view.sequence
        self._frames += 1

    def rows(self) -> list[dict[str, Any]]:
        """Give all values, tidy.

        Returns:
            One row a value: sequence, frame, other (the frame that it is compared with; itself for ``sharpness``, the
            window's last for ``bfd``), metric, value, coverage (share of the picture, or of the tracks, that counts),
            pixels (or tracks). The value is NaN where a pair shares no pixel that counts, which coverage 0 states.
            Metrics named by ``missing`` have no rows.
        """
        absent = self.missing()
        return [{"sequence": self._sequence} | asdict(m) for m in self._measures if m.metric not in absent]

    def summary(self) -> dict[str, float]:
        """Average each metric over the clip.

        Returns:
            Mean over the pairs (or frames, or windows) that share pixels, by metric. ``bfd`` averages squares, so that
            rmse^2 = bias^2 + flicker^2 holds for the mean too. Metrics named by ``missing`` are absent.
        """
        means = {name: float(np.mean([m.value for m in found])) for name, found in self._found().items()}
        if self._tracker.squares:
            means |= in_degrees(np.mean(self._tracker.squares, axis=0))
        return means

    def coverage(self) -> dict[str, float]:
        """Give the mean coverage of each metric over all pairs, those that share no pixel included."""
        return {
            name: float(np.mean([m.coverage for m in self._measures if m.metric == name])) for name in self._found()
        }

    def missing(self) -> dict[str, str]:
        """Name the metrics that were asked for and have no value, each with the reason."""
        found = self._found()
        names = [name for family in self._options.metrics for name in self._options.names(family)]
        return {name: self._reasons.get(name, self._absence(name)) for name in names if name not in found}

    def warnings(self) -> list[str]:
        """Say which pairs of frames move too far for the flow source."""
        return list(self._warnings)

    def _require_next(self, view: View) -> None:
        if not self._past:
            return
        last = self._past[-1].view
        if (view.sequence, view.size) != (last.sequence, last.size) or view.frame <= last.frame:
            raise ScoreError(
                f"expected a frame after {last.frame} of sequence '{last.sequence}', of {last.size[0]}x{last.size[1]} "
                f"(height x width); got {place(view)}, of {view.size[0]}x{view.size[1]}. Use a scorer for each clip."
            )

    def _pair(self, moment: Moment) -> Link | None:
        """Score the step from the frame before, and settle what of that frame moves by itself."""
        last, before = self._past[-1], self._back
        self._back, ahead, back = None, None, None
        if self._pairs_wanted():
            try:
                ahead, back = connect(last, moment, self._flow, self._options)
            except ScoreError as error:
                for family in _PAIRWISE:
                    self._fail(family, last.view, moment.view, str(error))
        if ahead is not None and self._flow is not None:
            warning = motion_warning(ahead.flow, self._flow.name)
            self._warnings += [f"{place(last.view)}: {warning}"] if warning else []
            ahead = replace(ahead, reference=replace(last, still=self._still(ahead)))
            self._step(ahead, back, before)
            # an estimate that is off says nothing about what moves, beyond its own metrics
            last = last if self._flow.estimated else ahead.reference
        # nothing asks for the picture or the flow of an older frame
        view = replace(last.view, image=None, flow=None, flow_to=None, occluded=None)
        self._past[-1] = replace(last, view=view)
        self._back = back
        return ahead

    def _pairs_wanted(self) -> bool:
        """Whether neighbouring frames need to be linked: for a metric, for tracks, or to find what moves by itself."""
        return bool(set(_PAIRWISE) & set(self._options.metrics)) or (self._flow is not None and not self._same_source())

    def _same_source(self) -> bool:
        return self._flow is not None and self._rigid is not None and self._flow.name == self._rigid.name

    def _still(self, ahead: Link) -> NDArray[np.bool_] | None:
        if self._rigid is None or self._same_source():
            return None
        try:
            rigid = self._rigid.match(ahead.reference.view, ahead.other.view)
        except ScoreError:
            return None
        return unmoved(ahead.flow, rigid.flow, self._options.moving_threshold)

    def _step(self, ahead: Link, back: Link | None, before: Link | None) -> None:
        measures: dict[Family, Callable[[], list[Measure]]] = {
            "opw": lambda: measure_opw(ahead, back, self._options),
            "rc": lambda: measure_rc(ahead),
            "tge": lambda: measure_tge(ahead),
            "dtheta": lambda: measure_dtheta(ahead),
        }
        if self._frames > 1:
            measures["accel"] = lambda: measure_accel(ahead, before)
        for family, measure in measures.items():
            self._record(family, ahead.reference.view, ahead.other.view, measure)

    def _look_back(self, moment: Moment, ahead: Link | None) -> None:
        for step in self._options.rc_steps:
            if step <= len(self._past):
                earlier, name = self._past[-step], f"rc@{step}"
                known = ahead if step == 1 and self._same_source() else None
                try:
                    self._measures += measure_rc(known or self._far(earlier, moment), name)
                except ScoreError as error:
                    self._empty(name, earlier.view, moment.view, str(error))

    def _far(self, earlier: Moment, moment: Moment) -> Link:
        if self._rigid is None:
            raise ScoreError("needs depth and poses")
        return make_link(earlier, moment, self._rigid.match(earlier.view, moment.view), None, self._options)

    def _record(self, family: Family, a: View, b: View, measure: Callable[[], list[Measure]]) -> None:
        if family not in self._options.metrics:
            return
        try:
            self._measures += measure()
        except ScoreError as error:
            self._fail(family, a, b, str(error))

    def _fail(self, family: Family, a: View, b: View, reason: str) -> None:
        if family in self._options.metrics:
            for name in self._options.names(family):
                self._empty(name, a, b, reason)

    def _empty(self, name: str, a: View, b: View, reason: str) -> None:
        self._reasons.setdefault(name, reason)
        if name not in BFD_METRICS:  # whose rows are windows, not pairs
            self._measures.append(Measure(name, a.frame, b.frame, math.nan, 0.0, 0))

    def _found(self) -> dict[str, list[Measure]]:
        found: dict[str, list[Measure]] = {}
        for measure in self._measures:
            if not math.isnan(measure.value):
                found.setdefault(measure.metric, []).append(measure)
        return found

    def _absence(self, name: str) -> str:
        """Say why a metric has no value although nothing failed."""
        needed = {"accel_deg": 3, "sharpness": 1, "sharpness_ratio": 1}.get(name, 2)
        needed = self._options.track_window if name in BFD_METRICS else needed
        needed = int(name.removeprefix("rc@")) + 1 if name.startswith("rc@") else needed
        if self._frames < needed:
            return f"the clip has {self._frames} frames, and this needs {needed}"
        if name == "opw_excess" and self._options.mask != "truth":
            return f"needs mask 'truth', found '{self._options.mask}'"
        if name == "sharpness_ratio":
            return "needs another prediction to compare with, or one that is not flat"
        return "no pixel with a true normal passed the masks (a clip without truth needs mask 'image')"
