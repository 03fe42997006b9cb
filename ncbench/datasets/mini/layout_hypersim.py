"""Hypersim's official layout in miniature: zip archives or folders of HDF5 files, with the defects of the real ones."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ncbench.datasets.mini.cast import Cast, cast_rays
from ncbench.datasets.mini.rooms import Kind, make_scene
from ncbench.geometry.axes import axes_matrix
from ncbench.geometry.cameras import hypersim_rays
from ncbench.settings import Settings

_PLAIN = ((0.5773502886169104, 0.0, 0.0), (0.0, 0.4330127164626828, 0.0), (0.0, 0.0, -1.0))  # of most real scenes
_STEP = 6.0  # time between two keyframes in frames of the smooth path: Hypersim's keyframes lie far apart
_CHUNK = (96, 128)  # rows and columns of the official HDF5 chunks
_INWARD = 3  # every third body has its normals pointing into the surface
_SHORT = 4  # every fourth body has normals of half length
_EPOCH = (1980, 1, 1, 0, 0, 0)

Row = tuple[float, float, float]


class HypersimScene(Settings):
    """One scene.

    Attributes:
        name: Official form ``ai_VVV_NNN``.
        kind: Family of scenes, see ``make_scene``.
        seed: Seed of the scene.
        cameras: Trajectories, written as cam_00, cam_01, ...
        split: Part of the official partition.
        metres_per_unit: Metres in one asset unit.
        m_cam_from_uv: Camera model; the default is that of most real scenes, a centred pinhole. A third row other than
            (0, 0, -1) tilts the picture's plane.
    """

    name: Annotated[str, Field(pattern=r"^ai_\d{3}_\d{3}$")]
    kind: Kind
    seed: Annotated[int, Field(ge=0)]
    cameras: Annotated[int, Field(ge=1, le=9)] = 1
    split: Literal["train", "val", "test"] = "train"
    metres_per_unit: Annotated[float, Field(gt=0)] = 0.0254
    m_cam_from_uv: tuple[Row, Row, Row] = _PLAIN


class HypersimLayout(Settings):
    """A miniature of Hypersim.

    Attributes:
        archive: ``zip`` writes the official archives, ``folder`` unpacked scenes.
        frames: Keyframes of each trajectory; frame 1 of each is left out of the public release, as real gaps are.
        height: Picture's height in pixels.
        width: Picture's width in pixels.
        scenes: The scenes; names must differ.
    """

    archive: Literal["zip", "folder"] = "zip"
    frames: Annotated[int, Field(ge=3, le=100)]
    height: Annotated[int, Field(ge=8, le=768)] = 96
    width: Annotated[int, Field(ge=8, le=1024)] = 128
    scenes: Annotated[tuple[HypersimScene, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if len({scene.name for scene in self.scenes}) < len(self.scenes):
            raise ValueError("scene names must differ")
        return self


def write_hypersim_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write scenes as the official release holds them, with its known defects.

    Maps are gzip-compressed HDF5 data sets called ``dataset``: ``color`` (float16 linear radiance), ``depth_meters``
    (float16 Euclidean distance), ``position`` (float16, asset units), ``normal_cam`` (float16, right-up-back),
    ``render_entity_id`` (int16). Sky has NaN geometry and entity -1. Every third body's normals point inward, every
    fourth's are of half length. In frame 0 of each trajectory one pixel's normal is zero, one position is infinite, and
    one colour is.

    Args:
        out: An empty folder.
        settings: See :class:`HypersimLayout`.

    Raises:
        CardError: The settings are wrong.
    """
    checked = HypersimLayout.parse(settings, "generator of the Hypersim layout")
    _write_tables(out, checked)
    for scene in checked.scenes:
        if checked.archive == "folder":
            for name, content in _scene_files(checked, scene):
                path = out / scene.name / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        else:
            with zipfile.ZipFile(out / f"{scene.name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in _scene_files(checked, scene):
                    # a fixed date, so that the archive's bytes depend on the settings alone
                    member = zipfile.ZipInfo(f"{scene.name}/{name}", _EPOCH)
                    member.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(member, content)


class Keyframe(NamedTuple):
    """The exact truth of one keyframe, which the written files round.

    Attributes:
        cast: Geometry in world axes, metres, and light.
        position: (H, W, 3) surface points, world metres, NaN where nothing is hit.
        pose: (4, 4) camera-to-world in OpenCV axes, metres.
        rays: (H, W, 3) rays in OpenCV camera axes with z = 1.
    """

    cast: Cast
    position: NDArray[np.float64]
    pose: NDArray[np.float64]
    rays: NDArray[np.float64]


def cast_keyframe(layout: HypersimLayout, scene: HypersimScene, camera: int, frame: int) -> Keyframe:
    """Cast one keyframe.

    Args:
        layout: The miniature.
        scene: One of its scenes.
        camera: Index of the trajectory.
        frame: Frame id.

    Returns:
        Its truth.
    """
    contents = make_scene(scene.kind, scene.seed, layout.frames, layout.height, layout.width)
    time = _STEP * (frame + layout.frames * camera)
    pose = contents.camera.pose(time)
    rays = hypersim_rays(np.array(scene.m_cam_from_uv), layout.height, layout.width)
    directions = rays @ pose[:3, :3].T
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    cast = cast_rays(contents, 0.0, pose[:3, 3], np.ascontiguousarray(directions))
    return Keyframe(cast, pose[:3, 3] + cast.distance[..., None] * directions, pose, rays)


def _scene_files(layout: HypersimLayout, scene: HypersimScene) -> Iterator[tuple[str, bytes]]:
    cameras = [f"cam_{index:02d}" for index in range(scene.cameras)]
    yield "_detail/metadata_cameras.csv", _csv(["camera_name"], [[name] for name in cameras])
    parameters = [["meters_per_asset_unit", repr(scene.metres_per_unit)]]
    yield "_detail/metadata_scene.csv", _csv(["parameter_name", "parameter_value"], parameters)
    for index, camera in enumerate(cameras):
        poses = []
        for frame in range(layout.frames):
            keyframe = cast_keyframe(layout, scene, index, frame)
            poses.append(keyframe.pose)
            yield from _frame_files(keyframe, scene.metres_per_unit, camera, frame)
        stacked = np.stack(poses)
        detail = f"_detail/{camera}/camera_keyframe"
        orientations = stacked[:, :3, :3] @ axes_matrix("opengl", "opencv")
        yield f"{detail}_orientations.hdf5", _hdf5(orientations)
        yield f"{detail}_positions.hdf5", _hdf5(stacked[:, :3, 3] / scene.metres_per_unit)
        yield f"{detail}_frame_indices.hdf5", _hdf5(np.arange(layout.frames))


def _frame_files(keyframe: Keyframe, metres_per_unit: float, camera: str, frame: int) -> Iterator[tuple[str, bytes]]:
    """The maps of one frame, with the defects of real ones."""
    cast = keyframe.cast
    cam_from_world = axes_matrix("opencv", "opengl") @ keyframe.pose[:3, :3].T
    normal = cast.normal @ cam_from_world.T
    normal[cast.ids % _INWARD == 0] *= -1
    normal[cast.ids % _SHORT == 0] *= 0.5
    position = keyframe.position / metres_per_unit
    colour = cast.radiance.astype(np.float16)
    if frame == 0:
        middle = (cast.ids.shape[0] // 2, cast.ids.shape[1] // 2)
        normal[middle] = 0
        position[middle[0], 0, 1] = -np.inf
        colour[0, 0] = np.inf
    geometry = f"images/scene_{camera}_geometry_hdf5/frame.{frame:04d}"
    entity = np.where(cast.ids > 0, cast.ids, -1)
    yield f"images/scene_{camera}_final_hdf5/frame.{frame:04d}.color.hdf5", _hdf5(colour)
    yield f"{geometry}.depth_meters.hdf5", _hdf5(cast.distance.astype(np.float16))
    yield f"{geometry}.position.hdf5", _hdf5(position.astype(np.float16))
    yield f"{geometry}.normal_cam.hdf5", _hdf5(normal.astype(np.float16))
    yield f"{geometry}.render_entity_id.hdf5", _hdf5(entity.astype(np.int16))


def _write_tables(out: Path, layout: HypersimLayout) -> None:
    """The two tables that lie in the repository, not in the archives."""
    split: list[list[str]] = []
    cameras: list[list[str]] = []
    for scene in layout.scenes:
        for index in range(scene.cameras):
            for frame in range(layout.frames):
                public = frame != 1
                reason = "" if public else "CONTENT FLAGGED FOR REMOVAL"
                part = scene.split if public else ""
                split.append([scene.name, f"cam_{index:02d}", str(frame), str(public), reason, part])
        matrix = [repr(value) for row in scene.m_cam_from_uv for value in row]
        size = [f"{float(layout.height)}", f"{float(layout.width)}"]
        cameras.append([scene.name, *size, repr(scene.metres_per_unit), *matrix])
    columns = ["scene_name", "camera_name", "frame_id", "included_in_public_release", "exclude_reason"]
    table = _csv([*columns, "split_partition_name"], split)
    (out / "metadata_images_split_scene_v1.csv").write_bytes(table)
    columns = ["scene_name", "settings_output_img_height", "settings_output_img_width"]
    columns += ["settings_units_info_meters_scale", *(f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3))]
    (out / "metadata_camera_parameters.csv").write_bytes(_csv(columns, cameras))


def _csv(columns: list[str], rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def _hdf5(values: NDArray[Any]) -> bytes:
    """One file as the official tools write it: maps in gzip chunks, poses plain."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        if values.dtype == np.float64 or values.ndim == 1:
            file.create_dataset("dataset", data=values)
        else:
            chunk = tuple(min(side, most) for side, most in zip(values.shape, (*_CHUNK, 1), strict=False))
            file.create_dataset("dataset", data=values, chunks=chunk, compression="gzip", compression_opts=9)
    return buffer.getvalue()
