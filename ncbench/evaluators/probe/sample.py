"""What the probe keeps of a frame: a few pixels of it, drawn the same way every time."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ncbench.evaluators.probe.grid import laid_out
from ncbench.evaluators.view import View

Doubles = NDArray[np.float64]
Item = TypeVar("Item")

LEAST_PIXELS = 16
"""Frames with fewer usable pixels say nothing."""


@dataclass(frozen=True)
class FrameSample:
    """Some pixels of one frame.

    Attributes:
        sequence: Name of the clip.
        frame: Index within the clip.
        target: (N, 3) true normals.
        preds: (8, N, 3) unit predictions under each of ``grid.LAYOUTS``; NaN where there is none.
        quadrant: (N,) 0 to 3, the quarter of the picture that a pixel lies in.
        rotation: (3, 3) camera to world; None where the pose is unknown.
        raw: (N, 3) numbers of the file, in its own axes and of its own length; None where unknown.
    """

    sequence: str
    frame: int
    target: Doubles
    preds: Doubles
    quadrant: NDArray[np.int64]
    rotation: Doubles | None
    raw: Doubles | None


def sample_frame(
    preds: NDArray[np.float32], view: View, raw: NDArray[Any] | None, pixels: int, seed: int
) -> FrameSample | None:
    """Draw pixels of a frame.

    Args:
        preds: (h, w, 3) canonical normals; (h, w) is the truth's size or that with height and width exchanged.
        view: The truth.
        raw: (h, w, 3) numbers of the file, or None.
        pixels: How many to draw; some may come twice.
        seed: Together with sequence and frame it decides which.

    Returns:
        The sample; None where too few pixels are known to both.
    """
    known = np.flatnonzero(view.valid)
    if known.size == 0:
        return None
    rng = frame_rng(seed, view)
    rows, columns = np.divmod(known[rng.integers(0, known.size, pixels)], view.size[1])
    answers = laid_out(preds, view.size, rows, columns)
    usable = np.isfinite(answers[..., 0]).any(0)
    if np.count_nonzero(usable) < LEAST_PIXELS:
        return None
    rows, columns, answers = rows[usable], columns[usable], answers[:, usable]
    fits = raw is not None and raw.shape == (*view.size, 3)
    return FrameSample(
        sequence=view.sequence,
        frame=view.frame,
        target=view.normal[rows, columns].astype(np.float64),
        preds=answers,
        quadrant=2 * (rows >= view.size[0] / 2) + (columns >= view.size[1] / 2),
        rotation=None if view.cam_to_world is None else view.cam_to_world[:3, :3],
        raw=raw[rows, columns].astype(np.float64) if fits and raw is not None else None,
    )


def frame_rng(seed: int, view: View) -> np.random.Generator:
    """Start the random numbers of a frame, the same whatever was drawn before."""
    return np.random.default_rng([seed, zlib.crc32(view.sequence.encode()), view.frame])


def angles(a: Doubles, b: Doubles) -> Doubles:
    """Measure the angle between unit vectors.

    Kahan's form, exact for small and for large angles: 2 atan2(|a - b|, |a + b|).

    Args:
        a: (..., 3).
        b: (..., 3).

    Returns:
        (...) degrees; NaN where either is.
    """
    apart, together = a - b, a + b
    return np.asarray(
        np.degrees(
            2.0
            * np.arctan2(
                np.sqrt(np.einsum("...i,...i->...", apart, apart)),
                np.sqrt(np.einsum("...i,...i->...", together, together)),
            )
        )
    )


class Thinned(Generic[Item]):
    """Keeps at most ``limit`` of the items that pass by, evenly spread, without knowing how many will come.

    Args:
        limit: The most to keep, at least 2.
    """

    def __init__(self, limit: int) -> None:
        self.items: list[Item] = []
        self._limit, self._step, self._seen = limit, 1, -1

    def wants_next(self) -> bool:
        """Count one more item; tell whether to keep it with ``keep``."""
        self._seen += 1
        return self._seen % self._step == 0

    def keep(self, item: Item) -> None:
        """Keep the item that was counted last; where there are too many, every other one goes."""
        self.items.append(item)
        if len(self.items) > self._limit:
            self.items = self.items[::2]
            self._step *= 2
