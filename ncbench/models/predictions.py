"""Somebody's results as a model: a folder of files in, no installation of their code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ncbench.datasets.formats.normal_maps import read_normal_file
from ncbench.datasets.readers.base import hash_files
from ncbench.errors import ModelError
from ncbench.models.base import Clip, NormalModel, Normals
from ncbench.settings import Settings


class PredictionsSettings(Settings):
    """Where the files lie.

    Attributes:
        root: The folder, relative to the current directory or absolute.
        pattern: A file for each frame; ``{sequence}`` and ``{frame}`` (``{frame:06d}`` pads) are filled in.
        key: The array's name inside an NPZ file that holds several.
        frame_offset: Added to the data set's frame index, for results that count from another number.
    """

    root: Path
    pattern: str = "{sequence}/{frame:06d}.npy"
    key: str | None = None
    frame_offset: int = 0


class Predictions(NormalModel):
    """Reads normals from PNG (8 or 16 bit), NPY, NPZ or EXR files; the card says in which axes they are."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = PredictionsSettings.parse(settings, where="model adapter Predictions, settings")
        if not self.settings.root.is_dir():
            raise ModelError(
                f"{self.settings.root}: expected the folder of predictions, found none. Set 'root' in the card."
            )

    def predict(self, clip: Clip) -> Normals:
        """Read one file for each frame; a pixel that the file leaves invalid is answered with a zero vector."""
        return np.stack([self._read(clip, frame) for frame in clip.frames])

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash the files: other files are other predictions."""
        return hash_files(self.settings.root, [self._path(sequence, frame) for frame in frames])

    def _path(self, sequence: str, frame: int) -> Path:
        try:
            name = self.settings.pattern.format(sequence=sequence, frame=frame + self.settings.frame_offset)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ModelError(
                f"pattern '{self.settings.pattern}' is unusable ({error}). It may hold {{sequence}} and {{frame:06d}}."
            ) from error
        path = self.settings.root / name
        if not path.is_file():
            raise ModelError(
                f"{path}: no prediction for sequence '{sequence}', frame {frame}. "
                "Every frame of the protocol needs one; set 'pattern' and 'frame_offset' in the card to match."
            )
        return path

    def _read(self, clip: Clip, frame: int) -> Normals:
        path = self._path(clip.sequence, frame)
        normal, valid = read_normal_file(path, key=self.settings.key)
        expected = clip.images.shape[1:3]
        if valid.shape != expected:
            raise ModelError(
                f"{path}: expected {expected[0]}x{expected[1]} (height x width, the size of the picture), found "
                f"{valid.shape[0]}x{valid.shape[1]}. Save predictions at input size."
            )
        return np.where(valid[..., None], normal, np.float32(0))
