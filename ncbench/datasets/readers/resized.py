"""Any reader's frames at another size, as part of the recipe: shards stay pure functions of the source files.

The picture is resampled by Pillow and stored as PNG: with BOX (the mean over the pixel's footprint, the same as that of
the normals) where no side grows, else with LANCZOS; both on the encoded values, as pictures usually are. Maps follow
:mod:`ncbench.geometry.resize`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

from PIL import Image
from pydantic import Field, model_validator

from ncbench.cards import digest
from ncbench.datasets.frame import Frame, Skipped
from ncbench.datasets.readers.base import make_reader
from ncbench.datasets.recipe import Recipe
from ncbench.errors import CardError, SourceError
from ncbench.geometry.cameras import scale_intrinsics
from ncbench.geometry.resize import fit_within, resize_flow, resize_nearest, resize_normals
from ncbench.settings import Settings

READER = "ncbench.datasets.readers.resized:ResizedReader"

_Side = Annotated[int, Field(ge=1, le=1 << 14)]
_WHERE = "resized reader"
_REMEDY = "Fetch the data set again"
_RESIZABLE = frozenset({"L", "RGB", "RGBA", "I;16", "I", "F"})
# columns that mean the same at every size: ray_matrix takes coordinates that run from -1 to 1 across the picture
# (hypersim_rays), and the coefficients of a lens belong to rays with z = 1, not to pixels
_ANY_SIZE = frozenset({"ray_matrix", "distortion", "timestamp", "source_frame"})
_NOT_A_PICTURE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class ResizedSettings(Settings):
    """Settings of :class:`ResizedReader`; exactly one of ``size`` and ``max_size``.

    Attributes:
        reader: The reader that is wrapped, ``package.module:Class``.
        settings: Its settings.
        size: Height and width of every frame, whatever its proportions.
        max_size: Longest side in pixels: larger frames shrink in proportion, others stay as they are.
    """

    reader: str
    settings: dict[str, Any]
    size: tuple[_Side, _Side] | None = None
    max_size: _Side | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.size is None) == (self.max_size is None):
            raise ValueError(f"expected exactly one of size and max_size, got {self.size} and {self.max_size}")
        return self


class ResizedReader:
    """Reads through another reader and resizes every frame; a frame that keeps its size passes untouched.

    Depth, flow and occlusion are those of the source pixel at the centre of a pixel's footprint, never mixed; flow is
    scaled; normals are averaged over the surface seen there; intrinsics follow, poses stay. ``occluded`` still says
    what the next frame showed at its original size.

    Args:
        root: The raw folder of the wrapped reader.
        settings: See :class:`ResizedSettings`.

    Raises:
        CardError: A setting is wrong, or the wrapped reader has a column that cannot be resized.
        SourceError: The folder does not hold what the wrapped reader reads.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = ResizedSettings.parse(settings, _WHERE)
        self._reader = make_reader(self._settings.reader, Path(root), self._settings.settings)
        self._check_columns()

    @property
    def normal_source(self) -> str | None:
        """How the normals were made before they were resized; None where the wrapped reader does not say."""
        return getattr(self._reader, "normal_source", None)

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips of the wrapped reader."""
        return self._reader.sequences()

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame | Skipped]:
        """Yield the named frames of one clip at their new size.

        Args:
            sequence: Name of the clip.
            frames: Frame numbers, in the order wanted.

        Yields:
            Canonical frames; frames that the wrapped reader leaves out come as they are.

        Raises:
            SourceError: As the wrapped reader, or a picture does not decode or is not of its maps' size.
        """
        items: Iterable[Frame | Skipped] = self._reader.read(sequence, frames)
        for item in items:
            yield item if isinstance(item, Skipped) else resize_frame(item, self._target(item.size))

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash the source files, as the wrapped reader does; the new size is part of the recipe."""
        return self._reader.fingerprint(sequence, frames)

    def extra_features(self) -> Mapping[str, Any]:
        """Name the wrapped reader's columns."""
        return self._reader.extra_features()

    def _target(self, size: tuple[int, int]) -> tuple[int, int]:
        if self._settings.max_size is not None:
            return fit_within(size, self._settings.max_size)
        return self._settings.size or size

    def _check_columns(self) -> None:
        import pyarrow as pa

        for name, kind in self._reader.extra_features().items():
            if not (name in _ANY_SIZE or pa.types.is_string(kind) or pa.types.is_boolean(kind)):
                raise CardError(
                    f"{_WHERE}: column '{name}' of {self._settings.reader} is of type {kind}, which may hold an array "
                    "per pixel or a measure in pixels; nothing says how to resize it. Prepare at the original size."
                )


