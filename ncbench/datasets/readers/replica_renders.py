"""Replica as rendered video: the sequences of NICE-SLAM (Zhu et al., CVPR 2022) and vMAP (Kong et al., CVPR 2023).

Both hold pictures, z-depth and poses of a camera with one fixed matrix, and no normals; these are derived from depth.
Scenes stand still, so flow and occlusion follow from depth and poses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ncbench.datasets.formats.camera_files import intrinsics_from_numbers
from ncbench.datasets.formats.images import image_size, read_depth_file, read_image_bytes
from ncbench.datasets.formats.trajectories import read_trajectory
from ncbench.datasets.frame import BoolMap, FloatMap, Frame, Matrix
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.depth_normals import PlaneFit, check_intrinsics, plane_fit_normals, rays_of
from ncbench.datasets.readers.layout import listing, numbered_files, require_folder, require_known, require_shape
from ncbench.errors import SourceError
from ncbench.geometry.axes import axes_matrix
from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.geometry.rigid_flow import occluded_by_depth, rigid_flow
from ncbench.settings import Settings

_REMEDY = "Unpack the archive that the data set's card names and pass the folder that holds its scenes"


@dataclass(frozen=True, slots=True)
class _Form:
    """Where one publisher puts things, relative to a sequence's folder."""

    folders: str
    picture: re.Pattern[str]
    depth: str
    poses: str
    units_per_metre: float


_FORMS = {
    "nice_slam": _Form("*/results", re.compile(r"frame(\d{6})\.jpg"), "depth{:06d}.png", "../traj.txt", 6553.5),
    "vmap": _Form("*/*/*/rgb", re.compile(r"rgb_(\d+)\.png"), "../depth/depth_{:d}.png", "../traj_w_c.txt", 1000.0),
}


class ReplicaRendersSettings(Settings):
    """Settings of :class:`ReplicaRendersReader`.

    Attributes:
        form: ``nice_slam`` (``<scene>/results/frame000000.jpg``) or ``vmap`` (``<room>/<imap|vmap>/00/rgb/rgb_0.png``).
        intrinsics: fx, fy, cx, cy in pixels; the default is that of both publishers at 1200 x 680.
        width: Expected width of the pictures.
        height: Expected height of the pictures.
        units_per_metre: Depth units in a metre; None takes the publisher's (6553.5, or 1000 for vMAP).
        pose_axes: Camera axes of the poses. Both publishers use theirs as OpenCV.
        normals: ``plane_fit`` or ``cross_product``.
        plane_fit: How planes are fitted.
        flow: Derive flow and occlusion.
        occlusion_tolerance: Relative difference of depths that still counts as the same surface.
        min_agreement: Share of the pixels that land in the next picture whose depth there must fit; less means that
            poses, their axes, or the depth's unit are wrong.
        depth_range: Metres between which the median depth of a frame must lie, as a check of the unit.
    """

    form: Literal["nice_slam", "vmap"]
    intrinsics: tuple[float, float, float, float] = (600.0, 600.0, 599.5, 339.5)
    width: int = Field(default=1200, ge=8)
    height: int = Field(default=680, ge=8)
    units_per_metre: float | None = Field(default=None, gt=0)
    pose_axes: Literal["opencv", "opengl"] = "opencv"
    normals: Literal["plane_fit", "cross_product"] = "plane_fit"
    plane_fit: PlaneFit = PlaneFit()
    flow: bool = True
    occlusion_tolerance: float = Field(default=0.03, gt=0)
    min_agreement: float = Field(default=0.5, ge=0, le=1)
    depth_range: tuple[float, float] = (0.2, 30.0)


