"""OpenEXR files through the official library (OpenCV's wheels no longer read them, other readers answer in 8 bits)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.arrays import DAMAGED, MAX_PIXELS
from ncbench.errors import SourceError


def read_exr(path: Path, choose: Callable[[Mapping[str, Any]], list[str]]) -> dict[str, NDArray[np.float32]]:
    """Read channels of an OpenEXR file, placed in its display window.

    Args:
        path: The file; single part or multi-part, half, float or integer channels.
        choose: Given all channels (key: ``part/channel`` where the part has a name, else ``channel``), returns the keys
            of those wanted; raises ``LookupError`` with a message where the wanted ones are not there.

    Returns:
        The chosen channels by their keys, each (H, W) float32, NaN where the display window reaches past the data
        window.

    Raises:
        SourceError: Unreadable, truncated, absurd sizes, or ``choose`` found nothing.
    """
    import OpenEXR

    if not path.is_file():
        raise SourceError.at(path, "expected an OpenEXR file, found none", DAMAGED)
    try:
        header = OpenEXR.File(str(path), separate_channels=True, header_only=True)
        _check_exr_windows(path, header)
        whole = OpenEXR.File(str(path), separate_channels=True)
    except (RuntimeError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise SourceError.at(path, f"expected an OpenEXR file, but it does not open ({error})", DAMAGED) from error
    # damaged pixel data are reported by the library as a printed warning and a file with fewer parts
    if len(whole.parts) != len(header.parts) or not whole.parts:
        problem = f"expected {len(header.parts)} OpenEXR part(s), could decode {len(whole.parts)}: truncated or corrupt"
        raise SourceError.at(path, problem, DAMAGED)
    channels = {
        _exr_key(part, name): (part, channel) for part in whole.parts for name, channel in part.channels.items()
    }
    try:
        keys = choose(channels)
    except LookupError as error:
        problem = f"{error.args[0]}; its channels are {sorted(channels)}"
        raise SourceError.at(path, problem, "Name the part or channel with a key") from error
    return {key: _in_display_window(path, key, *channels[key]) for key in keys}


def _exr_key(part: Any, channel: str) -> str:  # noqa: ANN401 - OpenEXR ships no types
    name = part.name()
    return f"{name}/{channel}" if name else channel


def _window(header: Mapping[str, Any], name: str) -> tuple[int, int, int, int]:
    """Left, top, width, height of a window of an EXR header."""
    (left, top), (right, bottom) = (corner.tolist() for corner in header[name])
    return left, top, right - left + 1, bottom - top + 1


def _check_exr_windows(path: Path, header: Any) -> None:  # noqa: ANN401 - OpenEXR ships no types
    for part in header.parts:
        for name in ("dataWindow", "displayWindow"):
            _, _, width, height = _window(part.header, name)
            if width < 1 or height < 1 or width * height > MAX_PIXELS:
                problem = f"expected a {name} of 1 to {MAX_PIXELS} pixels, found {width} x {height}"
                raise SourceError.at(path, problem, DAMAGED)


def _in_display_window(path: Path, key: str, part: Any, channel: Any) -> NDArray[np.float32]:  # noqa: ANN401 - OpenEXR ships no types
    left, top, width, height = _window(part.header, "dataWindow")
    display_left, display_top, display_width, display_height = _window(part.header, "displayWindow")
    pixels = np.asarray(channel.pixels)
    if pixels.shape != (height, width):
        problem = f"expected channel '{key}' with one value per pixel, {(height, width)}, found {pixels.shape}"
        raise SourceError.at(path, problem, DAMAGED)
    values = pixels.astype(np.float32)
    x, y = left - display_left, top - display_top
    if (x, y, width, height) == (0, 0, display_width, display_height):
        return values
    placed = np.full((display_height, display_width), np.nan, dtype=np.float32)
    x0, x1 = max(x, 0), min(x + width, display_width)
    y0, y1 = max(y, 0), min(y + height, display_height)
    if x0 < x1 and y0 < y1:
        placed[y0:y1, x0:x1] = values[y0 - y : y1 - y, x0 - x : x1 - x]
    return placed


def names_of_layer(name: str) -> set[str]:
    """Every way a user may call a channel or layer: whole, its part alone, or without its part."""
    whole = name.rstrip("/.")
    part, _, rest = whole.rpartition("/")
    return {whole, part, rest} - {""}
