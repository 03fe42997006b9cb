"""RGB-D sequences in TUM's form (TUM, Bonn, ICL-NUIM): pictures, depth and poses, matched by time; no normals.

Normals may be fitted to the depth, with all of its noise.

Sturm et al., A benchmark for the evaluation of RGB-D SLAM systems, IROS 2012.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, field_validator

from ncbench.datasets.export_encode import encode_png
from ncbench.datasets.formats.camera_files import intrinsics_from_numbers
from ncbench.datasets.formats.images import image_file_size, image_size, read_depth_file, read_image_bytes
from ncbench.datasets.formats.tum import associate, read_file_list, read_trajectory
from ncbench.datasets.frame import BoolMap, FloatMap, Frame, Matrix
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.depth_normals import PlaneFit, plane_fit_normals
from ncbench.datasets.readers.layout import listing, require_folder, require_known, require_shape
from ncbench.errors import SourceError
from ncbench.geometry.cameras import pinhole_rays
from ncbench.settings import Settings, suggest

_REMEDY = "Unpack the sequence's archive again, so that it holds rgb.txt, depth.txt and the files that they name"
_MIRROR_Y = np.diag([1.0, -1.0, 1.0, 1.0])


class TumSettings(Settings):
    """Settings of :class:`TumReader`.

    Attributes:
        intrinsics: fx, fy, cx, cy in pixels. A negative fy (as ICL-NUIM publishes) says that the files' cameras look
            with y up in a left-handed world; camera and world are then mirrored in y to the usual axes.
        distortion: k1, k2, p1, p2, k3 of the lens (OpenCV's model); none where the pictures are rectified.
        undistort: Rectify pictures (bilinear; re-encoded as PNG) and depth (nearest). Else both stay as they are, the
            coefficients are kept in the column ``distortion``, and normals are fitted along the true, bent rays.
        depth_scale: Metres per unit of the depth files.
        max_difference: Seconds that matched times may lie apart.
        sequences: Folders to read, in this order; None takes all that hold ``rgb.txt``.
        frames: First picture and the one after the last, by line of ``rgb.txt`` counted from 0; None takes all.
        normals_from: ``none``, or ``plane_fit`` to fit them to the depth, with the sensor's noise.
        plane_fit: How they are fitted.
    """

    intrinsics: tuple[float, float, float, float]
    distortion: tuple[float, float, float, float, float] | None = None
    undistort: bool = False
    depth_scale: float = Field(default=1 / 5000, gt=0)
    max_difference: float = Field(default=0.02, gt=0)
    sequences: tuple[str, ...] | None = Field(default=None, min_length=1)
    frames: tuple[int, int] | None = None
    normals_from: Literal["none", "plane_fit"] = "none"
    plane_fit: PlaneFit = PlaneFit()

    @field_validator("intrinsics")
    @classmethod
    def _focal_lengths(cls, value: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        intrinsics_from_numbers(np.array(value))
        if not (value[0] > 0 and value[1] != 0):
            raise ValueError(f"expected fx > 0 and fy not 0, got fx {value[0]}, fy {value[1]}")
        return value


@dataclass(frozen=True)
class _Entry:
    """One picture with what was matched to it."""

    time: float
    image: Path
    depth: Path
    pose: Matrix | None


class TumReader:
    """Reads folders with ``rgb.txt``, ``depth.txt`` and, where there is one, ``groundtruth.txt``.

    A frame's number is its picture's line in ``rgb.txt`` from 0; pictures without depth near in time are left out, so
    that numbers have gaps. A frame without a pose near in time has none. The extra columns are ``timestamp`` (seconds)
    and ``distortion`` (of the stored picture).

    Args:
        root: A folder of sequences, or one sequence.
        settings: See :class:`TumSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A file is missing or not in this form, or no picture has depth near in time.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = TumSettings.parse(settings, "TUM reader")
        self._root = require_folder(Path(root), "RGB-D sequences in TUM's form", _REMEDY)
        self._entries = {name: self._match(name, folder) for name, folder in self._folders().items()}
        self._clips = {name: tuple(entries) for name, entries in self._entries.items()}

    @property
    def normal_source(self) -> Literal["none", "plane_fit"]:
        """How the normals were made."""
        return self._settings.normals_from

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips: folder name -> numbers of the pictures that have depth."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named frames of one clip.

        Args:
            sequence: Name of the clip.
            frames: Frame numbers, in the order wanted.

        Yields:
            Canonical frames; without fitted normals, ``valid`` is False everywhere.

        Raises:
            SourceError: A file is missing, truncated, corrupt, or of another size than the sequence's first picture.
        """
        require_known(self._root, self._clips, sequence, frames)
        entries = self._entries[sequence]
        first = entries[self._clips[sequence][0]].image
        camera = _Camera(self._settings, image_file_size(first))
        for number in frames:
            yield self._frame(sequence, number, entries[number], camera, first.name)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames; of poses and times, those of the whole clip."""
        require_known(self._root, self._clips, sequence, frames)
        folder = self._folders()[sequence]
        lists = [folder / name for name in ("rgb.txt", "depth.txt", "groundtruth.txt")]
        entries = [self._entries[sequence][number] for number in frames]
        files = [path for entry in entries for path in (entry.image, entry.depth)]
        return hash_files(self._root, [*(path for path in lists if path.is_file()), *files])

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: ``timestamp`` and ``distortion``."""
        import pyarrow as pa

        return {"timestamp": pa.float64(), "distortion": pa.list_(pa.float64())}

    def _folders(self) -> dict[str, Path]:
        if (self._root / "rgb.txt").is_file():
            return {self._root.name: self._root}
        found = {path.name: path for path in listing(self._root) if (path / "rgb.txt").is_file()}
        if not found:
            raise SourceError.at(self._root, "expected rgb.txt, or sub-folders with one, found neither", _REMEDY)
        for name in self._settings.sequences or ():
            if name not in found:
                remedy = suggest(name, found).rstrip(".")
                raise SourceError.at(self._root, f"the settings ask for '{name}', which is not there", remedy)
        return {name: found[name] for name in self._settings.sequences or found}

    def _match(self, name: str, folder: Path) -> dict[int, _Entry]:
        settings = self._settings
        rgb, depth = (read_file_list(folder / file) for file in ("rgb.txt", "depth.txt"))
        times = np.array([time for time, _ in rgb])
        near = associate(times, np.array([time for time, _ in depth]), settings.max_difference)
        poses = self._poses(folder / "groundtruth.txt", times)
        start, stop = settings.frames or (0, len(rgb))
        entries = {
            index: _Entry(rgb[index][0], folder / rgb[index][1], folder / depth[other][1], poses.get(index))
            for index, other in near.items()
            if start <= index < stop
        }
        if not entries:
            problem = f"sequence '{name}': no picture from {start} to {stop - 1} has depth within"
            raise SourceError.at(folder, f"{problem} {settings.max_difference} s", "Check both lists and the settings")
        return entries

    def _poses(self, path: Path, times: NDArray[np.float64]) -> dict[int, Matrix]:
        if not path.is_file():
            return {}
        known, poses = read_trajectory(path)
        if self._settings.intrinsics[1] < 0:
            poses = _MIRROR_Y @ poses @ _MIRROR_Y
        return {index: poses[other] for index, other in associate(times, known, self._settings.max_difference).items()}

    def _frame(self, sequence: str, number: int, entry: _Entry, camera: _Camera, reference: str) -> Frame:
        image = read_image_bytes(entry.image)
        require_shape(entry.image, image_size(image), camera.shape, reference)
        depth = read_depth_file(entry.depth, scale=self._settings.depth_scale)
        require_shape(entry.depth, depth.shape, camera.shape, "its picture")
        if self._settings.undistort:
            image, depth = camera.rectify_picture(image), camera.rectify_depth(depth)
        normal, valid = self._normals(depth, camera)
        return Frame(
            sequence=sequence,
            frame=number,
            image=image,
            normal=normal,
            valid=valid,
            depth=depth,
            intrinsics=camera.matrix,
            cam_to_world=entry.pose,
            extra={"timestamp": entry.time, "distortion": camera.remaining},
        )

    def _normals(self, depth: FloatMap, camera: _Camera) -> tuple[FloatMap, BoolMap]:
        if self._settings.normals_from == "plane_fit":
            return plane_fit_normals(depth, camera.rays(), self._settings.plane_fit)
        return np.zeros((*depth.shape, 3), np.float32), np.zeros(depth.shape, np.bool_)


class _Camera:
    """The camera of a data set at the size of its pictures."""

    def __init__(self, settings: TumSettings, shape: tuple[int, int]) -> None:
        fx, fy, cx, cy = settings.intrinsics
        self.shape = shape
        self.matrix = intrinsics_from_numbers(np.array([fx, abs(fy), cx, cy]))
        self._distortion = settings.distortion
        self._rectify = settings.undistort and settings.distortion is not None
        self._maps: tuple[FloatMap, FloatMap] | None = None

    @property
    def remaining(self) -> list[float] | None:
        """Distortion of the frames as they are given out."""
        return None if self._distortion is None or self._rectify else list(self._distortion)

    def rays(self) -> NDArray[np.float64]:
        """Give the viewing rays (H, W, 3) with z = 1 of the frames as they are given out."""
        height, width = self.shape
        if self.remaining is None:
            return pinhole_rays(self.matrix, height, width)
        import cv2

        places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 1, 2)
        flat = cv2.undistortPoints(places.astype(np.float64), self.matrix, np.array(self.remaining))
        return np.concatenate([flat.reshape(height, width, 2), np.ones((height, width, 1))], axis=-1)

    def rectify_picture(self, picture: bytes) -> bytes:
        """Resample a picture bilinearly and encode it as PNG; without distortion, return it as it is."""
        if not self._rectify:
            return picture
        with Image.open(io.BytesIO(picture)) as image:
            pixels = np.array(image.convert("RGB"))
        return encode_png(self._resample(pixels, nearest=False))

    def rectify_depth(self, depth: FloatMap) -> FloatMap:
        """Resample depth by the nearest pixel, so that no two surfaces mix; 0 outside."""
        return self._resample(depth, nearest=True) if self._rectify else depth

    def _resample(self, values: Any, *, nearest: bool) -> Any:  # noqa: ANN401 - the same kind of array as given
        import cv2

        if self._maps is None:
            coefficients, size = np.array(self._distortion), self.shape[::-1]
            maps = cv2.initUndistortRectifyMap(self.matrix, coefficients, np.eye(3), self.matrix, size, cv2.CV_32FC1)
            self._maps = np.asarray(maps[0], np.float32), np.asarray(maps[1], np.float32)
        return cv2.remap(values, *self._maps, cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR)
