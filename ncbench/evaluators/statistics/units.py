"""Sufficient statistics of every frame, small enough to keep for a whole data set."""

from __future__ import annotations

import itertools
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators import angular_kernel as kernel
from ncbench.evaluators.angular import BIN_WIDTH, AngularState, metric_name
from ncbench.files import replacing_file

_DAMAGED = (OSError, ValueError, TypeError, KeyError, EOFError, zlib.error, zipfile.BadZipFile)
_LEVEL = 1
COARSE_BIN = 0.01
"""Degrees; 1,064 frames take 77 MB, and a pooled median is off by less than one bin."""


@dataclass(frozen=True)
class UnitStatistics:
    """What each frame adds to any pooled metric; one row a frame.

    Attributes:
        sequences: Name of the clip of each frame, F in all.
        frames: Index of each frame within its clip.
        thresholds: Degrees, ascending, T in all.
        bin_width: Of ``histogram``, in degrees.
        count: (F,) int64 pixels.
        total: (F,) float64 sum of the errors in degrees.
        total_squared: (F,) float64 sum of the squared errors.
        below: (F, T) int64 errors strictly below each threshold.
        median: (F,) float64 median of each frame in degrees; NaN where it has no pixel.
        histogram: (F, B) uint32 errors by bin, from 0 degrees up.
    """

    sequences: tuple[str, ...]
    frames: tuple[int, ...]
    thresholds: tuple[float, ...]
    bin_width: float
    count: NDArray[np.int64]
    total: NDArray[np.float64]
    total_squared: NDArray[np.float64]
    below: NDArray[np.int64]
    median: NDArray[np.float64]
    histogram: NDArray[np.uint32]

    @classmethod
    def of(cls, sequence: str, frame: int, state: AngularState, bin_width: float = COARSE_BIN) -> UnitStatistics:
        """Keep what matters of one frame's state.

        Args:
            sequence: Name of the clip.
            frame: Index within the clip.
            state: The frame's errors.
            bin_width: Degrees, a multiple of the state's own 0.001.

        Returns:
            One row.

        Raises:
            ScoreError: The bins are no multiple of the state's.
        """
        factor = round(bin_width / BIN_WIDTH)
        if factor < 1 or abs(factor * BIN_WIDTH - bin_width) > 1e-9:
            raise ScoreError(f"expected bins of a multiple of {BIN_WIDTH} degrees, found {bin_width}")
        coarse = np.empty(-(-len(state.histogram) // factor), np.uint32)
        kernel.coarsen(state.histogram, coarse)
        values, count = state.metrics(), state.count
        within = [values.get(metric_name(threshold), 0.0) for threshold in state.thresholds]
        return cls(
            (sequence,),
            (frame,),
            tuple(state.thresholds),
            bin_width,
            np.array([count], np.int64),
            np.array([values.get("mean", 0.0) * count]),
            np.array([values.get("rmse", 0.0) ** 2 * count]),
            np.array([[round(share * count / 100) for share in within]], np.int64),
            np.array([values.get("median", np.nan)]),
            coarse[None],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[UnitStatistics]) -> UnitStatistics:
        """Put rows one below the other, in any order and number of pieces.

        Args:
            parts: At least one.

        Returns:
            All rows, sorted by sequence and frame, so that the order of scoring changes no interval.

        Raises:
            ScoreError: There is none, thresholds or bins differ, or a frame comes twice.
        """
        if not parts:
            raise ScoreError("expected the statistics of at least one frame, found none")
        first = parts[0]
        for part in parts:
            if (part.thresholds, part.bin_width) != (first.thresholds, first.bin_width):
                raise ScoreError(
                    f"statistics of different thresholds or bins do not join: {first.thresholds} in bins of "
                    f"{first.bin_width} and {part.thresholds} in bins of {part.bin_width}"
                )
        keys = list(itertools.chain.from_iterable(part.keys for part in parts))
        repeated = [key for key, times in Counter(keys).items() if times > 1]
        if repeated:
            raise ScoreError(f"sequence '{repeated[0][0]}', frame {repeated[0][1]}: its statistics come twice")
        order = sorted(range(len(keys)), key=keys.__getitem__)
        names = ("count", "total", "total_squared", "below", "median", "histogram")
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        if order != list(range(len(order))):  # histograms of many frames are large, and mostly in order
            columns = {name: column[order] for name, column in columns.items()}
        sequences, frames = zip(*(keys[index] for index in order), strict=True)
        return cls(sequences, frames, first.thresholds, first.bin_width, **columns)

    @property
    def keys(self) -> tuple[tuple[str, int], ...]:
        """(sequence, frame) of each row."""
        return tuple(zip(self.sequences, self.frames, strict=True))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the rows hold."""
        return ("mean", "median", "rmse", *(metric_name(threshold) for threshold in self.thresholds))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Give every attribute as an array, none of them of objects, for a file of one's own; bytes are not wasted."""
        arrays = {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}
        return arrays | {"histogram": narrowed(self.histogram)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> UnitStatistics:
        """Take back what ``to_arrays`` gave.

        Args:
            arrays: One for each attribute; others are not looked at.

        Returns:
            The rows.

        Raises:
            KeyError: An attribute is missing.
            ValueError: Arrays are not of one length.
        """
        values: dict[str, Any] = {name: arrays[name] for name in cls.__dataclass_fields__}
        names = ("sequences", "frames", "thresholds")
        plain: dict[str, Any] = {name: tuple(values.pop(name).tolist()) for name in names}
        width = float(values.pop("bin_width"))
        values["histogram"] = values["histogram"].astype(np.uint32)
        if len({len(column) for column in (plain["sequences"], plain["frames"], *values.values())}) != 1:
            raise ValueError("statistics of frames come in arrays of one length")
        return cls(**plain, bin_width=width, **values)

    def save(self, path: Path) -> None:
        """Write the rows as compressed ``.npz``, whole or not at all."""
        # numpy's own level, 6, takes half as long again and saves a twentieth
        zipped: dict[str, Any] = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": _LEVEL}
        with replacing_file(path) as temporary, zipfile.ZipFile(temporary, "w", **zipped) as archive:
            for name, array in self.to_arrays().items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> UnitStatistics:
        """Read what ``save`` wrote.

        Args:
            path: The ``.npz`` file.

        Returns:
            The rows.

        Raises:
            ScoreError: The file is missing, damaged or of another kind.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls.from_arrays(stored)
        except _DAMAGED as error:
            raise ScoreError(f"{path}: holds no frame statistics ({error}). Evaluate again.") from error


def narrowed(counts: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """Give counts, none negative, in the smallest type that holds them all."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
