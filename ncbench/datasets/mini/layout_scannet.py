"""Write rendered clips as ScanNet's scans, and as FrameNet's pictures of them."""

from __future__ import annotations

import dataclasses
import io
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from ncbench.datasets.frame import Matrix
from ncbench.datasets.mini.layouts import LayoutSettings, SequenceSettings
from ncbench.datasets.mini.render import RenderedFrame, render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.datasets.mini.scene import Scene

LOST = np.full((4, 4), -np.inf)
"""What ScanNet stores for a frame whose tracking was lost."""
_MILLIMETRES = 1000.0
_COLOUR_KINDS = {"raw": 0, "png": 1, "jpeg": 2}
_DEPTH_KINDS = {"raw": 0, "zlib": 1}


class SensFrame(NamedTuple):
    """One frame to write: (4, 4) pose, (H, W, 3) uint8 picture, (H, W) uint16 depth."""

    pose: Matrix
    rgb: NDArray[np.uint8]
    depth: NDArray[np.uint16]


class ScannetMiniSettings(LayoutSettings):
    """A miniature of ScanNet's scans; the sizes are those of the depth.

    Attributes:
        lost_frame: The frame of each clip that the tracking lost; None for no such frame.
    """

    lost_frame: Annotated[int, Field(ge=0)] | None = None


class FramenetMiniSettings(LayoutSettings):
    """A miniature of FrameNet's pictures.

    Attributes:
        focal: Focal length in pixels of every scan, as FrameNet uses one camera for all of ScanNet.
    """

    focal: Annotated[float, Field(gt=0)]


def write_scannet_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write clips as scans below ``scans_test``: the first as ``.sens``, the others as ScanNet's exporter unpacks them.

    Pictures are JPEG of a colour camera with 1296 / 640 times the depth's width and 968 / 480 times its height, and
    with its own intrinsics; depth is 16-bit millimetres, 0 where nothing is hit.

    Args:
        out: An empty folder.
        settings: See ``ScannetMiniSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = ScannetMiniSettings.parse(settings, "generator of the ScanNet layout")
    color_size = round(checked.height * 968 / 480), round(checked.width * 1296 / 640)
    for place, sequence in enumerate(checked.sequences):
        depth_scene = scene_of(checked, sequence)
        color_scene = dataclasses.replace(depth_scene, height=color_size[0], width=color_size[1])
        frames = []
        for index in range(checked.frames):
            seen = render_frame(depth_scene, index)
            pose = LOST if index == checked.lost_frame else seen.cam_to_world
            depth = np.rint(seen.depth * _MILLIMETRES).astype(np.uint16)
            frames.append(SensFrame(pose, render_frame(color_scene, index).rgb, depth))
        folder = out / "scans_test" / sequence.name
        folder.mkdir(parents=True)
        cameras = color_scene.intrinsics, depth_scene.intrinsics
        if place == 0:
            write_sens(folder / f"{sequence.name}.sens", frames, *cameras)
        else:
            write_export(folder, frames, *cameras)


def write_framenet_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write clips as ``scannet-frames/<scan>/frame-000000-*.png`` of FrameNet (Huang et al., ICCV 2019).

    Each frame has ``color``, ``normal`` (8 bits, x right, y down, z forward, black where nothing is hit),
    ``orient-mask`` (grey, 255 where there is a normal) and ``renderdepth`` (16-bit millimetres).

    Args:
        out: An empty folder.
        settings: See ``FramenetMiniSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = FramenetMiniSettings.parse(settings, "generator of the FrameNet layout")
    for sequence in checked.sequences:
        scene = with_focal(scene_of(checked, sequence), checked.focal)
        folder = out / "scannet-frames" / sequence.name
        folder.mkdir(parents=True)
        for index in range(checked.frames):
            frame = render_frame(scene, index)
            stem = folder / f"frame-{20 * index:06d}"
            save_png(stem.with_name(f"{stem.name}-color.png"), frame.rgb)
            save_png(stem.with_name(f"{stem.name}-normal.png"), eight_bits(frame, frame.normal))
            save_png(stem.with_name(f"{stem.name}-orient-mask.png"), np.where(frame.valid, 255, 0).astype(np.uint8))
            depth = np.rint(frame.depth * _MILLIMETRES).astype(np.uint16)
            save_png(stem.with_name(f"{stem.name}-renderdepth.png"), depth)


def scene_of(settings: LayoutSettings, sequence: SequenceSettings) -> Scene:
    """Make the scene of a clip; its seed follows from its name where it has none of its own."""
    seed = sequence.seed
    if seed is None:
        seed = (settings.seed << 32) + zlib.crc32(sequence.name.encode())
    return make_scene(sequence.kind, seed, settings.frames, settings.height, settings.width)


