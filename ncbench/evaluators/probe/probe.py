"""The probe: frames in, a diagnosis out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import NcbenchError, ScoreError
from ncbench.evaluators.probe.decision import Evidence, Rule, decide
from ncbench.evaluators.probe.diagnosis import Diagnosis
from ncbench.evaluators.probe.frame_offset import Window, fit_offset, window
from ncbench.evaluators.probe.pool import Pool
from ncbench.evaluators.probe.sample import FrameSample, Thinned, sample_frame
from ncbench.evaluators.probe.sequences import MOST_FRAMES, MOST_SEQUENCES, Thumbnail, find_swaps, thumbnail
from ncbench.evaluators.probe.shift import MoveErrors, fit_shift, move_errors
from ncbench.evaluators.view import FloatMap, View
from ncbench.geometry.axes import AXES
from ncbench.settings import suggest

_RUN = 3  # frames in a row, so that neighbours can be compared


@dataclass(frozen=True)
class ProbeOptions:
    """How much to look at.

    Attributes:
        axes: Convention that the files were read in, one of ``AXES``; for the words of the diagnosis.
        frames: The most frames whose pixels are kept; more are thinned out evenly.
        pixels: Pixels drawn from each.
        placed_frames: The most frames, and windows of three, in which shifts and offsets are looked for.
        seed: Of the draw.
        rule: Thresholds.
    """

    axes: str = "opencv"
    frames: int = 48
    pixels: int = 512
    placed_frames: int = 24
    seed: int = 0
    rule: Rule = field(default_factory=Rule)

    def __post_init__(self) -> None:
        if self.axes not in AXES:
            raise ScoreError(f"unknown axis convention '{self.axes}'. {suggest(self.axes, AXES)}")
        if min(self.frames, self.placed_frames) < 2 or self.pixels < 1:
            raise ScoreError("expected frames and placed_frames of at least 2, and pixels of at least 1")


class Probe:
    """Looks at predictions as they pass by, and says at the end what is wrong with them.

    Memory and time do not grow with the length of the data: a bounded, seeded sample is kept. The diagnosis is a pure
    function of the frames, their order, and the options.

    Args:
        options: What to look at; by default files in OpenCV axes.

    Raises:
        ScoreError: The options name unknown axes or too few frames.
    """

    def __init__(self, options: ProbeOptions | None = None) -> None:
        self._options = options or ProbeOptions()
        self._samples: Thinned[FrameSample] = Thinned(self._options.frames)
        self._windows: Thinned[Window] = Thinned(self._options.placed_frames)
        self._moves: Thinned[list[MoveErrors]] = Thinned(self._options.placed_frames)
        self._thumbnails: dict[str, list[Thumbnail]] = {}
        self._recent: deque[tuple[FloatMap, View]] = deque(maxlen=_RUN)

    def add(
        self, preds: NDArray[np.float32], view: View, *, raw: NDArray[Any] | None = None, follows: bool = True
    ) -> None:
        """Look at one frame; the frames of a sequence come in order.

        Args:
            preds: (H, W, 3) float32 canonical normals after the declared axes, zero where there is none; lengths do not
                matter. (W, H, 3) is looked at too: it may be transposed. Another size is passed over.
            view: The truth.
            raw: (H, W, 3) numbers as the file holds them, in the declared axes and not normalised; None where unknown.
            follows: Whether this is the frame right after the one added before, if that was of the same sequence.
        """
        preds = np.asarray(preds, np.float32)
        if preds.shape not in ((*view.size, 3), (*view.size[::-1], 3)):
            return
        if self._samples.wants_next():
            sample = sample_frame(preds, view, raw, self._options.pixels, self._options.seed)
            if sample is not None:
                self._samples.keep(sample)
        if preds.shape[:2] != view.size:
            return
        if self._moves.wants_next():
            self._moves.keep(move_errors(preds, view, self._options.seed))
        self._add_thumbnail(preds, view)
        self._add_window(preds, view, follows)

    def diagnose(self) -> Diagnosis:
        """Judge what was seen so far.

        Returns:
            The diagnosis.
        """
        items = [item for kept in self._thumbnails.values() for item in kept]
        evidence = Evidence(
            pool=Pool.of(self._samples.items),
            swaps=find_swaps(items),
            offset=fit_offset(self._windows.items),
            shift=fit_shift([part for frame in self._moves.items for part in frame]),
        )
        return decide(evidence, self._options.axes, self._options.rule)

    def _add_thumbnail(self, preds: FloatMap, view: View) -> None:
        kept = self._thumbnails.get(view.sequence)
        if kept is None:
            if len(self._thumbnails) >= MOST_SEQUENCES:
                return
            kept = self._thumbnails.setdefault(view.sequence, [])
        if len(kept) < MOST_FRAMES:
            item = thumbnail(preds, view)
            kept.extend([item] if item is not None else [])

    def _add_window(self, preds: FloatMap, view: View, follows: bool) -> None:
        if self._recent and (not follows or self._recent[-1][1].sequence != view.sequence):
            self._recent.clear()
        self._recent.append((preds, view))
        if len(self._recent) == _RUN and self._windows.wants_next():
            found = window(tuple(self._recent), self._options.seed)
            if found is not None:
                self._windows.keep(found)


def probe_frames(
    plan: Mapping[str, Sequence[int]],
    read: Callable[[str, int], tuple[FloatMap, NDArray[Any] | None, View]],
    options: ProbeOptions | None = None,
    budget: int = 72,
) -> Diagnosis:
    """Probe a few runs of frames of a data set, so that only these are read.

    Args:
        plan: Sequence -> frame indices, in order, as a protocol names them.
        read: Gives a frame's canonical predictions, the file's own numbers (or None), and the truth. A frame that
            raises an ``NcbenchError`` is passed over: scoring will report it.
        options: What to look at.
        budget: The most frames to read.

    Returns:
        The diagnosis.
    """
    probe = Probe(options)
    for sequence, frame, follows in choose_frames(plan, budget):
        try:
            preds, raw, view = read(sequence, frame)
        except NcbenchError:
            continue
        probe.add(preds, view, raw=raw, follows=follows)
    return probe.diagnose()


def choose_frames(plan: Mapping[str, Sequence[int]], budget: int) -> list[tuple[str, int, bool]]:
    """Pick runs of three frames in a row, evenly over all sequences.

    Each sequence's first run is picked before any other of it, since other sequences have the same frame indices there,
    and sequences come in pairs of neighbours where there are too many: exchanged ones are mostly neighbours.

    Args:
        plan: Sequence -> frame indices, in order; none is empty.
        budget: The most frames to pick; two runs are picked in any case.

    Returns:
        (sequence, frame, whether it follows the frame before it in this list), in order. Everything where the plan has
        no more than the budget.

    Examples:
        >>> choose_frames({"a": range(10)}, 6)
        [('a', 0, False), ('a', 1, True), ('a', 2, True), ('a', 7, False), ('a', 8, True), ('a', 9, True)]
    """
    if sum(map(len, plan.values())) <= budget:
        return [(name, frame, place > 0) for name, frames in plan.items() for place, frame in enumerate(frames)]
    names = list(plan)
    runs = max(2, budget // min(_RUN, max(map(len, plan.values()))))
    if len(names) > runs:
        firsts = _even(len(names) - 1, runs // 2)
        names = [names[k + beside] for k in firsts for beside in (0, 1)]
        names = list(dict.fromkeys(names))
    each = max(1, runs // len(names))
    chosen = []
    for name in names:
        frames = plan[name]
        starts = _even(max(len(frames) - _RUN + 1, 1), each)
        for start, following in zip(starts, [*starts[1:], len(frames)], strict=True):
            run = frames[start : min(start + _RUN, following)]
            chosen += [(name, frame, place > 0) for place, frame in enumerate(run)]
    return chosen


def _even(count: int, wanted: int) -> list[int]:
    """Pick places in ``range(count)``, evenly, from the first to the last."""
    return [int(k) for k in np.unique(np.linspace(0, count - 1, min(count, wanted)).round())]
