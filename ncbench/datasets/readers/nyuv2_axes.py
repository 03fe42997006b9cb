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

from ncbench.datasets.frame import BoolMap, FloatMap, Matrix
from ncbench.errors import SourceError
from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.plane_fit import normals_by_plane_fit

_FEWEST_PIXELS = 100
_STEP = 4  # every fourth pixel of every fourth row tells which way most normals point
_ROW_STEP = 16  # as many pixels, in whole rows, which a plane fit takes faster
_WINDOW = 7
_SIGNS = tuple(itertools.product((1, -1), repeat=3))
_REMEDY = "Correct the card's axes (docs/conventions.md lists them)"


def share_away(normal: FloatMap, valid: BoolMap, intrinsics: Matrix | None, grazing: float = 0.0) -> float:
    """Tell which share of a map's normals points away from the camera, out of every fourth pixel of every fourth row.

    Args:
        normal: (H, W, 3) unit normals in OpenCV axes.
        valid: (H, W) bool.
        intrinsics: (3, 3); None stands for viewing along the optical axis everywhere.
        grazing: Largest product of normal and ray (with z = 1) that does not count as pointing away yet.

    Returns:
        0 to 1; 0 where no pixel looked at is valid.
    """
    sampled, used = normal[::_STEP, ::_STEP], valid[::_STEP, ::_STEP]
    away = sampled[..., 2]
    if intrinsics is not None:
        # the camera whose pixels are the sampled ones: (0, 0) stays, and distances shrink
        rays = pinhole_rays(np.diag([1 / _STEP, 1 / _STEP, 1.0]) @ intrinsics, *used.shape)
        away = np.einsum("hwc,hwc->hw", sampled, rays)
    return float((away[used] > grazing).mean()) if used.any() else 0.0


def check_facing(normal: FloatMap, valid: BoolMap, intrinsics: Matrix | None, path: Path, axes: str) -> None:
    """Check that most normals of one map face the camera.

    Args:
        normal: (H, W, 3) unit normals, converted to OpenCV axes.
        valid: (H, W) bool.
        intrinsics: (3, 3); None stands for viewing along the optical axis everywhere.
        path: The map's file.
        axes: What the card says of the file, for the message.

    Raises:
        SourceError: More than half of the valid normals point away.
    """
    share = share_away(normal, valid, intrinsics)
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
    fitted, known = normals_by_plane_fit(depth, rays, window=_WINDOW, row_step=_ROW_STEP)
    both = valid[::_ROW_STEP] & known
    if int(both.sum()) < _FEWEST_PIXELS:
        return
    stored, expected = (part[both].astype(np.float64) for part in (normal[::_ROW_STEP], fitted))
    products = stored * expected
    # the smallest median angle is that of the greatest median cosine
    best = max(_SIGNS, key=lambda signs: float(np.median(products @ signs)))
    own, smallest = _median_angle(stored, expected), _median_angle(stored * best, expected)
    if own > smallest + slack:
        problem = (
            f"expected normals in {axes} axes that agree with the depth, but their median angle to it is {own:.1f} "
            f"degrees, and {smallest:.1f} with the signs of (x, y, z) multiplied by {best}"
        )
        raise SourceError.at(path, problem, _REMEDY)


def _median_angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    sine = np.linalg.norm(np.cross(a, b), axis=-1)
    return float(np.median(np.degrees(np.arctan2(sine, (a * b).sum(axis=-1)))))
