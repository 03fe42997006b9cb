"""Resize, crop and mirror the maps of a frame together, so that geometry still holds afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ncbench.geometry.axes import flip_horizontal
from ncbench.geometry.cameras import crop_intrinsics, flip_intrinsics, scale_intrinsics
from ncbench.geometry.resize import resize_flow, resize_nearest
from ncbench.loader_card import Resize
from ncbench.loaders.maps import Maps
from ncbench.loaders.resample import resample_normals

Scalar = TypeVar("Scalar", bound=np.generic)


class Box(NamedTuple):
    """A window of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def resized_size(size: tuple[int, int], resize: Resize | None, scale: float = 1.0) -> tuple[int, int]:
    """Work out the size after resizing.

    Args:
        size: Height and width before.
        resize: The settings; None leaves the size.
        scale: The random factor.

    Returns:
        Height and width, rounded to the nearest multiple that the settings ask for.

    Examples:
        >>> resized_size((680, 1200), Resize(short_edge=576))
        (576, 1016)
    """
    if resize is None:
        return size
    height, width = resize.size or size
    factor = scale if resize.short_edge is None else scale * resize.short_edge / min(size)
    step = resize.multiple
    tall, wide = (max(step, int(side * factor / step + 0.5) * step) for side in (height, width))
    return tall, wide


def resize_maps(maps: Maps, size: tuple[int, int]) -> Maps:
    """Resize everything to one size; the outer edges of the picture stay where they are.

    The picture shrinks by area and grows by linear interpolation; normals as `ncbench.loaders.resample` says; depth,
    flow and occlusion are those of the source pixel at the footprint's centre, flow in pixels of the new size.

    Args:
        maps: The frame.
        size: New height and width.

    Returns:
        The resized frame; the same object where it has that size already.
    """
    if maps.size == size:
        return maps
    height, width = size
    scale_x, scale_y = width / maps.size[1], height / maps.size[0]
    method = cv2.INTER_AREA if scale_x * scale_y < 1 else cv2.INTER_LINEAR
    normal, valid = resample_normals(maps.normal, maps.valid, maps.depth, size)
    return replace(
        maps,
        image=np.asarray(cv2.resize(maps.image, (width, height), interpolation=method), np.uint8),
        normal=normal,
        valid=valid,
        depth=None if maps.depth is None else resize_nearest(maps.depth, size),
        flow=None if maps.flow is None else resize_flow(maps.flow, size),
        occluded=None if maps.occluded is None else resize_nearest(maps.occluded, size),
        intrinsics=None if maps.intrinsics is None else scale_intrinsics(maps.intrinsics, scale_x, scale_y),
    )


def crop_maps(maps: Maps, box: Box) -> Maps:
    """Cut a window out of everything; arrays are views.

    Args:
        maps: The frame.
        box: The window, within the picture.

    Returns:
        The window; the principal point moves with it, the pose and the flow's values stay.

    Raises:
        ValueError: The window reaches beyond the picture.
    """
    height, width = maps.size
    if min(box.top, box.left) < 0 or box.top + box.height > height or box.left + box.width > width:
        raise ValueError(f"expected a window within {height} x {width} pixels, got {box}")
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    return replace(
        maps,
        image=maps.image[rows, columns],
        normal=maps.normal[rows, columns],
        valid=maps.valid[rows, columns],
        depth=None if maps.depth is None else maps.depth[rows, columns],
        flow=None if maps.flow is None else maps.flow[rows, columns],
        occluded=None if maps.occluded is None else maps.occluded[rows, columns],
        intrinsics=None if maps.intrinsics is None else crop_intrinsics(maps.intrinsics, box.left, box.top),
    )


def flip_maps(maps: Maps) -> Maps:
    """Mirror everything left to right, as if the world had been mirrored.

    Normals and flow negate x. Camera and world are mirrored alike, x to -x, so that poses stay rotations and the
    geometry between frames of a clip holds: T becomes F T F with F = diag(-1, 1, 1, 1).

    Args:
        maps: The frame.

    Returns:
        The mirrored frame.
    """
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    flow = None if maps.flow is None else maps.flow[:, ::-1] * np.array([-1, 1], np.float32)
    return replace(
        maps,
        image=maps.image[:, ::-1],
        normal=flip_horizontal(maps.normal),
        valid=maps.valid[:, ::-1],
        depth=_mirrored(maps.depth),
        flow=flow,
        occluded=_mirrored(maps.occluded),
        intrinsics=None if maps.intrinsics is None else flip_intrinsics(maps.intrinsics, maps.size[1]),
        cam_to_world=None if maps.cam_to_world is None else mirror @ maps.cam_to_world @ mirror,
    )


def _mirrored(values: NDArray[Scalar] | None) -> NDArray[Scalar] | None:
    return None if values is None else values[:, ::-1]
