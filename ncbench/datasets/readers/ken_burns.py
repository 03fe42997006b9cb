"""3D Ken Burns (Niklaus et al., ACM TOG 2019): samples of four views from a 2 x 2 stereo rig in Unreal scenes.

One sequence is one sample: its four views. Consecutive samples of a capture are no video (their author says so), so
that a sequence for each capture would hand a clip loader neighbours that have nothing to do with one another, whereas
the views of a sample share a scene and have known relative poses. A loader of single frames takes rows, not
sequences, and is served as well. The views come clockwise (top left, top right, bottom right, bottom left): each step
is one baseline.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.formats.archived_members import open_members
from ncbench.datasets.formats.images import image_size, read_image_bytes
from ncbench.datasets.formats.members import Members, hash_members
from ncbench.datasets.frame import BoolMap, FloatMap, Frame, Matrix
from ncbench.datasets.readers.layout import listing, require_folder, require_known, require_shape
from ncbench.datasets.readers.normal_components import (
    Components,
    check_order,
    exr_channels,
    exr_depth,
    facing_normals,
    finite_rows,
    metric_depth,
)
from ncbench.errors import SourceError
from ncbench.geometry.axes import convert_axes
from ncbench.geometry.cameras import field_of_view_intrinsics, pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.geometry.rigid_flow import occluded_by_depth, rigid_flow
from ncbench.names import AxesName
from ncbench.settings import Settings

VIEWS: tuple[str, ...] = ("tl", "tr", "br", "bl")
"""Views of a sample in the order of their frame indices 0 to 3."""

_PLACES = {"tl": (0, 0), "tr": (1, 0), "br": (1, 1), "bl": (0, 1)}  # baselines to the right and down
_REMEDY = "Put <capture>.zip, <capture>-depth.zip and <capture>-normal.zip (or the folders of these names) side by side"
_META = re.compile(r"(\d{5})-meta\.json")


class KenBurnsSettings(Settings):
    """Settings of :class:`KenBurnsReader`.

    Attributes:
        axes: Axes of the stored normals once ``components`` has been applied.
        components: Order and signs of the normal's channels. By default x, y, z are B, G, R with y negated: a public
            loader takes OpenCV's BGR order as x, y, z and negates y (Unreal's camera has y up). Checked against depth.
        captures: Captures to read, in this order, such as ``asdf-flying``; None takes all.
        depth_scale: Metres per stored unit of depth (Unreal centimetres).
        depth_channel: Channel of the depth files, where they have several.
        max_depth: Metres from which on a pixel is sky: no depth, no normal. The default is GeoWizard's 50,000 cm.
        baseline: Distance between neighbouring views in stored units.
        size: Height and width that every picture must have; None accepts any.
        flow: Derive flow and occlusion from depth between successive views of a sample.
    """

    axes: AxesName = "opencv"
    components: Components = Components(channels=("B", "G", "R"), signs=(1, -1, 1))
    captures: tuple[str, ...] | None = Field(default=None, min_length=1)
    depth_scale: float = Field(default=0.01, gt=0)
    depth_channel: str = "B"
    max_depth: float = Field(default=500.0, gt=0)
    baseline: float = Field(default=20.0, gt=0)
    size: tuple[int, int] | None = (512, 512)
    flow: bool = False


class _Capture(NamedTuple):
    image: Members
    depth: Members
    normal: Members


class KenBurnsReader:
    """Reads captures, zipped or unpacked; see the module for what a sequence is.

    The poses of a sample are relative: its top-left view is the world. Normals that point away are left out.

    Args:
        root: Folder with the captures.
        settings: See :class:`KenBurnsSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A capture lacks its depth or normals, or an archive is damaged.
    """

    normal_source: Literal["file"] = "file"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = KenBurnsSettings.parse(settings, "3D Ken Burns reader")
        self._root = require_folder(Path(root), "3D Ken Burns captures", _REMEDY)
        self._captures = {name: self._open(name) for name in self._names()}
        self._samples: dict[str, tuple[str, str]] = {}
        for name, capture in self._captures.items():
            numbers = sorted(match.group(1) for file in capture.image.names if (match := _META.fullmatch(file)))
            if not numbers:
                raise SourceError.at(capture.image.origin, "expected files NNNNN-meta.json, found none", _REMEDY)
            for number in numbers:
                self._samples[f"{name}-{number}"] = name, number
                self._require_files(capture, number)

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the samples: ``<capture>-<number>`` -> frames 0 to 3, which are ``VIEWS``."""
        return dict.fromkeys(self._samples, tuple(range(len(VIEWS))))

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield views of one sample.

        Args:
            sequence: Name of the sample.
            frames: Indices into ``VIEWS``, in the order wanted.

        Yields:
            Canonical frames; ``extra`` holds ``view``.

        Raises:
            SourceError: A file is missing or damaged, sizes differ, depth is not in the unit that the settings say, or
                the normals contradict the depth.
        """
        require_known(self._root, self.sequences(), sequence, frames)
        for index in frames:
            yield self._frame(sequence, index)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames."""
        require_known(self._root, self.sequences(), sequence, frames)
        name, number = self._samples[sequence]
        capture = self._captures[name]
        files = [(capture.image, f"{number}-meta.json")]
        for index in frames:
            files += _files(capture, number, VIEWS[index]).values()
            if self._settings.flow and index + 1 < len(VIEWS):
                files.append(_files(capture, number, VIEWS[index + 1])["depth"])
        return hash_members(self._root, files)

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: ``view``."""
        import pyarrow as pa

        return {"view": pa.string()}

    def _names(self) -> list[str]:
        entries = [path for path in listing(self._root) if path.is_dir() or path.suffix == ".zip"]
        stems = {path.name.removesuffix(".zip") for path in entries}
        found = sorted(stem for stem in stems if f"{stem}-depth" in stems or f"{stem}-normal" in stems)
        wanted = found if self._settings.captures is None else list(self._settings.captures)
        if not wanted:
            raise SourceError.at(self._root, "expected captures such as asdf-flying.zip, found none", _REMEDY)
        return wanted

    def _open(self, name: str) -> _Capture:
        return _Capture(*(self._members(f"{name}{kind}") for kind in ("", "-depth", "-normal")))

    def _members(self, stem: str) -> Members:
        folder, archive = self._root / stem, self._root / f"{stem}.zip"
        if not folder.is_dir() and not archive.is_file():
            raise SourceError.at(archive, "expected this archive or the folder of its name, found neither", _REMEDY)
        return open_members(folder if folder.is_dir() else archive)

    def _require_files(self, capture: _Capture, number: str) -> None:
        for view in VIEWS:
            for members, file in _files(capture, number, view).values():
                if file not in members.names:
                    problem = f"expected a file, found none, although {number}-meta.json is there"
                    raise SourceError.at(members.where(file), problem, "Fetch or unpack this archive again")

    def _frame(self, sequence: str, index: int) -> Frame:
        name, number = self._samples[sequence]
        capture = self._captures[name]
        files = _files(capture, number, VIEWS[index])
        with files["image"][0].local(files["image"][1]) as path:
            image = read_image_bytes(path)
        shape = image_size(image)
        if self._settings.size is not None:
            require_shape(Path(files["image"][0].where(files["image"][1])), shape, self._settings.size, "the data set")
        intrinsics = _intrinsics(capture.image, f"{number}-meta.json", shape)
        rays = pinhole_rays(intrinsics, *shape)
        depth = self._depth(*files["depth"], shape)
        normal, valid = self._normal(*files["normal"], depth, rays)
        flow, occluded = self._motion(capture, number, index, depth, intrinsics)
        return Frame(
            sequence=sequence,
            frame=index,
            image=image,
            normal=normal,
            valid=valid,
            depth=depth,
            flow=flow,
            occluded=occluded,
            intrinsics=intrinsics,
            cam_to_world=self._pose(index),
            extra={"view": VIEWS[index]},
        )

    def _pose(self, index: int) -> Matrix:
        pose = np.eye(4)
        pose[:2, 3] = np.array(_PLACES[VIEWS[index]]) * self._settings.baseline * self._settings.depth_scale
        return pose

    def _depth(self, members: Members, file: str, shape: tuple[int, int]) -> FloatMap:
        with members.local(file) as path:
            stored = exr_depth(path, self._settings.depth_channel)
        require_shape(Path(members.where(file)), stored.shape, shape, "its picture")
        return metric_depth(members.where(file), stored, self._settings.depth_scale, self._settings.max_depth)

    def _normal(
        self, members: Members, file: str, depth: FloatMap, rays: NDArray[np.float64]
    ) -> tuple[FloatMap, BoolMap]:
        with members.local(file) as path:
            rgb = exr_channels(path, ("R", "G", "B"))
        origin, settings = members.where(file), self._settings
        require_shape(Path(origin), rgb.shape, depth.shape, "its picture")
        usable = finite_rows(rgb, 0.5, math.inf) & (depth > 0)
        expected, known = normals_by_cross_product(depth, rays)
        stored_axes = convert_axes(expected, "opencv", settings.axes)
        check_order(origin, settings.components, rgb, stored_axes, usable & known)
        normal = convert_axes(settings.components.apply(rgb), settings.axes, "opencv")
        normal[~usable] = 0.0
        return facing_normals(origin, normal, usable, rays, settings.components.max_away)

    def _motion(
        self, capture: _Capture, number: str, index: int, depth: FloatMap, intrinsics: Matrix
    ) -> tuple[FloatMap | None, BoolMap | None]:
        if not self._settings.flow or index + 1 == len(VIEWS):
            return None, None
        height, width = depth.shape
        after = self._depth(*_files(capture, number, VIEWS[index + 1])["depth"], (height, width))
        flow, z = rigid_flow(depth, intrinsics, self._pose(index), self._pose(index + 1), intrinsics)
        return flow, occluded_by_depth(after, flow, z)


def _files(capture: _Capture, number: str, view: str) -> dict[str, tuple[Members, str]]:
    return {
        "image": (capture.image, f"{number}-{view}-image.png"),
        "depth": (capture.depth, f"{number}-{view}-depth.exr"),
        "normal": (capture.normal, f"{number}-{view}-normal.exr"),
    }


def _intrinsics(members: Members, file: str, shape: tuple[int, int]) -> Matrix:
    """The field of view spans the longer side; the principal point is the picture's centre."""
    try:
        field = float(json.loads(members.read(file))["fltFov"])
        height, width = shape
        focal = field_of_view_intrinsics(max(shape), max(shape), field)[0, 0]
    except (ValueError, TypeError, KeyError, LookupError, RecursionError) as error:
        problem = f"expected JSON with the field of view in degrees under 'fltFov' ({error!r})"
        raise SourceError.at(members.where(file), problem, "Unpack or fetch this capture again") from error
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
