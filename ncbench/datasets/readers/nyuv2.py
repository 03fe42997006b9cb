"""NYU Depth v2, labelled part, with the normals that GeoNet published: one still picture a sequence.

Silberman et al., ECCV 2012; normals by Ladicky et al., ECCV 2014, as ``norm_gt_l.mat`` and ``masks.mat`` of GeoNet (Qi
et al., CVPR 2018), which GeoNet, TiltedSN, Bae et al., DSINE and Marigold report on. The toolbox's own normals of older
papers are another ground truth. All pictures lie in one MATLAB 7.3 file; they are read one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.formats.arrays import DAMAGED
from ncbench.datasets.formats.camera_files import intrinsics_from_numbers
from ncbench.datasets.formats.matlab import Mat73, numbers, read_mat5
from ncbench.datasets.formats.normal_maps import StoredNormals
from ncbench.datasets.frame import BoolMap, FloatMap, Frame
from ncbench.datasets.readers.depth_normals import rays_of
from ncbench.datasets.readers.layout import require_folder, require_known
from ncbench.datasets.readers.nyuv2_axes import check_against_depth
from ncbench.errors import SourceError
from ncbench.names import AxesName
from ncbench.settings import Settings

_REMEDY = (
    "Put nyu_depth_v2_labeled.mat, splits.mat, and GeoNet's norm_gt_l.mat and masks.mat into one folder and name that "
    "folder"
)
Sign = Literal[-1, 1]


class Nyuv2Settings(Settings):
    """Settings of :class:`Nyuv2Reader`.

    Attributes:
        split: Official pictures to read: ``test`` (654, also called Eigen split), ``train`` (795).
        depth: ``depths`` (holes painted in) or ``rawDepths`` (0 in the holes), both metres in the colour camera.
        intrinsics: fx, fy, cx, cy of the colour camera in pixels. The default is the official toolbox's, used as it
            stands; were its pixels counted from 1, the principal point would move by one and no stored normal with it.
        normals: File of the normals, variable ``norm_gt_l``.
        masks: File of the valid pixels, variable ``masks``. It is the protocol's crop: the frame of the pictures, whose
            border is white, has no normals.
        axes: Axes of the stored normals. GeoNet's code requires n . ray > 0 of them, as DSINE's axes do with their
            signs; no document says it.
        signs: Signs to multiply the stored (x, y, z) with before ``axes`` apply, for a file in yet other axes.
        axes_slack: See ``check_against_depth``, degrees; None switches the check off.
    """

    split: Literal["test", "train"] = "test"
    depth: Literal["depths", "rawDepths"] = "depths"
    intrinsics: tuple[float, float, float, float] = (
        518.85790117450188,
        519.46961112127485,
        325.58244941119034,
        253.73616633400465,
    )
    normals: str = "norm_gt_l.mat"
    masks: str = "masks.mat"
    axes: AxesName
    signs: tuple[Sign, Sign, Sign] = (1, 1, 1)
    axes_slack: float | None = Field(default=10.0, gt=0)


class Nyuv2Reader:
    """Reads the MATLAB files. A sequence is one picture, named by its index from 0 (``000000``), frame 0.

    ``image`` is a PNG made from the array without loss: the set has no encoded pictures.

    Args:
        root: Folder of the four files.
        settings: See :class:`Nyuv2Settings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A file is missing, or its arrays have other shapes.
    """

    normal_source: Literal["file"] = "file"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = Nyuv2Settings.parse(settings, "NYUv2 reader")
        self._root = require_folder(Path(root), "the MATLAB files", _REMEDY)
        labelled = self._file("nyu_depth_v2_labeled.mat")
        self._images = Mat73(labelled, "images", (None, None, 3, None))
        height, width, _, count = self._images.shape
        self._depths = Mat73(labelled, self._settings.depth, (height, width, count))
        self._normals = Mat73(self._file(self._settings.normals), "norm_gt_l", (height, width, 3, count))
        self._masks = Mat73(self._file(self._settings.masks), "masks", (height, width, count))
        self._shape = height, width
        self._numbers = {f"{index:06d}": index for index in self._split(self._file("splits.mat"), count)}
        self._intrinsics = intrinsics_from_numbers(np.array(self._settings.intrinsics))
        self._rays = rays_of(self._intrinsics, self._shape, self._root)

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the pictures: name -> (0,), ascending."""
        return dict.fromkeys(self._numbers, (0,))

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield one picture.

        Args:
            sequence: Its index from 0, six digits.
            frames: (0,).

        Yields:
            The canonical frame; ``extra`` is empty.

        Raises:
            SourceError: Data are damaged, or the normals contradict the depth under the card's axes.
        """
        require_known(self._root, self.sequences(), sequence, frames)
        index = self._numbers[sequence]
        for number in frames:
            depth = self._depth(index)
            normal, valid = self._normal(index, depth)
            yield Frame(
                sequence=sequence,
                frame=number,
                image=self._picture(index),
                normal=normal,
                valid=valid,
                depth=depth,
                intrinsics=self._intrinsics.copy(),
            )

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash the arrays that ``read`` would use; the rest of the files does not matter to these frames."""
        require_known(self._root, self.sequences(), sequence, frames)
        digest = hashlib.sha256()
        for array in (self._images, self._depths, self._normals, self._masks):
            values = array.read(self._numbers[sequence])
            digest.update(f"{array.name} {values.dtype} {values.shape}\0".encode())
            digest.update(values.tobytes())
        return digest.hexdigest()

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _file(self, name: str) -> Path:
        path = self._root / name
        if not path.is_file():
            raise SourceError.at(path, "expected a MATLAB file, found none", _REMEDY)
        return path

    def _split(self, path: Path, count: int) -> list[int]:
        name = f"{self._settings.split}Ndxs"
        stored = numbers(read_mat5(path, [name])[name], path, name).ravel()
        indices = sorted({int(value) for value in stored})
        if len(indices) != stored.size or not 1 <= indices[0] <= indices[-1] <= count:
            problem = (
                f"expected different indices from 1 to {count} in '{name}', found {indices[:3]} ... {indices[-3:]}"
            )
            raise SourceError.at(path, problem, DAMAGED)
        return [index - 1 for index in indices]  # MATLAB counts from 1

    def _picture(self, index: int) -> bytes:
        pixels = self._images.read(index)
        if pixels.dtype != np.uint8:
            raise SourceError.at(self._images.path, f"expected 8-bit 'images', found {pixels.dtype}", DAMAGED)
        return encode_png(pixels)

    def _depth(self, index: int) -> FloatMap:
        metres = self._depths.read(index).astype(np.float32)
        return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))

    def _normal(self, index: int, depth: FloatMap) -> tuple[FloatMap, BoolMap]:
        vectors = self._normals.read(index).astype(np.float32)
        stored = StoredNormals(self._normals.path, vectors, self._masks.read(index) > 0, min_norm=0.0)
        normal, valid = stored.unit(self._settings.axes, self._settings.signs)
        if self._settings.axes_slack is not None:
            named, path = self._settings.axes, self._normals.path
            check_against_depth(normal, valid, depth, self._rays, path, named, self._settings.axes_slack)
        return normal, valid


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a picture without loss.

    Args:
        pixels: (H, W, 3) uint8, red, green, blue.

    Returns:
        PNG bytes.
    """
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels[:, :, ::-1]))
    if not done:
        raise RuntimeError(f"a picture of shape {pixels.shape} could not be encoded")
    return bytes(encoded.tobytes())
