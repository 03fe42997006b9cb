"""Pictures of normals and errors, as a person wants to see them."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ncbench.geometry.axes import convert_axes

ERROR_LIMIT = 60.0
INVALID = 200

Rgb = NDArray[np.uint8]


def normals_to_rgb(normals: NDArray[np.float32]) -> Rgb:
    """Colour normals as papers do: right is red, up is green, towards the camera is blue.

    Args:
        normals: (H, W, 3) canonical unit normals; zero where invalid.

    Returns:
        (H, W, 3) uint8; light grey where invalid.
    """
    display = convert_axes(normals, "opencv", "opengl")
    colours = np.rint(np.clip(display * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8)
    return np.where(np.any(normals != 0, axis=-1, keepdims=True), colours, np.uint8(INVALID))


def errors_to_rgb(errors: NDArray[np.float64]) -> Rgb:
    """Colour angular errors from 0 (dark) to 60 degrees and more (bright).

    Args:
        errors: (H, W) degrees; NaN where there is nothing to score.

    Returns:
        (H, W, 3) uint8; light grey where there is nothing to score.
    """
    scaled = np.clip(np.nan_to_num(errors, nan=0.0) / ERROR_LIMIT, 0, 1)
    bgr = cv2.applyColorMap(np.rint(scaled * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.where(np.isnan(errors)[..., None], np.uint8(INVALID), bgr[..., ::-1].astype(np.uint8))


def fit_width(picture: Rgb, width: int) -> Rgb:
    """Shrink a picture to at most ``width`` pixels across, keeping its proportions."""
    if picture.shape[1] <= width:
        return picture
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))


def png_bytes(picture: Rgb) -> bytes:
    """Encode as PNG; equal pictures give equal bytes."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(stream, format="PNG", optimize=False, compress_level=6)
    return stream.getvalue()