class ReplicaRendersReader:
    """Reads rendered Replica sequences.

    A sequence is named by its folder below the root: ``room0`` (NICE-SLAM) or ``room_0/vmap/00`` (vMAP). Frame numbers
    are those of the file names. Depth 0 is unknown. Flow leads to the next frame listed and is NaN where depth is
    unknown; a pixel without flow counts as occluded. The last frame has neither.

    Args:
        root: Folder that holds the scenes.
        settings: See :class:`ReplicaRendersSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: Nothing of this form is there, or a picture lacks its depth.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = ReplicaRendersSettings.parse(settings, "Replica renders reader")
        self._form = _FORMS[self._settings.form]
        self._root = require_folder(Path(root), "Replica's scenes", _REMEDY)
        self._shape = self._settings.height, self._settings.width
        self._intrinsics = intrinsics_from_numbers(np.array(self._settings.intrinsics))
        check_intrinsics(self._intrinsics, self._root)
        self._folders = {self._name(path): path for path in sorted(self._root.glob(self._form.folders))}
        if not self._folders:
            problem = f"expected folders {self._form.folders} (form '{self._settings.form}'), found none"
            raise SourceError.at(self._root, problem, _REMEDY)
        self._pictures = {name: numbered_files(path, self._form.picture) for name, path in self._folders.items()}
        self._clips = {name: self._numbers(name) for name in self._folders}

    @property
    def normal_source(self) -> Literal["plane_fit", "cross_product"]:
        """How the normals were made."""
        return self._settings.normals

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips: name -> ascending frame numbers as in the file names."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named frames of one clip.

        Args:
            sequence: Name of the clip.
            frames: Frame numbers, in the order wanted.

        Yields:
            Canonical frames.

        Raises:
            SourceError: A file is missing, damaged or of another size, or depth and poses contradict each other.
        """
        require_known(self._root, self._clips, sequence, frames)
        poses = self._poses(sequence)
        ready: tuple[int, FloatMap] | None = None  # the next frame's depth serves twice
        for number in frames:
            depth = ready[1] if ready is not None and ready[0] == number else self._depth(sequence, number)
            following = self._following(sequence, number)
            ready = None if following is None else (following, self._depth(sequence, following))
            motion = None if ready is None else self._motion(sequence, number, depth, ready, poses)
            yield self._frame(sequence, number, depth, poses[number], motion)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames, the next frame's depth among them."""
        require_known(self._root, self._clips, sequence, frames)
        files: list[Path] = [self._pose_file(sequence)]
        for number in frames:
            files += [self._pictures[sequence][number], self._depth_file(sequence, number)]
            following = self._following(sequence, number)
            files += [] if following is None else [self._depth_file(sequence, following)]
        return hash_files(self._root, dict.fromkeys(files))

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _name(self, folder: Path) -> str:
        return folder.parent.relative_to(self._root).as_posix()

    def _numbers(self, sequence: str) -> tuple[int, ...]:
        folder, numbers = self._folders[sequence], tuple(self._pictures[sequence])
        if not numbers:
            problem = f"expected pictures named like {self._form.picture.pattern}, found none"
            raise SourceError.at(folder, problem, _REMEDY)
        there = {path.name for path in listing(self._depth_file(sequence, 0).parent)}
        for number in numbers:
            path = self._depth_file(sequence, number)
            if path.name not in there:
                raise SourceError.at(path, "expected the depth of a picture that is there, found none", _REMEDY)
        return numbers

    def _depth_file(self, sequence: str, number: int) -> Path:
        return self._beside(sequence, self._form.depth.format(number))

    def _pose_file(self, sequence: str) -> Path:
        return self._beside(sequence, self._form.poses)

    def _beside(self, sequence: str, name: str) -> Path:
        folder = self._folders[sequence]
        return folder.parent / name.removeprefix("../") if name.startswith("../") else folder / name

    def _following(self, sequence: str, number: int) -> int | None:
        """The next frame, where flow leads to."""
        clip = self._clips[sequence]
        index = clip.index(number) + 1
        return clip[index] if self._settings.flow and index < len(clip) else None

    def _poses(self, sequence: str) -> Matrix:
        """All poses (N, 4, 4) of the file; the row is the frame number."""
        path = self._pose_file(sequence)
        poses = read_trajectory(path)
        last = self._clips[sequence][-1]
        if len(poses) <= last:
            problem = f"expected a pose for each frame up to {last}, found {len(poses)}"
            raise SourceError.at(path, problem, _REMEDY)
        poses[:, :3, :3] = poses[:, :3, :3] @ axes_matrix("opencv", self._settings.pose_axes)
        return poses

    def _depth(self, sequence: str, number: int) -> FloatMap:
        path = self._depth_file(sequence, number)
        units = self._settings.units_per_metre or self._form.units_per_metre
        depth = read_depth_file(path, scale=1.0 / units)
        require_shape(path, depth.shape, self._shape, "the settings width and height")
        middle = float(np.median(depth[depth > 0])) if (depth > 0).any() else 0.0
        low, high = self._settings.depth_range
        if not low <= middle <= high:
            problem = f"its median depth is {middle:.3g} m, expected {low} to {high} m"
            raise SourceError.at(path, problem, "Check units_per_metre, or widen depth_range")
        return depth

    def _motion(
        self, sequence: str, number: int, depth: FloatMap, following: tuple[int, FloatMap], poses: Matrix
    ) -> tuple[FloatMap, BoolMap]:
        other, next_depth = following
        flow, z = rigid_flow(depth, self._intrinsics, poses[number], poses[other], self._intrinsics)
        occluded = occluded_by_depth(next_depth, flow, z, self._settings.occlusion_tolerance)
        inside = lands_inside(flow)
        agreement = float((~occluded[inside]).mean()) if inside.any() else 1.0
        if agreement < self._settings.min_agreement:
            problem = f"only {agreement:.0%} of frame {number}'s points fit the depth of frame {other}"
            remedy = "Check pose_axes and units_per_metre, or lower min_agreement if the camera truly jumps"
            raise SourceError.at(self._pose_file(sequence), problem, remedy)
        return flow, occluded

    def _frame(
        self, sequence: str, number: int, depth: FloatMap, pose: Matrix, motion: tuple[FloatMap, BoolMap] | None
    ) -> Frame:
        path = self._pictures[sequence][number]
        image = read_image_bytes(path)
        require_shape(path, image_size(image), self._shape, "the settings width and height")
        if self._settings.normals == "plane_fit":
            rays = rays_of(self._intrinsics, self._shape, self._root)
            normal, valid = plane_fit_normals(depth, rays, self._settings.plane_fit)
        else:
            normal, valid = normals_by_cross_product(depth, pinhole_rays(self._intrinsics, *self._shape))
        flow, occluded = motion or (None, None)
        return Frame(
            sequence=sequence,
            frame=number,
            image=image,
            normal=normal,
            valid=valid,
            depth=depth,
            flow=flow,
            occluded=occluded,
            intrinsics=self._intrinsics,
            cam_to_world=pose,
        )


def lands_inside(flow: FloatMap) -> BoolMap:
    """Tell which pixels move to a place within the picture.

    Args:
        flow: (H, W, 2) in pixels, NaN where unknown.

    Returns:
        (H, W) bool; False where the flow is unknown.
    """
    height, width = flow.shape[:2]
    x, y = np.arange(width) + flow[..., 0], np.arange(height)[:, None] + flow[..., 1]
    return np.asarray((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))
