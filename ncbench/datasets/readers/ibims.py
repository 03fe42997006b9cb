"""iBims-1 (Koch et al., ECCV workshops 2018): 100 still indoor pictures with laser-scanned depth.

Two official forms are read: ``.mat`` files of version 5 with one structure ``data`` (``ibims1_core_mat.zip``), and
plain folders (``ibims1_core_raw.zip``). The set has no normals of its own; DSINE fitted planes to the depth, and so
does this reader, with DSINE's published settings in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.formats.arrays import DAMAGED
from ncbench.datasets.formats.camera_files import intrinsics_from_numbers, read_intrinsics
from ncbench.datasets.formats.images import image_size, read_depth_file, read_image_bytes, read_mask
from ncbench.datasets.formats.matlab import numbers, read_mat5
from ncbench.datasets.formats.png import read_png
from ncbench.datasets.frame import FloatMap, Frame, Matrix
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.depth_normals import PlaneFit, plane_fit_normals, rays_of
from ncbench.datasets.readers.ibims_planes import (
    PLANES,
    check_parameters,
    normals_column,
    plane_normals,
    read_labels,
    read_parameters,
)
from ncbench.datasets.readers.layout import listing, require_folder, require_known, require_shape
from ncbench.datasets.readers.nyuv2 import encode_png
from ncbench.errors import SourceError
from ncbench.geometry.cameras import crop_intrinsics
from ncbench.settings import Settings, suggest

_REMEDY = "Unpack ibims1_core_mat.zip or ibims1_core_raw.zip and name its folder"
_ARCHIVES = ("ibims1_core_mat", "ibims1_core_raw")  # folders that the archives unpack to
_KEEP = ("mask_invalid", "mask_transp")
_RAW_FOLDERS = ("rgb", "depth", "calib", *_KEEP)
RAW_METRES = 50 / 65535
"""Metres per stored unit in the plain form's depth pictures."""
_Planes = dict[str, tuple[NDArray[np.uint8], Matrix | None]]


class IbimsSettings(Settings):
    """Settings of :class:`IbimsReader`.

    Attributes:
        images: Pictures to read, in this order; None takes all. Some papers leave out livingroom_14, office_04 and
            storageroom_08 without a stated reason.
        count: How many pictures there must be, so that half an archive is noticed; None does not check.
        plane_fit: How normals are fitted to the depth.
        first_pixel: Coordinate of the centre of the top-left pixel in the files' calibration. The official scripts
            count pixels from 1, so 1 is subtracted from the principal point; whether the plain form's text files count
            so too is not stated.
    """

    images: tuple[str, ...] | None = Field(default=None, min_length=1)
    count: int | None = Field(default=None, ge=1)
    plane_fit: PlaneFit = PlaneFit()
    first_pixel: Literal[0, 1] = 1


