"""DAVIS: video frames and instance labels without any geometry, for temporal measures that need none.

Pont-Tuset et al., The 2017 DAVIS challenge on video object segmentation, arXiv:1704.00675.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.formats.arrays import read_bytes
from ncbench.datasets.formats.images import image_file_size, image_size, read_image_bytes
from ncbench.datasets.formats.indexed_png import read_indexed_png
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
        instances: Which frames have labels: ``every`` one, as in train and val, the ``first``, as in the test splits,
            or ``none``.
    """

    resolution: Literal["480p", "Full-Resolution"] = "480p"
    split: Literal["train", "val", "test-dev", "test-challenge"] | None = None
    year: Literal["2016", "2017", "2019"] = "2017"
    sequences: tuple[str, ...] | None = Field(default=None, min_length=1)
    instances: Literal["every", "first", "none"] = "every"


class DavisReader:
    """Reads ``JPEGImages/<resolution>/<sequence>/NNNNN.jpg`` and ``Annotations/<resolution>/<sequence>/NNNNN.png``.

    The column ``instances`` holds the labels: (H, W) uint8, 0 for none, else the number of the object, the same in all
    frames of a clip; 255 where the files say so (void, or the one object of the grey masks of 2016).

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
        self._labels = self._base / "Annotations" / self._settings.resolution
        self._clips = {name: self._numbers(name) for name in self._names()}
        for name, numbers in self._clips.items():
            self._require_labels(name, numbers)

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips: name -> ascending frame numbers as in the file names."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named frames of one clip.

        Args:
            sequence: Name of the clip.
            frames: Frame numbers, in the order wanted.

        Yields:
            Frames with a picture and no valid pixel; ``extra`` holds ``instances``, None where the set has none.

        Raises:
            SourceError: A picture or label map is missing, corrupt, or of another size than the sequence's first
                picture.
        """
        require_known(self._root, self._clips, sequence, frames)
        first = self._file(sequence, self._clips[sequence][0])
        shape = image_file_size(first)
        for number in frames:
            path = self._file(sequence, number)
            image = read_image_bytes(path)
            require_shape(path, image_size(image), shape, first.name)
            normal, valid = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.bool_)
            extra = {"instances": self._instances(sequence, number, shape)}
            yield Frame(sequence=sequence, frame=number, image=image, normal=normal, valid=valid, extra=extra)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash the pictures and label maps of these frames."""
        require_known(self._root, self._clips, sequence, frames)
        labelled = set(self._labelled(self._clips[sequence])).intersection(frames)
        files = [self._file(sequence, number) for number in frames]
        return hash_files(self._root, [*files, *(self._label_file(sequence, number) for number in sorted(labelled))])

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: ``instances``."""
        import pyarrow as pa

        return {"instances": pa.large_binary()}

    def _labelled(self, numbers: Sequence[int]) -> Sequence[int]:
        return {"every": numbers, "first": numbers[:1], "none": ()}[self._settings.instances]

    def _label_file(self, sequence: str, number: int) -> Path:
        return self._labels / sequence / f"{number:05d}.png"

    def _require_labels(self, sequence: str, numbers: Sequence[int]) -> None:
        for number in self._labelled(numbers):
            path = self._label_file(sequence, number)
            if not path.is_file():
                remedy = f"{_REMEDY}, or set instances: first (the test splits) or none"
                raise SourceError.at(path, "expected the labels of this picture, found none", remedy)

    def _instances(self, sequence: str, number: int, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
        if number not in self._labelled(self._clips[sequence]):
            return None
        path = self._label_file(sequence, number)
        labels = read_indexed_png(path)
        require_shape(path, labels.shape, shape, "its picture")
        return labels

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
