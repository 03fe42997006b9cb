"""A user's own frames, found by file patterns.

Nothing is guessed: the settings name the axes of the normals, the unit of the depth, and where normals come from.
Stored normals are brought to unit length and OpenCV axes; nothing else about them changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ncbench.datasets.formats.arrays import read_npy
from ncbench.datasets.formats.camera_files import intrinsics_from_numbers, read_intrinsics, read_poses
from ncbench.datasets.formats.images import image_file_size, image_size, read_depth_file, read_image_bytes, read_mask
from ncbench.datasets.formats.normal_maps import open_normals
from ncbench.datasets.formats.sintel import read_flo
from ncbench.datasets.frame import BoolMap, FloatMap, Frame, Matrix
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.depth_normals import (
    check_intrinsics,
    plane_fit_normals,
    rays_of,
)
from ncbench.datasets.readers.folder_settings import FolderSettings, NormalsFrom
from ncbench.datasets.readers.layout import require_folder, require_known, require_shape
from ncbench.datasets.readers.patterns import PathPattern, Place
from ncbench.errors import CardError, SourceError
from ncbench.geometry.cameras import field_of_view_intrinsics
from ncbench.geometry.normals_from_depth import normals_by_cross_product

_MAPS = ("image", "normal", "depth", "flow", "occluded")
_TO_NEXT = ("flow", "occluded")


class FolderReader:
    """Reads frames whose files the settings describe.

    Frame numbers may have gaps; every picture must have its partner under every other pattern.

    Args:
        root: The folder that the patterns are relative to.
        settings: See :class:`FolderSettings`.

    Raises:
        CardError: A setting is wrong or missing.
        SourceError: A pattern matches nothing, or a picture lacks a partner.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = FolderSettings.parse(settings, "folder reader")
        self._root = require_folder(Path(root), "your frames", "Correct the folder")
        self._patterns = self._make_patterns()
        self._found = {key: pattern.find(self._root) for key, pattern in self._patterns.items()}
        self._clips = self._list_clips()
        for sequence, frames in self._clips.items():
            for frame in frames:
                self._check_partners(sequence, frame)
        self._check_pictures()

    @property
    def normal_source(self) -> NormalsFrom:
        """How the normals were made."""
        return self._settings.normals_from

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips: name -> ascending frame numbers as in the file names."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named frames of one clip.

        Args:
            sequence: Name of the clip.
            frames: Frame numbers, in the order wanted.

        Yields:
            Canonical frames.

        Raises:
            SourceError: A file is missing, truncated, corrupt, or its size is not that of the sequence's first picture.
        """
        require_known(self._root, self._clips, sequence, frames)
        first = self._path("image", sequence, self._clips[sequence][0])
        shape = image_file_size(first)
        poses = self._sequence_poses(sequence)
        for frame in frames:
            yield self._frame(sequence, frame, shape, first.name, poses)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames."""
        require_known(self._root, self._clips, sequence, frames)
        files = [self._path(key, sequence, frame) for frame in frames for key in self._used(sequence, frame)]
        return hash_files(self._root, dict.fromkeys(files))

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _make_patterns(self) -> dict[str, PathPattern]:
        settings = self._settings
        texts = {key: getattr(settings, key) for key in (*_MAPS, "intrinsics", "poses")}
        patterns = {key: PathPattern(text, key) for key, text in texts.items() if isinstance(text, str)}
        for key, pattern in patterns.items():
            if key in _MAPS and not pattern.has_frame:
                raise CardError(f"key '{key}': expected a pattern with {{frame}}, found '{pattern.text}'")
            if pattern.has_sequence and not patterns["image"].has_sequence:
                raise CardError(f"key '{key}': has {{sequence}}, but key 'image' has not ('{texts['image']}')")
        return patterns

    def _list_clips(self) -> dict[str, tuple[int, ...]]:
        clips: dict[str, list[int]] = {}
        for sequence, frame in self._found["image"]:
            if frame is not None:
                clips.setdefault(sequence or self._settings.sequence_name, []).append(frame)
        return {name: tuple(sorted(clips[name])) for name in sorted(clips)}

    def _used(self, sequence: str, frame: int) -> list[str]:
        """Keys of the patterns with a file for this frame; flow and occlusion speak of a next frame."""
        return [key for key in self._patterns if key not in _TO_NEXT or frame != self._clips[sequence][-1]]

    def _place(self, key: str, sequence: str, frame: int) -> Place:
        return self._patterns[key].place(sequence, frame)

    def _path(self, key: str, sequence: str, frame: int) -> Path:
        return self._found[key][self._place(key, sequence, frame)]

    def _check_partners(self, sequence: str, frame: int) -> None:
        for key in self._used(sequence, frame):
            if self._place(key, sequence, frame) not in self._found[key]:
                pattern = self._patterns[key].text
                problem = f"no file matches '{pattern}' (key '{key}') for sequence '{sequence}', frame {frame}"
                remedy = f"Add the '{key}' file or remove this picture"
                raise SourceError.at(self._path("image", sequence, frame), problem, remedy)

    def _check_pictures(self) -> None:
        """A map without a picture is a picture that got lost: flow would lead to the wrong frame."""
        for key in _MAPS:
            for place, path in self._found.get(key, {}).items():
                if place not in self._found["image"]:
                    problem = f"has no picture of the same sequence and frame ('{self._settings.image}')"
                    raise SourceError.at(path, problem, "Add the picture or remove this file")

    def _frame(self, sequence: str, frame: int, shape: tuple[int, int], reference: str, poses: Matrix | None) -> Frame:
        image_path = self._path("image", sequence, frame)
        image = read_image_bytes(image_path)
        require_shape(image_path, image_size(image), shape, reference)
        depth = self._depth(sequence, frame, shape)
        intrinsics = self._intrinsics(sequence, frame, shape)
        normal, valid = self._normals(sequence, frame, depth, intrinsics, shape)
        return Frame(
            sequence=sequence,
            frame=frame,
            image=image,
            normal=normal,
            valid=valid,
            depth=depth,
            flow=self._flow(sequence, frame, shape),
            occluded=self._occluded(sequence, frame, shape),
            intrinsics=intrinsics,
            cam_to_world=self._pose(sequence, frame, poses),
        )

    def _depth(self, sequence: str, frame: int, shape: tuple[int, int]) -> FloatMap | None:
        if "depth" not in self._patterns:
            return None
        path = self._path("depth", sequence, frame)
        depth = read_depth_file(path, scale=self._settings.depth_scale or 1.0, key=self._settings.depth_key)
        require_shape(path, depth.shape, shape, "its picture")
        if self._settings.max_depth is not None:
            depth[depth >= self._settings.max_depth] = 0
        return depth

    def _intrinsics(self, sequence: str, frame: int, shape: tuple[int, int]) -> Matrix | None:
        if self._settings.fov_degrees is not None:
            return field_of_view_intrinsics(*shape, self._settings.fov_degrees)
        if self._settings.intrinsics is None:
            return None
        if isinstance(self._settings.intrinsics, tuple):
            matrix = intrinsics_from_numbers(np.array(self._settings.intrinsics))
        else:
            matrix = read_intrinsics(self._path("intrinsics", sequence, frame))
        check_intrinsics(matrix, self._camera_origin(sequence, frame))
        return matrix

    def _camera_origin(self, sequence: str, frame: int) -> Path:
        """Where a complaint about the camera points: its file, or the folder where the settings hold the numbers."""
        return self._path("intrinsics", sequence, frame) if "intrinsics" in self._patterns else self._root

    def _normals(
        self, sequence: str, frame: int, depth: FloatMap | None, intrinsics: Matrix | None, shape: tuple[int, int]
    ) -> tuple[FloatMap, BoolMap]:
        if depth is not None and intrinsics is not None and self._settings.normals_from != "file":
            rays = rays_of(intrinsics, shape, self._camera_origin(sequence, frame))
            if self._settings.normals_from == "plane_fit":
                return plane_fit_normals(depth, rays, self._settings.plane_fit)
            return normals_by_cross_product(depth, rays)
        path = self._path("normal", sequence, frame)
        stored = open_normals(path, key=self._settings.normal_key, invalid=self._settings.invalid)
        require_shape(path, stored.shape, shape, "its picture")
        stored.check_lengths()
        return stored.unit(self._settings.axes or "opencv")

    def _occluded(self, sequence: str, frame: int, shape: tuple[int, int]) -> BoolMap | None:
        if "occluded" not in self._used(sequence, frame):
            return None
        path = self._path("occluded", sequence, frame)
        mask = read_mask(path)
        require_shape(path, mask.shape, shape, "its picture")
        return mask

    def _flow(self, sequence: str, frame: int, shape: tuple[int, int]) -> FloatMap | None:
        if "flow" not in self._used(sequence, frame):
            return None
        path = self._path("flow", sequence, frame)
        flow = read_flo(path) if path.suffix.lower() == ".flo" else read_npy(path).astype(np.float32, copy=False)
        if flow.ndim != 3 or flow.shape[2] != 2:
            raise SourceError.at(path, f"expected flow (H, W, 2), found shape {flow.shape}", "Store (u, v) per pixel")
        require_shape(path, flow.shape, shape, "its picture")
        flow[~(np.isfinite(flow[..., 0]) & np.isfinite(flow[..., 1]))] = np.nan
        return flow

    def _sequence_poses(self, sequence: str) -> Matrix | None:
        """All poses of a sequence where one file holds them."""
        if "poses" not in self._patterns or self._patterns["poses"].has_frame:
            return None
        frames = self._clips[sequence]
        return read_poses(self._path("poses", sequence, frames[0]), len(frames))

    def _pose(self, sequence: str, frame: int, poses: Matrix | None) -> Matrix | None:
        if poses is not None:
            return np.asarray(poses[self._clips[sequence].index(frame)])
        if "poses" not in self._patterns:
            return None
        return np.asarray(read_poses(self._path("poses", sequence, frame), 1)[0])
