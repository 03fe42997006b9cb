"""Which pixels of a flow to trust, and whether to trust it at all; pure functions.

A flow estimated from pictures is wrong where a surface is hidden, leaves the picture, or moves too far. Three checks
find this out without any truth: going there and back must lead home (the cycle check), pixels beside an edge are left
out since a warp mixes two surfaces there, and the warp as a whole must explain the picture better than no motion at
all. The third is needed because a flow that is near zero everywhere passes the first. On 17 pairs of Sintel
Farneback's flow passed the cycle check at 1 pixel on 77 percent of the pixels, half of these more than 3 pixels off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ncbench.geometry.warp import backward_warp

BoolMap = NDArray[np.bool_]

CLASSICAL = ("dis",)
"""First parts of the names of sources that match by brightness over a short range, and lose long motion."""

LONG_MOTION = 30.0
"""Pixels of motion beyond which classical sources are useless."""

STILL_LEVELS = 1.0
"""Mean absolute difference of two pictures, in grey levels of 255, up to which they count as equal."""

_LONG_SHARE = 0.01  # share of long motion that is worth a warning; below, it may be a few stray vectors


@dataclass(frozen=True, slots=True)
class WarpCheck:
    """Mean absolute differences between frame a and frame b, over the same pixels, in grey levels (0 to 255).

    Attributes:
        warped: With frame b warped onto frame a by the flow; NaN where no pixel could be compared.
        still: With frame b as it is.
        pixels: How many pixels were compared.
    """

    warped: float
    still: float
    pixels: int

    @property
    def passed(self) -> bool:
        """True where the warp explains frame a better than no motion does, or the frames are equal anyway."""
        return self.pixels > 0 and (self.warped < self.still or self.still <= STILL_LEVELS)


def cycle_consistent(
    flow_ab: NDArray[np.floating[Any]], flow_ba: NDArray[np.floating[Any]], threshold: float
) -> BoolMap:
    """Tell which pixels of frame a come home when they follow the flow to frame b and back.

    This is ||F_ab(x) + F_ba(x + F_ab(x))|| <= threshold, with F_ba sampled bilinearly. An absolute threshold of one
    pixel removes more errors than the relative one of UnFlow (Meister et al., AAAI 2018).

    Args:
        flow_ab: (H, W, 2) displacement (u, v) in pixels from a to b; NaN where unknown.
        flow_ba: (H, W, 2) displacement from b to a; NaN where unknown.
        threshold: Longest distance from home in pixels.

    Returns:
        (H, W) bool; false where the pixel leaves the picture or either flow is unknown.

    Raises:
        ValueError: Shapes disagree.
    """
    back, inside = backward_warp(flow_ba, flow_ab)
    # false for NaN
    return np.asarray(inside & (np.linalg.norm(flow_ab + back, axis=-1) <= threshold))


def edge_distance_mask(image: NDArray[Any], distance: int = 3, low: float = 100.0, high: float = 200.0) -> BoolMap:
    """Tell which pixels lie far enough from every edge (Buffer Anytime, CVPR 2025; thresholds are ours).

    Edges are Canny's. A map of normals is written as uint8((n + 1) * 127.5), and a pixel is an edge where it is one in
    any component. Take the edges of the truth or of the picture: with those of a prediction, noise removes the pixels
    that it spoils.

    Args:
        image: (H, W, 3) floating normals in [-1, 1], (H, W, 3) uint8 RGB, which is turned to grey, or (H, W) uint8.
            A component that is NaN counts as 0.
        distance: Least city-block distance to an edge, in pixels, that is kept; 0 keeps all.
        low: Canny's lower threshold on the gradient, in grey levels.
        high: Canny's upper threshold.

    Returns:
        (H, W) bool, true at the distance or farther.

    Raises:
        ValueError: The array is of another shape or type.
    """
    edges = np.zeros(image.shape[:2], np.bool_)
    for plane in _grey_planes(image):
        edges |= cv2.Canny(np.ascontiguousarray(plane), low, high) > 0
    away = cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L1, 3)
    return np.asarray(away >= distance)


def warp_beats_zero(
    image_a: NDArray[np.uint8],
    image_b: NDArray[np.uint8],
    flow: NDArray[np.floating[Any]],
    mask: BoolMap | None = None,
) -> WarpCheck:
    """Compare a flow with no motion at all by how well frame b, warped, explains frame a.

    Args:
        image_a: (H, W, 3) or (H, W) uint8.
        image_b: The other frame, of the same shape.
        flow: (H, W, 2) displacement (u, v) in pixels from a to b; NaN where unknown.
        mask: (H, W) bool, pixels of a to compare; None for all. Both errors are taken over these pixels where the flow
            is known and stays inside the picture.

    Returns:
        The two errors; ask for ``passed``.

    Raises:
        ValueError: Shapes disagree.
    """
    if image_a.shape != image_b.shape:
        raise ValueError(f"expected two pictures of equal shape, got {image_a.shape} and {image_b.shape}")
    warped, inside = backward_warp(image_b, flow)
    compared = inside if mask is None else inside & mask
    pixels = int(np.count_nonzero(compared))
    if pixels == 0:
        return WarpCheck(math.nan, math.nan, 0)
    shown = image_a[compared].astype(np.float64)
    return WarpCheck(
        float(np.abs(warped[compared] - shown).mean()), float(np.abs(image_b[compared] - shown).mean()), pixels
    )


def motion_warning(flow: NDArray[np.floating[Any]], source: str) -> str | None:
    """Say that a flow is beyond its source.

    Args:
        flow: (H, W, 2) displacement in pixels; NaN where unknown.
        source: Name of the flow's source.

    Returns:
        A sentence where a classical source reports more than ``LONG_MOTION`` pixels on over one percent of the known
        pixels; None otherwise.
    """
    if source.partition("-")[0] not in CLASSICAL:
        return None
    length = np.hypot(flow[..., 0], flow[..., 1])
    known = np.isfinite(length)
    share = int((length[known] > LONG_MOTION).sum()) / max(int(known.sum()), 1)
    if share <= _LONG_SHARE:
        return None
    return (
        f"{share:.0%} of the pixels move by more than {LONG_MOTION:g} pixels, where flow source '{source}' is "
        "unreliable. Use a learned source, or frames that lie closer together."
    )


def _grey_planes(image: NDArray[Any]) -> list[NDArray[Any]]:
    if image.dtype == np.uint8 and image.ndim == 2:
        return [image]
    if image.ndim == 3 and image.shape[-1] == 3:
        if image.dtype == np.uint8:
            return [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)]
        if image.dtype.kind == "f":
            levels = np.clip((np.nan_to_num(image) + 1) * 127.5, 0, 255).astype(np.uint8)
            return [levels[..., channel] for channel in range(3)]
    raise ValueError(
        f"expected normals (H, W, 3) of a floating type, RGB (H, W, 3) or grey (H, W) of uint8, "
        f"got {image.shape} of {image.dtype}"
    )
