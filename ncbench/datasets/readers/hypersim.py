"""Hypersim: pictures, official normals oriented by the published fix, z-depth and poses, from folders or zip archives.

The stored normals have three known defects (apple/ml-hypersim issue 26): not of unit length, zero, or pointing into the
surface. The fix is that of Marigold's training set (prs-eth/Marigold, ``preprocess_hypersim_normals.py``): normalise,
and negate where the angle between the world normal and the way to the camera says so. Here the world normal is the
camera's rotation times ``normal_cam`` instead of a fifth file; the two differ by float16 rounding alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from ncbench.datasets.formats.archived_members import open_remote_zip, open_zip
from ncbench.datasets.formats.hdf5 import decode_hdf5
from ncbench.datasets.formats.hypersim import (
    SceneCamera,
    metres_per_asset_unit,
    read_scene_cameras,
    tonemap,
)
from ncbench.datasets.formats.members import FolderMembers, Members
from ncbench.datasets.formats.png_bytes import encode_png
from ncbench.datasets.frame import Frame, Matrix, Skipped
from ncbench.datasets.readers.hypersim_geometry import check_axes, check_geometry, keyframe_pose, oriented_normals
from ncbench.datasets.readers.hypersim_splits import HypersimSelection, clips_of
from ncbench.datasets.readers.layout import require_folder, require_known
from ncbench.errors import CardError, SourceError
from ncbench.geometry.cameras import depth_from_distance, hypersim_rays
from ncbench.names import AxesName

_REMEDY = (
    "Download the scenes' archives with their names kept, and metadata_images_split_scene_v1.csv and "
    "metadata_camera_parameters.csv of apple/ml-hypersim, into one folder"
)
_GEOMETRY = {"normal": "normal_cam", "position": "position", "depth": "depth_meters", "entity": "render_entity_id"}
_PARTIAL = "Fetch this scene again; frames that are broken upstream belong into the setting broken"


class HypersimSettings(HypersimSelection):
    """Settings of :class:`HypersimReader`, besides which frames it lists (:class:`HypersimSelection`).

    Attributes:
        archive: ``folder`` (``<root>/ai_VVV_NNN/``), ``zip`` (``<root>/ai_VVV_NNN.zip``, read without unpacking), or a
            web address with ``{scene}`` whose server answers range requests; then the root holds the two tables alone.
        axes: Axes of ``normal_cam`` in the files.
        camera_table: Table of camera models, relative to the root.
        on_bad_frame: What to do with a frame whose ``normal_cam`` has NaN (pixels without geometry). ``mask`` keeps the
            frame, marks those pixels invalid, and says so in the column ``incomplete``; ``skip`` leaves it out, as the
            published recipe does (about a third of all frames: allow for that in ``prepare``, or name the recipe's own
            list in ``frame_list``, which decodes none of them); ``error`` stops.
        depth_tolerance: Relative difference allowed between the median distance by ``position`` and by
            ``depth_meters``.
        ray_tolerance: Median angle in degrees allowed between the rays by ``position`` and by the camera model.
    """

    archive: str = "folder"
    axes: AxesName = "opengl"
    camera_table: str = "metadata_camera_parameters.csv"
    on_bad_frame: Literal["mask", "skip", "error"] = "mask"
    depth_tolerance: float = Field(default=0.02, gt=0)
    ray_tolerance: float = Field(default=1.0, gt=0)

    @field_validator("archive")
    @classmethod
    def _known_kind(cls, archive: str) -> str:
        if archive not in {"folder", "zip"} and not (archive.startswith("http") and "{scene}" in archive):
            raise ValueError("expected folder, zip, or a web address with {scene}")
        return archive


class HypersimReader:
    """Reads Hypersim; a sequence is one camera's trajectory, named ``ai_VVV_NNN/cam_XX``.

    Frame numbers are the official frame ids, with gaps; poses are looked up by them. ``intrinsics`` is set only where
    the scene's camera is a true pinhole; the column ``ray_matrix`` always holds ``M_cam_from_uv`` row by row
    (:func:`ncbench.geometry.cameras.hypersim_rays`). Pictures are the official tonemap of the radiance as 8-bit PNG.
    There is no flow: keyframes lie about a metre apart. Construction reads the two tables and looks for the scenes;
    files of a frame are looked for when it is read.

    Args:
        root: Folder with the tables, and the scenes unless they are read from the web.
        settings: See :class:`HypersimSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A table or scene is missing.
    """

    normal_source: Literal["file"] = "file"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = HypersimSettings.parse(settings, "Hypersim reader")
        self._root = require_folder(Path(root), "Hypersim's tables and scenes", _REMEDY)
        self._cameras = read_scene_cameras(self._inside(self._settings.camera_table))
        self._clips = clips_of(self._root, self._settings, self._has_scene)
        self._open: tuple[str, Members] | None = None
        unknown = sorted({name.partition("/")[0] for name in self._clips} - set(self._cameras))
        if unknown:
            problem = f"expected a camera for every scene, missing {unknown[:10]}"
            raise SourceError.at(self._root / self._settings.camera_table, problem, _REMEDY)

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the trajectories: ``scene/camera`` -> ascending frame ids."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame | Skipped]:
        """Yield the named frames of one trajectory.

        Args:
            sequence: ``scene/camera``.
            frames: Frame ids, in the order wanted.

        Yields:
            Canonical frames, ``extra`` with ``ray_matrix`` and ``incomplete``; or what was left out.

        Raises:
            SourceError: A file is missing, damaged, of another size or type, or contradicts its neighbours.
        """
        require_known(self._root, self._clips, sequence, frames)
        scene, _, camera = sequence.partition("/")
        model, members = self._cameras[scene], self._members(scene)
        detail = self._detail(camera)
        scale = metres_per_asset_unit(members.read(detail["scene"]), members.where(detail["scene"]))
        if abs(scale / model.metres_per_unit - 1) > 1e-3:
            problem = f"says {scale} metres per asset unit, the camera table {model.metres_per_unit}"
            raise SourceError.at(members.where(detail["scene"]), problem, _REMEDY)
        orientations = decode_hdf5(members.read(detail["orientations"]), members.where(detail["orientations"]))
        positions = decode_hdf5(members.read(detail["positions"]), members.where(detail["positions"]))
        rays = _rays(model, self._root / self._settings.camera_table)
        for frame in frames:
            pose = keyframe_pose(orientations, positions, frame, scale, members.where(detail["orientations"]))
            yield self._frame(sequence, frame, members, model, rays, pose, scale)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash what ``read`` would use for these frames: contents of files, size and CRC-32 of zip members."""
        require_known(self._root, self._clips, sequence, frames)
        scene, _, camera = sequence.partition("/")
        members, model = self._members(scene), self._cameras[scene]
        names = [*self._detail(camera).values()]
        names += [name for frame in frames for name in _frame_files(camera, frame).values()]
        digest = hashlib.sha256(repr((scene, model.height, model.width, model.m_cam_from_uv.tolist())).encode())
        for name in names:
            digest.update(name.encode() + b"\0" + members.identity(name))
        return digest.hexdigest()

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: ``ray_matrix`` (9 numbers) and ``incomplete``."""
        import pyarrow as pa

        return {"ray_matrix": pa.list_(pa.float64()), "incomplete": pa.bool_()}

    def _inside(self, name: str) -> Path:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CardError(f"Hypersim reader: expected a path inside the data set, found '{name}'")
        return self._root / name

    def _has_scene(self, scene: str) -> bool:
        kind = self._settings.archive
        if kind == "folder":
            return (self._root / scene).is_dir()
        return kind != "zip" or (self._root / f"{scene}.zip").is_file()

    def _members(self, scene: str) -> Members:
        """Files of a scene; the last one stays open, since its archive's directory is long."""
        if self._open is None or self._open[0] != scene:
            self._open = scene, self._open_scene(scene)
        return self._open[1]

    def _open_scene(self, scene: str) -> Members:
        kind = self._settings.archive
        if kind == "folder":
            return FolderMembers(self._root / scene)
        if kind == "zip":
            return open_zip(self._root / f"{scene}.zip", scene)
        return open_remote_zip(kind.replace("{scene}", scene), scene)

    @staticmethod
    def _detail(camera: str) -> dict[str, str]:
        poses = f"_detail/{camera}/camera_keyframe"
        return {
            "scene": "_detail/metadata_scene.csv",
            "orientations": f"{poses}_orientations.hdf5",
            "positions": f"{poses}_positions.hdf5",
        }

    def _frame(
        self,
        sequence: str,
        frame: int,
        members: Members,
        model: SceneCamera,
        rays: NDArray[np.float64],
        pose: Matrix,
        scale: float,
    ) -> Frame | Skipped:
        names = _frame_files(sequence.partition("/")[2], frame)
        maps = {kind: _decode(members, name, kind, (model.height, model.width)) for kind, name in names.items()}
        missing = ~np.isfinite(maps["normal"]).all(axis=-1)
        if self._settings.on_bad_frame != "mask" and missing.any():
            problem = f"{int(missing.sum())} pixels have no normal (NaN)"
            if self._settings.on_bad_frame == "skip":
                return Skipped(sequence, frame, f"{names['normal']}: {problem}")
            remedy = "Set on_bad_frame: mask, or leave the frame out by frame_list or broken"
            raise SourceError.at(members.where(names["normal"]), problem, remedy)
        if (maps["entity"] == 0).any():
            problem = "expected -1 or a positive render entity everywhere, found 0"
            raise SourceError.at(members.where(names["entity"]), problem, _PARTIAL)
        offsets, normal, valid = oriented_normals(maps["normal"], maps["position"], pose, scale, self._settings.axes)
        distance = maps["depth"].astype(np.float32)
        distance[~(np.isfinite(distance) & (distance > 0))] = 0
        limits = (self._settings.depth_tolerance, self._settings.ray_tolerance)
        check_geometry(offsets, distance, rays, pose, limits, members.where(names["position"]))
        depth = depth_from_distance(distance, rays)
        check_axes(normal, valid, depth, rays, members.where(names["normal"]))
        return Frame(
            sequence=sequence,
            frame=frame,
            image=encode_png(tonemap(maps["colour"], maps["entity"])),
            normal=normal,
            valid=valid,
            depth=depth.astype(np.float32),
            intrinsics=model.intrinsics(),
            cam_to_world=pose,
            extra={"ray_matrix": model.m_cam_from_uv.ravel().tolist(), "incomplete": bool(missing.any())},
        )


def _frame_files(camera: str, frame: int) -> dict[str, str]:
    names = {"colour": f"images/scene_{camera}_final_hdf5/frame.{frame:04d}.color.hdf5"}
    folder = f"images/scene_{camera}_geometry_hdf5"
    return names | {kind: f"{folder}/frame.{frame:04d}.{name}.hdf5" for kind, name in _GEOMETRY.items()}


def _decode(members: Members, name: str, kind: str, shape: tuple[int, int]) -> NDArray[Any]:
    where = members.where(name)
    values = decode_hdf5(members.read(name), where)
    wanted = shape if kind in {"depth", "entity"} else (*shape, 3)
    numbers = "i" if kind == "entity" else "f"
    if values.shape != wanted or values.dtype.kind != numbers:
        form = "whole" if numbers == "i" else "floating-point"
        problem = f"expected {form} numbers of shape {wanted}, found {values.dtype} {values.shape}"
        raise SourceError.at(where, problem, _PARTIAL)
    return values


def _rays(model: SceneCamera, origin: Path) -> NDArray[np.float64]:
    try:
        return hypersim_rays(model.m_cam_from_uv, model.height, model.width)
    except ValueError as error:
        raise SourceError.at(origin, f"a scene's camera model is not usable: {error}", _REMEDY) from error