class IbimsReader:
    """Reads either form. A sequence is one picture, named like its file, frame 0.

    A pixel has depth where the depth is not 0 and both ``mask_invalid`` and ``mask_transp`` keep it (1 in both). The
    plain form keeps its original PNG; the other form's ``image`` is a PNG made from the array without loss.

    Args:
        root: Folder of the ``.mat`` files, or of ``rgb``, ``depth``, ``calib``, ``mask_invalid``, ``mask_transp``; or
            one that holds such a folder under its archive's name.
        settings: See :class:`IbimsSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A folder or file is missing.
    """

    normal_source: Literal["plane_fit"] = "plane_fit"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = IbimsSettings.parse(settings, "iBims-1 reader")
        self._root = require_folder(Path(root), "the pictures of iBims-1", _REMEDY)
        self._root = next((path for name in _ARCHIVES if (path := self._root / name).is_dir()), self._root)
        self._plain = (self._root / "rgb").is_dir()
        self._names = self._select(self._found())
        for name in self._names:
            for path in self._files(name):
                if not path.is_file():
                    raise SourceError.at(path, "expected a file, found none, although the picture is there", _REMEDY)

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the pictures: name -> (0,)."""
        return dict.fromkeys(self._names, (0,))

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield one picture.

        Args:
            sequence: Its name, such as ``corridor_01``.
            frames: (0,).

        Yields:
            The canonical frame; ``extra`` holds the plane labels and the planes' normals, None where the plain form has
            no such file.

        Raises:
            SourceError: A file is damaged, or its maps differ in size.
        """
        require_known(self._root, self.sequences(), sequence, frames)
        for number in frames:
            image, depth, intrinsics, found = (self._read_plain if self._plain else self._read_mat)(sequence)
            camera = crop_intrinsics(intrinsics, self._settings.first_pixel, self._settings.first_pixel)
            rays = rays_of(camera, depth.shape, self._files(sequence)[0])
            normal, valid = plane_fit_normals(depth, rays, self._settings.plane_fit)
            yield Frame(
                sequence=sequence,
                frame=number,
                image=image,
                normal=normal,
                valid=valid,
                depth=depth,
                intrinsics=camera,
                extra=_columns(found, rays),
            )

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames."""
        require_known(self._root, self.sequences(), sequence, frames)
        present = [path for pair in self._plane_files(sequence).values() for path in pair if path.is_file()]
        return hash_files(self._root, [*self._files(sequence), *present])

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: three maps of plane labels, and the normals of these planes."""
        import pyarrow as pa

        normals = pa.list_(pa.list_(pa.float64()))
        return dict.fromkeys(PLANES, pa.large_binary()) | {normals_column(kind): normals for kind in PLANES}

    def _found(self) -> list[str]:
        if self._plain:
            for folder in _RAW_FOLDERS:
                require_folder(self._root / folder, "one file a picture", _REMEDY)
            return [path.stem for path in listing(self._root / "rgb") if path.suffix == ".png"]
        return [path.stem for path in listing(self._root) if path.suffix == ".mat"]

    def _select(self, found: list[str]) -> list[str]:
        if not found:
            raise SourceError.at(self._root, "expected .mat files, or folders rgb and depth, found neither", _REMEDY)
        if self._settings.count not in (None, len(found)):
            problem = f"expected {self._settings.count} pictures, found {len(found)}"
            raise SourceError.at(self._root, problem, _REMEDY)
        for name in self._settings.images or ():
            if name not in found:
                remedy = suggest(name, found).rstrip(".")
                raise SourceError.at(self._root, f"the settings ask for '{name}', which is not there", remedy)
        return list(self._settings.images or found)

    def _files(self, name: str) -> list[Path]:
        """The files that a picture must have; the one with the calibration first."""
        if not self._plain:
            return [self._root / f"{name}.mat"]
        pictures = [self._root / folder / f"{name}.png" for folder in ("rgb", "depth", *_KEEP)]
        return [self._root / "calib" / f"{name}.txt", *pictures]

    def _plane_files(self, name: str) -> dict[str, tuple[Path, Path]]:
        """Labels and parameters of each kind; a picture without such planes has neither."""
        if not self._plain:
            return {}
        folders = {kind: self._root / kind for kind in PLANES}
        return {kind: (folder / f"{name}.png", folder / f"{name}.txt") for kind, folder in folders.items()}

    def _read_plain(self, name: str) -> tuple[bytes, FloatMap, Matrix, _Planes]:
        calib, picture, depth_path, *keep_paths = self._files(name)
        image = read_image_bytes(picture)
        shape = image_size(image)
        depth = read_depth_file(depth_path, scale=RAW_METRES)
        require_shape(depth_path, depth.shape, shape, "its picture")
        for path in keep_paths:
            keep = read_mask(path)
            require_shape(path, keep.shape, shape, "its picture")
            depth[~keep] = 0
        planes: _Planes = {}
        for kind, (path, table) in self._plane_files(name).items():
            if path.is_file():
                labels = read_png(path)
                require_shape(path, labels.shape, shape, "its picture")
                parameters = read_parameters(table) if table.is_file() else None
                planes[kind] = read_labels(labels, path, kind), parameters
        return image, depth, read_intrinsics(calib), planes

    def _read_mat(self, name: str) -> tuple[bytes, FloatMap, Matrix, _Planes]:
        path = self._files(name)[0]
        fields = _structure(path)
        pixels = fields["rgb"]
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise SourceError.at(path, f"expected 8-bit 'rgb' (H, W, 3), found {pixels.dtype} {pixels.shape}", DAMAGED)
        for kind in ("depth", *_KEEP, *PLANES):
            if fields[kind].ndim != 2:
                raise SourceError.at(path, f"expected '{kind}' (H, W), found {fields[kind].shape}", DAMAGED)
            require_shape(path, fields[kind].shape, pixels.shape, f"'rgb', in '{kind}'")
        keep = (fields["mask_invalid"] != 0) & (fields["mask_transp"] != 0)
        metres = fields["depth"].astype(np.float32)
        depth = np.where(keep & np.isfinite(metres) & (metres > 0), metres, np.float32(0))
        planes: _Planes = {}
        for kind in PLANES:
            table = f"{kind}_paras"
            planes[kind] = read_labels(fields[kind], path, kind), check_parameters(fields[table], path, table)
        return encode_png(pixels), depth, _calibration(fields["calib"], path), planes


def _columns(found: _Planes, rays: NDArray[np.float64]) -> dict[str, Any]:
    """The card-specific columns of one picture."""
    columns: dict[str, Any] = dict.fromkeys([*PLANES, *map(normals_column, PLANES)])
    for kind, (labels, parameters) in found.items():
        columns[kind] = labels
        if parameters is not None:
            columns[normals_column(kind)] = plane_normals(parameters, labels, rays)
    return columns


def _structure(path: Path) -> dict[str, NDArray[Any]]:
    """The fields of the structure ``data``; all but the tables of planes, which may be empty, checked to be numbers."""
    record = read_mat5(path, ["data"])["data"]
    names = record.dtype.names or ()
    wanted = ("rgb", "depth", "calib", *_KEEP, *PLANES)
    tables = tuple(f"{kind}_paras" for kind in PLANES)
    missing = [name for name in (*wanted, *tables) if name not in names]
    if missing or record.size != 1:
        problem = f"expected one structure 'data' with {[*wanted, *tables]}, found {record.size} with {list(names)}"
        raise SourceError.at(path, problem, DAMAGED)
    values = {name: record[name].ravel()[0] for name in (*wanted, *tables)}
    checked = {name: numbers(values[name], path, name) for name in wanted}
    return checked | {name: np.asarray(values[name]) for name in tables}


def _calibration(stored: NDArray[Any], path: Path) -> Matrix:
    """The matrix as MATLAB keeps it, transposed: principal point in the last row."""
    matrix = stored.astype(np.float64)
    if matrix.shape != (3, 3) or not np.array_equal(matrix[:, 2], [0, 0, 1]):
        problem = f"expected a transposed camera matrix, whose last column is 0 0 1, found {matrix.tolist()}"
        raise SourceError.at(path, problem, DAMAGED)
    try:
        return intrinsics_from_numbers(matrix.T)
    except ValueError as error:
        raise SourceError.at(path, f"its calibration does not read: {error}", DAMAGED) from error
