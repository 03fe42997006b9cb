"""One ScanNet scan on disk: the ``.sens`` file, or the folders that ScanNet's own exporter makes of it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.datasets.formats.images import image_file_size
from ncbench.datasets.formats.png import read_png
from ncbench.datasets.formats.sens import SensFile
from ncbench.datasets.frame import FloatMap, Matrix
from ncbench.datasets.readers.layout import numbered_files, require_folder, require_shape
from ncbench.datasets.readers.nyuv2 import encode_png
from ncbench.errors import SourceError
from ncbench.geometry.cameras import invert_pose

EXPORT_UNITS = 1000.0
"""Stored depth units a metre in exported pictures."""
_EXPORT_REMEDY = "Export the scan again with ScanNet's SensReader (color, depth, pose and intrinsic)"


@dataclass(frozen=True, slots=True)
class ScanCamera:
    """One of a scan's two cameras.

    Attributes:
        intrinsics: (3, 3) in pixels of the pictures as stored.
        to_base: (4, 4) camera to the rig's base frame, which the poses carry to the world.
        size: Height and width of its pictures.
    """

    intrinsics: Matrix
    to_base: Matrix
    size: tuple[int, int]


class Scan(Protocol):
    """A scan's frames by their number."""

    path: Path
    color: ScanCamera
    depth: ScanCamera

    def frames(self) -> Sequence[int]:
        """Numbers of all frames, ascending."""
        ...

    def pose(self, frame: int) -> Matrix | None:
        """(4, 4) base-to-world pose; None where tracking was lost."""
        ...

    def read_depth(self, frame: int) -> FloatMap:
        """(H, W) float32 z-depth in metres, 0 where unknown."""
        ...

    def read_color(self, frame: int) -> bytes:
        """The picture, encoded; ``decode_color`` checks it."""
        ...

    def contents(self, frame: int) -> Iterator[bytes]:
        """Everything in the files that a frame is made of."""
        ...


def open_scan(folder: Path) -> Scan:
    """Open a scan's folder.

    Args:
        folder: ``scene0000_00`` with ``scene0000_00.sens``, or with ``color``, ``depth``, ``pose`` and ``intrinsic``.

    Returns:
        The scan; the ``.sens`` file where there are both.

    Raises:
        SourceError: Neither is there, or its header or calibration is damaged.
    """
    sens = folder / f"{folder.name}.sens"
    return SensScan(sens) if sens.is_file() else ExportedScan(folder)


def decode_color(scan: Scan, frame: int, content: bytes) -> NDArray[np.uint8]:
    """Decode a picture of a scan.

    Args:
        scan: The scan.
        frame: The frame's number, for the message.
        content: What ``read_color`` gave.

    Returns:
        (H, W, 3) uint8, red, green, blue.

    Raises:
        SourceError: It does not decode fully, or not to the size of the scan's pictures.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        problem = f"expected a picture in frame {frame}, but it does not decode ({error})"
        raise SourceError.at(scan.path, problem, DAMAGED) from error
    require_shape(scan.path, pixels.shape, scan.color.size, f"the scan's other pictures in frame {frame}")
    return pixels


class SensScan:
    """A scan in its ``.sens`` file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = SensFile(path)
        header = self._file.header
        self.color = _camera(header.intrinsic_color, header.extrinsic_color, header.color_size, path)
        self.depth = _camera(header.intrinsic_depth, header.extrinsic_depth, header.depth_size, path)

    def frames(self) -> Sequence[int]:
        """See :class:`Scan`."""
        return range(self._file.header.frames)

    def pose(self, frame: int) -> Matrix | None:
        """See :class:`Scan`."""
        pose = self._file.pose(frame)
        return None if pose is None else _checked_pose(pose, self.path, f"pose of frame {frame}")

    def read_depth(self, frame: int) -> FloatMap:
        """See :class:`Scan`."""
        return (self._file.depth(frame) / self._file.header.depth_shift).astype(np.float32)

    def read_color(self, frame: int) -> bytes:
        """See :class:`Scan`; raw pixels become a PNG."""
        stored = self._file.color(frame)
        height, width = self.color.size
        if self._file.header.color_compression == "raw":
            return encode_png(np.frombuffer(stored, dtype=np.uint8).reshape(height, width, 3))
        return stored

    def contents(self, frame: int) -> Iterator[bytes]:
        """See :class:`Scan`."""
        yield self._file.head()
        yield self._file.record(frame)


