"""Depth from two frames of a video by classical geometry: a depth model that needs no weights and no training.

Optical flow between the frames (DIS, Kroeger et al., ECCV 2016), the camera's motion from it by the five-point method
(Nister, PAMI 2004) within RANSAC and then the least Sampson error, and triangulation of every pixel (Hartley and
Zisserman, Multiple View Geometry, 11.4 and 12.2). What moves by itself, lies in the direction of motion or has no
texture comes out wrong, as it must.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from ncbench.geometry.cameras import pinhole_rays
from ncbench.models.base import Answer, Clip, DepthMaps, NormalModel
from ncbench.settings import Settings

Rays = NDArray[np.float64]
_FIVE = 5  # correspondences that fix an essential matrix
_CONFIDENCE = 0.999  # of RANSAC
_REFINED = 2000  # correspondences are enough


class TwoViewSettings(Settings):
    """What shapes the answers.

    Attributes:
        reach: Frames from one view to the other; fewer where a sequence is shorter.
        sample_every: Pixels between the correspondences that the camera's motion is estimated from.
        cycle_threshold: Pixels that going there and back by the flow may miss the start by, for these.
        inlier_threshold: Pixels that a correspondence may lie off its epipolar line.
        least_parallax: Pixels that half of the correspondences must move beyond what the best rotation explains; with
            less there is no answer, since a camera that only turns sees no depth.
    """

    reach: int = Field(3, ge=1, le=100)
    sample_every: int = Field(4, ge=1)
    cycle_threshold: float = Field(1.0, gt=0)
    inlier_threshold: float = Field(0.5, gt=0)
    least_parallax: float = Field(0.25, ge=0)


@dataclass(frozen=True)
class _View:
    """A frame and its camera."""

    image: NDArray[np.uint8]
    intrinsics: NDArray[np.float64]


class TwoViewDepth(NormalModel):
    """z-depth of each frame up to a scale of its own, from itself and a later frame (an earlier one near the end).

    A sequence of one frame, or a camera that does not move, has no answer: depth 0 everywhere.
    """

    needs_intrinsics = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = TwoViewSettings.parse(settings, where="model TwoViewDepth, settings")

    def predict(self, clip: Clip) -> Answer:
        """Answer one clip as a sequence of its own."""
        return next(self.stream([clip]))

    def stream(self, clips: Iterable[Clip]) -> Iterator[Answer]:
        """Answer each clip once its frames' other views are known, so that nothing depends on how clips are cut."""
        reach = self.settings.reach
        views: dict[int, _View] = {}
        lengths: deque[int] = deque()
        maps: deque[DepthMaps] = deque()
        count = done = 0
        for clip in clips:
            lengths.append(len(clip.images))
            views.update(enumerate(_views(clip), start=count))
            count += lengths[-1]
            for frame in range(done, count - reach):
                maps.append(self._depth(views[frame], views[frame + reach]))
                views.pop(frame - reach, None)
                done = frame + 1
            yield from _whole(maps, lengths)
        for frame in range(done, count):
            other = frame - reach if frame >= reach else max(0, count - 1, key=lambda end: abs(end - frame))
            maps.append(self._depth(views[frame], views[other]))
        yield from _whole(maps, lengths)

    def _depth(self, view: _View, other: _View) -> DepthMaps:
        """Triangulate; a view and itself have no depth, for nothing moves."""
        places, consistent = _matches(view.image, other.image, self.settings.cycle_threshold)
        rays = pinhole_rays(view.intrinsics, *view.image.shape[:2])
        seen = np.concatenate([places, np.ones((*places.shape[:2], 1))], axis=-1) @ np.linalg.inv(other.intrinsics).T
        half, step = self.settings.sample_every // 2, self.settings.sample_every
        chosen = consistent[half::step, half::step]
        focal = float(other.intrinsics[0, 0])
        motion = camera_motion(
            rays[half::step, half::step][chosen],
            seen[half::step, half::step][chosen],
            self.settings.inlier_threshold / focal,
            self.settings.least_parallax / focal,
        )
        return np.zeros(view.image.shape[:2], np.float32) if motion is None else triangulate(rays, seen, *motion)


