"""ScanNet (Dai et al., CVPR 2017) as video: clips of consecutive frames, normals from the sensor's depth.

Colour and depth come from two cameras with pictures of two sizes. Frames here have the grid of the depth camera (640 x
480): depth, and the normals fitted to it, stay what was measured, and the picture is brought to them, as the literature
does when it scales the 1296 x 968 pictures to 640 x 480. Flow and occlusion follow from depth and poses, which is right
for ScanNet's still scenes.
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

from ncbench.datasets.frame import BoolMap, FloatMap, Frame, Matrix
from ncbench.datasets.readers.depth_normals import PlaneFit, plane_fit_normals, rays_of
from ncbench.datasets.readers.layout import listing, require_folder, require_known
from ncbench.datasets.readers.nyuv2 import encode_png
from ncbench.datasets.readers.scannet_lists import read_list
from ncbench.datasets.readers.scannet_scenes import Scan, decode_color, open_scan
from ncbench.errors import CardError, SourceError
from ncbench.geometry.cameras import invert_pose, project, scale_intrinsics, transform_points, unproject
from ncbench.geometry.rigid_flow import occluded_by_depth, rigid_flow
from ncbench.settings import Settings

_REMEDY = "Download the scans with ScanNet's own script, after its terms of use, and name the folder that holds them"
_FOLDERS = ("", "scans", "scans_test")


class ScannetSettings(Settings):
    """Settings of :class:`ScannetReader`.

    Attributes:
        clips: List of clips, see ``read_list``: a line holds a scan, its first frame and the number of consecutive
            frames. None reads all scans whole.
        flow: Derive flow and occlusion.
        plane_fit: How normals are fitted to the depth.
        max_depth: Depth in metres from which on the sensor is not trusted: no depth, no normal. Our own choice.
        occlusion_tolerance: Relative difference of depths that still counts as the same surface.
    """

    clips: str | None = None
    flow: bool = True
    plane_fit: PlaneFit = PlaneFit()
    max_depth: float = Field(default=10.0, gt=0)
    occlusion_tolerance: float = Field(default=0.03, gt=0)


class ScannetReader:
    """Reads scans, each from its ``.sens`` file or from exported folders.

    A sequence is one clip, called after its scan; frames are numbered as in the scan. Frames that the tracking lost (a
    pose of minus infinity) are left out, and flow leads over the gap. ``image`` is a PNG of the picture resampled into
    the depth camera; where both cameras are the same, it is the stored picture.

    Args:
        root: Folder of the scans' folders, or one with ``scans`` or ``scans_test``.
        settings: See :class:`ScannetSettings`.

    Raises:
        CardError: A setting or the list is wrong.
        SourceError: A scan is missing, damaged, or shorter than the list says.
    """

    normal_source: Literal["plane_fit"] = "plane_fit"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = ScannetSettings.parse(settings, "ScanNet reader")
        self._root = require_folder(Path(root), "ScanNet's scans", _REMEDY)
        self._scans: dict[str, Scan] = {}
        self._clips: dict[str, tuple[int, ...]] = {}
        for name, wanted in self._wanted().items():
            scan = open_scan(self._folder(name))
            frames = _window(scan, *wanted) if wanted else scan.frames()
            tracked = tuple(frame for frame in frames if scan.pose(frame) is not None)
            if not tracked:
                raise SourceError.at(
                    scan.path, "the tracking lost every frame that is asked for", "Leave this scan out"
                )
            self._scans[name], self._clips[name] = scan, tracked

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips: name of the scan -> frames with a pose, ascending."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named frames of one clip.

        Args:
            sequence: Name of the scan.
            frames: Frame numbers, in the order wanted.

        Yields:
            Canonical frames on the depth camera's grid; ``cam_to_world`` is the depth camera's.

        Raises:
            SourceError: A file is missing, truncated or corrupt.
        """
        require_known(self._root, self._clips, sequence, frames)
        scan = self._scans[sequence]
        rays = rays_of(scan.depth.intrinsics, scan.depth.size, scan.path)
        for number in frames:
            yield self._frame(sequence, number, rays)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash what ``read`` would use for these frames, the next frame's depth and pose included."""
        require_known(self._root, self._clips, sequence, frames)
        following = [self._next(sequence, frame) for frame in frames] if self._settings.flow else []
        digest = hashlib.sha256()
        for frame in (*frames, *(frame for frame in following if frame is not None)):
            for content in self._scans[sequence].contents(frame):
                digest.update(f"{frame} {len(content)}\0".encode())
                digest.update(content)
        return digest.hexdigest()

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _wanted(self) -> dict[str, tuple[int, int] | None]:
        """Scan -> first frame and number of frames, or None for all."""
        if self._settings.clips is None:
            found = {path.name: None for name in _FOLDERS for path in self._scan_folders(self._root / name)}
            if not found:
                raise SourceError.at(self._root, "expected folders such as scene0000_00, found none", _REMEDY)
            return dict(sorted(found.items()))
        clips: dict[str, tuple[int, int] | None] = {}
        for words in read_list(self._settings.clips):
            if len(words) != 3 or not (words[1].isdecimal() and words[2].isdecimal()) or words[0] in clips:
                line = " ".join(words)
                problem = f"expected a scan not named before, its first frame and a number of frames, found '{line}'"
                raise CardError(f"list '{self._settings.clips}': {problem}")
            clips[words[0]] = int(words[1]), int(words[2])
        return clips

    def _scan_folders(self, folder: Path) -> list[Path]:
        return [path for path in listing(folder) if path.name.startswith("scene")] if folder.is_dir() else []

    def _folder(self, name: str) -> Path:
        found = [self._root / place / name for place in _FOLDERS if (self._root / place / name).is_dir()]
        if not found:
            raise SourceError.at(self._root / name, "expected the folder of this scan, found none", _REMEDY)
        return found[0]

    def _next(self, sequence: str, frame: int) -> int | None:
        clip = self._clips[sequence]
        place = clip.index(frame) + 1
        return clip[place] if place < len(clip) else None

    def _frame(self, sequence: str, number: int, rays: NDArray[np.float64]) -> Frame:
        scan = self._scans[sequence]
        depth = self._depth(scan, number)
        normal, valid = plane_fit_normals(depth, rays, self._settings.plane_fit)
        following = self._next(sequence, number) if self._settings.flow else None
        flow, occluded = (None, None) if following is None else self._motion(scan, number, following, depth)
        return Frame(
            sequence=sequence,
            frame=number,
            image=picture_for_depth(scan, number, depth, rays),
            normal=normal,
            valid=valid,
            depth=depth,
            flow=flow,
            occluded=occluded,
            intrinsics=scan.depth.intrinsics.copy(),
            cam_to_world=_camera_to_world(scan, number),
        )

    def _depth(self, scan: Scan, number: int) -> FloatMap:
        stored = scan.read_depth(number)
        return np.where(stored < self._settings.max_depth, stored, np.float32(0))

    def _motion(self, scan: Scan, number: int, following: int, depth: FloatMap) -> tuple[FloatMap, BoolMap]:
        camera, poses = scan.depth.intrinsics, (_camera_to_world(scan, number), _camera_to_world(scan, following))
        flow, z = rigid_flow(depth, camera, *poses, camera)
        tolerance = self._settings.occlusion_tolerance
        return flow, occluded_by_depth(self._depth(scan, following), flow, z, tolerance)


