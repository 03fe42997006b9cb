"""Somebody's results as a model: a folder of files in, no installation of their code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PrivateAttr

from ncbench.datasets.formats.normal_maps import read_normal_file
from ncbench.datasets.readers.base import hash_files
from ncbench.errors import ModelError
from ncbench.models.base import Clip, NormalModel, Normals
from ncbench.settings import Settings

ENDINGS = ("npy", "npz", "png", "exr")
_STEMS = (
    "{sequence}/{frame:06d}",
    "{sequence}/normal/{frame:06d}",
    "{sequence}/{frame:06d}_normal",
    "{sequence}/{frame:05d}",
    "{sequence}/{frame:04d}",
    "{sequence}/frame_{frame:04d}",
    "{sequence}/frame_{frame:06d}",
    "{sequence}/{frame}",
    "{sequence}_{frame:06d}",
)
_SHOWN = 5


class PredictionFiles(Settings):
    """Where the files lie.

    Attributes:
        root: The folder, relative to the current directory or absolute.
        pattern: A file for each frame; ``{sequence}`` and ``{frame}`` (``{frame:06d}`` pads) are filled in. None looks
            for the first frame under the usual names and takes the pattern that fits.
        key: The array's name inside an NPZ file that holds several.
        frame_offset: Added to the data set's frame index, for results that count from another number.
    """

    root: Path
    pattern: str | None = None
    key: str | None = None
    frame_offset: int = 0
    _usual: str | None = PrivateAttr(default=None)  # the usual name that fitted before: trying all takes a millisecond

    def check(self) -> None:
        """Refuse a folder that does not exist.

        Raises:
            ModelError: It does not.
        """
        if not self.root.is_dir():
            raise ModelError(f"{self.root}: expected the folder of predictions, found none. Set its path ('root').")

    def path(self, sequence: str, frame: int) -> Path:
        """Name a frame's file.

        Args:
            sequence: Name of the clip.
            frame: The data set's frame index.

        Returns:
            The file; it exists.

        Raises:
            ModelError: There is none, more than one pattern fits, or the pattern is unusable.
        """
        if self.pattern is None:
            known = self.candidate(self._usual, sequence, frame) if self._usual else None
            return known if known is not None and known.is_file() else self._found(sequence, frame)
        path = self.candidate(self.pattern, sequence, frame)
        if not path.is_file():
            raise ModelError(
                f"{path}: no prediction for sequence '{sequence}', frame {frame}. Every frame of the protocol needs "
                "one; set 'pattern' and 'frame_offset' to match."
            )
        return path

    def candidate(self, pattern: str, sequence: str, frame: int) -> Path:
        """Fill in a pattern, whether or not there is such a file.

        Args:
            pattern: As the attribute.
            sequence: Name of the clip.
            frame: The data set's frame index.

        Raises:
            ModelError: The pattern is unusable.
        """
        try:
            return self.root / pattern.format(sequence=sequence, frame=frame + self.frame_offset)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ModelError(
                f"pattern '{pattern}' is unusable ({error}). It may hold {{sequence}} and {{frame:06d}}."
            ) from error

    def _found(self, sequence: str, frame: int) -> Path:
        patterns = [f"{stem}.{ending}" for stem in _STEMS for ending in ENDINGS]
        # a large frame number fills several patterns alike: one file, one candidate
        paths = {self.candidate(pattern, sequence, frame): pattern for pattern in reversed(patterns)}
        found = {path: pattern for path, pattern in reversed(paths.items()) if path.is_file()}
        names = [
            path.relative_to(self.root).as_posix() for path in (found or [self.candidate(patterns[0], sequence, frame)])
        ]
        if len(found) == 1:
            path, self._usual = next(iter(found.items()))
            return path
        if found:
            raise ModelError(
                f"{self.root}: sequence '{sequence}', frame {frame} has several files: {', '.join(names[:_SHOWN])}. "
                "Set 'pattern' to say which."
            )
        here = sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(f"*{sequence}*/*"))
        here = here or sorted(path.name for path in self.root.iterdir())
        holds = ", ".join(here[:_SHOWN]) + (", ..." if len(here) > _SHOWN else "") if here else "nothing"
        raise ModelError(
            f"{self.root}: no prediction for sequence '{sequence}', frame {frame}: looked for {names[0]} and other "
            f"usual names; the folder holds {holds}. Set 'pattern', such as '{{sequence}}/{{frame:06d}}.png', and "
            "'frame_offset' to match."
        )


class Predictions(NormalModel):
    """Reads normals from PNG (8 or 16 bit), NPY, NPZ or EXR files; the card says in which axes they are."""

    per_frame = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = PredictionFiles.parse(settings, where="model adapter Predictions, settings")
        self.settings.check()

    def predict(self, clip: Clip) -> Normals:
        """Read one file for each frame; a pixel that the file leaves invalid is answered with a zero vector."""
        return np.stack([self._read(clip, frame) for frame in clip.frames])

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash the files: other files are other predictions."""
        return hash_files(self.settings.root, [self.settings.path(sequence, frame) for frame in frames])

    def _read(self, clip: Clip, frame: int) -> Normals:
        path = self.settings.path(clip.sequence, frame)
        normal, valid = read_normal_file(path, key=self.settings.key)
        expected = clip.images.shape[1:3]
        if valid.shape != expected:
            raise ModelError(
                f"{path}: expected {expected[0]}x{expected[1]} (height x width, the size of the picture), found "
                f"{valid.shape[0]}x{valid.shape[1]}. Save predictions at input size."
            )
        return np.where(valid[..., None], normal, np.float32(0))
