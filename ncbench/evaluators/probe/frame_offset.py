"""Predictions that belong to the frame before or after: seen where the truth changes from frame to frame.

The test is symmetric about the frame in question. If predictions are one frame late, they fit the truth one frame
before them, and the truths of their own frame and of two frames before are equally wrong. A model that merely lags
(frozen, or averaging over the past) fits two frames before better than its own frame, and is not blamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.evaluators.probe.sample import Doubles, angles, frame_rng
from ncbench.evaluators.view import View

CHANGED = 10.0
"""Degrees by which the truth of a pixel must differ between neighbouring frames."""
LEAST_PIXELS = 24
"""Changed pixels that a window of three frames must have."""
_DRAWN = 4096


@dataclass(frozen=True)
class Window:
    """Errors around three consecutive frames a, b, c, where the truth changes; mean degrees.

    Attributes:
        late: (3,) predictions of c against the truths of c, b, a.
        early: (3,) predictions of a against the truths of a, b, c.
        pixels: How many were compared.
    """

    late: Doubles
    early: Doubles
    pixels: int


@dataclass(frozen=True)
class OffsetFit:
    """What all windows say together.

    Attributes:
        step: -1 where predictions fit the frame before theirs, 1 for the frame after.
        before: Mean error against the own frame in degrees, over pixels where the truth changes.
        after: The same against that neighbour.
        mirror: The same against the neighbour's other side; equal to ``before`` for a mere offset.
        agreeing: Share of windows in which the neighbour fits best.
        windows: How many windows there are.
    """

    step: int
    before: float
    after: float
    mirror: float
    agreeing: float
    windows: int

    def holds(self, share: float, degrees: float, windows: int, agreeing: float) -> bool:
        """Whether the neighbour fits better than its two sides by a share and by degrees, nearly always."""
        sides = min(self.before, self.mirror)
        enough = self.windows >= windows and self.agreeing >= agreeing
        return enough and self.after <= (1 - share) * sides and self.after <= sides - degrees


def window(frames: Sequence[tuple[NDArray[np.float32], View]], seed: int) -> Window | None:
    """Compare three consecutive frames.

    Args:
        frames: Predictions (H, W, 3) and truths of the frames a, b and c, all of one size.
        seed: Of the draw.

    Returns:
        The errors; None where the sizes differ or the truth hardly changes.
    """
    sizes = {part.shape[:2] for preds, view in frames for part in (preds, view.normal)}
    if len(sizes) != 1:
        return None
    views = [view for _, view in frames]
    rng = frame_rng(seed, views[1])
    chosen = rng.integers(0, views[0].valid.size, _DRAWN)
    chosen = chosen[np.all([view.valid.reshape(-1)[chosen] for view in views], axis=0)]
    truths = [_pick(view.normal, chosen) for view in views]
    ends = [_pick(frames[k][0], chosen) for k in (0, 2)]
    changed = np.maximum(angles(truths[0], truths[1]), angles(truths[1], truths[2])) > CHANGED
    changed &= np.isfinite(ends[0][:, 0]) & np.isfinite(ends[1][:, 0])
    if changed.sum() < LEAST_PIXELS:
        return None
    truths = [truth[changed] for truth in truths]
    early, late = (end[changed] for end in ends)
    return Window(
        late=np.array([angles(late, truth).mean() for truth in truths[::-1]]),
        early=np.array([angles(early, truth).mean() for truth in truths]),
        pixels=int(changed.sum()),
    )


def fit_offset(windows: Sequence[Window]) -> OffsetFit | None:
    """Join windows; the better of both directions, None without a window."""
    if not windows:
        return None
    fits = []
    for step, errors in ((-1, [item.late for item in windows]), (1, [item.early for item in windows])):
        table = np.array(errors)
        before, after, mirror = table.mean(0)
        agreeing = float(np.mean(table[:, 1] < np.minimum(table[:, 0], table[:, 2])))
        fits.append(OffsetFit(step, float(before), float(after), float(mirror), agreeing, len(windows)))
    return min(fits, key=lambda fit: fit.after / max(min(fit.before, fit.mirror), 1e-9))


def _pick(normals: NDArray[np.float32], places: NDArray[np.int64]) -> Doubles:
    vectors = normals.reshape(-1, 3)[places].astype(np.float64)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    usable = np.isfinite(length) & (length > 0)
    return np.where(usable, vectors / np.where(usable, length, 1.0), np.nan)