def picture_for_depth(scan: Scan, frame: int, depth: FloatMap, rays: NDArray[np.float64]) -> bytes:
    """Bring a picture into the depth camera.

    The picture is shrunk to the depth's size by area averaging, so that no detail aliases, and then sampled bilinearly
    where the colour camera sees each depth pixel's point. A pixel without depth is taken to lie at the median depth;
    that matters only where the two cameras have different centres (in calibrated scans they have one).

    Args:
        scan: The scan.
        frame: Number of the frame.
        depth: (H, W) z-depth in metres, 0 where unknown.
        rays: (H, W, 3) rays of the depth camera with z = 1.

    Returns:
        PNG bytes of an (H, W) picture, black where the colour camera does not look; the stored picture itself where the
        cameras agree.

    Raises:
        SourceError: The picture does not decode, or has another size than the scan's others.
    """
    stored = scan.read_color(frame)
    pixels = decode_color(scan, frame, stored)
    color, target = scan.color, scan.depth
    same = color.size == target.size and np.array_equal(color.intrinsics, target.intrinsics)
    if same and np.array_equal(color.to_base, target.to_base):
        return stored
    height, width = target.size
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    shrunk = scale_intrinsics(color.intrinsics, width / color.size[1], height / color.size[0])
    far = float(np.median(depth[depth > 0])) if (depth > 0).any() else 1.0
    points = unproject(np.where(depth > 0, depth, far), rays)
    places, _ = project(transform_points(points, invert_pose(color.to_base) @ target.to_base), shrunk)
    maps = np.where(np.isfinite(places), places, -2.0).astype(np.float32)
    columns, rows = (np.ascontiguousarray(maps[..., axis]) for axis in range(2))
    sampled = cv2.remap(small, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return encode_png(np.asarray(sampled, dtype=np.uint8))


def _camera_to_world(scan: Scan, frame: int) -> Matrix:
    pose = scan.pose(frame)
    if pose is None:  # the list of frames was made when there was one
        raise SourceError.at(scan.path, f"frame {frame} has lost its pose since it was listed", "Open the set again")
    return pose @ scan.depth.to_base


def _window(scan: Scan, first: int, count: int) -> Sequence[int]:
    """The frames of a clip; numbers are those of the scan, so an exported scan may skip some."""
    have = set(scan.frames())
    missing = [frame for frame in range(first, first + count) if frame not in have]
    if missing:
        problem = f"the list asks for frames {first} to {first + count - 1}, but {missing[:5]} is not there"
        raise SourceError.at(scan.path, problem, "Fetch or export the whole scan, every frame of it")
    return range(first, first + count)