def camera_motion(rays: Rays, seen: Rays, threshold: float, least_parallax: float) -> tuple[Rays, Rays] | None:
    """Estimate how a camera moved from where it sees points before and after.

    Args:
        rays: (N, 3) rays of the points with z = 1, in the camera's frame.
        seen: (N, 3) rays of the same points in the other camera's frame.
        threshold: How far a point may lie off its epipolar line, in units of z = 1.
        least_parallax: How far the median point must move beyond the best rotation, in the same units.

    Returns:
        (3, 3) rotation and (3,) unit translation that take points from the camera's frame into the other's; None where
        there is no telling.
    """
    if len(rays) < _FIVE:
        return None
    before, after = np.ascontiguousarray(rays[:, :2]), np.ascontiguousarray(seen[:, :2])
    turned = rays @ Rotation.align_vectors(_unit(seen), _unit(rays))[0].as_matrix().T
    if np.median(np.linalg.norm(turned[:, :2] / turned[:, 2:] - after, axis=-1)) < least_parallax:
        return None
    cv2.setRNGSeed(0)  # RANSAC draws from OpenCV's own generator
    essential, inliers = cv2.findEssentialMat(before, after, np.eye(3), cv2.RANSAC, _CONFIDENCE, threshold)
    if essential is None or essential.shape != (3, 3):  # several where there are five points alone
        return None
    _, rotation, translation, _ = cv2.recoverPose(essential, before, after, np.eye(3), mask=inliers.copy())
    kept = np.flatnonzero(inliers)
    chosen = kept[:: max(1, len(kept) // _REFINED)]
    first = np.asarray(rotation, np.float64), np.asarray(translation[:, 0], np.float64)
    return _refine(rays[chosen], seen[chosen], first, threshold)


def _refine(rays: Rays, seen: Rays, first: tuple[Rays, Rays], threshold: float) -> tuple[Rays, Rays]:
    """Turn five points' answer into all inliers': the least Sampson error, which RANSAC does not look for."""

    def motion(change: NDArray[np.float64]) -> tuple[Rays, Rays]:
        turned: Rays = Rotation.from_rotvec(change[:3]).as_matrix() @ first[0]
        shifted: Rays = first[1] + change[3:]
        return turned, _unit(shifted)

    def error(change: NDArray[np.float64]) -> NDArray[np.float64]:
        turned, shifted = motion(change)
        cross = np.cross(np.eye(3), shifted)  # v @ cross is shifted x v, so that this is the transpose of [t]x
        lines = rays @ turned.T @ cross
        back = seen @ cross.T @ turned
        length: NDArray[np.float64] = np.hypot(
            np.linalg.norm(lines[:, :2], axis=-1), np.linalg.norm(back[:, :2], axis=-1)
        )
        sampson: NDArray[np.float64] = np.sum(lines * seen, axis=-1) / np.maximum(length, np.finfo(float).tiny)
        return sampson / threshold

    found = least_squares(error, np.zeros(6), loss="soft_l1", max_nfev=50)
    return motion(found.x)


def _unit(vectors: Rays) -> Rays:
    unit: Rays = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def triangulate(rays: Rays, seen: Rays, rotation: Rays, translation: Rays) -> DepthMaps:
    """Find the depth at which each ray meets what the other camera sees, by least squares in the other picture.

    From z R r + t ~ s follow two equations linear in z, one for each coordinate of s.

    Args:
        rays: (H, W, 3) with z = 1.
        seen: (H, W, 3) with z = 1, in the other camera's frame.
        rotation: (3, 3), into the other camera's frame.
        translation: (3,), as well.

    Returns:
        (H, W) float32 z-depth in units of the translation's length; 0 where the point would lie behind a camera.
    """
    turned = rays @ rotation.T
    slope = turned[..., :2] - seen[..., :2] * turned[..., 2:]
    offset = seen[..., :2] * translation[2] - translation[:2]
    squared = np.sum(slope**2, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.sum(slope * offset, axis=-1) / squared
    in_front = np.isfinite(depth) & (depth > 0) & (depth * turned[..., 2] + translation[2] > 0)
    found: DepthMaps = np.where(in_front, depth, 0).astype(np.float32)
    return found


def _whole(maps: deque[DepthMaps], lengths: deque[int]) -> Iterator[Answer]:
    """Take the clips that all maps are there for."""
    while lengths and len(maps) >= lengths[0]:
        yield Answer(None, np.stack([maps.popleft() for _ in range(lengths.popleft())]))


def _views(clip: Clip) -> list[_View]:
    assert clip.intrinsics is not None  # noqa: S101 - needs_intrinsics says so
    return [_View(image, matrix) for image, matrix in zip(clip.images, clip.intrinsics, strict=True)]


def _matches(
    image: NDArray[np.uint8], other: NDArray[np.uint8], threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Say where each pixel is seen in the other frame, (H, W, 2) x and y, and whether the way back agrees, (H, W)."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]  # not in its types
    grey, other_grey = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (image, other))
    there, back = dis.calc(grey, other_grey, None), dis.calc(other_grey, grey, None)
    height, width = grey.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    places = np.stack([x + there[..., 0], y + there[..., 1]], axis=-1)
    # outside the other frame: no way back
    returned = cv2.remap(
        back,
        places[..., 0],
        places[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(1e9, 1e9),
    )
    return places.astype(np.float64), np.linalg.norm(there + returned, axis=-1) < threshold
