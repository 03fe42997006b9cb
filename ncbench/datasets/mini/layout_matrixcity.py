"""A miniature of MatrixCity in its official form: tar archives, Unreal's left hand, centimetres, shrunken rotations."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.mini.render import RenderedFrame, render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.datasets.mini.scene import Path3, Scene
from ncbench.datasets.mini.source_files import hold_still, pack_tar, write_exr, write_png
from ncbench.settings import Settings

HALF_BEYOND = 65504.0  # the greatest half: what float16 depth holds where nothing is near
FLOAT_BEYOND = 1e7  # centimetres
_OPENGL = np.diag([1.0, -1.0, -1.0])
_HIGH = 12.0  # metres by which an aerial camera is raised


class BlockSettings(Settings):
    """One block.

    Attributes:
        city: ``small_city`` or ``big_city``.
        view: ``street`` or ``aerial``.
        name: Name of its archives.
        packed: As tar archives, or unpacked with the folder's name doubled.
        suffixes: Whether the archives of normals and depth carry ``_normal`` and ``_depth``; some do not.
        cameras: ``transforms`` or ``pose``, which of the two files to write.
    """

    city: Literal["small_city", "big_city"]
    view: Literal["street", "aerial"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
    packed: bool = True
    suffixes: bool = True
    cameras: Literal["transforms", "pose"] = "transforms"


class MatrixCityLayoutSettings(Settings):
    """A miniature of MatrixCity.

    Attributes:
        seed: Seed of all blocks.
        drives: Drives of each block: stretches of a camera path that are too far apart to be one clip.
        frames: Frames of a drive.
        height: Picture's height in pixels.
        width: Picture's width in pixels.
        blocks: The blocks.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    drives: Annotated[int, Field(ge=1, le=4)] = 2
    frames: Annotated[int, Field(ge=1, le=999)] = 3
    height: Annotated[int, Field(ge=8, le=4096)]
    width: Annotated[int, Field(ge=8, le=4096)]
    blocks: Annotated[tuple[BlockSettings, ...], Field(min_length=1)]


def write_matrixcity_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write blocks as the release does.

    Pictures are PNG. Depth is z-depth in centimetres, float32 in ``*_depth_float32`` (``big_city_depth_flaot32``, as
    the release spells it) and float16 in ``*_depth``, where 65504 means beyond. Normals (Small City only) are in world
    space, (x, -y, z) of a right-handed world with z up, as R, G, B = (n + 1) / 2, zero where there is no surface.
    Cameras look along -z with y up. ``transforms.json`` holds rotations divided by 100, positions in metres;
    ``pose/<block>/transforms_train.json`` holds rotations, positions in 100 m. File numbers are shuffled.

    Args:
        out: An empty folder.
        settings: See ``MatrixCityLayoutSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = MatrixCityLayoutSettings.parse(settings, "generator of the MatrixCity layout")
    for block in checked.blocks:
        scene, moments = matrixcity_scene(checked, block)
        tops = _tops(block)
        folders = {kind: out / top / block.view / "train" / name for kind, (top, name) in tops.items()}
        poses = {}
        for number, moment in enumerate(moments):
            frame = render_frame(scene, moment)
            poses[number] = frame.cam_to_world
            inner = {kind: folder if block.packed else folder / folder.name for kind, folder in folders.items()}
            _write_frame(inner, f"{number:04d}", frame)
        if block.packed:
            for folder in folders.values():
                pack_tar(folder)
        _write_cameras(out / block.city / block.view, block, scene.camera.field_of_view, poses)


def matrixcity_scene(settings: MatrixCityLayoutSettings, block: BlockSettings) -> tuple[Scene, tuple[int, ...]]:
    """Make the scene of a block, its bodies stopped.

    Args:
        settings: Of the miniature.
        block: One of its blocks.

    Returns:
        The scene; and for each file number the frame of the scene that it shows.
    """
    seed = (settings.seed << 32) + zlib.crc32(f"{block.city}-{block.name}".encode())
    period = 28  # frames in which the camera of an outdoor scene comes round
    scene = hold_still(make_scene("outdoor", seed, period, settings.height, settings.width), 0)
    if block.view == "aerial":
        x, y, z = scene.camera.position.centre
        raised = dataclasses.replace(scene.camera.position, centre=(x, y, z + _HIGH))
        camera = dataclasses.replace(scene.camera, position=raised, target=Path3(scene.camera.target.centre))
        scene = dataclasses.replace(scene, camera=camera)
    starts = np.arange(settings.drives) * period // settings.drives
    moments = (starts[:, None] + np.arange(settings.frames)).ravel() % period
    return scene, tuple(np.random.default_rng(seed).permutation(moments).tolist())


def _tops(block: BlockSettings) -> dict[str, tuple[str, str]]:
    """Kind -> top folder and name of the archive."""
    depth = f"{block.name}_depth" if block.suffixes else block.name
    wide = "big_city_depth_flaot32" if block.city == "big_city" else "small_city_depth_float32"
    tops = {"image": (block.city, block.name), "half": (f"{block.city}_depth", depth), "wide": (wide, depth)}
    if block.city == "small_city":
        tops["normal"] = ("small_city_normal", f"{block.name}_normal" if block.suffixes else block.name)
    return tops


def _write_frame(folders: Mapping[str, Path], name: str, frame: RenderedFrame) -> None:
    write_png(folders["image"] / f"{name}.png", frame.rgb)
    centimetres = frame.depth * 100
    half = np.where(frame.valid, np.minimum(centimetres, HALF_BEYOND), HALF_BEYOND).astype(np.float16)
    write_exr(folders["half"] / f"{name}.exr", dict.fromkeys("BGR", half))
    wide = np.where(frame.valid, centimetres, FLOAT_BEYOND).astype(np.float32)
    write_exr(folders["wide"] / f"{name}.exr", dict.fromkeys("BGR", wide))
    if "normal" in folders:
        unreal = frame.normal @ frame.cam_to_world[:3, :3].T * (1.0, -1.0, 1.0)
        pixels = np.where(frame.valid[..., None], 0.5 * (unreal + 1), 0.0).astype(np.float32)
        write_exr(folders["normal"] / f"{name}.exr", dict(zip("RGB", np.moveaxis(pixels, -1, 0), strict=True)))


def _write_cameras(
    folder: Path, block: BlockSettings, field_of_view: float, poses: Mapping[int, NDArray[np.float64]]
) -> None:
    path = folder / "pose" / block.name / "transforms_train.json"
    entries: list[dict[str, Any]] = []
    for number, pose in poses.items():
        rotation = pose[:3, :3] @ _OPENGL
        if block.cameras == "transforms":
            entries.append({"frame_index": number, "rot_mat": _matrix(rotation / 100, pose[:3, 3], 0.01)})
        else:
            file = f"../../train/{block.name}/{number:04d}.png"
            entries.append({"file_path": file, "transform_matrix": _matrix(rotation, pose[:3, 3] / 100, 1.0)})
    if block.cameras == "transforms":
        path = folder / "train" / block.name / "transforms.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"camera_angle_x": field_of_view, "frames": entries}))


def _matrix(rotation: NDArray[np.float64], position: NDArray[np.float64], padding: float) -> list[list[float]]:
    matrix = np.zeros((4, 4))
    matrix[:3, :3], matrix[:3, 3], matrix[3, 3] = rotation, position, padding
    rows: list[list[float]] = matrix.tolist()
    return rows
