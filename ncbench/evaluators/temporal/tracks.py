"""Splitting the error of tracked surface points into a bias that stays and a flicker that does not.

A window begins at an anchor frame and lasts ``track_window`` frames; windows follow one another without overlap, and
what is left at the clip's end is not scored. Tracks start on a grid of ``track_stride`` pixels, away from edges. A
track lives where in every frame of the window the point is visible and its true normal is valid.

The error of a track in frame k is e_k = R_k (n_k - n*_k): prediction minus truth at the nearest pixel, in world axes,
so that the mse is the ordinary one over these pixels. Over K frames

    mse = mean |e_k|^2,  flicker^2 = (mse - |mean e_k|^2) K / (K - 1),  bias^2 = mse - flicker^2,
    fast^2 = mean |e_(k+1) - e_k|^2 / 2.

K / (K - 1) makes up for the mean being taken from the same K frames: without it, a flicker of 5 degrees leaves
5 / sqrt(K) degrees of bias behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from ncbench.errors import ScoreError
from ncbench.evaluators.flow.base import FlowSource
from ncbench.evaluators.temporal.links import Link, Moment, place
from ncbench.evaluators.temporal.metrics import Matrix, lengths, turn, unit
from ncbench.evaluators.temporal.options import BFD_METRICS, TemporalOptions
from ncbench.evaluators.temporal.pairs import Measure
from ncbench.evaluators.view import BoolMap
from ncbench.geometry.warp import BORDER_SLACK

Points = NDArray[np.float64]
Squares = NDArray[np.float64]

CHARGED_SQUARES: Squares = np.array([2.0, 1.0, 1.0, 1.0])
"""Mean squares (mse, bias, flicker, fast) of a track that lacks an answer: those of a direction drawn at random, anew
in every frame."""

_WHOLE = 1 - 1e-3  # weight of true pixels around a place from which on all of them count as true


class TrackSums:
    """Running sums over the errors of N tracks; memory does not grow with the number of frames."""

    def __init__(self, count: int) -> None:
        self.frames = 0
        self._total = np.zeros((count, 3))
        self._squared = np.zeros(count)
        self._steps = np.zeros(count)
        self._last = np.zeros((count, 3))

    def add(self, errors: NDArray[np.float64]) -> None:
        """Take in the (N, 3) errors of the next frame; NaN where there is no answer."""
        if self.frames:
            self._steps += np.square(lengths(errors - self._last))
        self._total += errors
        self._squared += np.square(lengths(errors))
        self._last = errors
        self.frames += 1

    def squares(self, alive: BoolMap) -> Squares:
        """Give mean squares.

        Args:
            alive: (N,) bool, the tracks that count.

        Returns:
            (4,) float64: mse, bias, flicker and fast, squared, as means over the tracks. Tracks that lack an answer are
            charged. The square of the bias is an estimate without a systematic error, and may fall below zero. NaN
            where no track counts.

        Raises:
            ScoreError: Fewer than two frames were added.
        """
        if self.frames < 2:
            raise ScoreError(f"bias and flicker need tracks of at least two frames, got {self.frames}")
        if not alive.any():
            return np.full(4, np.nan)
        mse = self._squared[alive] / self.frames
        mean = np.square(lengths(self._total[alive] / self.frames))
        flicker = (mse - mean) * self.frames / (self.frames - 1)
        fast = self._steps[alive] / (2 * (self.frames - 1))
        each = np.stack([mse, mse - flicker, flicker, fast], axis=-1)
        return np.asarray(np.where(np.isnan(each), CHARGED_SQUARES, each).mean(axis=0))


def bias_flicker(errors: NDArray[np.float64]) -> dict[str, float]:
    """Split the errors of tracks that are known in every frame.

    Args:
        errors: (K, N, 3) prediction minus truth in world axes, K at least 2; NaN where there is no answer.

    Returns:
        ``bfd_rmse``, ``bfd_bias``, ``bfd_flicker`` and ``bfd_fast``: lengths times 180 / pi, degrees for small errors.

    Raises:
        ScoreError: K is below 2.

    Examples:
        >>> steady = np.tile([0.1, 0.0, 0.0], (5, 1, 1))
        >>> {name: round(value, 3) for name, value in bias_flicker(steady).items()}
        {'bfd_rmse': 5.73, 'bfd_bias': 5.73, 'bfd_flicker': 0.0, 'bfd_fast': 0.0}
    """
    sums = TrackSums(errors.shape[1])
    for frame in errors:
        sums.add(frame)
    return in_degrees(sums.squares(np.ones(errors.shape[1], np.bool_)))


def in_degrees(squares: Squares) -> dict[str, float]:
    """Name (4,) mean squares and bring them to degrees; an estimate below zero becomes zero."""
    values = np.degrees(np.sqrt(np.maximum(squares, 0.0)))
    return dict(zip(BFD_METRICS, values.tolist(), strict=True))


@dataclass(slots=True)
class _Window:
    anchor: Moment
    start: NDArray[np.int64]  # (2, N) rows and columns in the anchor frame
    places: Points  # (N, 2) x, y in the latest frame
    alive: BoolMap  # (N,)
    sums: TrackSums


class Tracker:
    """Follows tracks through a clip that comes frame by frame.

    Tracks go from the anchor straight to each frame by depth and poses, so that no error adds up, where a rigid source
    is given and the flow is the same or a mere estimate. A flow that knows how things move (``gt``) is chained from
    frame to frame instead, as is an estimate where there is no rigid source.

    Attributes:
        squares: Mean squares of each window that ended with at least one track alive.
    """

    def __init__(self, options: TemporalOptions, flow: FlowSource | None, rigid: FlowSource | None) -> None:
        direct = rigid is not None and (flow is None or flow.estimated or flow.name == rigid.name)
        self.squares: list[Squares] = []
        self._rigid = rigid if direct else None
        self._options = options
        self._window: _Window | None = None

    def add(self, moment: Moment, ahead: Link | None) -> list[Measure]:
        """Take in the next frame.

        Args:
            moment: The frame.
            ahead: From the frame before to this one; None where there is none.

        Returns:
            Four values where a window ends with this frame, else none.

        Raises:
            ScoreError: Poses, or the means to follow tracks, are missing. The window is given up.
        """
        window, self._window = self._window, None  # stays empty where this frame cannot be taken in
        pose = moment.view.cam_to_world
        if pose is None:
            raise ScoreError(f"needs camera poses: {place(moment.view)} has none")
        if window is None:
            window = _begin(moment, self._options.track_stride)
        elif self._rigid is None:
            _chain(window, moment, ahead)
        else:
            _jump(window, moment, self._rigid)
        _compare(window, moment, pose)
        if window.sums.frames < self._options.track_window:
            self._window = window
            return []
        return self._end(window, moment)

    def _end(self, window: _Window, moment: Moment) -> list[Measure]:
        squares = window.sums.squares(window.alive)
        pixels = int(window.alive.sum())
        if pixels:
            self.squares.append(squares)
        frame, other, coverage = window.anchor.view.frame, moment.view.frame, pixels / len(window.alive)
        return [Measure(name, frame, other, value, coverage, pixels) for name, value in in_degrees(squares).items()]


def sample(image: NDArray[Any], places: Points) -> NDArray[np.float64]:
    """Read an image between its pixels, bilinearly.

    Args:
        image: (H, W, C) floating values, NaN where unknown.
        places: (N, 2) x and y in pixels; outside the picture the border counts.

    Returns:
        (N, C) float64, NaN where a pixel around the place is unknown and carries weight.
    """
    at = places.T[::-1]
    known = np.isfinite(lengths(image))
    whole = map_coordinates(known.astype(np.float32), at, order=1, mode="nearest") >= _WHOLE
    filled = np.where(known[..., None], image, 0.0)
    planes = [map_coordinates(filled[..., k], at, np.float64, order=1, mode="nearest") for k in range(image.shape[-1])]
    return np.where(whole[:, None], np.stack(planes, axis=-1), np.nan)


def _begin(moment: Moment, stride: int) -> _Window:
    height, width = moment.view.size
    start = np.mgrid[stride // 2 : height : stride, stride // 2 : width : stride].reshape(2, -1)
    count = start.shape[1]
    # beside an edge a hair's breadth decides which of two surfaces a place shows: the truth itself would flicker
    return _Window(moment, start, start[::-1].T.astype(np.float64), moment.smooth[*start], TrackSums(count))


def _chain(window: _Window, moment: Moment, ahead: Link | None) -> None:
    """Move on from the frame before along the flow."""
    if ahead is None:
        raise ScoreError("needs depth and poses, or a flow from each frame to the next")
    # a flow that is not to be trusted is as good as unknown
    flow = np.where(ahead.seen[..., None], ahead.flow, np.nan)
    _land(window, window.places + sample(flow, window.places), moment)


def _jump(window: _Window, moment: Moment, rigid: FlowSource) -> None:
    """Move from the anchor straight to this frame."""
    match = rigid.match(window.anchor.view, moment.view)
    rows, columns = window.start
    if match.visible is not None:
        window.alive &= match.visible[rows, columns]
    _land(window, window.start[::-1].T + match.flow[rows, columns].astype(np.float64), moment)


def _land(window: _Window, places: Points, moment: Moment) -> None:
    height, width = moment.view.size
    low, high = -BORDER_SLACK, np.array([width - 1, height - 1]) + BORDER_SLACK
    window.alive &= ((places >= low) & (places <= high)).all(axis=-1)  # false for NaN
    window.places = np.where(window.alive[:, None], places, 0.0)


def _compare(window: _Window, moment: Moment, pose: Matrix) -> None:
    """Take in the errors at the pixels nearest to the tracks: between pixels, noise would average out."""
    columns, rows = np.rint(window.places).astype(np.int64).T
    true = unit(moment.view.normal[rows, columns])
    window.alive &= moment.view.valid[rows, columns]
    errors = turn(unit(moment.preds[rows, columns]) - true, pose[:3, :3])
    window.sums.add(np.where(window.alive[:, None], errors, 0.0))
