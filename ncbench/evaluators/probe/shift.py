"""Predictions that lie beside the truth: by half a pixel (a resize), or by some (a crop).

Only pixels near edges of the truth are looked at, and only whole-pixel moves are tried: interpolating between pixels
would smooth the predictions and so favour a fraction. The fraction comes from the errors at whole pixels on both sides
(equiangular fit, Shimizu and Okutomi, "Sub-pixel estimation error cancellation on area-based matching", IJCV 2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.evaluators.probe.sample import Doubles, angles, frame_rng
from ncbench.evaluators.view import View

LARGEST = 8
"""Pixels up to which moves are tried, each way."""
EDGE = 15.0
"""Degrees by which the truth must differ between a pixel and one beside it."""
_DRAWN, _USED = 3072, 256
_LEAST_PIXELS = 24
_LEAST_PARTS = 10  # of three frames: the smooth error of a model in a single one may look like a shift
_NO_BETTER = 0.9
_LEAST_SHIFT = 0.45  # pixels; half a pixel is measured to 0.2 or better, and models err by as much by themselves


@dataclass(frozen=True)
class MoveErrors:
    """Errors near edges in one part of a frame, for every move tried.

    Attributes:
        table: (2 R + 1, 2 R + 1) mean degrees; ``table[R + dy, R + dx]`` compares the truth at (x, y) with the
            prediction at (x + dx, y + dy).
        pixels: How many were compared.
    """

    table: Doubles
    pixels: int


@dataclass(frozen=True)
class ShiftFit:
    """What all parts of all frames say together.

    Attributes:
        dx: Pixels to the right by which predictions lie beside the truth.
        dy: Pixels downward.
        before: Mean error near edges in degrees, as it is.
        after: The same where the predictions are moved back, extrapolated to the fraction.
        away: The same where they are moved as far in the wrong direction. Well below ``before`` the predictions are
            merely odd at the edges themselves (normals from depth across a step, say), and any move helps.
        scatter: Median distance of the parts' own shifts from the common one, pixels.
        certainty: How surely the side to which predictions lie fits better than the opposite side: mean difference
            over parts by its standard error.
        parts: How many parts there are.
    """

    dx: float
    dy: float
    before: float
    after: float
    away: float
    scatter: float
    certainty: float
    parts: int

    @property
    def length(self) -> float:
        """Pixels."""
        return float(np.hypot(self.dx, self.dy))

    def holds(self, share: float, degrees: float, certainty: float) -> bool:
        """Whether there is one shift everywhere, and undoing it helps by a share and by degrees."""
        enough = self.after <= (1 - share) * self.before and self.after <= self.before - degrees
        enough &= self.away >= _NO_BETTER * self.before
        steady = self.parts >= _LEAST_PARTS and self.scatter <= 0.2 + 0.2 * self.length and self.certainty >= certainty
        return enough and steady and self.length >= _LEAST_SHIFT


def move_errors(preds: NDArray[np.float32], view: View, seed: int) -> list[MoveErrors]:
    """Try all moves of a frame's predictions, in each quarter of the picture.

    Args:
        preds: (H, W, 3) canonical normals, zero where there is none.
        view: The truth.
        seed: Of the draw.

    Returns:
        Errors of the quarters that have enough edges; none where the picture is too small.
    """
    height, width = view.size
    reach = min(LARGEST, min(height, width) // 8)
    if preds.shape[:2] != view.size or reach < 2:
        return []
    rng = frame_rng(seed + 1, view)
    rows = rng.integers(reach, height - reach, _DRAWN)
    columns = rng.integers(reach, width - reach, _DRAWN)
    near = _near_edge(view, rows, columns)
    rows, columns = rows[near][:_USED], columns[near][:_USED]
    steps = np.arange(-reach, reach + 1)
    around = preds[rows[:, None, None] + steps[:, None], columns[:, None, None] + steps]
    length = np.sqrt(np.einsum("...i,...i->...", around, around))
    whole = np.all(np.isfinite(length) & (length > 0), axis=(1, 2))
    rows, columns, around = rows[whole], columns[whole], around[whole] / length[whole, ..., None]
    # float32 throughout: it is good to 1e-4 degrees here, and a frame has a hundred thousand pairs
    apart = around - view.normal[rows, columns][:, None, None]
    chord = np.sqrt(np.einsum("...i,...i->...", apart, apart))
    error = np.degrees(2 * np.arctan2(chord, np.sqrt(np.maximum(4 - chord**2, 0))))
    quadrant = 2 * (rows >= height / 2) + (columns >= width / 2)
    parts = [error[quadrant == k] for k in range(4)]
    return [MoveErrors(part.mean(0, dtype=np.float64), len(part)) for part in parts if len(part) >= _LEAST_PIXELS]


def fit_shift(parts: Sequence[MoveErrors]) -> ShiftFit | None:
    """Join the parts of all frames.

    Args:
        parts: Of frames of one size or of several; the smallest reach counts.

    Returns:
        The common shift; None without a part.
    """
    if not parts:
        return None
    reach = min(len(part.table) for part in parts) // 2
    tables = np.array([_centre(part.table, reach) for part in parts])
    total = np.average(tables, axis=0, weights=[part.pixels for part in parts])
    # away from the border of the table, so that there is a neighbour on each side
    row, column = (1 + k for k in divmod(int(np.argmin(total[1:-1, 1:-1])), 2 * reach - 1))
    fractions = [_fractions(table, row, column) for table in (total, *tables)]
    (fy, fx, saved), own = fractions[0], np.array([part[:2] for part in fractions[1:]])
    dy, dx = row - reach + fy, column - reach + fx
    scatter = float(np.median(np.hypot(*(own - (fy, fx)).T)))
    y, x = _whole_step(dy, dx, reach)
    towards, opposite = tables[:, reach + y, reach + x], tables[:, reach - y, reach - x]
    before, after = float(total[reach, reach]), max(float(total[row, column]) - saved, 0.0)
    away = float(total[reach - y, reach - x])
    return ShiftFit(dx, dy, before, after, away, scatter, _certainty(opposite - towards), len(parts))


def _certainty(differences: Doubles) -> float:
    if len(differences) < 2:
        return 0.0
    error = float(differences.std(ddof=1)) / np.sqrt(len(differences))
    return float(differences.mean() / max(error, 1e-9))


def _whole_step(dy: float, dx: float, reach: int) -> tuple[int, int]:
    """Round a shift to whole pixels, up where it is a fraction of one."""
    length = max(abs(dy), abs(dx), 1e-9)
    step = max(1.0, round(length))
    return (
        int(np.clip(round(dy / length * step), -reach, reach)),
        int(np.clip(round(dx / length * step), -reach, reach)),
    )


def _fractions(table: Doubles, row: int, column: int) -> tuple[float, float, float]:
    """Give the place of the least error about a whole-pixel one, and by how much it is lower there."""
    centre = float(table[row, column])
    fy, saved_y = _equiangular(float(table[row - 1, column]), centre, float(table[row + 1, column]))
    fx, saved_x = _equiangular(float(table[row, column - 1]), centre, float(table[row, column + 1]))
    return fy, fx, saved_y + saved_x


def _equiangular(left: float, centre: float, right: float) -> tuple[float, float]:
    slope = max(left, right) - centre
    if slope <= 1e-9:
        return 0.0, 0.0
    fraction = float(np.clip((left - right) / (2 * slope), -0.5, 0.5))
    return fraction, abs(fraction) * slope


def _centre(table: Doubles, reach: int) -> Doubles:
    cut = len(table) // 2 - reach
    return table[cut : len(table) - cut, cut : len(table) - cut]


def _near_edge(view: View, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    here = view.normal[rows, columns].astype(np.float64)
    edge = np.zeros(len(rows), bool)
    for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        beside = view.normal[rows + y, columns + x].astype(np.float64)
        edge |= view.valid[rows + y, columns + x] & (angles(here, beside) > EDGE)
    return edge & view.valid[rows, columns]
