"""Normal maps as stored: PNG (8 or 16 bits), NPY, NPZ and EXR, neither rotated nor normalised."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.formats.arrays import read_array, read_png
from ncbench.datasets.formats.exr import names_of_layer, read_exr
from ncbench.errors import SourceError
from ncbench.jit import jit
from ncbench.settings import Settings

_NORMAL_CHANNELS = (("R", "G", "B"), ("X", "Y", "Z"))
_LENGTH_SLACK = 0.05
_SAMPLE = 1 << 13  # pixels


class InvalidRule(Settings):
    """What marks a pixel of a normal map as holding no normal.

    Attributes:
        colours: Pixel values of a PNG that mean "none", at the file's own bit depth. None stands for black and middle
            grey: (0, 0, 0) and (128, 128, 128), or (32768, 32768, 32768) at 16 bits.
        min_norm: A decoded vector shorter than this holds no normal; nor does one that is not finite.
    """

    colours: tuple[tuple[int, int, int], ...] | None = None
    min_norm: float = Field(default=0.5, ge=0.0)


def read_normal_file(
    path: Path, *, key: str | None = None, invalid: InvalidRule | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read a normal map as stored.

    A PNG holds ``n = pixel / max * 2 - 1`` in its red, green and blue (x, y, z); where it has an alpha channel, alpha 0
    means invalid. Arrays and EXR hold n itself, as (H, W, 3), (3, H, W), or channels R, G, B or X, Y, Z.

    Args:
        path: ``.png``, ``.npy``, ``.npz`` or ``.exr``.
        key: Array of an NPZ, or part or layer of an EXR; None takes the only one.
        invalid: What marks a pixel without a normal.

    Returns:
        (H, W, 3) float32, neither rotated nor normalised, 0 where invalid; (H, W) bool, True where there is a normal.

    Raises:
        SourceError: Unreadable, truncated, corrupt, or not a normal map; unknown suffix.
    """
    rule = invalid or InvalidRule()
    suffix = path.suffix.lower()
    if suffix == ".png":
        normal, valid = _decode_normals(read_png(path), rule, path)
    elif suffix in {".npy", ".npz"}:
        normal = _channels_last(read_array(path, key), path)
        valid = np.ones(normal.shape[:2], dtype=np.bool_)
    elif suffix == ".exr":
        channels = read_exr(path, lambda names: _normal_channels(names, key))
        normal = np.stack(list(channels.values()), axis=-1)
        valid = np.ones(normal.shape[:2], dtype=np.bool_)
    else:
        raise SourceError.at(path, "expected a normal map as .png, .npy, .npz or .exr", "Convert it to one of these")
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and inf are what is being looked for
        length = np.sqrt(np.einsum("...i,...i", normal, normal, dtype=np.float64))
    valid &= np.isfinite(length) & (length >= rule.min_norm) & (length > 0)
    normal[~valid] = 0.0
    return normal, valid


def unit_normals(normal: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scale vectors to unit length and change nothing else.

    Args:
        normal: (H, W, 3), finite and not zero where ``valid``.
        valid: (H, W) bool.

    Returns:
        (H, W, 3) float32 of unit length where valid, zero elsewhere.
    """
    unit = np.zeros(normal.shape, dtype=np.float32)
    _scale_vectors(normal, valid, unit)
    return unit


@jit()
def _scale_vectors(vectors: NDArray[Any], valid: NDArray[np.bool_], unit: NDArray[np.float32]) -> None:
    """One pass in float64: numpy needs six, and they were half of the time of readers that only decode."""
    for row in range(valid.shape[0]):
        for column in range(valid.shape[1]):
            if valid[row, column]:
                x = np.float64(vectors[row, column, 0])
                y = np.float64(vectors[row, column, 1])
                z = np.float64(vectors[row, column, 2])
                length = np.sqrt(x * x + y * y + z * z)
                if length > 0:
                    unit[row, column, 0] = x / length
                    unit[row, column, 1] = y / length
                    unit[row, column, 2] = z / length


def check_lengths(normal: NDArray[Any], valid: NDArray[np.bool_], path: Path) -> None:
    """Refuse true normals that are none: an 8-bit map is off by under 0.01, a resized one by more at edges alone.

    Args:
        normal: (H, W, 3) as stored.
        valid: (H, W) bool.
        path: Where they come from.

    Raises:
        SourceError: Lengths are off by more than 0.05 in the median.
    """
    # a wrong encoding shows everywhere: an even sample tells as much as all pixels
    step = max(1, math.isqrt(valid.size // _SAMPLE))
    sample = normal[::step, ::step][valid[::step, ::step]].astype(np.float64)
    if not len(sample):
        return
    off = float(np.median(np.abs(np.linalg.norm(sample, axis=-1) - 1)))
    if off > _LENGTH_SLACK:
        problem = f"expected unit normals, found lengths that are off 1 by {off:.3g} (median)"
        raise SourceError.at(path, problem, "Check how the file encodes its normals")


def _decode_normals(
    pixels: NDArray[Any], rule: InvalidRule, path: Path
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    if pixels.ndim != 3:
        problem = f"expected red, green and blue, found a grey picture of shape {pixels.shape}"
        raise SourceError.at(path, problem, "Check that this is a normal map")
    highest = int(np.iinfo(pixels.dtype).max)
    middle = (highest + 1) // 2
    colours = rule.colours if rule.colours is not None else ((0, 0, 0), (middle, middle, middle))
    rgb = pixels[:, :, :3]
    valid = np.ones(rgb.shape[:2], dtype=np.bool_) if pixels.shape[2] == 3 else pixels[:, :, 3] > 0
    for red, green, blue in colours:  # plane by plane: eight times faster than any(axis=2)
        valid &= (rgb[:, :, 0] != red) | (rgb[:, :, 1] != green) | (rgb[:, :, 2] != blue)
    table = (np.arange(highest + 1, dtype=np.float64) / highest * 2 - 1).astype(np.float32)
    return table[rgb], valid


def _channels_last(values: NDArray[Any], path: Path) -> NDArray[np.float32]:
    squeezed = values[0] if values.ndim == 4 and values.shape[0] == 1 else values
    if squeezed.ndim == 3 and squeezed.size and squeezed.dtype.kind == "f":
        if squeezed.shape[2] == 3:
            return squeezed.astype(np.float32)
        if squeezed.shape[0] == 3:
            return squeezed.transpose(1, 2, 0).astype(np.float32, order="C")
    problem = f"expected floating-point normals (H, W, 3) or (3, H, W), found {squeezed.dtype} {values.shape}"
    raise SourceError.at(path, problem, "Store vectors with components in [-1, 1]")


def _normal_channels(names: Iterable[str], key: str | None) -> list[str]:
    """Find the one set of R, G, B or X, Y, Z channels, in a part, layer, or both (``part/layer.R``)."""
    by_prefix: dict[str, dict[str, str]] = {}
    for name in names:
        last = max(name.rfind("/"), name.rfind(".")) + 1
        by_prefix.setdefault(name[:last], {})[name[last:].upper()] = name
    found = [
        (prefix, [members[letter] for letter in triple])
        for prefix, members in sorted(by_prefix.items())
        for triple in _NORMAL_CHANNELS
        if all(letter in members for letter in triple)
    ]
    if key is not None:
        found = [(prefix, triple) for prefix, triple in found if key in names_of_layer(prefix)]
    if len(found) != 1:
        where = "" if key is None else f" in a part or layer named '{key}'"
        raise LookupError(f"expected one set of channels R, G, B or X, Y, Z{where}, found {len(found)}")
    return found[0][1]
