"""KITTI: driving pictures with sparse LiDAR depth, or pairs with flow. No normals: LiDAR is too sparse for good ones.

Uhrig et al., Sparsity invariant CNNs, 3DV 2017 (depth); Menze and Geiger, Object scene flow, CVPR 2015 (flow).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.formats.images import image_size, read_depth_file, read_image_bytes
from ncbench.datasets.formats.kitti import read_flow_png, read_rectified_camera
from ncbench.datasets.frame import BoolMap, FloatMap, Frame, Matrix
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.depth_normals import check_intrinsics
from ncbench.datasets.readers.kitti_poses import DrivePoses
from ncbench.datasets.readers.layout import listing, numbered_files, require_folder, require_known, require_shape
from ncbench.errors import SourceError
from ncbench.settings import Settings

_DEPTH_REMEDY = (
    "Unpack data_depth_annotated.zip and the raw drives (<date>_drive_<n>_sync.zip, <date>_calib.zip) into one folder"
)
_FLOW_REMEDY = "Unpack data_scene_flow.zip and data_scene_flow_calib.zip into one folder"
_TEN_DIGITS = re.compile(r"(\d{10})\.png")
_PAIR = re.compile(r"(\d{6})_10\.png")
_DRIVE = re.compile(r"(\d{4}_\d{2}_\d{2})_drive_\d{4}_sync")
_DEPTH_SCALE = 1 / 256


class KittiDepthSettings(Settings):
    """Settings of :class:`KittiDepthReader`.

    Attributes:
        splits: Which halves of the annotated depth to read.
        cameras: 2 is the left colour camera, 3 the right one.
        poses: Read where the camera is, from the drives' GPS and inertial measurements.
    """

    splits: tuple[Literal["train", "val"], ...] = Field(default=("val",), min_length=1)
    cameras: tuple[Literal[2, 3], ...] = Field(default=(2,), min_length=1)
    poses: bool = True


class KittiDepthReader:
    """Reads annotated depth with the pictures of the raw drives.

    ``{train,val}/<drive>/proj_depth/groundtruth/image_0c/NNNNNNNNNN.png`` (metres times 256, 0 for none) belongs to
    ``<date>/<drive>/image_0c/data/NNNNNNNNNN.png`` and ``<date>/calib_cam_to_cam.txt``. Frames are those with depth.
    For poses, see :mod:`ncbench.datasets.readers.kitti_poses`.

    Args:
        root: Folder that holds all of these.
        settings: See :class:`KittiDepthSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A folder or file is missing.
    """

    normal_source: Literal["none"] = "none"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = KittiDepthSettings.parse(settings, "KITTI depth reader")
        self._root = Path(root)
        self._depths = dict(self._find())
        if not self._depths:
            raise SourceError.at(self._root, "expected drives with annotated depth, found none", _DEPTH_REMEDY)
        self._clips = {name: tuple(files) for name, files in self._depths.items()}

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips: ``<drive>_image_0c`` -> numbers of the pictures with depth."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named frames of one clip.

        Args:
            sequence: Name of the clip.
            frames: Frame numbers, in the order wanted.

        Yields:
            Frames with picture, sparse depth, intrinsics and pose, and no valid pixel.

        Raises:
            SourceError: A file is missing, corrupt, or not of the size that the calibration states.
        """
        require_known(self._root, self._clips, sequence, frames)
        calibration = self._calibration(sequence)
        camera, shape = _camera(calibration, int(sequence[-2:]))
        poses = self._poses(sequence).camera_to_world(list(frames)) if self._settings.poses else {}
        for number in frames:
            picture, path = self._picture(sequence, number), self._depths[sequence][number]
            image = read_image_bytes(picture)
            require_shape(picture, image_size(image), shape, calibration.name)
            depth = read_depth_file(path, scale=_DEPTH_SCALE)
            require_shape(path, depth.shape, shape, "its picture")
            normal, valid = _no_normals(shape)
            pose = poses.get(number)
            yield Frame(sequence, number, image, normal, valid, depth=depth, intrinsics=camera, cam_to_world=pose)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames."""
        require_known(self._root, self._clips, sequence, frames)
        files = [
            path for number in frames for path in (self._picture(sequence, number), self._depths[sequence][number])
        ]
        if not self._settings.poses:
            return hash_files(self._root, [self._calibration(sequence), *files])
        poses = self._poses(sequence)
        measured = [poses.file(number) for number in (0, *frames)]
        return hash_files(self._root, [*poses.calibration, *files, *measured])

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _find(self) -> Iterator[tuple[str, dict[int, Path]]]:
        for split in self._settings.splits:
            folder = require_folder(self._root / split, "one sub-folder a drive", _DEPTH_REMEDY)
            for drive in listing(folder):
                if not _DRIVE.fullmatch(drive.name):
                    continue
                for camera in self._settings.cameras:
                    images = drive / "proj_depth" / "groundtruth" / f"image_{camera:02d}"
                    yield f"{drive.name}_image_{camera:02d}", self._numbered(images)

    def _numbered(self, folder: Path) -> dict[int, Path]:
        files = numbered_files(require_folder(folder, "depth maps", _DEPTH_REMEDY), _TEN_DIGITS)
        if not files:
            raise SourceError.at(folder, "expected depth maps 0000000005.png, ..., found none", _DEPTH_REMEDY)
        return files

    def _date(self, sequence: str) -> Path:
        return self._root / sequence[:10]

    def _poses(self, sequence: str) -> DrivePoses:
        date = self._date(sequence)
        return DrivePoses(date, date / sequence[: -len("_image_00")], int(sequence[-2:]))

    def _calibration(self, sequence: str) -> Path:
        return self._date(sequence) / "calib_cam_to_cam.txt"

    def _picture(self, sequence: str, number: int) -> Path:
        drive, camera = sequence[: -len("_image_00")], sequence[-len("image_00") :]
        return self._date(sequence) / drive / camera / "data" / f"{number:010d}.png"


class KittiFlowSettings(Settings):
    """Settings of :class:`KittiFlowReader`; there is nothing to set."""


class KittiFlowReader:
    """Reads the training pairs of KITTI 2015: each sequence is a pair, frames 10 and 11, with flow at frame 10.

    A pixel is occluded where ``flow_occ`` knows its flow and ``flow_noc``, which leaves out what the second picture
    does not show, does not; unknown flow counts as not occluded.

    Args:
        root: Folder that holds ``training``, or ``training`` itself.
        settings: See :class:`KittiFlowSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A folder or file is missing.
    """

    normal_source: Literal["none"] = "none"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        KittiFlowSettings.parse(settings, "KITTI flow reader")
        self._root = Path(root)
        training = self._root / "training"
        self._base = training if training.is_dir() else self._root
        for name in ("image_2", "flow_occ", "flow_noc", "calib_cam_to_cam"):
            require_folder(self._base / name, "one file a pair", _FLOW_REMEDY)
        pairs = numbered_files(self._base / "flow_occ", _PAIR)
        if not pairs:
            raise SourceError.at(self._base / "flow_occ", "expected 000000_10.png, ..., found none", _FLOW_REMEDY)
        self._clips = {f"{number:06d}": (10, 11) for number in pairs}

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the pairs: six digits -> (10, 11)."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named frames of one pair.

        Args:
            sequence: Name of the pair.
            frames: Out of 10 and 11, in the order wanted.

        Yields:
            Frames with picture, intrinsics and (at 10) flow, and no valid pixel.

        Raises:
            SourceError: A file is missing, corrupt, or of another size than its picture.
        """
        require_known(self._root, self._clips, sequence, frames)
        camera, _ = _camera(self._base / "calib_cam_to_cam" / f"{sequence}.txt", 2)
        for number in frames:
            path = self._file("image_2", sequence, number)
            image = read_image_bytes(path)
            shape = image_size(image)
            flow, occluded = self._motion(sequence, shape) if number == 10 else (None, None)
            normal, valid = _no_normals(shape)
            yield Frame(sequence, number, image, normal, valid, flow=flow, occluded=occluded, intrinsics=camera)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames."""
        require_known(self._root, self._clips, sequence, frames)
        files = [self._base / "calib_cam_to_cam" / f"{sequence}.txt"]
        for number in frames:
            kinds = ("image_2", "flow_occ", "flow_noc") if number == 10 else ("image_2",)
            files += [self._file(kind, sequence, number) for kind in kinds]
        return hash_files(self._root, files)

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _file(self, kind: str, sequence: str, number: int) -> Path:
        return self._base / kind / f"{sequence}_{number}.png"

    def _motion(self, sequence: str, shape: tuple[int, int]) -> tuple[FloatMap, BoolMap]:
        known = {kind: self._file(kind, sequence, 10) for kind in ("flow_occ", "flow_noc")}
        flows = {kind: read_flow_png(path) for kind, path in known.items()}
        for kind, flow in flows.items():
            require_shape(known[kind], flow.shape, shape, "its picture")
        flow = flows["flow_occ"]
        return flow, np.isfinite(flow[..., 0]) & np.isnan(flows["flow_noc"][..., 0])


def _camera(path: Path, number: int) -> tuple[Matrix, tuple[int, int]]:
    matrix, shape = read_rectified_camera(path, number)
    check_intrinsics(matrix, path)
    return matrix, shape


def _no_normals(shape: tuple[int, int]) -> tuple[FloatMap, NDArray[np.bool_]]:
    return np.zeros((*shape, 3), np.float32), np.zeros(shape, np.bool_)
