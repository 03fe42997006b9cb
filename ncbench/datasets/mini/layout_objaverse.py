"""Miniatures of Objaverse (GLB files with metadata) and of G-buffer Objaverse (rendered views), in official form."""

from __future__ import annotations

import gzip
import importlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from ncbench.datasets.mini import palette
from ncbench.datasets.mini.lighting import Light
from ncbench.datasets.mini.primitives import Box, Cone, Cylinder, Sphere
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.scene import Body, Camera, Path3, Scene
from ncbench.datasets.mini.source_files import pack_tar, write_exr, write_png
from ncbench.settings import Settings

_FOCAL = 1422.222 / 1024  # in picture widths, as published
_DISTANCE = 2.0  # metres from the object's middle
_PERIOD = 40  # views of a full orbit
Shape = Literal["box", "ball", "tower", "lattice"]


class ObjaverseObject(Settings):
    """One object of the miniature: its uid, its shape, its licence, and the shard that it lies in."""

    uid: Annotated[str, Field(pattern=r"^[0-9a-z]+$")]
    shape: Shape
    licence: str = "by"
    shard: Annotated[str, Field(pattern=r"^000-\d{3}$")] = "000-000"


class ObjaverseLayoutSettings(Settings):
    """A miniature of Objaverse.

    Attributes:
        seed: Seed of colours and textures.
        objects: The objects.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    objects: Annotated[tuple[ObjaverseObject, ...], Field(min_length=1)]


class GObjaverseObject(Settings):
    """One object of the miniature: its two numbers, whether it comes as tar, and views that lack a file."""

    group: Annotated[int, Field(ge=0)]
    number: Annotated[int, Field(ge=0)]
    packed: bool = False
    broken_views: tuple[int, ...] = ()


class GObjaverseLayoutSettings(Settings):
    """A miniature of G-buffer Objaverse.

    Attributes:
        seed: Seed of the objects.
        views: Views of each object, the first of an orbit of 40.
        size: Height and width of the pictures.
        objects: The objects.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    views: Annotated[int, Field(ge=1, le=40)] = 4
    size: Annotated[int, Field(ge=8, le=4096)]
    objects: Annotated[tuple[GObjaverseObject, ...], Field(min_length=1)]


def write_objaverse_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write ``glbs/000-NNN/<uid>.glb``, ``metadata/000-NNN.json.gz`` and ``object-paths.json.gz``.

    ``box`` has a texture, ``ball`` smooth normals and colours at its vertices, ``tower`` several nodes with plain
    materials, one of them stretched and turned by its transform. ``lattice`` is a box whose texture is cut out in every
    other square (alpha mode ``MASK``), so that its inside shows.

    Args:
        out: An empty folder.
        settings: See ``ObjaverseLayoutSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = ObjaverseLayoutSettings.parse(settings, "generator of the Objaverse layout")
    paths: dict[str, str] = {}
    metadata: dict[str, dict[str, Any]] = {}
    for item in checked.objects:
        paths[item.uid] = f"glbs/{item.shard}/{item.uid}.glb"
        path = out / paths[item.uid]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_glb(item.shape, [checked.seed, zlib.crc32(item.uid.encode())]))
        entry = {"uid": item.uid, "name": item.shape, "license": item.licence}
        metadata.setdefault(item.shard, {})[item.uid] = entry
    for shard, entries in metadata.items():
        _write_gzip(out / "metadata" / f"{shard}.json.gz", entries)
    _write_gzip(out / "object-paths.json.gz", paths)


def make_glb(shape: Shape, seed: list[int]) -> bytes:
    """Make a small object.

    Args:
        shape: See ``write_objaverse_layout``.
        seed: Of its colours.

    Returns:
        The bytes of a GLB file, the same for the same arguments.
    """
    trimesh: Any = importlib.import_module("trimesh")  # Any: half of its functions carry no types
    looks, material = trimesh.visual.TextureVisuals, trimesh.visual.material.PBRMaterial
    rng = np.random.default_rng(seed)
    scene = trimesh.Scene()
    if shape in ("box", "lattice"):
        mesh = trimesh.creation.box((1.0, 0.7, 0.5))
        mesh.unmerge_vertices()
        uv = mesh.vertices[:, :2] + mesh.vertices[:, 2:]
        if shape == "box":
            stuff = material(baseColorTexture=Image.fromarray(_checks(rng)))
        else:
            stuff = material(baseColorTexture=Image.fromarray(_holes(rng)), alphaMode="MASK", alphaCutoff=0.4)
        mesh.visual = looks(uv=uv, material=stuff)
        scene.add_geometry(mesh, geom_name=shape, node_name=shape)
    elif shape == "ball":
        mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
        mesh.visual.vertex_colors = np.rint(255 * (0.5 + mesh.vertices @ rng.uniform(-0.5, 0.5, (3, 3))))
        scene.add_geometry(mesh, geom_name="ball", node_name="ball")
    else:
        for level in range(3):
            mesh = trimesh.creation.cylinder(radius=0.3, height=0.4, sections=6)
            mesh.unmerge_vertices()
            mesh.visual = looks(material=material(baseColorFactor=[*rng.uniform(0.3, 0.9, 3), 1.0]))
            place = trimesh.transformations.rotation_matrix(0.4 * level, (0.2, 1.0, 0.1))
            place[:3, :3] = place[:3, :3] @ np.diag([1.0, 1.0 + level, 0.8])
            place[:3, 3] = (0.1 * level, 0.6 * level, 0.0)
            scene.add_geometry(mesh, geom_name=f"level{level}", node_name=f"level{level}", transform=place)
    return bytes(trimesh.exchange.gltf.export_glb(scene, include_normals=True))


