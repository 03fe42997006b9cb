"""Bring a prediction and the truth onto the same pixels: size first, then the protocol's crop and resolution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.view import FloatMap, View
from ncbench.geometry.cameras import crop_intrinsics, scale_intrinsics
from ncbench.geometry.resize import resize_flow, resize_nearest, resize_normals
from ncbench.protocol_card import Crop, ProtocolCard, Size

_ANSWERED = 0.5  # a resized pixel has an answer where at least half of the interpolation's weight has


def frame_view(view: View, protocol: ProtocolCard) -> View:
    """Crop a view and bring it to the protocol's resolution.

    Args:
        view: The truth at its own size.
        protocol: What to do with it.

    Returns:
        The view that is scored.

    Raises:
        ScoreError: The crop leaves nothing.
    """
    cropped = crop_view(view, protocol.crop)
    return cropped if isinstance(protocol.resolution, str) else resize_view(cropped, protocol.resolution)


def frame_prediction(preds: FloatMap, view: View, protocol: ProtocolCard) -> FloatMap:
    """Bring a prediction onto the pixels of ``frame_view(view, protocol)``.

    Args:
        preds: (h, w, 3) float32 normals, zero where there is no answer; or (h, w) float32 depth, 0 where there is none.
        view: The truth at its own size (H, W).
        protocol: What to do with it. A prediction of the truth's size is cropped and brought to the protocol's
            resolution along with it; one that has the protocol's resolution already stays as it is.

    Returns:
        The prediction at the scored size; normals resized bilinearly are of unit length again.

    Raises:
        ScoreError: The prediction is of neither size, and the protocol does not resize predictions.
    """
    size = preds.shape[:2]
    scored = None if isinstance(protocol.resolution, str) else (protocol.resolution.height, protocol.resolution.width)
    if scored == size and protocol.crop == Crop():
        return preds
    if size != view.size:
        if protocol.resize == "none":
            raise ScoreError(
                f"sequence '{view.sequence}', frame {view.frame}: prediction is {size[0]}x{size[1]}, truth is "
                f"{view.size[0]}x{view.size[1]} (height x width), and protocol '{protocol.name}' resizes no "
                "predictions. Predict at input size."
            )
        preds = resize_prediction(preds, view.size)
    crop, (height, width) = protocol.crop, view.size
    cropped = np.ascontiguousarray(preds[crop.top : height - crop.bottom, crop.left : width - crop.right])
    return cropped if scored is None else resize_prediction(cropped, scored)


def crop_view(view: View, crop: Crop) -> View:
    """Cut pixels off the sides; the principal point and the per-pixel columns move along.

    Args:
        view: The view.
        crop: Pixels to drop on each side.

    Returns:
        The smaller view; flow keeps pointing where it did, also past the new edges.

    Raises:
        ScoreError: Nothing is left.
    """
    if crop == Crop():
        return view
    height, width = view.size
    rows, columns = slice(crop.top, height - crop.bottom), slice(crop.left, width - crop.right)
    if crop.top + crop.bottom >= height or crop.left + crop.right >= width:
        raise ScoreError(f"sequence '{view.sequence}', frame {view.frame}: {height}x{width} is all cropped ({crop})")

    def cut(value: Any) -> Any:  # noqa: ANN401 - arrays of any type, and columns of any kind
        is_map = isinstance(value, np.ndarray) and value.shape[:2] == (height, width)
        return np.ascontiguousarray(value[rows, columns]) if is_map else value

    maps = {name: cut(getattr(view, name)) for name in ("normal", "valid", "image", "depth", "flow", "occluded")}
    camera = None if view.intrinsics is None else crop_intrinsics(view.intrinsics, crop.left, crop.top)
    return replace(view, **maps, intrinsics=camera, extra={name: cut(value) for name, value in view.extra.items()})


def resize_view(view: View, size: Size) -> View:
    """Bring a view to another size; per-pixel columns of the data set's own do not come along.

    Args:
        view: The view.
        size: New height and width.

    Returns:
        The view with normals averaged within surfaces, depth, flow and occlusion taken from the nearest pixel, the
        picture resampled by area, and the intrinsics scaled.
    """
    target = (size.height, size.width)
    if view.size == target:
        return view
    height, width = view.size
    normal, valid = resize_normals(view.normal, view.valid, view.depth, target)
    plain = {name: value for name, value in view.extra.items() if not isinstance(value, np.ndarray) or value.ndim < 2}
    camera = view.intrinsics
    return replace(
        view,
        normal=normal,
        valid=valid,
        image=None if view.image is None else _resize_picture(view.image, target),
        depth=None if view.depth is None else resize_nearest(view.depth, target),
        flow=None if view.flow is None else resize_flow(view.flow, target),
        occluded=None if view.occluded is None else resize_nearest(view.occluded, target),
        intrinsics=None if camera is None else scale_intrinsics(camera, size.width / width, size.height / height),
        extra=plain,
    )


def _resize_picture(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)


def resize_prediction(preds: NDArray[np.float32], size: tuple[int, int]) -> FloatMap:
    """Resize a prediction bilinearly, the pictures' outer edges kept; pixels without an answer are left out of means.

    Args:
        preds: (h, w, 3) normals, zero where there is no answer; or (h, w) depth, 0 where there is none.
        size: New height and width.

    Returns:
        (height, width, 3) float32 unit normals or (height, width) float32 depth; zero where less than half of the
        interpolation's weight has an answer.
    """
    answered = preds != 0 if preds.ndim == 2 else np.any(preds != 0, axis=-1)
    answered &= np.isfinite(preds) if preds.ndim == 2 else np.isfinite(preds).all(axis=-1)
    filled = np.where(answered if preds.ndim == 2 else answered[..., None], preds, 0).astype(np.float32)
    mixed = cv2.resize(filled, size[::-1], interpolation=cv2.INTER_LINEAR)
    weight = cv2.resize(answered.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    scale = weight if preds.ndim == 2 else np.linalg.norm(mixed, axis=-1)
    kept = (weight >= _ANSWERED) & (scale > 0)
    divided = mixed / np.where(kept, scale, 1)[(...,) if preds.ndim == 2 else (..., None)]
    return np.where(kept if preds.ndim == 2 else kept[..., None], divided, 0).astype(np.float32)
