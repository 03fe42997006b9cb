"""Calibration of Middlebury's rectified stereo pairs (2014 format).

Both cameras share axes and focal length f, and the right one stands ``baseline`` to the right. A left pixel at column x
with disparity d is seen at column x - d on the right, at depth ``baseline * f / (d + doffs)``, where doffs is the
difference of the principal points' columns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.frame import FloatMap, Matrix
from ncbench.errors import SourceError

_REMEDY = "Fetch the data set again"


@dataclass(frozen=True, slots=True)
class Calibration:
    """A rectified stereo pair in Middlebury's terms.

    Attributes:
        left: (3, 3) intrinsics of the left camera.
        right: (3, 3) intrinsics of the right camera.
        doffs: Column of the right principal point less that of the left one, pixels.
        baseline: Distance between the cameras, metres.
        shape: Height and width.
    """

    left: Matrix
    right: Matrix
    doffs: float
    baseline: float
    shape: tuple[int, int]

    def depth(self, disparity: NDArray[np.float64]) -> FloatMap:
        """Turn disparities of either view into depth.

        Args:
            disparity: (H, W) pixels, NaN where unknown.

        Returns:
            (H, W) float32 z-depth in metres, 0 where unknown or not in front of the camera.
        """
        shift = disparity + self.doffs
        known = shift > 0
        depth = self.baseline * float(self.left[0, 0]) / np.where(known, shift, 1)
        return np.where(known, depth, 0).astype(np.float32)


def read_calibration(path: Path) -> Calibration:
    """Read a Middlebury ``calib.txt``.

    Args:
        path: Lines ``cam0=[...; ...; ...]``, ``cam1=[...]``, ``doffs=``, ``baseline=`` (millimetres), ``width=``,
            ``height=``; other keys are passed over.

    Returns:
        The calibration, baseline in metres.

    Raises:
        SourceError: Unreadable, a key is missing, a value is not a number, or doffs contradicts the principal points.
    """
    try:
        text = path.read_text(encoding="ascii")
        values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        left, right = _matrix(values["cam0"]), _matrix(values["cam1"])
        doffs, baseline = float(values["doffs"]), float(values["baseline"]) / 1000
        shape = int(values["height"]), int(values["width"])
    except OSError as error:
        raise SourceError.at(
            path, f"expected a calibration, but it cannot be read ({error.strerror})", _REMEDY
        ) from error
    except KeyError as error:
        raise SourceError.at(path, f"expected a line {error.args[0]}=..., found none", _REMEDY) from error
    except ValueError as error:
        raise SourceError.at(path, f"expected numbers in Middlebury's calibration format ({error})", _REMEDY) from error
    if not (baseline > 0 and min(shape) > 0 and abs(right[0, 2] - left[0, 2] - doffs) < 0.01):
        problem = "expected a positive baseline and size, and doffs = cx of cam1 - cx of cam0"
        raise SourceError.at(path, problem, _REMEDY)
    return Calibration(left, right, doffs, baseline, shape)


def _matrix(text: str) -> Matrix:
    numbers = [float(number) for number in re.split(r"[\s;]+", text.strip().strip("[]").strip())]
    if len(numbers) != 9 or not np.isfinite(numbers).all():
        raise ValueError(f"a camera is nine numbers, found {text!r}")
    return np.array(numbers, dtype=np.float64).reshape(3, 3)