def resize_frame(frame: Frame, size: tuple[int, int]) -> Frame:
    """Bring a frame to another size.

    Args:
        frame: The frame; its extra columns must not depend on its size.
        size: New height and width.

    Returns:
        The resized frame with its picture as PNG, or the very same frame where the size does not change.

    Raises:
        SourceError: The picture does not decode or is not of its maps' size.
    """
    if frame.size == size:
        return frame
    scale_y, scale_x = size[0] / frame.size[0], size[1] / frame.size[1]
    normal, valid = resize_normals(frame.normal, frame.valid, frame.depth, size)
    return replace(
        frame,
        image=None if frame.image is None else _resize_picture(frame, frame.image, size),
        normal=normal,
        valid=valid,
        depth=None if frame.depth is None else resize_nearest(frame.depth, size),
        flow=None if frame.flow is None else resize_flow(frame.flow, size),
        occluded=None if frame.occluded is None else resize_nearest(frame.occluded, size),
        intrinsics=None if frame.intrinsics is None else scale_intrinsics(frame.intrinsics, scale_x, scale_y),
    )


def resized_recipe(recipe: Recipe, size: tuple[int, int] | None, max_size: int | None) -> Recipe:
    """Make the recipe of the same data set at another size.

    Args:
        recipe: The recipe at the original size.
        size: New height and width of every frame; or
        max_size: longest side in pixels.

    Returns:
        The recipe with :class:`ResizedReader` around its reader. Name and card text stay; the digest of the card takes
        in the resize, so that stores of different sizes are never taken for each other.

    Raises:
        CardError: Not exactly one of ``size`` and ``max_size``, or a side out of range.
    """
    resize = {"size": None if size is None else list(size), "max_size": max_size}
    settings = {"reader": recipe.reader, "settings": dict(recipe.settings), **resize}
    ResizedSettings.parse(settings, _WHERE)
    return replace(
        recipe, reader=READER, settings=settings, card_digest=digest({"card": recipe.card_digest, "resize": resize})
    )


def _resize_picture(frame: Frame, content: bytes, size: tuple[int, int]) -> bytes:
    where = f"sequence '{frame.sequence}' frame {frame.frame}"
    out = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content)) as image:
            if (image.height, image.width) != frame.size:
                problem = f"expected a picture of {frame.size} pixels like its maps, found {image.height, image.width}"
                raise SourceError.at(where, problem, _REMEDY)
            plain = image if image.mode in _RESIZABLE and not _has_key(image) else image.convert(_plain_mode(image))
            shrinks = size[0] <= image.height and size[1] <= image.width
            method = Image.Resampling.BOX if shrinks else Image.Resampling.LANCZOS
            plain.resize((size[1], size[0]), method).save(out, format="PNG")
    except _NOT_A_PICTURE as error:
        raise SourceError.at(where, f"expected a picture, but it does not decode ({error})", _REMEDY) from error
    return out.getvalue()


def _has_key(image: Image.Image) -> bool:
    """Whether one colour stands for transparent; a mean of colours would hit or miss it by chance."""
    return "transparency" in image.info


def _plain_mode(image: Image.Image) -> str:
    return "RGBA" if image.has_transparency_data else "RGB"
