"""Write rendered clips in KITTI's layouts: annotated depth beside raw drives, and the flow pairs of 2015."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from ncbench.datasets.mini.clip_scene import clip_scene
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.mini.render import RenderedFrame, render_frame
from ncbench.datasets.mini.scene import Matrix

_DATE = "2011_09_26"
_FIELD_OF_VIEW = 80.0  # degrees: one calibration a day, as in the recordings
_FIRST = 5  # the first frames of a drive have no annotated depth
_BASELINE = 0.06  # metres between the projection centres of cameras 0 and 2, along x
_UNITS = 256.0
_EARTH = 6_378_137.0  # metres, radius
_START = (49.01, 8.42, 115.0)  # degrees of latitude and longitude, and metres: where every drive begins
# how the instruments are mounted: turned by so many degrees about x, y and z, and shifted by so many metres
_RECTIFICATION = ((0.4, 0.5, -0.2), (0.0, 0.0, 0.0))
_VELO_TO_CAM = ((-90.3, 0.6, -90.2), (-0.004, -0.076, -0.272))
_IMU_TO_VELO = ((0.1, -0.04, 0.9), (-0.81, 0.32, -0.80))


def write_kitti_depth_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write clips as drives of the annotated depth (half ``val``) with the raw pictures that belong to them.

    Depth is sparse as a LiDAR's: scan lines below the top third of the picture, every fourth column of them; 16-bit PNG
    of metres times 256. The pictures also cover frames without depth. The camera's path is written as the measurements
    of a GPS and inertial unit (``oxts``), from frame 0 on, when the camera stands where the rendered clip begins.

    Args:
        out: An empty folder.
        settings: See ``LayoutSettings``; a clip's name is not used, drives are numbered.

    Raises:
        CardError: The settings are wrong.
    """
    checked = LayoutSettings.parse(settings, "generator of the KITTI depth layout")
    for number, sequence in enumerate(checked.sequences, 1):
        drive = f"{_DATE}_drive_{number:04d}_sync"
        pictures = out / _DATE / drive / "image_02" / "data"
        depths = out / "val" / drive / "proj_depth" / "groundtruth" / "image_02"
        measured = out / _DATE / drive / "oxts" / "data"
        for folder in (pictures, depths, measured):
            folder.mkdir(parents=True)
        scene = clip_scene(checked, sequence, _FIELD_OF_VIEW)
        start = _imu_pose(scene.camera.pose(0))
        for index in range(_FIRST):  # standing still
            _write_oxts(measured / f"{index:010d}.txt", start, start)
        for index in range(checked.frames):
            frame = render_frame(scene, index)
            name = f"{index + _FIRST:010d}.png"
            _write_png(pictures / name, frame.rgb)
            _write_oxts(measured / f"{index + _FIRST:010d}.txt", _imu_pose(frame.cam_to_world), start)
            if index:  # pictures begin before depth does
                _write_png(depths / name, _scanned(frame))
    _write_calibration(out / _DATE / "calib_cam_to_cam.txt", scene.intrinsics, checked)
    for kind, mount in (("velo_to_cam", _VELO_TO_CAM), ("imu_to_velo", _IMU_TO_VELO)):
        _write_lines(out / _DATE / f"calib_{kind}.txt", {"R": _row(_mounted(mount)[:3, :3]), "T": _row(mount[1])})


def write_kitti_flow_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write the first two frames of each clip as a training pair of KITTI 2015.

    Under ``training``: ``image_2/NNNNNN_{10,11}.png``, ``flow_occ`` and ``flow_noc`` (16-bit PNG, see
    ``read_flow_png``) and ``calib_cam_to_cam/NNNNNN.txt``.

    Args:
        out: An empty folder.
        settings: See ``LayoutSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = LayoutSettings.parse(settings, "generator of the KITTI flow layout")
    base = out / "training"
    for kind in ("image_2", "flow_occ", "flow_noc", "calib_cam_to_cam"):
        (base / kind).mkdir(parents=True)
    for number, sequence in enumerate(checked.sequences):
        scene = clip_scene(checked, sequence, _FIELD_OF_VIEW)
        first, second = render_frame(scene, 0), render_frame(scene, 1)
        _write_png(base / "image_2" / f"{number:06d}_10.png", first.rgb)
        _write_png(base / "image_2" / f"{number:06d}_11.png", second.rgb)
        known = np.isfinite(first.flow[..., 0])
        for kind, shown in (("flow_occ", known), ("flow_noc", known & ~first.occluded)):
            cv2.imwrite(str(base / kind / f"{number:06d}_10.png"), _flow_pixels(first.flow, shown))
        _write_calibration(base / "calib_cam_to_cam" / f"{number:06d}.txt", scene.intrinsics, checked)