def with_focal(scene: Scene, focal: float) -> Scene:
    """Give a scene's camera a focal length in pixels."""
    view = 2 * math.atan(0.5 * scene.width / focal)
    return dataclasses.replace(scene, camera=dataclasses.replace(scene.camera, field_of_view=view))


def eight_bits(frame: RenderedFrame, normal: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Code normals in 8 bits, rounded to the nearest, black where nothing is hit."""
    return np.where(frame.valid[..., None], np.rint((normal + 1) * 127.5), 0).astype(np.uint8)


def save_png(path: Path, picture: NDArray[Any]) -> None:
    """Write an 8-bit picture or a 16-bit grey one."""
    Image.fromarray(picture).save(path, format="PNG", compress_level=3)


def write_sens(
    path: Path,
    frames: Sequence[SensFrame],
    intrinsic_color: Matrix,
    intrinsic_depth: Matrix,
    *,
    extrinsic_depth: Matrix | None = None,
    colour: str = "jpeg",
    depth: str = "zlib",
) -> None:
    """Write a ``.sens`` file of version 4.

    Args:
        path: The file to make.
        frames: The frames, all of one size.
        intrinsic_color: (3, 3) pixels of the pictures.
        intrinsic_depth: (3, 3) pixels of the depth.
        extrinsic_depth: (4, 4) depth camera to colour camera; None for the same place.
        colour: ``raw``, ``png`` or ``jpeg``.
        depth: ``raw`` or ``zlib``.
    """
    name = b"StructureSensor (rendered)"
    offset = np.eye(4) if extrinsic_depth is None else extrinsic_depth
    matrices = [_homogeneous(intrinsic_color), np.eye(4), _homogeneous(intrinsic_depth), offset]
    color_size, depth_size = frames[0].rgb.shape[:2], frames[0].depth.shape
    with path.open("wb") as stream:
        stream.write(struct.pack("<IQ", 4, len(name)) + name)
        stream.write(np.stack(matrices).astype("<f4").tobytes())
        stream.write(struct.pack("<ii", _COLOUR_KINDS[colour], _DEPTH_KINDS[depth]))
        stream.write(struct.pack("<IIII", *color_size[::-1], *depth_size[::-1]))
        stream.write(struct.pack("<fQ", _MILLIMETRES, len(frames)))
        for index, frame in enumerate(frames):
            picture = frame.rgb.tobytes() if colour == "raw" else encode(frame.rgb, colour)
            grid = frame.depth.astype("<u2").tobytes()
            grid = zlib.compress(grid) if depth == "zlib" else grid
            time = 33_333 * index
            stream.write(frame.pose.astype("<f4").tobytes())
            stream.write(struct.pack("<QQQQ", time, time, len(picture), len(grid)) + picture + grid)
        stream.write(struct.pack("<Q", 0))  # no IMU records


def write_export(folder: Path, frames: Iterable[SensFrame], intrinsic_color: Matrix, intrinsic_depth: Matrix) -> None:
    """Write a scan as ScanNet's exporter does: ``color``, ``depth``, ``pose`` and ``intrinsic``.

    Args:
        folder: The scan's folder.
        frames: The frames, all of one size.
        intrinsic_color: (3, 3) pixels of the pictures.
        intrinsic_depth: (3, 3) pixels of the depth.
    """
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True)
    for index, frame in enumerate(frames):
        (folder / "color" / f"{index}.jpg").write_bytes(encode(frame.rgb, "jpeg"))
        save_png(folder / "depth" / f"{index}.png", frame.depth)
        np.savetxt(folder / "pose" / f"{index}.txt", frame.pose, fmt="%f")
    for kind, matrix in (("color", intrinsic_color), ("depth", intrinsic_depth)):
        np.savetxt(folder / "intrinsic" / f"intrinsic_{kind}.txt", _homogeneous(matrix), fmt="%f")
        np.savetxt(folder / "intrinsic" / f"extrinsic_{kind}.txt", np.eye(4), fmt="%f")


def encode(rgb: NDArray[np.uint8], kind: str) -> bytes:
    """Encode a picture as ``png`` or ``jpeg``."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, format=kind.upper(), **({"quality": 95} if kind == "jpeg" else {}))
    return stream.getvalue()


def _homogeneous(intrinsics: Matrix) -> Matrix:
    matrix = np.eye(4)
    matrix[:3, :3] = intrinsics
    return matrix
