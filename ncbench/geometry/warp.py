"""Backward warping: fetch for each pixel of frame a what frame b shows where the flow points.

Sampling is bilinear between pixel centres, the top-left one at (0, 0), which is what ``grid_sample`` calls
``align_corners=True``. Mixing conventions shifts the samples by up to half a pixel and raises the warping error of
perfect normals by 19 to 23 percent.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncbench.jit import jit

if TYPE_CHECKING:
    import torch

BORDER_SLACK = 1e-4
"""How far beyond the outermost pixel centres, in pixels, a place still counts as inside and is moved onto them. A
float32 flow is rounded by as much, and without this a camera at rest would lose its border to a flow of -1e-9."""

BoolMap = NDArray[np.bool_]
FloatMap = NDArray[np.floating[Any]]


def backward_warp(image: ArrayLike, flow: ArrayLike) -> tuple[FloatMap, BoolMap]:
    """Sample an image at x + flow(x).

    Args:
        image: (H, W, C) or (H, W) numbers or booleans: what frame b shows.
        flow: (H, W, 2) displacement (u, v) in pixels from frame a to frame b; NaN where unknown.

    Returns:
        The warped image, of the image's shape: float64 where the image is, float32 otherwise, zero where not inside;
        and inside (H, W) bool, true where the flow is known and the sampled place lies within the outermost pixel
        centres (give or take ``BORDER_SLACK``). A pixel with weight zero is not read, so that a NaN beside an exactly
        hit pixel stays out. Warped normals are not brought back to unit length.

    Raises:
        ValueError: Shapes disagree.

    Examples:
        >>> picture = np.array([[0.0, 1.0, 2.0]])
        >>> half_right = np.tile([0.5, 0.0], (1, 3, 1))
        >>> backward_warp(picture, half_right)
        (array([[0.5, 1.5, 0. ]]), array([[ True,  True, False]]))
    """
    source = np.asarray(image)
    motion = np.asarray(flow, dtype=np.float64)
    if source.ndim not in (2, 3) or motion.shape != (*source.shape[:2], 2):
        raise ValueError(
            f"expected an image (H, W, C) or (H, W) and a flow (H, W, 2), got {source.shape}, {motion.shape}"
        )
    kind = np.float64 if source.dtype == np.float64 else np.float32
    planes: NDArray[Any] = np.ascontiguousarray(source if source.ndim == 3 else source[..., None], dtype=kind)
    warped = np.zeros(planes.shape, dtype=kind)
    inside = np.zeros(motion.shape[:2], dtype=np.bool_)
    _warp_image(planes, np.ascontiguousarray(motion), warped, inside)
    return warped.reshape(source.shape), inside


def backward_warp_torch(image: torch.Tensor, flow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample an image at x + flow(x), as ``backward_warp`` does, differentiably and on the tensors' device.

    Args:
        image: (..., H, W, C) floating tensor: what frame b shows.
        flow: (..., H, W, 2) tensor of the same dtype, displacement (u, v) in pixels; NaN where unknown.

    Returns:
        The warped image (..., H, W, C), zero where not inside; and inside (..., H, W) bool. In float32 the samples'
        places are rounded by about 1e-7 of the picture's size.

    Raises:
        ValueError: Shapes disagree.
    """
    import torch

    if flow.shape != (*image.shape[:-1], 2) or image.ndim < 3:
        raise ValueError(
            f"expected an image (..., H, W, C) and a flow (..., H, W, 2), got {tuple(image.shape)}, {tuple(flow.shape)}"
        )
    height, width, channels = image.shape[-3:]
    rows = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
    columns = torch.arange(width, dtype=flow.dtype, device=flow.device)
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    inside_x = (x >= -BORDER_SLACK) & (x <= width - 1 + BORDER_SLACK)  # false for NaN
    inside = inside_x & (y >= -BORDER_SLACK) & (y <= height - 1 + BORDER_SLACK)
    # replaced before the sampling, not after: a NaN times a zero gradient is still NaN
    x, y = torch.where(inside, x, 0), torch.where(inside, y, 0)
    grid = torch.stack([x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1], dim=-1)
    sampled = torch.nn.functional.grid_sample(
        image.reshape(-1, height, width, channels).movedim(-1, 1),
        grid.reshape(-1, height, width, 2),
        mode="bilinear",
        padding_mode="border",  # moves what the slack let in onto the border; the rest is masked below
        align_corners=True,
    )
    warped = sampled.movedim(1, -1).reshape(image.shape)
    return torch.where(inside[..., None], warped, 0), inside


@jit()
def _warp_image(image: FloatMap, flow: NDArray[np.float64], warped: FloatMap, inside: BoolMap) -> None:
    height, width, channels = image.shape
    for row in range(height):
        for column in range(width):
            x, y = column + flow[row, column, 0], row + flow[row, column, 1]
            if not (-BORDER_SLACK <= x <= width - 1 + BORDER_SLACK and -BORDER_SLACK <= y <= height - 1 + BORDER_SLACK):
                continue
            inside[row, column] = True
            x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
            left, top = int(x), int(y)
            right, bottom = math.ceil(x), math.ceil(y)  # the same pixel where it is hit exactly
            wx, wy = x - left, y - top
            for channel in range(channels):
                upper = (1 - wx) * image[top, left, channel] + wx * image[top, right, channel]
                lower = (1 - wx) * image[bottom, left, channel] + wx * image[bottom, right, channel]
                warped[row, column, channel] = (1 - wy) * upper + wy * lower
