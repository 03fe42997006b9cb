"""G-buffer Objaverse (Qiu et al., RichDreamer, CVPR 2024): 40 views around each object with normals and depth.

The conversion of normals and poses follows the data set's official scripts; the order of channels, which they leave to
OpenCV's BGR, is a setting that is checked against depth.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from ncbench.datasets.formats.archived_members import open_members
from ncbench.datasets.formats.arrays import read_bytes
from ncbench.datasets.formats.members import Members, hash_members
from ncbench.datasets.formats.png import read_png
from ncbench.datasets.frame import BoolMap, FloatMap, Frame, Matrix
from ncbench.datasets.readers.layout import require_folder, require_known, require_shape
from ncbench.datasets.readers.normal_components import (
    Components,
    check_order,
    exr_channels,
    facing_normals,
    finite_rows,
)
from ncbench.errors import SourceError
from ncbench.geometry.axes import axes_matrix
from ncbench.geometry.cameras import invert_pose, pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.geometry.rigid_flow import occluded_by_depth, rigid_flow
from ncbench.names import AxesName
from ncbench.settings import Settings

_REMEDY = "Fetch the object again; objects lie at <a>/<b>/campos_512_v4/000NN/ or in <a>/<b>.tar"
_KEPT = re.compile(r"\d{5}/\d{5}(\.json|\.png|_nd\.exr)")
_OBJECT = re.compile(r"\d+/\d+")
_FOCAL = 1422.222 / 1024  # published focal length, in picture widths


class GObjaverseSettings(Settings):
    """Settings of :class:`GObjaverseReader`.

    Attributes:
        axes: Camera axes that the official scripts build from the pose's columns (x, -y, -z), and that stored normals
            get by them.
        components: Order and signs that take the EXR's channels to world normals. The official scripts read
            (c0, c1, c2) in OpenCV's order, B, G, R, and take (-c2, -c0, c1).
        depth_channel: Channel of the depth.
        columns: ``unity``: the pose's axes are (x, -y, -z) of the JSON; ``blender``: (x, y, z), for the renders that
            the authors made with Blender.
        metres: Metres per unit; objects fill a cube of side 1.
        cube_radius: Depth under the camera's distance less this radius is dropped (half a cube's diagonal).
        pixel_centre: What to take from the published centre, half the width, so that (0, 0) is the centre of the
            top-left pixel. Which of the two conventions the 256 at 512 pixels follows is not published.
        background: Colour behind the object, red, green, blue.
        min_alpha: Least alpha (of 255) of a pixel with a usable normal.
        min_views: Objects with fewer complete views are left out.
        views: Views to read; None takes all that are complete.
        exclude: File beside the objects that lists those to leave out, such as the authors' category of poor quality:
            JSON or text with ids like ``0/10010``. None leaves out nothing.
        size: Height and width that every picture must have; None accepts any square.
        flow: Derive flow and occlusion from depth and poses.
    """

    axes: AxesName = "opengl"
    components: Components = Components(channels=("R", "B", "G"), signs=(-1, -1, 1))
    depth_channel: str = "A"
    columns: Literal["unity", "blender"] = "unity"
    metres: float = Field(default=1.0, gt=0)
    cube_radius: float = Field(default=0.867, gt=0)
    pixel_centre: float = 0.5
    background: tuple[int, int, int] = (255, 255, 255)
    min_alpha: int = Field(default=255, ge=1, le=255)
    min_views: int = Field(default=1, ge=1)
    views: tuple[int, ...] | None = Field(default=None, min_length=1)
    exclude: str | None = None
    size: tuple[int, int] | None = (512, 512)
    flow: bool = False


class GObjaverseReader:
    """Reads objects, unpacked or as tar; a sequence is one object ``<a>-<b>``, its frames are the complete views.

    The picture is the PNG laid over the background colour and encoded as PNG again, without loss: the original has
    transparent pixels, under which the colours mean nothing. A view that lacks a file is left out.

    Args:
        root: Folder that holds the numbered folders.
        settings: See :class:`GObjaverseSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: There are no objects, or the list of those to leave out cannot be read.
    """

    normal_source: Literal["file"] = "file"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = GObjaverseSettings.parse(settings, "G-Objaverse reader")
        self._root = require_folder(Path(root), "G-Objaverse objects", _REMEDY)
        excluded = self._excluded()
        found = {
            f"{folder.name}-{path.name.removesuffix('.tar')}": path
            for folder in self._root.iterdir()
            if folder.name.isdigit() and folder.is_dir()
            for path in folder.iterdir()
            if path.name.removesuffix(".tar").isdigit()
        }
        if not found:
            raise SourceError.at(self._root, "expected objects such as 0/10010, found none", _REMEDY)
        kept = {name: path for name, path in found.items() if name not in excluded}
        self._objects = dict(sorted(kept.items(), key=lambda item: tuple(map(int, item[0].split("-")))))
        self._opened: dict[str, tuple[Members, tuple[int, ...]]] = {}

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the objects: name -> numbers of the complete views."""
        views = {name: self._open(name)[1] for name in self._objects}
        return {name: numbers for name, numbers in views.items() if len(numbers) >= self._settings.min_views}

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield views of one object.

        Args:
            sequence: Name of the object.
            frames: Numbers of views, in the order wanted.

        Yields:
            Canonical frames.

        Raises:
            SourceError: A file is damaged, sizes differ, the pose is no rotation, or the normals contradict the depth.
        """
        members, views = self._known(sequence, frames)
        ahead: dict[int, tuple[NDArray[np.float32], FloatMap, Matrix]] = {}
        for number in frames:
            rgba, picture = self._picture(members, number)
            height, width = rgba.shape[:2]
            here = ahead[number] if number in ahead else self._geometry(members, number, (height, width))
            stored, depth, pose = here
            intrinsics = self._intrinsics(width, height)
            normal, valid = self._normal(members, number, stored, depth, rgba[..., 3], pose, intrinsics)
            flow, occluded, ahead = None, None, {}
            following = views[views.index(number) + 1 : views.index(number) + 2] if self._settings.flow else ()
            for after in following:
                ahead = {after: self._geometry(members, after, (height, width))}
                flow, z = rigid_flow(depth, intrinsics, pose, ahead[after][2], intrinsics)
                occluded = occluded_by_depth(ahead[after][1], flow, z)
            yield Frame(
                sequence=sequence,
                frame=number,
                image=picture,
                normal=normal,
                valid=valid,
                depth=depth,
                flow=flow,
                occluded=occluded,
                intrinsics=intrinsics,
                cam_to_world=pose,
            )

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames."""
        members, views = self._known(sequence, frames)
        files = []
        for number in frames:
            files += [(members, _file(number, end)) for end in (".json", ".png", "_nd.exr")]
            following = views[views.index(number) + 1 : views.index(number) + 2] if self._settings.flow else ()
            files += [(members, _file(after, end)) for after in following for end in (".json", "_nd.exr")]
        return hash_members(self._root, files)

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _excluded(self) -> frozenset[str]:
        if self._settings.exclude is None:
            return frozenset()
        path = self._root / self._settings.exclude
        text = read_bytes(path, "the list of objects to leave out").decode("utf-8", errors="replace")
        names = frozenset(name.replace("/", "-") for name in _OBJECT.findall(text))
        if not names:
            raise SourceError.at(path, "expected ids like 0/10010, found none", "Correct the key 'exclude' or the file")
        return names

    def _open(self, name: str) -> tuple[Members, tuple[int, ...]]:
        if name not in self._opened:
            members = open_members(self._objects[name], tail=2, keep=_KEPT)
            numbers = {int(file.partition("/")[0]) for file in members.names}
            wanted = numbers if self._settings.views is None else numbers & set(self._settings.views)
            ends = (".json", ".png", "_nd.exr")
            whole = (n for n in sorted(wanted) if all(_file(n, end) in members.names for end in ends))
            self._opened[name] = members, tuple(whole)
        return self._opened[name]

    def _known(self, sequence: str, frames: Sequence[int]) -> tuple[Members, tuple[int, ...]]:
        clips = {sequence: self._open(sequence)[1]} if sequence in self._objects else self.sequences()
        require_known(self._root, clips, sequence, frames)
        return self._open(sequence)

    def _picture(self, members: Members, number: int) -> tuple[NDArray[np.uint8], bytes]:
        """The pixels with alpha, and the composite as PNG."""
        name = _file(number, ".png")
        with members.local(name) as path:
            rgba = read_png(path)
        if rgba.ndim != 3 or rgba.shape[2] != 4 or rgba.dtype != np.uint8:
            problem = f"expected red, green, blue and alpha of 8 bits, found {rgba.dtype} {rgba.shape}"
            raise SourceError.at(members.where(name), problem, _REMEDY)
        wanted = self._settings.size if self._settings.size is not None else (rgba.shape[1], rgba.shape[1])
        require_shape(Path(members.where(name)), rgba.shape, wanted, "the data set")
        alpha = rgba[..., 3:].astype(np.float64) / 255
        colour = np.rint(alpha * rgba[..., :3] + (1 - alpha) * np.array(self._settings.background))
        buffer = io.BytesIO()
        Image.fromarray(colour.astype(np.uint8)).save(buffer, format="PNG", compress_level=3)
        return rgba.astype(np.uint8, copy=False), buffer.getvalue()

    def _intrinsics(self, width: int, height: int) -> Matrix:
        focal, shift = _FOCAL * width, self._settings.pixel_centre
        return np.array([[focal, 0, width / 2 - shift], [0, focal, height / 2 - shift], [0, 0, 1]])

    def _geometry(
        self, members: Members, number: int, shape: tuple[int, int]
    ) -> tuple[NDArray[np.float32], FloatMap, Matrix]:
        """Stored normals as R, G, B; depth in metres; pose in OpenCV axes."""
        pose = self._pose(members, _file(number, ".json"))
        name = _file(number, "_nd.exr")
        with members.local(name) as path:
            values = exr_channels(path, ("R", "G", "B", self._settings.depth_channel))
        require_shape(Path(members.where(name)), values.shape, shape, "its picture")
        nearest = float(np.linalg.norm(pose[:3, 3])) / self._settings.metres - self._settings.cube_radius
        depth = values[..., 3]
        known = np.isfinite(depth) & (depth > 0) & (depth >= nearest)
        return values[..., :3], np.where(known, depth * np.float32(self._settings.metres), np.float32(0)), pose

    def _pose(self, members: Members, name: str) -> Matrix:
        try:
            values = json.loads(members.read(name))
            columns = np.array([values[key] for key in ("x", "y", "z", "origin")], dtype=np.float64)
            if columns.shape != (4, 3) or not np.isfinite(columns).all():
                raise ValueError(f"expected four finite vectors, found shape {columns.shape}")
            pose = np.eye(4)
            pose[:3] = columns.T
            if self._settings.columns == "unity":
                pose[:3, 1:3] *= -1
            pose[:3, :3] = pose[:3, :3] @ axes_matrix("opencv", self._settings.axes)
            pose[:3, 3] *= self._settings.metres
            invert_pose(pose)
        except (ValueError, TypeError, KeyError, LookupError, RecursionError) as error:
            problem = f"expected JSON with a camera's x, y, z and origin ({error!r})"
            raise SourceError.at(members.where(name), problem, _REMEDY) from error
        return pose

    def _normal(
        self,
        members: Members,
        number: int,
        stored: NDArray[np.float32],
        depth: FloatMap,
        alpha: NDArray[np.uint8],
        pose: Matrix,
        intrinsics: Matrix,
    ) -> tuple[FloatMap, BoolMap]:
        origin, rays = members.where(_file(number, "_nd.exr")), pinhole_rays(intrinsics, *depth.shape)
        usable = finite_rows(stored, 0.5, 1.5) & (depth > 0) & (alpha >= self._settings.min_alpha)
        expected, known = normals_by_cross_product(depth, rays)
        check_order(origin, self._settings.components, stored, expected @ pose[:3, :3].T, usable & known)
        world = self._settings.components.apply(stored).astype(np.float64)
        world[~usable] = 0.0
        normal = (world @ pose[:3, :3]).astype(np.float32)
        return facing_normals(origin, normal, usable, rays, self._settings.components.max_away)


def _file(number: int, end: str) -> str:
    return f"{number:05d}/{number:05d}{end}"
