"""DAVIS: video frames without any geometry, for temporal measures that need none and for looking at.

Pont-Tuset et al., The 2017 DAVIS challenge on video object segmentation, arXiv:1704.00675.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ncbench.datasets.formats.arrays import read_bytes
from ncbench.datasets.formats.images import image_file_size, image_size, read_image_bytes
from ncbench.datasets.frame import Frame
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.layout import listing, numbered_files, require_folder, require_known, require_shape
from ncbench.errors import SourceError
from ncbench.settings import Settings, suggest

_REMEDY = "Unpack DAVIS-2017-trainval-480p.zip and name the folder that holds JPEGImages"
_PICTURE = re.compile(r"(\d{5})\.jpg")


class DavisSettings(Settings):
    """Settings of :class:`DavisReader`.

    Attributes:
        resolution: ``480p`` or ``Full-Resolution``.
        split: A list in ``ImageSets/<year>``; None takes every folder of pictures.
        year: ``2017`` or ``2016``.
        sequences: Sequences to read, in this order; None takes all of the split.
    """

    resolution: Literal["480p", "Full-Resolution"] = "480p"
    split: Literal["train", "val", "test-dev", "test-challenge"] | None = None
    year: Literal["2016", "2017", "2019"] = "2017"
    sequences: tuple[str, ...] | None = Field(default=None, min_length=1)


class DavisReader:
    """Reads ``JPEGImages/<resolution>/<sequence>/NNNNN.jpg``; frames hold a picture and nothing else.

    Args:
        root: Folder that holds ``JPEGImages``, or one that holds ``DAVIS``.
        settings: See :class:`DavisSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A folder or file is missing.
    """

    normal_source: Literal["none"] = "none"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = DavisSettings.parse(settings, "DAVIS reader")
        self._root = Path(root)
        self._base = self._root / "DAVIS" if (self._root / "DAVIS").is_dir() else self._root
        pictures = self._base / "JPEGImages" / self._settings.resolution
        self._pictures = require_folder(pictures, "one sub-folder a sequence", _REMEDY)
        self._clips = {name: self._numbers(name) for name in self._names()}

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips: name -> ascending frame numbers as in the file names."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named frames of one clip.

        Args:
            sequence: Name of the clip.
            frames: Frame numbers, in the order wanted.

        Yields:
            Frames with a picture and no valid pixel.

        Raises:
            SourceError: A picture is missing, corrupt, or of another size than the sequence's first.
        """
        require_known(self._root, self._clips, sequence, frames)
        first = self._file(sequence, self._clips[sequence][0])
        shape = image_file_size(first)
        for number in frames:
            path = self._file(sequence, number)
            image = read_image_bytes(path)
            require_shape(path, image_size(image), shape, first.name)
            normal, valid = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.bool_)
            yield Frame(sequence=sequence, frame=number, image=image, normal=normal, valid=valid)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash the pictures of these frames."""
        require_known(self._root, self._clips, sequence, frames)
        return hash_files(self._root, [self._file(sequence, number) for number in frames])

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _names(self) -> list[str]:
        found = [path.name for path in listing(self._pictures) if path.is_dir()]
        if not found:
            raise SourceError.at(self._pictures, "expected one sub-folder a sequence, found none", _REMEDY)
        wanted = self._split() if self._settings.split else found
        if self._settings.sequences is not None:
            self._require(self._settings.sequences, wanted, "the settings ask for")
            wanted = list(self._settings.sequences)
        self._require(wanted, found, "the list names")
        return wanted

    def _split(self) -> list[str]:
        path = self._base / "ImageSets" / self._settings.year / f"{self._settings.split}.txt"
        names = read_bytes(path, "a list of sequences").decode("utf-8", "replace").split()
        if not names:
            raise SourceError.at(path, "expected names of sequences, found none", _REMEDY)
        return list(dict.fromkeys(names))

    def _require(self, names: Sequence[str], valid: Sequence[str], who: str) -> None:
        for name in names:
            if name not in valid:
                raise SourceError.at(
                    self._pictures, f"{who} '{name}', which is not there", suggest(name, valid).rstrip(".")
                )

    def _numbers(self, sequence: str) -> tuple[int, ...]:
        folder = self._pictures / sequence
        numbers = tuple(numbered_files(folder, _PICTURE))
        if not numbers:
            raise SourceError.at(folder, "expected pictures 00000.jpg, 00001.jpg, ..., found none", _REMEDY)
        missing = sorted(set(range(numbers[-1] + 1)) - set(numbers))
        if missing:
            problem = f"expected every picture from 0 to {numbers[-1]}, but {missing[:10]} is missing"
            raise SourceError.at(folder, problem, _REMEDY)
        return numbers

    def _file(self, sequence: str, number: int) -> Path:
        return self._pictures / sequence / f"{number:05d}.jpg"