def _scanned(frame: RenderedFrame) -> NDArray[np.uint16]:
    height, width = frame.depth.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)
    hit = frame.valid & (rows >= height / 3) & (rows % 2 == 0) & ((columns + rows // 2) % 4 == 0)
    return np.where(hit & (frame.depth < 65535 / _UNITS), np.rint(frame.depth * _UNITS), 0).astype(np.uint16)


def _flow_pixels(flow: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Encode flow in the order that OpenCV writes (blue, green, red): known, v, u."""
    levels = np.clip(np.rint(np.nan_to_num(flow) * 64 + 32768), 0, 65535)
    stored = np.stack([known, levels[..., 1], levels[..., 0]], axis=-1)
    return np.where(known[..., None], stored, 0).astype(np.uint16)


def _mounted(mount: tuple[tuple[float, ...], tuple[float, ...]]) -> Matrix:
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", mount[0], degrees=True).as_matrix()
    motion[:3, 3] = mount[1]
    return motion


def _imu_pose(cam_to_world: Matrix) -> Matrix:
    """Inertial unit to world; the scene has x east, y north, z up."""
    shift = np.eye(4)
    shift[0, 3] = _BASELINE
    imu_to_cam = shift @ _mounted(_RECTIFICATION) @ _mounted(_VELO_TO_CAM) @ _mounted(_IMU_TO_VELO)
    return np.asarray(cam_to_world @ imu_to_cam)


def _write_oxts(path: Path, imu: Matrix, start: Matrix) -> None:
    """Write what the unit measures; its pose ``start`` is where the drive begins."""
    latitude, longitude, altitude = _START
    scale = math.cos(math.radians(latitude)) * _EARTH
    east, north, up = (imu - start)[:3, 3]
    mercator = math.log(math.tan(math.radians(90 + latitude) / 2)) + north / scale
    place = [
        math.degrees(2 * math.atan(math.exp(mercator))) - 90,
        longitude + math.degrees(east / scale),
        altitude + up,
    ]
    turns = Rotation.from_matrix(imu[:3, :3]).as_euler("xyz")  # roll, pitch, yaw about axes that stand still
    others = ["0"] * 24  # velocities, accelerations, accuracies, states
    path.write_text(" ".join([*(repr(float(value)) for value in (*place, *turns)), *others]) + "\n", encoding="utf-8")


def _write_calibration(path: Path, intrinsics: Matrix, settings: LayoutSettings) -> None:
    projection = np.concatenate([intrinsics, [[intrinsics[0, 0] * _BASELINE], [0], [0]]], axis=1)
    lines = {
        "calib_time": "09-Jan-2012 13:57:47",
        "corner_dist": f"{0.0995:.6e}",
        "R_rect_00": _row(_mounted(_RECTIFICATION)[:3, :3]),
        "S_rect_02": f"{settings.width:.6e} {settings.height:.6e}",
        "R_rect_02": _row(np.eye(3)),
        "P_rect_02": _row(projection),
    }
    _write_lines(path, lines)


def _write_lines(path: Path, lines: Mapping[str, str]) -> None:
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()), encoding="utf-8")


def _row(values: Matrix | tuple[float, ...]) -> str:
    return " ".join(f"{value:.12e}" for value in np.ravel(values))


def _write_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    Image.fromarray(pixels).save(path, format="PNG", compress_level=6)
