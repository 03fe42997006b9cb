"""Normal maps as stored: PNG (8 or 16 bits), NPY, NPZ and EXR, neither rotated nor normalised."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.formats.arrays import read_array
from ncbench.datasets.formats.exr import names_of_layer, read_exr
from ncbench.datasets.formats.png import read_png
from ncbench.datasets.frame import BoolMap, FloatMap
from ncbench.errors import SourceError
from ncbench.geometry.axes import axes_matrix
from ncbench.geometry.encoding import ColourMap
from ncbench.jit import jit
from ncbench.settings import Settings

_NORMAL_CHANNELS = (("R", "G", "B"), ("X", "Y", "Z"))
_LENGTH_SLACK = 0.05
_SAMPLE = 1 << 13  # pixels
_BLOCK = 1024  # pixels whose vectors stay in the nearest cache


class InvalidRule(Settings):
    """What marks a pixel of a normal map as holding no normal.

    Attributes:
        colours: Pixel values of a PNG that mean "none", at the file's own bit depth. None stands for black and middle
            grey: (0, 0, 0) and (128, 128, 128), or (32768, 32768, 32768) at 16 bits.
        min_norm: A decoded vector shorter than this holds no normal; nor does one that is not finite.
    """

    colours: tuple[tuple[int, int, int], ...] | None = None
    min_norm: float = Field(default=0.5, ge=0.0)


@dataclass(frozen=True, slots=True)
class StoredNormals:
    """A normal map as its file holds it; nothing was looked at yet but the file's own marks.

    Attributes:
        path: Where it comes from.
        vectors: (H, W, 3) float32, of any length, NaN and infinity included; or, with ``marks``, uint8 or uint16
            colours c that mean 2 c / max - 1.
        unmarked: (H, W) bool, False where a mask or alpha says that there is no normal.
        min_norm: A shorter vector is no normal.
        marks: (K, 3) colours of the same type that mean "none"; None where ``vectors`` are vectors.
    """

    path: Path
    vectors: NDArray[Any]
    unmarked: BoolMap
    min_norm: float
    marks: NDArray[Any] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.unmarked.shape
        return height, width

    def as_stored(self) -> tuple[FloatMap, BoolMap]:
        """Tell which pixels hold a normal.

        Returns:
            (H, W, 3) float32, neither rotated nor normalised, 0 where invalid; (H, W) bool, True where there is a
            normal.
        """
        return self._taken(self.unmarked, np.ones(3), unit=False)

    def unit(
        self, axes: str, signs: tuple[int, int, int] = (1, 1, 1), keep: BoolMap | None = None
    ) -> tuple[FloatMap, BoolMap]:
        """Bring the normals to unit length and OpenCV axes, and change nothing else about them.

        Args:
            axes: Their axes, one of ``ncbench.geometry.axes.AXES``.
            signs: What to multiply the stored (x, y, z) with before.
            keep: (H, W) bool, False where there is to be no normal; None keeps all.

        Returns:
            (H, W, 3) float32 of unit length, 0 where invalid; (H, W) bool.

        Raises:
            CardError: The axes are unknown.
        """
        factors = np.diag(axes_matrix(axes, "opencv")) * np.array(signs, dtype=np.float64)
        allowed = self.unmarked if keep is None else self.unmarked & keep
        return self._taken(allowed, factors, unit=True)

    def colours(self, axes: str) -> ColourMap | None:
        """Give the pixels as they are, with what they mean; None where the file holds vectors.

        Args:
            axes: As for ``unit``.

        Raises:
            CardError: The axes are unknown.
        """
        if self.marks is None:
            return None
        x, y, z = np.diag(axes_matrix(axes, "opencv")).tolist()
        return ColourMap(self.vectors, self.unmarked, self.marks, self.min_norm, (x, y, z))

    def check_lengths(self) -> None:
        """Refuse true normals that are none: an 8-bit map is off by under 0.01, a resized one by more at edges alone.

        Raises:
            SourceError: Lengths are off 1 by more than 0.05 in the median.
        """
        # a wrong encoding shows everywhere: an even sample tells as much as all pixels
        step = max(1, math.isqrt(self.unmarked.size // _SAMPLE))
        thinned = replace(self, vectors=self.vectors[::step, ::step], unmarked=self.unmarked[::step, ::step])
        sample, valid = thinned.as_stored()
        if not valid.any():
            return
        length = np.sqrt(np.einsum("...i,...i", sample, sample, dtype=np.float64))
        off = float(np.median(np.abs(length[valid] - 1)))
        if off > _LENGTH_SLACK:
            problem = f"expected unit normals, found lengths that are off 1 by {off:.3g} (median)"
            raise SourceError.at(self.path, problem, "Check how the file encodes its normals")

    def _taken(self, allowed: BoolMap, factors: NDArray[np.float64], *, unit: bool) -> tuple[FloatMap, BoolMap]:
        if self.marks is None:
            return _take_vectors(self.vectors, allowed, self.min_norm, factors, unit=unit)
        taken, valid = np.empty(self.vectors.shape, dtype=np.float32), np.empty(allowed.shape, dtype=np.bool_)
        colours, kept = (np.ascontiguousarray(part).reshape(-1) for part in (self.vectors, allowed))
        scale = 2 / np.iinfo(colours.dtype).max
        places = taken.reshape(-1), valid.reshape(-1)
        _take_colours(colours, scale, self.marks, kept, self.min_norm, factors, unit, *places)
        return taken, valid


def open_normals(path: Path, *, key: str | None = None, invalid: InvalidRule | None = None) -> StoredNormals:
    """Read a normal map.

    A PNG holds ``n = pixel / max * 2 - 1`` in its red, green and blue (x, y, z); where it has an alpha channel, alpha 0
    means invalid. Arrays and EXR hold n itself, as (H, W, 3), (3, H, W), or channels R, G, B or X, Y, Z.

    Args:
        path: ``.png``, ``.npy``, ``.npz`` or ``.exr``.
        key: Array of an NPZ, or part or layer of an EXR; None takes the only one.
        invalid: What marks a pixel without a normal.

    Returns:
        The map.

    Raises:
        SourceError: Unreadable, truncated, corrupt, or not a normal map; unknown suffix.
    """
    rule = invalid or InvalidRule()
    suffix = path.suffix.lower()
    if suffix == ".png":
        return _colours(read_png(path), rule, path)
    if suffix in {".npy", ".npz"}:
        vectors = _channels_last(read_array(path, key), path)
    elif suffix == ".exr":
        channels = read_exr(path, lambda names: _normal_channels(names, key))
        vectors = np.stack(list(channels.values()), axis=-1)
    else:
        raise SourceError.at(path, "expected a normal map as .png, .npy, .npz or .exr", "Convert it to one of these")
    return StoredNormals(path, vectors, np.ones(vectors.shape[:2], dtype=np.bool_), rule.min_norm)


def read_normal_file(
    path: Path, *, key: str | None = None, invalid: InvalidRule | None = None
) -> tuple[FloatMap, BoolMap]:
    """Read a normal map and tell where it holds normals: ``open_normals(...).as_stored()``."""
    return open_normals(path, key=key, invalid=invalid).as_stored()


def unit_normals(normal: NDArray[Any], valid: BoolMap) -> FloatMap:
    """Scale vectors to unit length and change nothing else.

    Args:
        normal: (H, W, 3), finite and not zero where ``valid``.
        valid: (H, W) bool.

    Returns:
        (H, W, 3) float32 of unit length where valid, zero elsewhere.
    """
    return _take_vectors(normal, valid, 0.0, np.ones(3), unit=True)[0]


def _take_vectors(
    vectors: NDArray[Any], allowed: BoolMap, min_norm: float, factors: NDArray[np.float64], *, unit: bool
) -> tuple[FloatMap, BoolMap]:
    """Normals where allowed, finite and long enough, times ``factors``; zero elsewhere."""
    floats = vectors if vectors.dtype == np.float64 else vectors.astype(np.float32, copy=False)
    taken, valid = np.empty(vectors.shape, dtype=np.float32), np.empty(allowed.shape, dtype=np.bool_)
    flat = np.ascontiguousarray(floats).reshape(-1)
    marks = np.ascontiguousarray(allowed).reshape(-1)
    _take(flat, marks, min_norm, factors, unit, taken.reshape(-1), valid.reshape(-1))
    return taken, valid


@jit()
def _take(
    vectors: NDArray[Any],
    allowed: BoolMap,
    min_norm: float,
    factors: NDArray[np.float64],
    unit: bool,
    taken: FloatMap,
    valid: BoolMap,
) -> None:
    """Do in one pass what numpy needs ten for; on flat arrays, since a constant stride of 3 is what vectorizes."""
    by_x, by_y, by_z = factors[0], factors[1], factors[2]
    zero, one = np.float64(0), np.float64(1)
    for i in range(len(valid)):
        x, y, z = np.float64(vectors[3 * i]), np.float64(vectors[3 * i + 1]), np.float64(vectors[3 * i + 2])
        length = np.sqrt(x * x + y * y + z * z)
        usable = allowed[i] & (length >= min_norm) & (length > zero) & (length < np.inf)  # false for NaN
        divisor = length if unit else one
        taken[3 * i] = by_x * x / divisor if usable else zero
        taken[3 * i + 1] = by_y * y / divisor if usable else zero
        taken[3 * i + 2] = by_z * z / divisor if usable else zero
        valid[i] = usable


def _colours(pixels: NDArray[Any], rule: InvalidRule, path: Path) -> StoredNormals:
    """Tell what the pixels of a PNG mean."""
    if pixels.ndim != 3:
        problem = f"expected red, green and blue, found a grey picture of shape {pixels.shape}"
        raise SourceError.at(path, problem, "Check that this is a normal map")
    highest = int(np.iinfo(pixels.dtype).max)
    middle = (highest + 1) // 2
    colours = rule.colours if rule.colours is not None else ((0, 0, 0), (middle, middle, middle))
    possible = [colour for colour in colours if max(colour) <= highest]  # a rule may name those of both bit depths
    marks = np.array(possible, dtype=pixels.dtype).reshape(-1, 3)
    unmarked = np.ones(pixels.shape[:2], dtype=np.bool_) if pixels.shape[2] == 3 else pixels[:, :, 3] > 0
    return StoredNormals(path, pixels[:, :, :3], unmarked, rule.min_norm, marks)


@jit()
def _take_colours(
    colours: NDArray[Any],
    scale: float,
    marks: NDArray[Any],
    allowed: BoolMap,
    min_norm: float,
    factors: NDArray[np.float64],
    unit: bool,
    taken: FloatMap,
    valid: BoolMap,
) -> None:
    """Do what ``_take`` does with the vectors that colours mean, block by block, so that they never reach memory.

    ``scale`` is two over the largest colour; ``marks`` (K, 3), of the colours' type, mean "none".
    """
    vectors, unmarked = np.empty(3 * _BLOCK, np.float32), np.empty(_BLOCK, np.bool_)
    for start in range(0, len(valid), _BLOCK):
        stop = min(start + _BLOCK, len(valid))
        count, block = stop - start, colours[3 * start : 3 * stop]
        for i in range(3 * count):
            # rounds to the same float32 as c / max * 2 - 1 for every colour of 8 and of 16 bits, without a division
            vectors[i] = np.float64(np.int32(block[i])) * scale - 1
        unmarked[:count] = allowed[start:stop]
        for k in range(len(marks)):
            red, green, blue = marks[k, 0], marks[k, 1], marks[k, 2]
            for i in range(count):
                unmarked[i] &= (block[3 * i] != red) | (block[3 * i + 1] != green) | (block[3 * i + 2] != blue)
        _take(
            vectors[: 3 * count],
            unmarked[:count],
            min_norm,
            factors,
            unit,
            taken[3 * start : 3 * stop],
            valid[start:stop],
        )


def _channels_last(values: NDArray[Any], path: Path) -> NDArray[np.float32]:
    squeezed = values[0] if values.ndim == 4 and values.shape[0] == 1 else values
    if squeezed.ndim == 3 and squeezed.size and squeezed.dtype.kind == "f":
        if squeezed.shape[2] == 3:
            return squeezed.astype(np.float32, order="C", copy=False)
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