def write_gobjaverse_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write ``<group>/<number>/campos_512_v4/000NN/000NN{.json,.png,_nd.exr}``, or a tar of it for each object.

    The PNG has alpha, and black under it. World normals (z up) are stored as R, G, B = (-x, z, -y), at nine tenths of
    unit length, NaN in the picture's last row; depth is in A, 0 where there is nothing. The JSON has the camera's x, y,
    z (right, down, forward) and origin.

    Args:
        out: An empty folder.
        settings: See ``GObjaverseLayoutSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = GObjaverseLayoutSettings.parse(settings, "generator of the G-Objaverse layout")
    for item in checked.objects:
        scene = gobjaverse_scene(checked, item)
        folder = out / str(item.group) / str(item.number)
        for view in range(checked.views):
            _write_view(folder / "campos_512_v4" / f"{view:05d}", scene, view)
        for view in item.broken_views:
            (folder / "campos_512_v4" / f"{view:05d}" / f"{view:05d}.png").unlink()
        if item.packed:
            pack_tar(folder)


def gobjaverse_scene(settings: GObjaverseLayoutSettings, item: GObjaverseObject) -> Scene:
    """Make an object of a few solids within a ball of half a metre, under the sky, and a camera that circles it.

    Args:
        settings: Of the miniature.
        item: One of its objects.

    Returns:
        The scene; frame ``k`` is view ``k``.
    """
    rng = np.random.default_rng([settings.seed, item.group, item.number])
    shapes = (Sphere(0.2), Box(0.15, 0.2, 0.1), Cylinder(0.15, 0.15), Cone(0.2, 0.05, 0.18))
    order = rng.permutation(len(shapes))
    places = ((0.2, 0.1, 0.0), (-0.2, 0.1, 0.1), (0.0, -0.2, -0.1), (0.0, 0.1, 0.25))
    bodies = tuple(
        Body(shapes[index], palette.toy(rng, 6.0), Path3(place), turn=tuple(rng.uniform(-1, 1, 3).tolist()))
        for index, place in zip(order.tolist(), places, strict=True)
    )
    start = float(rng.uniform(0, 2 * math.pi))
    position = Path3((0.0, 0.0, 0.7), (_DISTANCE, _DISTANCE, 0.3), (start, start + 0.5 * math.pi, 0.0), _PERIOD)
    camera = Camera(position, Path3((0.0, 0.0, 0.0)), 2 * math.atan(0.5 / _FOCAL))
    light = Light(
        source=(0.5, -0.6, 1.0),
        is_sun=True,
        colour=(1.2, 1.1, 1.0),
        reach=1.0,
        softness=0.02,
        above=(0.4, 0.4, 0.45),
        below=(0.3, 0.3, 0.28),
        corner=0.3,
        zenith=(0.3, 0.4, 0.6),
        haze=(0.6, 0.7, 0.8),
        haze_density=0.0,
    )
    return Scene("object", bodies, camera, light, _PERIOD, settings.size, settings.size)


def _write_view(folder: Path, scene: Scene, view: int) -> None:
    frame = render_frame(scene, view)
    alpha = np.where(frame.valid, 255, 0).astype(np.uint8)[..., None]
    write_png(folder / f"{view:05d}.png", np.concatenate([np.where(alpha > 0, frame.rgb, 0), alpha], axis=-1))
    rotation = frame.cam_to_world[:3, :3]
    x, y, z = np.moveaxis(0.9 * frame.normal @ rotation.T, -1, 0).astype(np.float32)
    x[-1] = np.nan
    channels = {"R": -x, "G": z, "B": -y, "A": frame.depth.astype(np.float32)}
    write_exr(folder / f"{view:05d}_nd.exr", channels)
    axes = dict(zip("xyz", rotation.T.tolist(), strict=True))
    (folder / f"{view:05d}.json").write_text(json.dumps({"origin": frame.cam_to_world[:3, 3].tolist(), **axes}))


def _checks(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A chequered texture of two colours."""
    colours = rng.integers(60, 250, (2, 3), dtype=np.uint8)
    y, x = np.indices((64, 64)) // 8
    return np.asarray(colours[(x + y) % 2])


def _holes(rng: np.random.Generator) -> NDArray[np.uint8]:
    """The same with nothing in the squares of the second colour."""
    pixels = _checks(rng)
    there = (pixels == pixels[0, 0]).all(axis=-1, keepdims=True)
    return np.concatenate([pixels, np.where(there, 255, 0).astype(np.uint8)], axis=-1)


def _write_gzip(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(values).encode(), mtime=0))
