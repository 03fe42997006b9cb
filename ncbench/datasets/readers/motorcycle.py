"""Real pictures with measured depth: the Middlebury 2014 motorcycle stereo pair that scikit-image ships.

Scharstein et al., "High-resolution stereo datasets with subpixel-accurate ground truth", GCPR 2014. The geometry is
that of :mod:`ncbench.datasets.formats.middlebury`. (The docstring of scikit-image says that NaN marks unknown
disparities; the file holds infinity. Both are taken.)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.formats.arrays import read_npz
from ncbench.datasets.formats.images import image_size, read_image_bytes
from ncbench.datasets.formats.middlebury import read_calibration
from ncbench.datasets.frame import BoolMap, FloatMap, Frame
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.depth_normals import PlaneFit, plane_fit_normals, rays_of
from ncbench.datasets.readers.layout import require_folder, require_known, require_shape
from ncbench.errors import SourceError
from ncbench.jit import jit
from ncbench.settings import Settings

SEQUENCE = "motorcycle"
LEFT, RIGHT = 0, 1

_REMEDY = "Run the fetch step of this data set again"
_PICTURES = {LEFT: "im0.png", RIGHT: "im1.png"}
_DISPARITY = "disp0.npz"
_CALIBRATION = "calib.txt"
_SHIPPED = {"im0.png": "motorcycle_left.png", "im1.png": "motorcycle_right.png", _DISPARITY: "motorcycle_disp.npz"}

# Calibration at the size that scikit-image ships (a quarter of the original), as printed in its documentation.
_CALIBRATION_TEXT = """\
cam0=[994.978 0 311.193; 0 994.978 254.877; 0 0 1]
cam1=[994.978 0 342.279; 0 994.978 254.877; 0 0 1]
doffs=31.086
baseline=193.001
width=741
height=500
"""


class ExportSettings(Settings):
    """Settings of :func:`export_motorcycle`: none."""


class MotorcycleSettings(Settings):
    """Settings of :class:`MotorcycleReader`.

    Attributes:
        plane_fit: How normals are fitted to the depth. The measured disparities carry noise of a fraction of a pixel,
            hence a wider window than for rendered depth.
        same_surface: Neighbours whose disparities differ by less than this many pixels lie on one surface, which is
            taken as flat between them when the right view is made.
        occlusion_margin: A left pixel is hidden where the right view's disparity at its target exceeds its own by more
            than this many pixels.
    """

    plane_fit: PlaneFit = PlaneFit(window=7, gamma=0.02, min_neighbours=12)
    same_surface: float = Field(default=1.0, gt=0, le=1.0)
    occlusion_margin: float = Field(default=1.0, gt=0)


def export_motorcycle(out: Path, settings: Mapping[str, Any]) -> None:
    """Copy the pair out of scikit-image, byte for byte, and write its calibration beside it.

    Args:
        out: Folder for ``im0.png``, ``im1.png``, ``disp0.npz`` and ``calib.txt``; made if missing.
        settings: Must be empty.

    Raises:
        CardError: There are settings.
        SourceError: scikit-image does not ship the files.
    """
    ExportSettings.parse(settings, "motorcycle export")
    import skimage.data

    out.mkdir(parents=True, exist_ok=True)
    for name, shipped in _SHIPPED.items():
        source = Path(skimage.data.data_dir) / shipped
        if not source.is_file():
            raise SourceError.at(
                source, "expected scikit-image to ship this file, found none", "Install scikit-image>=0.25"
            )
        shutil.copyfile(source, out / name)
    (out / _CALIBRATION).write_text(_CALIBRATION_TEXT, encoding="ascii")


class MotorcycleReader:
    """Reads the pair as one sequence of two frames: 0 is the left view, 1 the right.

    The right view's depth is the left one carried over, so it is unknown where only the right camera looks. Flow and
    occlusions belong to frame 0.

    Args:
        root: Folder written by :func:`export_motorcycle`.
        settings: See :class:`MotorcycleSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A file is missing or the calibration is damaged.
    """

    normal_source: Literal["plane_fit"] = "plane_fit"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = MotorcycleSettings.parse(settings, "motorcycle reader")
        self._root = require_folder(Path(root), "the motorcycle stereo pair", _REMEDY)
        for name in (*_SHIPPED, _CALIBRATION):
            if not (self._root / name).is_file():
                raise SourceError.at(self._root / name, "expected a file, found none", _REMEDY)
        self._calibration = read_calibration(self._root / _CALIBRATION)

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the one clip with its two frames."""
        return {SEQUENCE: (LEFT, RIGHT)}

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named views.

        Args:
            sequence: ``motorcycle``.
            frames: 0 (left) and 1 (right), in the order wanted.

        Yields:
            Canonical frames.

        Raises:
            SourceError: A file is truncated, corrupt, or contradicts the calibration.
        """
        require_known(self._root, self.sequences(), sequence, frames)
        left = self._left_disparity()
        right = carry_to_right(left, self._settings.same_surface)
        for frame in frames:
            yield self._left_frame(left, right) if frame == LEFT else self._frame(RIGHT, right)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames."""
        require_known(self._root, self.sequences(), sequence, frames)
        names = [_CALIBRATION, _DISPARITY, *(_PICTURES[frame] for frame in frames)]
        return hash_files(self._root, [self._root / name for name in names])

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _left_disparity(self) -> NDArray[np.float64]:
        path = self._root / _DISPARITY
        stored = read_npz(path)
        if stored.ndim != 2:
            raise SourceError.at(path, f"expected a disparity per pixel, (H, W), found shape {stored.shape}", _REMEDY)
        require_shape(path, stored.shape, self._calibration.shape, _CALIBRATION)
        disparity = stored.astype(np.float64)
        disparity[~np.isfinite(disparity)] = np.nan
        return disparity

    def _left_frame(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> Frame:
        flow = np.stack([-left, np.where(np.isfinite(left), 0.0, np.nan)], axis=-1).astype(np.float32)
        return self._frame(LEFT, left, flow, hidden_on_right(left, right, self._settings.occlusion_margin))

    def _frame(
        self, view: int, disparity: NDArray[np.float64], flow: FloatMap | None = None, occluded: BoolMap | None = None
    ) -> Frame:
        path = self._root / _PICTURES[view]
        image = read_image_bytes(path)
        require_shape(path, image_size(image), self._calibration.shape, _CALIBRATION)
        intrinsics = self._calibration.left if view == LEFT else self._calibration.right
        pose = np.eye(4)
        pose[0, 3] = 0.0 if view == LEFT else self._calibration.baseline
        depth = self._calibration.depth(disparity)
        rays = rays_of(intrinsics, depth.shape, self._root / _CALIBRATION)
        normal, valid = plane_fit_normals(depth, rays, self._settings.plane_fit)
        return Frame(
            sequence=SEQUENCE,
            frame=view,
            image=image,
            normal=normal,
            valid=valid,
            depth=depth,
            flow=flow,
            occluded=occluded,
            intrinsics=intrinsics,
            cam_to_world=pose,
        )


@jit()
def carry_to_right(disparity: NDArray[np.float64], same_surface: float) -> NDArray[np.float64]:
    """Resample the left view's disparities at the right view's pixels.

    Between two neighbours on one surface disparity is linear in the image (exact for a plane); where several surfaces
    cover a pixel the nearest, that of the largest disparity, is seen.

    Args:
        disparity: (H, W) float64 of the left view, pixels, NaN where unknown.
        same_surface: Largest difference between neighbours on one surface, pixels; at most 1, so that columns keep
            their order on the right.

    Returns:
        (H, W) float64 disparity of the right view, NaN where no surface covers the pixel.
    """
    height, width = disparity.shape
    right = np.full((height, width), np.nan)
    for y in range(height):
        for x in range(width - 1):
            here, following = disparity[y, x], disparity[y, x + 1]
            if not abs(following - here) < same_surface:  # also where one is NaN
                continue
            start, end = x - here, x + 1 - following
            for column in range(max(0, int(np.ceil(start))), min(width - 1, int(np.floor(end))) + 1):
                value = here + (following - here) * (column - start) / (end - start)
                if not right[y, column] >= value:
                    right[y, column] = value
    return right


@jit()
def hidden_on_right(left: NDArray[np.float64], right: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    """Find the left pixels that the right view does not show (left-right check).

    Args:
        left: (H, W) float64 disparities of the left view, NaN where unknown.
        right: (H, W) float64 disparities of the right view, NaN where unknown.
        margin: Pixels by which a nearer surface at the target must exceed the pixel's own disparity to hide it.

    Returns:
        (H, W) bool, True where something nearer stands at the target or the target is outside the picture; False where
        the disparity is unknown.
    """
    height, width = left.shape
    hidden = np.zeros((height, width), dtype=np.bool_)
    for y in range(height):
        for x in range(width):
            target = x - left[y, x]
            if target < 0 or target > width - 1:
                hidden[y, x] = True
            elif not np.isnan(target):
                hidden[y, x] = right[y, int(np.rint(target))] > left[y, x] + margin
    return hidden
