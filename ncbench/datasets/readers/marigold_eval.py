"""Marigold's evaluation archive for normals (Ke et al., ``evaluation_dataset.zip``): pictures beside float arrays.

``<folder>/.../<name>_img.png`` and ``<name>_normal.npy``, (H, W, 3) float in right-up-back axes; DIODE's pictures lack
the ``_img``. A pixel is valid where the norm is above 0. Marigold keeps lists of (picture, normals) pairs in its
repository under ``data_split``; given such a list, exactly its pairs are read, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field

from ncbench.datasets.formats.arrays import read_bytes
from ncbench.datasets.formats.images import image_size, read_image_bytes
from ncbench.datasets.formats.normal_maps import InvalidRule, open_normals
from ncbench.datasets.frame import Frame
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.layout import require_folder, require_known, require_shape
from ncbench.datasets.readers.nyuv2_axes import check_facing
from ncbench.errors import CardError, SourceError
from ncbench.names import AxesName
from ncbench.settings import Settings

_REMEDY = "Unpack Marigold's evaluation_dataset.zip and name its folder"
_ANY_LENGTH = InvalidRule(min_norm=0.0)
_ENDING = "_normal.npy"


class MarigoldEvalSettings(Settings):
    """Settings of :class:`MarigoldEvalReader`.

    Attributes:
        folder: The set's folder below the root: ``nyuv2/test``, ``scannet``, ``ibims/ibims``, ``diode/val``,
            ``oasis/val``.
        pairs: List file below the root, a line a picture: path of the picture, white space, path of its normals, both
            relative to ``folder``. None reads all arrays that lie there.
        count: How many pictures there must be, so that half an archive is noticed; None does not check.
        axes: Axes of the stored normals.
    """

    folder: str = Field(min_length=1)
    pairs: str | None = None
    count: int | None = Field(default=None, ge=1)
    axes: AxesName


class MarigoldEvalReader:
    """Reads one set of the archive. A sequence is one picture, named by its path with ``-`` for ``/``; frame 0.

    Args:
        root: The unpacked archive.
        settings: See :class:`MarigoldEvalSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A folder or file is missing, or there are more or fewer pictures than ``count``.
    """

    normal_source: Literal["file"] = "file"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = MarigoldEvalSettings.parse(settings, "Marigold evaluation reader")
        self._root = Path(root)
        inside = _inside(self._settings.folder, "folder")
        self._folder = require_folder(self._root / inside, "pictures and arrays", _REMEDY)
        self._pairs = self._find() if self._settings.pairs is None else self._listed(self._settings.pairs)
        if self._settings.count not in (None, len(self._pairs)):
            problem = f"expected {self._settings.count} pictures, found {len(self._pairs)}"
            raise SourceError.at(self._folder, problem, _REMEDY)
        for pair in self._pairs.values():
            for path in pair:
                if not path.is_file():
                    raise SourceError.at(path, "expected a file, found none, although its partner is named", _REMEDY)

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the pictures: name -> (0,)."""
        return dict.fromkeys(self._pairs, (0,))

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield one picture.

        Args:
            sequence: Its name.
            frames: (0,).

        Yields:
            The canonical frame: picture and normals alone.

        Raises:
            SourceError: A file is damaged, of another size than its picture, or most of its normals point away.
        """
        require_known(self._root, self.sequences(), sequence, frames)
        picture, path = self._pairs[sequence]
        for number in frames:
            image = read_image_bytes(picture)
            stored = open_normals(path, invalid=_ANY_LENGTH)
            require_shape(path, stored.shape, image_size(image), "its picture")
            normal, valid = stored.unit(self._settings.axes)
            check_facing(normal, valid, None, path, self._settings.axes)
            yield Frame(sequence=sequence, frame=number, image=image, normal=normal, valid=valid)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames."""
        require_known(self._root, self.sequences(), sequence, frames)
        return hash_files(self._root, self._pairs[sequence])

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _find(self) -> dict[str, tuple[Path, Path]]:
        pairs = {}
        for path in sorted(self._folder.rglob(f"*{_ENDING}")):
            stem = path.name.removesuffix(_ENDING)
            marked = path.with_name(f"{stem}_img.png")
            picture = marked if marked.is_file() else path.with_name(f"{stem}.png")
            pairs[self._name(path.with_name(stem).relative_to(self._folder))] = picture, path
        if not pairs:
            raise SourceError.at(self._folder, f"expected arrays called <name>{_ENDING}, found none", _REMEDY)
        return pairs

    def _listed(self, name: str) -> dict[str, tuple[Path, Path]]:
        source = self._root / _inside(name, "pairs")
        pairs: dict[str, tuple[Path, Path]] = {}
        text = read_bytes(source, "a list of pictures and normals").decode("utf-8", errors="replace")
        for line in text.splitlines():
            words = line.split()
            if len(words) != 2 or any(".." in PurePosixPath(word).parts or word.startswith("/") for word in words):
                problem = f"expected two paths inside {self._settings.folder} a line, found {line[:80]!r}"
                raise SourceError.at(source, problem, "Correct the list")
            sequence = self._name(Path(words[1].removesuffix(_ENDING)))
            if sequence in pairs:
                raise SourceError.at(source, f"names '{words[1]}' twice", "Correct the list")
            pairs[sequence] = self._folder / words[0], self._folder / words[1]
        if not pairs:
            raise SourceError.at(source, "expected a line a picture, found none", "Correct the list")
        return pairs

    def _name(self, relative: Path) -> str:
        return "-".join(relative.parts)


def _inside(text: str, key: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise CardError(f"Marigold evaluation reader: key '{key}': expected a path inside the archive, found '{text}'")
    return text
