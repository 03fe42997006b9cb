"""Replica's official meshes, ray-cast to video with exact normals, depth, flow and occlusion.

The release (Straub et al., 2019) holds ``<scene>/mesh.ply`` and neither pictures nor poses. Here a camera goes along a
trajectory from a file, or along a generated one; colour comes from the mesh's vertices (the far finer Ptex textures
need the official renderer), normals are those of the faces, so that normals, depth and flow agree exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from ncbench.datasets.formats.camera_files import intrinsics_from_numbers
from ncbench.datasets.formats.ply import read_quad_mesh
from ncbench.datasets.formats.png_bytes import encode_png
from ncbench.datasets.formats.trajectories import count_poses, read_trajectory
from ncbench.datasets.frame import BoolMap, FloatMap, Frame, Matrix
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.depth_normals import check_intrinsics
from ncbench.datasets.readers.layout import listing, require_folder, require_known
from ncbench.datasets.readers.replica_path import GeneratedPath, generate_path
from ncbench.datasets.readers.replica_raycast import DoubleMap, MeshCaster
from ncbench.errors import SourceError
from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.rigid_flow import rigid_flow
from ncbench.geometry.warp import BORDER_SLACK
from ncbench.settings import Settings

_REMEDY = "Unpack replica_v1_0.tar.gz and pass the folder that holds its scenes"
_SAME_POINT = 1e-4  # relative distance within which the next camera's ray counts as reaching the point itself


class ReplicaMeshSettings(Settings):
    """Settings of :class:`ReplicaMeshReader`.

    Attributes:
        scenes: Scenes to read, in this order; None takes every folder that holds a mesh.
        trajectory: File of camera-to-world poses, one a line, OpenCV axes, relative to the root, with ``{scene}``; None
            generates a path.
        path: The generated path.
        intrinsics: fx, fy, cx, cy in pixels.
        width: Pictures' width in pixels.
        height: Pictures' height in pixels.
        back_faces: Surfaces seen from behind (through a hole, or from outside a room) have their normal turned to the
            camera (``flip``) or are ``invalid``.
        flow: Compute flow and occlusion.
    """

    scenes: tuple[str, ...] | None = Field(default=None, min_length=1)
    trajectory: str | None = None
    path: GeneratedPath = GeneratedPath()
    intrinsics: tuple[float, float, float, float] = (600.0, 600.0, 599.5, 339.5)
    width: int = Field(default=1200, ge=8, le=8192)
    height: int = Field(default=680, ge=8, le=8192)
    back_faces: Literal["flip", "invalid"] = "flip"
    flow: bool = True

    @field_validator("trajectory")
    @classmethod
    def _inside_the_root(cls, trajectory: str | None) -> str | None:
        if trajectory is not None and (PurePosixPath(trajectory).is_absolute() or ".." in trajectory):
            raise ValueError("expected a path inside the data set")
        return trajectory


class _Scene(NamedTuple):
    """A loaded scene."""

    name: str
    caster: MeshCaster
    poses: Matrix


class ReplicaMeshReader:
    """Renders the official meshes; a sequence is a scene, frames count from 0.

    Depth is z-depth, 0 where nothing is hit. ``occluded`` is exact: a ray from the next camera looks for the point
    itself. The last frame has neither flow nor occlusion. The scene's mesh is loaded when its first frame is read, and
    kept until another scene is.

    Args:
        root: Folder that holds the scenes.
        settings: See :class:`ReplicaMeshSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A scene's mesh or trajectory is missing.
    """

    normal_source: Literal["analytic"] = "analytic"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = ReplicaMeshSettings.parse(settings, "Replica mesh reader")
        self._root = require_folder(Path(root), "Replica's scenes", _REMEDY)
        self._intrinsics = intrinsics_from_numbers(np.array(self._settings.intrinsics))
        check_intrinsics(self._intrinsics, self._root)
        self._clips = {name: tuple(range(self._length(name))) for name in self._names()}
        self._loaded: _Scene | None = None

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips: scene -> 0, 1, 2, ..."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named frames of one scene.

        Args:
            sequence: The scene.
            frames: Frame numbers, in the order wanted.

        Yields:
            Canonical frames.

        Raises:
            SourceError: The mesh or the trajectory is missing or damaged.
        """
        require_known(self._root, self._clips, sequence, frames)
        scene = self._scene(sequence)
        for number in frames:
            yield self._frame(scene, number)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash the scene's mesh and trajectory; every frame depends on all of both."""
        require_known(self._root, self._clips, sequence, frames)
        files = [self._mesh_file(sequence)]
        if self._settings.trajectory is not None:
            files.append(self._trajectory_file(sequence, self._settings.trajectory))
        return hash_files(self._root, files)

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _names(self) -> list[str]:
        if self._settings.scenes is None:
            found = [path.name for path in listing(self._root) if (path / "mesh.ply").is_file()]
            if not found:
                raise SourceError.at(self._root, "expected folders <scene>/mesh.ply, found none", _REMEDY)
            return found
        for name in self._settings.scenes:
            if not self._mesh_file(name).is_file():
                raise SourceError.at(self._mesh_file(name), "expected a scene's mesh, found nothing", _REMEDY)
        return list(self._settings.scenes)

    def _length(self, scene: str) -> int:
        if self._settings.trajectory is None:
            return self._settings.path.frames
        return count_poses(self._trajectory_file(scene, self._settings.trajectory))

    def _mesh_file(self, scene: str) -> Path:
        return self._root / scene / "mesh.ply"

    def _trajectory_file(self, scene: str, pattern: str) -> Path:
        return self._root / pattern.replace("{scene}", scene)

    def _scene(self, name: str) -> _Scene:
        if self._loaded is None or self._loaded.name != name:
            self._loaded = None  # let the last mesh go before the next is loaded
            mesh = read_quad_mesh(self._mesh_file(name))
            caster = MeshCaster(mesh)
            if self._settings.trajectory is None:
                poses = generate_path(mesh, caster, self._settings.path)
            else:
                poses = read_trajectory(self._trajectory_file(name, self._settings.trajectory))
            self._loaded = _Scene(name, caster, poses)
        return self._loaded

    def _frame(self, scene: _Scene, number: int) -> Frame:
        shape, pose = (self._settings.height, self._settings.width), scene.poses[number]
        directions = pinhole_rays(self._intrinsics, *shape).reshape(-1, 3) @ pose[:3, :3].T
        hits = scene.caster.cast(pose[:3, 3], directions)
        # rays have z = 1 in the camera, so the multiple of a ray is the z-depth
        depth = np.where(hits.hit, hits.distance, 0.0).reshape(shape)
        seen = hits.hit if self._settings.back_faces == "flip" else hits.hit & ~hits.back
        normal = np.where(seen[:, None], hits.normal @ pose[:3, :3], 0.0)
        flow, occluded = None, None
        if self._settings.flow and number + 1 < len(scene.poses):
            flow, occluded = self._motion(scene, number, depth, directions)
        return Frame(
            sequence=scene.name,
            frame=number,
            image=encode_png(np.rint(hits.colour).astype(np.uint8).reshape(*shape, 3)),
            normal=normal.reshape(*shape, 3).astype(np.float32),
            valid=seen.reshape(shape),
            depth=depth.astype(np.float32),
            flow=flow,
            occluded=occluded,
            intrinsics=self._intrinsics,
            cam_to_world=pose,
        )

    def _motion(self, scene: _Scene, number: int, depth: DoubleMap, directions: DoubleMap) -> tuple[FloatMap, BoolMap]:
        """Flow to the next frame, and which points the next camera does not see."""
        pose, following = scene.poses[number], scene.poses[number + 1]
        flow, z = rigid_flow(depth, self._intrinsics, pose, following, self._intrinsics)
        height, width = depth.shape
        x, y = np.arange(width) + flow[..., 0], np.arange(height)[:, None] + flow[..., 1]
        inside = (x >= -BORDER_SLACK) & (x <= width - 1 + BORDER_SLACK)  # NaN fails
        inside &= (y >= -BORDER_SLACK) & (y <= height - 1 + BORDER_SLACK) & (z > 0)
        looked_for = inside.ravel()
        points = pose[:3, 3] + depth.ravel()[looked_for, None] * directions[looked_for]
        reach = scene.caster.distances(following[:3, 3], points - following[:3, 3])
        occluded = np.ones(depth.shape, dtype=np.bool_)
        occluded[inside] = reach < 1 - _SAME_POINT
        return flow, occluded
