"""Do stored normals point where their card says? Checked against the rays and, where there is depth, against depth.

A wrong sign of one axis survives a look at a picture (a left-up-back map passes for a right-up-back one), yet makes
every number wrong. So sets whose axes no document states are checked as they are read, and the message names what was
seen.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.frame import BoolMap, FloatMap
from ncbench.errors import SourceError
from ncbench.geometry.plane_fit import normals_by_plane_fit

_FEWEST_PIXELS = 100
_STEP = 4  # every fourth pixel of every fourth row decides as well as all of them
_WINDOW = 7
_REMEDY = "Correct the card's axes (docs/conventions.md lists them)"


def check_facing(normal: FloatMap, valid: BoolMap, rays: NDArray[np.float64] | None, path: Path, axes: str) -> None:
    """Check that most normals of one map face the camera.

    Args:
        normal: (H, W, 3) unit normals, converted to OpenCV axes.
        valid: (H, W) bool.
        rays: (H, W, 3) viewing rays with z = 1; None stands for the optical axis everywhere.
        path: The map's file.
        axes: What the card says of the file, for the message.

    Raises:
        SourceError: More than half of the valid normals point away.
    """
    away = normal[..., 2] if rays is None else np.einsum("hwc,hwc->hw", normal, rays)
    share = float((away[valid] > 0).mean()) if valid.any() else 0.0
    if share > 0.5:
        problem = f"expected normals in {axes} axes, facing the camera, but {100 * share:.0f} % of them point away"
        raise SourceError.at(path, problem, _REMEDY)


def check_against_depth(
    normal: FloatMap, valid: BoolMap, depth: FloatMap, rays: NDArray[np.float64], path: Path, axes: str, slack: float
) -> None:
    """Check that no other choice of signs fits the depth clearly better than the card's.

    Args:
        normal: (H, W, 3) unit normals, converted to OpenCV axes.
        valid: (H, W) bool.
        depth: (H, W) z-depth in metres, 0 where unknown.
        rays: (H, W, 3) viewing rays with z = 1.
        path: The file of the normals.
        axes: What the card says of the file, for the message.
        slack: Degrees by which another choice's median angle to the plane-fit normals may be smaller: a picture of one
            wall says little about the signs of x and y.

    Raises:
        SourceError: Another choice of signs fits better.
    """
    fitted, known = normals_by_plane_fit(depth, rays, window=_WINDOW)
    both = (valid & known)[::_STEP, ::_STEP]
    if int(both.sum()) < _FEWEST_PIXELS:
        return
    stored, expected = (part[::_STEP, ::_STEP][both].astype(np.float64) for part in (normal, fitted))
    medians = {signs: _median_angle(stored * signs, expected) for signs in itertools.product((1, -1), repeat=3)}
    best = min(medians, key=lambda signs: medians[signs])
    own = medians[1, 1, 1]
    if own > medians[best] + slack:
        problem = (
            f"expected normals in {axes} axes that agree with the depth, but their median angle to it is {own:.1f} "
            f"degrees, and {medians[best]:.1f} with the signs of (x, y, z) multiplied by {best}"
        )
        raise SourceError.at(path, problem, _REMEDY)


def _median_angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    sine = np.linalg.norm(np.cross(a, b), axis=-1)
    return float(np.median(np.degrees(np.arctan2(sine, (a * b).sum(axis=-1)))))
