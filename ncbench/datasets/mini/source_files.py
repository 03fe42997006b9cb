"""What the writers of miniature training sets share: EXR files, archives, and cameras held still or moved sideways."""

from __future__ import annotations

import dataclasses
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ncbench.datasets.mini.scene import Camera, Path3, Scene

_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_exr(path: Path, channels: Mapping[str, NDArray[np.floating]]) -> None:
    """Write a single-part, zip-compressed OpenEXR file.

    Args:
        path: The file; its folder is made where missing.
        channels: Name -> (H, W) half or float32.
    """
    import OpenEXR

    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {name: np.ascontiguousarray(values) for name, values in channels.items()}).write(str(path))


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an 8-bit PNG; its folder is made where missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, format="PNG", compress_level=6)


def pack_zip(folder: Path) -> None:
    """Replace a folder by ``<folder>.zip`` whose members begin with the folder's name; no times are stored."""
    with zipfile.ZipFile(folder.with_name(f"{folder.name}.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                info = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), _EPOCH)
                archive.writestr(info, path.read_bytes(), zipfile.ZIP_STORED)
    _remove(folder)


def pack_tar(folder: Path) -> None:
    """Replace a folder by ``<folder>.tar`` whose members begin with the folder's name; no times are stored."""
    with tarfile.open(folder.with_name(f"{folder.name}.tar"), "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                info = tarfile.TarInfo(path.relative_to(folder.parent).as_posix())
                content = path.read_bytes()
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    _remove(folder)


def hold_still(scene: Scene, frame: int) -> Scene:
    """Stop all bodies where they are at a frame; the camera still moves.

    Args:
        scene: The scene.
        frame: The moment.

    Returns:
        The same scene with bodies that neither travel nor spin.
    """
    from scipy.spatial.transform import Rotation

    poses = scene.body_poses(frame)
    bodies = [
        dataclasses.replace(
            body,
            path=Path3(body.path.at(frame)),
            turn=tuple(Rotation.from_matrix(pose[:3, :3]).as_rotvec().tolist()),
            spin=(0.0, 0.0, 0.0),
        )
        for body, pose in zip(scene.bodies, poses, strict=True)
    ]
    return dataclasses.replace(scene, bodies=tuple(bodies))


def move_camera(scene: Scene, frame: int, right: float, down: float) -> Scene:
    """Hold the camera where it is at a frame, shifted within its own picture plane.

    Args:
        scene: The scene.
        frame: The moment.
        right: Metres along the camera's x axis.
        down: Metres along its y axis.

    Returns:
        The scene with a camera that stands still.
    """
    camera = scene.camera
    shift = camera.pose(frame)[:3, :2] @ np.array([right, down])
    eye, target = (tuple((np.array(path.at(frame)) + shift).tolist()) for path in (camera.position, camera.target))
    return dataclasses.replace(scene, camera=Camera(Path3(eye), Path3(target), camera.field_of_view, camera.roll))


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
