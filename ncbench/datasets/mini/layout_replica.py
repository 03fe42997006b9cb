"""The rendered forms of Replica in miniature: NICE-SLAM's and vMAP's sequences, and Omnidata's single views."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from scipy.spatial.transform import Rotation

from ncbench.datasets.mini.layouts import LayoutSettings, SequenceSettings
from ncbench.datasets.mini.render import RenderedFrame, render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.datasets.mini.scene import Path3, Scene
from ncbench.geometry.axes import axes_matrix

_NICE_SLAM_UNITS = 6553.5  # per metre
_VMAP_UNITS = 1000.0
_OMNIDATA_UNITS = 512.0
_NO_DEPTH, _NO_NORMAL = 65535, 128  # Omnidata's marks
_VIEW_STEP = 9.0  # frames of the smooth path between two views of a point: they lie far apart
_NARROW, _WIDE = 45.0, 75.0  # degrees between which the views' fields of view vary


class ReplicaRendersLayout(LayoutSettings):
    """A miniature of rendered sequences; scenes stand still.

    Attributes:
        form: ``nice_slam`` or ``vmap``.
        focal: Focal length in pixels; the principal point is the picture's centre. Both publishers have 600 at 1200
            columns.
    """

    form: Literal["nice_slam", "vmap"]
    focal: Annotated[float, Field(gt=0)]


def write_replica_renders_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write sequences as NICE-SLAM (JPEG, depth at 6553.5 units a metre) or vMAP (PNG, millimetres) publish them.

    Args:
        out: An empty folder.
        settings: See :class:`ReplicaRendersLayout`.

    Raises:
        CardError: The settings are wrong.
    """
    checked = ReplicaRendersLayout.parse(settings, "generator of the Replica renders layout")
    fov = 2 * math.atan(0.5 * checked.width / checked.focal)
    for sequence in checked.sequences:
        nice = checked.form == "nice_slam"
        folder = out / sequence.name / ("results" if nice else "vmap/00")
        for name in ("",) if nice else ("rgb", "depth"):
            (folder / name).mkdir(parents=True)
        poses = []
        for index in range(checked.frames):
            frame = still_frame(checked, sequence, index, fov)
            poses.append(frame.cam_to_world.ravel())
            if nice:
                Image.fromarray(frame.rgb).save(folder / f"frame{index:06d}.jpg", quality=95)
                _write_depth(folder / f"depth{index:06d}.png", frame.depth * _NICE_SLAM_UNITS)
            else:
                _write_png(folder / "rgb" / f"rgb_{index}.png", frame.rgb)
                _write_depth(folder / "depth" / f"depth_{index}.png", frame.depth * _VMAP_UNITS)
        path = out / sequence.name / "traj.txt" if nice else folder / "traj_w_c.txt"
        np.savetxt(path, np.stack(poses), fmt="%.18e")


def write_replica_omnidata_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write single views as Omnidata does: one folder a domain, 8-bit normals, a field of view for each view.

    Every second view belongs to the same point as the one before. In each first view a block of pixels is marked as
    having neither normal nor depth, and a line of pixels has both but is masked.

    Args:
        out: An empty folder.
        settings: ``LayoutSettings``; a sequence's name is a Replica scene, its frames are the views.

    Raises:
        CardError: The settings are wrong.
    """
    checked = LayoutSettings.parse(settings, "generator of the Omnidata layout")
    for sequence in checked.sequences:
        for index in range(checked.frames):
            frame = omnidata_view(checked, sequence, index)
            view = f"point_{index // 2}_view_{index % 2}"
            for domain, content in _omnidata_maps(frame, first=index == 0):
                _write_png(_omnidata_file(out, domain, sequence.name, view, "png"), content)
            camera = _omnidata_camera(frame, checked.width)
            _omnidata_file(out, "point_info", sequence.name, view, "json").write_text(json.dumps(camera))


def still_frame(settings: LayoutSettings, sequence: SequenceSettings, index: int, fov: float) -> RenderedFrame:
    """Render one frame of a scene in which nothing moves but the camera.

    Args:
        settings: The miniature.
        sequence: One of its sequences.
        index: The frame.
        fov: Horizontal field of view in radians.

    Returns:
        The frame with its exact truth.
    """
    return render_frame(_still_scene(settings, sequence, settings.frames, fov), index)


def omnidata_view(settings: LayoutSettings, sequence: SequenceSettings, index: int) -> RenderedFrame:
    """Render one of Omnidata's views; arguments as in :func:`still_frame`."""
    share = index / max(1, settings.frames - 1)
    fov = math.radians(_NARROW + share * (_WIDE - _NARROW))
    return render_frame(
        _still_scene(settings, sequence, int(_VIEW_STEP) * settings.frames, fov), int(_VIEW_STEP) * index
    )


def _still_scene(settings: LayoutSettings, sequence: SequenceSettings, frames: int, fov: float) -> Scene:
    seed = sequence.seed
    if seed is None:
        seed = (settings.seed << 32) + zlib.crc32(sequence.name.encode())
    scene = make_scene(sequence.kind, seed, frames, settings.height, settings.width)
    bodies = tuple(replace(body, path=Path3(body.path.at(0)), spin=(0.0, 0.0, 0.0)) for body in scene.bodies)
    return replace(scene, bodies=bodies, camera=replace(scene.camera, field_of_view=fov))


def _omnidata_maps(frame: RenderedFrame, first: bool) -> Iterator[tuple[str, NDArray[Any]]]:
    height, width = frame.valid.shape
    there, mask = frame.valid.copy(), frame.valid.copy()
    if first:
        there[: height // 8, : width // 8] = False
        mask[height // 2] = False
        mask &= there
    normal = np.where(there[..., None], np.rint((frame.normal + 1) / 2 * 255), _NO_NORMAL)
    depth = np.where(there, np.minimum(np.rint(frame.depth * _OMNIDATA_UNITS), _NO_DEPTH), _NO_DEPTH)
    yield "rgb", frame.rgb
    yield "normal", normal.astype(np.uint8)
    yield "depth_zbuffer", depth.astype(np.uint16)
    yield "mask_valid", np.where(mask, 255, 0).astype(np.uint8)


def _omnidata_camera(frame: RenderedFrame, width: int) -> dict[str, Any]:
    rotation = frame.cam_to_world[:3, :3] @ axes_matrix("opengl", "opencv")
    return {
        "camera_location": frame.cam_to_world[:3, 3].tolist(),
        "camera_rotation_final_quaternion": Rotation.from_matrix(rotation).as_quat(scalar_first=True).tolist(),
        "field_of_view_rads": 2 * math.atan(0.5 * width / float(frame.intrinsics[0, 0])),
        "resolution": width,
    }


def _omnidata_file(out: Path, domain: str, scene: str, view: str, suffix: str) -> Path:
    folder = out / domain / "replica" / scene
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{view}_domain_{domain}.{suffix}"


def _write_depth(path: Path, units: NDArray[np.float64]) -> None:
    """Write 16-bit depth; what does not fit is unknown."""
    rounded = np.rint(units)
    _write_png(path, np.where(rounded <= np.iinfo(np.uint16).max, rounded, 0).astype(np.uint16))


def _write_png(path: Path, picture: NDArray[Any]) -> None:
    Image.fromarray(picture).save(path, format="PNG", compress_level=6)
