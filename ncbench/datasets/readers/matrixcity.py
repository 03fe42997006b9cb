"""MatrixCity (Li et al., ICCV 2023): street and aerial pictures of two Unreal cities, as tar archives or unpacked.

The Small City has normals in world space; for the Big City they are the cross product of depth differences, as
NormalCrafter made them. Both cities stand still, so that flow follows from depth and poses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.cards import digest
from ncbench.datasets.formats.archived_members import open_members
from ncbench.datasets.formats.images import image_size, read_image_bytes
from ncbench.datasets.formats.matrixcity_cameras import POSE, TRANSFORMS, Cameras, read_cameras
from ncbench.datasets.formats.members import Members, hash_members
from ncbench.datasets.frame import BoolMap, FloatMap, Frame, Matrix
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.layout import listing, require_folder, require_known, require_shape
from ncbench.datasets.readers.matrixcity_clips import order_clips
from ncbench.datasets.readers.matrixcity_settings import MatrixCitySettings, View
from ncbench.datasets.readers.normal_components import (
    check_order,
    exr_channels,
    exr_depth,
    facing_normals,
    finite_rows,
    metric_depth,
)
from ncbench.errors import SourceError
from ncbench.geometry.axes import axes_matrix
from ncbench.geometry.cameras import field_of_view_intrinsics, pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.geometry.rigid_flow import occluded_by_depth, rigid_flow

_REMEDY = "Fetch the archives and keep their folders (small_city/street/train/<block>.tar, ...)"
_FRAME = re.compile(r"\d{4,}\.(png|exr)")
_DEPTH_FOLDERS = {  # the third word is spelt so in the release
    "small_city": {"float32": "small_city_depth_float32", "float16": "small_city_depth"},
    "big_city": {"float32": "big_city_depth_flaot32", "float16": "big_city_depth"},
}
_LEVEL = np.cos(np.radians(5.0))  # how upright a normal must be to count as ground
_GROUND_PIXELS = 200
_GROUND_LIMIT = 15.0  # degrees, in the median


class _Block(NamedTuple):
    view: View
    image: Members
    depth: Members
    normal: Members | None
    camera_file: Path
    cameras: Cameras
    clips: Mapping[str, tuple[int, ...]]


class MatrixCityReader:
    """Reads one city; a sequence is a clip ``<view>-<block>-<number>`` whose frames count from 0 in viewing order.

    Archives are indexed when a block is first needed and never unpacked.

    Args:
        root: Folder that holds ``small_city`` or ``big_city`` and the folders of depth and normals beside it.
        settings: See :class:`MatrixCitySettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A folder is missing, or there are no blocks.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = MatrixCitySettings.parse(settings, "MatrixCity reader")
        self._root = Path(root)
        self.normal_source: Literal["file", "cross_product"] = self._settings.normals or (
            "file" if self._settings.city == "small_city" else "cross_product"
        )
        self._opened: dict[str, _Block] = {}
        self._blocks: dict[str, tuple[View, str]] = {}
        for view in self._settings.views:
            for block in self._block_names(view):
                self._blocks[f"{view}-{block}"] = view, block

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips: name -> frames from 0."""
        clips = (clip for key in self._blocks for clip in self._block(key).clips.items())
        return {name: tuple(range(len(numbers))) for name, numbers in clips}

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield frames of one clip.

        Args:
            sequence: Name of the clip.
            frames: Places within it, in the order wanted.

        Yields:
            Canonical frames; ``extra`` holds ``source_frame``, the number in the file names.

        Raises:
            SourceError: A file is missing or damaged, sizes or units are wrong, or the normals contradict the depth.
        """
        block = self._block_of(sequence, frames)
        numbers = block.clips[sequence]
        depths: dict[int, FloatMap] = {}
        for place in frames:
            here = depths.pop(place, None)
            picture, intrinsics = self._picture(block, numbers[place])
            shape = image_size(picture)
            depth = here if here is not None else self._depth(block, numbers[place], shape)
            normal, valid = self._normal(block, numbers[place], depth, pinhole_rays(intrinsics, *shape))
            flow, occluded, depths = None, None, {}
            if self._settings.flow and place + 1 < len(numbers):
                depths = {place + 1: self._depth(block, numbers[place + 1], shape)}
                pose, after = (self._cam_to_world(block, numbers[at]) for at in (place, place + 1))
                flow, z = rigid_flow(depth, intrinsics, pose, after, intrinsics)
                occluded = occluded_by_depth(depths[place + 1], flow, z)
            yield Frame(
                sequence=sequence,
                frame=place,
                image=picture,
                normal=normal,
                valid=valid,
                depth=depth,
                flow=flow,
                occluded=occluded,
                intrinsics=intrinsics,
                cam_to_world=self._cam_to_world(block, numbers[place]),
                extra={"source_frame": numbers[place]},
            )

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames, and the block's cameras."""
        block = self._block_of(sequence, frames)
        numbers = block.clips[sequence]
        files = []
        for place in frames:
            files.append((block.image, f"{numbers[place]:04d}.png"))
            files += [(part, f"{numbers[place]:04d}.exr") for part in (block.depth, block.normal) if part is not None]
            if self._settings.flow and place + 1 < len(numbers):
                files.append((block.depth, f"{numbers[place + 1]:04d}.exr"))
        return digest(
            {"cameras": hash_files(self._root, [block.camera_file]), "files": hash_members(self._root, files)}
        )

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: ``source_frame``."""
        import pyarrow as pa

        return {"source_frame": pa.int32()}

    def _block_names(self, view: View) -> list[str]:
        folder = self._root / self._settings.city / view / self._settings.split
        require_folder(folder, "one archive or folder a block", _REMEDY)
        names = {path.name.removesuffix(".tar") for path in listing(folder) if path.is_dir() or path.suffix == ".tar"}
        if not names:
            raise SourceError.at(folder, "expected archives such as block_1.tar, found none", _REMEDY)
        missing = sorted(set(self._settings.blocks or ()) - names)
        if missing and len(self._settings.views) == 1:
            raise SourceError.at(folder, f"the settings ask for blocks {missing}, found {sorted(names)}", _REMEDY)
        return sorted(names) if self._settings.blocks is None else [n for n in self._settings.blocks if n in names]

    def _block_of(self, sequence: str, frames: Sequence[int]) -> _Block:
        key = sequence.rpartition("-")[0]
        clips = self._block(key).clips if key in self._blocks else self.sequences()
        require_known(self._root, {name: range(len(clip)) for name, clip in clips.items()}, sequence, frames)
        return self._block(key)

    def _block(self, key: str) -> _Block:
        if key not in self._opened:
            self._opened[key] = self._open(key)
        return self._opened[key]

    def _open(self, key: str) -> _Block:
        view, name = self._blocks[key]
        city, find = self._settings.city, partial(_find, self._root, view, self._settings.split, name)
        camera_file, cameras = self._cameras(view, name)
        image, depth = find(city), find(_DEPTH_FOLDERS[city][self._settings.depth])
        normal = find(f"{city}_normal") if self.normal_source == "file" else None
        for number in cameras.poses:
            for members, suffix in ((image, "png"), (depth, "exr"), (normal, "exr")):
                if members is not None and f"{number:04d}.{suffix}" not in members.names:
                    problem = f"expected a file, found none, although {camera_file.name} lists this frame"
                    raise SourceError.at(members.where(f"{number:04d}.{suffix}"), problem, _REMEDY)
        chains = order_clips(cameras.poses, self._settings.clips)
        clips = {f"{key}-{index:04d}": chain for index, chain in enumerate(chains)}
        return _Block(view, image, depth, normal, camera_file, cameras, clips)

    def _cameras(self, view: View, name: str) -> tuple[Path, Cameras]:
        base, split = self._root / self._settings.city / view, self._settings.split
        places = {
            "transforms": (base / split / name / "transforms.json", TRANSFORMS),
            "pose": (base / "pose" / name / f"transforms_{split.partition('_')[0]}.json", POSE),
        }
        for kind, (path, form) in places.items():
            if self._settings.cameras in {None, kind} and path.is_file():
                return path, read_cameras(path, form)
        wanted = " or ".join(str(path) for kind, (path, _) in places.items() if self._settings.cameras in {None, kind})
        raise SourceError.at(base, f"expected the cameras of {name} in {wanted}, found none", _REMEDY)

    def _cam_to_world(self, block: _Block, number: int) -> Matrix:
        pose = block.cameras.poses[number].copy()
        pose[:3, :3] = pose[:3, :3] @ axes_matrix("opencv", self._settings.axes)
        return pose

    def _picture(self, block: _Block, number: int) -> tuple[bytes, Matrix]:
        name = f"{number:04d}.png"
        with block.image.local(name) as path:
            picture = read_image_bytes(path)
        shape = image_size(picture)
        if self._settings.sizes is not None:
            wanted = self._settings.sizes.get(block.view, shape)
            require_shape(Path(block.image.where(name)), shape, wanted, f"the data set's {block.view} pictures")
        return picture, field_of_view_intrinsics(*shape, float(np.degrees(block.cameras.field_of_view)))

    def _depth(self, block: _Block, number: int, shape: tuple[int, int]) -> FloatMap:
        name = f"{number:04d}.exr"
        with block.depth.local(name) as path:
            stored = exr_depth(path, self._settings.depth_channel)
        require_shape(Path(block.depth.where(name)), stored.shape, shape, "its picture")
        if self._settings.depth == "float16":
            stored = np.where(stored < self._settings.beyond, stored, np.float32(0))
        return metric_depth(block.depth.where(name), stored, self._settings.depth_scale, self._settings.max_depth)

    def _normal(
        self, block: _Block, number: int, depth: FloatMap, rays: NDArray[np.float64]
    ) -> tuple[FloatMap, BoolMap]:
        from_depth, known = normals_by_cross_product(depth, rays)
        if block.normal is None:
            return from_depth, known
        settings, name = self._settings, f"{number:04d}.exr"
        origin = block.normal.where(name)
        with block.normal.local(name) as path:
            pixels = exr_channels(path, ("R", "G", "B"))
        require_shape(Path(origin), pixels.shape, depth.shape, "its picture")
        stored = 2 * pixels - 1
        usable = finite_rows(stored, *settings.lengths) & (depth > 0)  # the sky, (-1, -1, -1), is too long
        world_from_cam = self._cam_to_world(block, number)[:3, :3]
        level = from_depth @ world_from_cam.T
        check_order(origin, settings.components, stored, level, usable & known)
        world = settings.components.apply(stored)
        world[~usable] = 0.0
        if settings.depth == "float32":  # half precision is too coarse for a plane's slope
            _check_road(origin, world, level, usable & known)
        normal = (world.astype(np.float64) @ world_from_cam).astype(np.float32)
        return facing_normals(origin, normal, usable, rays, settings.components.max_away)


def _find(root: Path, view: str, split: str, block: str, top: str) -> Members:
    """A block's pictures, depth or normals: unpacked or not, with or without the kind's suffix."""
    folder = root / top / view / split
    kinds = ("", "_normal", "_depth", "_depth_float32")
    for name in (f"{block}{kind}" for kind in kinds):
        if (folder / name).is_dir():
            members = open_members(folder / name, keep=_FRAME)
            if members.names:
                return members
        if (folder / f"{name}.tar").is_file():
            return open_members(folder / f"{name}.tar", keep=_FRAME)
    problem = f"expected {block}.tar or a folder of that name (also with _normal or _depth added), found neither"
    raise SourceError.at(folder, problem, _REMEDY)


def _check_road(origin: str, world: NDArray[np.float32], from_depth: NDArray[np.float64], usable: BoolMap) -> None:
    """Ground: where the stored normal or the depth says (0, 0, 1), the other must say so too.

    Unlike the order of channels this also shows poses that are turned against the normals by any angle.
    """
    length = np.sqrt(np.einsum("hwc,hwc->hw", world, world))
    ground = usable & ((from_depth[..., 2] > _LEVEL) | (world[..., 2] > _LEVEL * length))
    if int(ground.sum()) < _GROUND_PIXELS:
        return
    a, b = (world[ground] / length[ground][:, None]).astype(np.float64), from_depth[ground]
    tilt = np.degrees(np.median(2 * np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))))
    if tilt > _GROUND_LIMIT:
        problem = f"expected level ground to be (0, 0, 1) in normals and depth, found them {tilt:.1f} degrees apart"
        raise SourceError.at(origin, problem, "Correct components or cameras in the card, or fetch the block again")