class ExportedScan:
    """A scan as folders of ``color/N.jpg``, ``depth/N.png`` (16 bits, millimetres), ``pose/N.txt``, ``intrinsic``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        for name in ("color", "depth", "pose", "intrinsic"):
            require_folder(folder / name, "the exported scan", f"{_EXPORT_REMEDY}, or put the .sens file there")
        self._numbers = tuple(numbered_files(folder / "depth", re.compile(r"(\d+)\.png")))
        if not self._numbers:
            raise SourceError.at(
                folder / "depth", "expected depth pictures 0.png, 1.png, ..., found none", _EXPORT_REMEDY
            )
        first = self._numbers[0]
        self.color = self._camera("color", image_file_size(self._file(first, "color", "jpg")))
        self.depth = self._camera("depth", image_file_size(self._file(first, "depth", "png")))

    @cached_property
    def _calibrations(self) -> list[Path]:
        kinds = ("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth")
        return [self.path / "intrinsic" / f"{kind}.txt" for kind in kinds]

    def frames(self) -> Sequence[int]:
        """See :class:`Scan`."""
        return self._numbers

    def pose(self, frame: int) -> Matrix | None:
        """See :class:`Scan`."""
        path = self._file(frame, "pose", "txt")
        pose = _read_matrix(path)
        return _checked_pose(pose, path, "pose") if np.isfinite(pose).all() else None

    def read_depth(self, frame: int) -> FloatMap:
        """See :class:`Scan`."""
        path = self._file(frame, "depth", "png")
        stored = read_png(path)
        if stored.dtype != np.uint16 or stored.ndim != 2:
            problem = f"expected 16-bit grey depth, found {stored.dtype} of shape {stored.shape}"
            raise SourceError.at(path, problem, _EXPORT_REMEDY)
        require_shape(path, stored.shape, self.depth.size, "the scan's first depth picture")
        return (stored / EXPORT_UNITS).astype(np.float32)

    def read_color(self, frame: int) -> bytes:
        """See :class:`Scan`."""
        return read_bytes(self._file(frame, "color", "jpg"), "a picture of an exported scan")

    def contents(self, frame: int) -> Iterator[bytes]:
        """See :class:`Scan`."""
        for kind, suffix in (("color", "jpg"), ("depth", "png"), ("pose", "txt")):
            yield read_bytes(self._file(frame, kind, suffix), "a file of an exported scan")
        for path in self._calibrations:
            yield read_bytes(path, "a camera matrix")

    def _file(self, frame: int, kind: str, suffix: str) -> Path:
        return self.path / kind / f"{frame}.{suffix}"

    def _camera(self, kind: str, size: tuple[int, int]) -> ScanCamera:
        intrinsic, extrinsic = (self.path / "intrinsic" / f"{what}_{kind}.txt" for what in ("intrinsic", "extrinsic"))
        return _camera(_read_matrix(intrinsic), _read_matrix(extrinsic), size, intrinsic)


def _camera(intrinsic: Matrix, extrinsic: Matrix, size: tuple[int, int], origin: Path) -> ScanCamera:
    return ScanCamera(intrinsic[:3, :3].copy(), _checked_pose(extrinsic, origin, "extrinsic matrix"), size)


def _checked_pose(pose: NDArray[np.float64], path: Path, what: str) -> Matrix:
    try:
        invert_pose(pose)
    except ValueError as error:
        raise SourceError.at(path, f"its {what} is no rigid motion: {error}", DAMAGED) from error
    return pose


def _read_matrix(path: Path) -> Matrix:
    content = read_bytes(path, "a 4 x 4 matrix as text")
    try:
        values = np.array([float(word) for word in content.split()], dtype=np.float64)
    except ValueError as error:
        raise SourceError.at(path, f"expected a 4 x 4 matrix as text ({error})", DAMAGED) from error
    if values.size != 16:
        raise SourceError.at(path, f"expected the 16 numbers of a 4 x 4 matrix, found {values.size}", DAMAGED)
    return values.reshape(4, 4)
