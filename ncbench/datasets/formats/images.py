"""Pictures, masks and depth maps, whatever file they come in: the suffix decides the decoder."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ncbench.datasets.formats.arrays import DAMAGED, read_array, read_bytes
from ncbench.datasets.formats.exr import names_of_layer, read_exr
from ncbench.datasets.formats.png import decode_png, read_png
from ncbench.datasets.formats.sintel import read_dpt
from ncbench.errors import SourceError

# what Pillow's decoders raise for damaged input
_NOT_A_PICTURE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
_ORIENTATION = 0x0112  # the EXIF tag


def read_image_bytes(path: Path) -> bytes:
    """Read a picture's original bytes, after checking that they decode fully.

    Args:
        path: PNG, JPEG, or another format that Pillow decodes.

    Returns:
        The file's bytes, unchanged.

    Raises:
        SourceError: Unreadable, not a picture, truncated or corrupt.
    """
    content = read_bytes(path, "a picture")
    if path.suffix.lower() == ".png":
        decode_png(content, path)
        return content
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format == "PNG":
                decode_png(content, path)
            image.load()
            turned = image.getexif().get(_ORIENTATION, 1)
    except _NOT_A_PICTURE as error:
        raise SourceError.at(path, f"expected a picture, but it does not decode ({error})", DAMAGED) from error
    if turned != 1:
        problem = f"its EXIF data ask to turn it (orientation {turned}), which readers of a store would do or not do"
        raise SourceError.at(path, problem, "Turn the pixels themselves, for example with jpegtran")
    return content


def image_size(content: bytes) -> tuple[int, int]:
    """Tell a picture's size from its header.

    Args:
        content: The encoded picture, or at least its beginning.

    Returns:
        Height and width in pixels.

    Raises:
        SourceError: Not a picture.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.height, image.width
    except _NOT_A_PICTURE as error:
        raise SourceError(
            f"expected an encoded picture, but its header does not decode ({error}). {DAMAGED}"
        ) from error


def image_file_size(path: Path) -> tuple[int, int]:
    """Tell the size of a picture from its header alone; the pixels are neither read nor checked.

    Args:
        path: The picture.

    Returns:
        Height and width in pixels.

    Raises:
        SourceError: Unreadable or not a picture.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except _NOT_A_PICTURE as error:
        raise SourceError.at(path, f"expected a picture, but it cannot be opened ({error})", DAMAGED) from error


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask stored as a PNG.

    Args:
        path: A PNG picture, grey or colour.

    Returns:
        (H, W) bool, True where any colour channel is not zero.

    Raises:
        SourceError: Unreadable, truncated or corrupt.
    """
    pixels = read_png(path)
    mask: NDArray[np.bool_] = pixels != 0 if pixels.ndim == 2 else (pixels[:, :, :3] != 0).any(axis=2)
    return mask


def read_depth_file(path: Path, *, scale: float = 1.0, key: str | None = None) -> NDArray[np.float32]:
    """Read a depth map.

    Args:
        path: ``.png`` (16-bit grey), ``.npy``, ``.npz``, ``.exr`` or ``.dpt``; arrays are (H, W), (H, W, 1) or
            (1, H, W).
        scale: Metres per stored unit (1/5000 for TUM, 1/1000 for millimetres).
        key: Array of an NPZ, or part or channel of an EXR; None takes the only one.

    Returns:
        (H, W) float32 in metres, 0 where unknown (stored as zero, negative, NaN or infinite).

    Raises:
        SourceError: Unreadable, truncated, corrupt, or not a depth map; unknown suffix.
    """
    suffix = path.suffix.lower()
    stored: NDArray[Any]
    if suffix == ".png":
        stored = read_png(path)
        if stored.dtype != np.uint16:
            problem = f"expected 16 bits per pixel, found dtype {stored.dtype}"
            raise SourceError.at(path, problem, "An 8-bit depth picture is for looking at: find the original")
    elif suffix in {".npy", ".npz"}:
        stored = read_array(path, key)
    elif suffix == ".exr":
        stored = next(iter(read_exr(path, lambda names: _depth_channel(names, key)).values()))
    elif suffix == ".dpt":
        stored = read_dpt(path)
    else:
        raise SourceError.at(
            path, "expected a depth map as .png, .npy, .npz, .exr or .dpt", "Convert it to one of these"
        )
    if stored.ndim == 3 and 1 in (stored.shape[0], stored.shape[2]):
        stored = stored[0] if stored.shape[0] == 1 else stored[:, :, 0]
    if stored.ndim != 2 or stored.size == 0:
        raise SourceError.at(
            path, f"expected one depth per pixel, (H, W), found shape {stored.shape}", "Check the file"
        )
    metres = _metres(stored, scale)
    with np.errstate(invalid="ignore"):
        metres[~((metres > 0) & (metres < np.inf))] = 0  # NaN fails both
    return metres


def _metres(stored: NDArray[Any], scale: float) -> NDArray[np.float32]:
    """Depth times its unit, the product in float64; always an array of its own."""
    if stored.dtype == np.uint16:
        looked_up: NDArray[np.float32] = _metres_of_code(scale)[stored]
        return looked_up
    with np.errstate(invalid="ignore", over="ignore"):
        # most depth comes in metres already
        return stored.astype(np.float32) if scale == 1 else (stored.astype(np.float64) * scale).astype(np.float32)


@lru_cache(maxsize=1)
def _metres_of_code(scale: float) -> NDArray[np.float32]:
    """What each 16-bit value means: looking values up takes a third of the time of converting a picture of them."""
    return (np.arange(1 << 16) * scale).astype(np.float32)


def _depth_channel(names: Mapping[str, Any], key: str | None) -> list[str]:
    found = list(names) if key is None else [name for name in names if key in names_of_layer(name)]
    if key is None and len(found) > 1:
        found = [name for name in names if name.rpartition("/")[2] == "Z"]
    if len(found) != 1:
        where = "" if key is None else f" named '{key}'"
        raise LookupError(f"expected one depth channel{where}, found {len(found)}")
    return found
