"""Normals of data sets that come with depth alone."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from ncbench.datasets.frame import BoolMap, FloatMap
from ncbench.errors import SourceError
from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.plane_fit import normals_by_plane_fit
from ncbench.settings import Settings


class PlaneFit(Settings):
    """How a plane is fitted around each pixel; the defaults are those of DSINE's Sintel ground truth.

    Attributes:
        window: Side of the square window in pixels; odd.
        gamma: A neighbour counts where its depth differs from the centre's by at most this fraction.
        min_neighbours: Fewer counting neighbours than this leave the pixel without a normal.
    """

    window: int = Field(default=5, ge=3, le=31)
    gamma: float = Field(default=0.05, gt=0)
    min_neighbours: int = Field(default=4, ge=3)

    @field_validator("window")
    @classmethod
    def _odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError("a window needs a centre pixel: choose an odd number")
        return window


def check_intrinsics(intrinsics: NDArray[np.float64], origin: Path) -> None:
    """Check that a matrix is a pinhole camera with x right and y down.

    Args:
        intrinsics: (3, 3).
        origin: Where the matrix comes from, for the message.

    Raises:
        SourceError: It is not.
    """
    fx, fy, skew_y = intrinsics[0, 0], intrinsics[1, 1], intrinsics[1, 0]
    finite = np.isfinite(intrinsics).all()
    if not (finite and fx > 0 and fy > 0 and skew_y == 0 and np.array_equal(intrinsics[2], [0, 0, 1])):
        problem = f"expected [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0, found {intrinsics.tolist()}"
        remedy = "Bring the camera into the axes x right, y down, z forward, and its poses and normals along with it"
        raise SourceError.at(origin, problem, remedy)


def rays_of(intrinsics: NDArray[np.float64], shape: tuple[int, ...], origin: Path) -> NDArray[np.float64]:
    """Give the viewing rays of a picture whose intrinsics come from a file.

    Args:
        intrinsics: (3, 3) pinhole matrix.
        shape: (H, W).
        origin: Where the matrix comes from, for the message.

    Returns:
        (H, W, 3) float64 rays with z = 1; shared between calls and read-only.

    Raises:
        SourceError: See :func:`check_intrinsics`.
    """
    check_intrinsics(intrinsics, origin)
    height, width = shape
    return _rays(tuple(intrinsics.ravel().tolist()), height, width)


@lru_cache(maxsize=1)
def _rays(intrinsics: tuple[float, ...], height: int, width: int) -> NDArray[np.float64]:
    """Keep the rays of one camera: most sets have one, and computing its rays takes as long as decoding a picture."""
    rays = pinhole_rays(np.array(intrinsics).reshape(3, 3), height, width)
    rays.flags.writeable = False
    return rays


def plane_fit_normals(depth: FloatMap, rays: NDArray[np.float64], fit: PlaneFit) -> tuple[FloatMap, BoolMap]:
    """Estimate normals by fitting a plane around each pixel.

    Args:
        depth: (H, W) float32 z-depth in metres, 0 where unknown.
        rays: (H, W, 3) viewing rays with z = 1.
        fit: Window and thresholds.

    Returns:
        (H, W, 3) float32 unit normals in OpenCV axes facing the camera, 0 where invalid; (H, W) bool. A pixel without
        depth is invalid.
    """
    return normals_by_plane_fit(depth, rays, fit.window, fit.gamma, fit.min_neighbours)
