"""Replica as Omnidata renders it (Eftekhar et al., ICCV 2021): single pictures with 8-bit normals and z-depth.

Views of one "point" look at it from far apart, so they are no video: every view is a sequence of one frame.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from scipy.spatial.transform import Rotation

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.datasets.formats.images import image_size, read_image_bytes, read_mask
from ncbench.datasets.formats.normal_maps import open_normals
from ncbench.datasets.formats.png import read_png
from ncbench.datasets.frame import BoolMap, FloatMap, Frame, Matrix
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.layout import listing, require_folder, require_known, require_shape
from ncbench.datasets.readers.nyuv2_axes import share_away
from ncbench.errors import SourceError
from ncbench.geometry.axes import axes_matrix
from ncbench.geometry.cameras import field_of_view_intrinsics
from ncbench.names import AxesName
from ncbench.settings import Settings, suggest

_REMEDY = "Fetch the domains rgb, normal, depth_zbuffer, mask_valid and point_info of component replica with omnitools"
_VIEW = re.compile(r"(point_\d+_view_\d+)_domain_rgb\.png")
_UNKNOWN_DEPTH = 65535
_STEP = 4  # every fourth pixel of every fourth row tells the unit of depth as well as all of them
_GRAZING = 0.02  # cosine to the ray within which 8-bit normals say nothing about facing

SPLITS: dict[str, tuple[str, ...]] = {
    "train": (
        "apartment_0",
        "apartment_1",
        "frl_apartment_0",
        "frl_apartment_1",
        "hotel_0",
        "office_1",
        "office_3",
        "office_4",
        "room_0",
        "room_2",
    ),
    "val": ("apartment_2", "frl_apartment_2", "frl_apartment_3", "office_0"),
    "test": ("frl_apartment_4", "frl_apartment_5", "office_2", "room_1"),
}
"""Scenes of Omnidata's own partition."""


class ReplicaOmnidataSettings(Settings):
    """Settings of :class:`ReplicaOmnidataReader`.

    Attributes:
        split: Scenes of Omnidata's partition; those that are missing are an error.
        scenes: Scenes to read instead of a split, in this order.
        axes: Axes of the normals in the files.
        layout: Folder of one domain's files of one scene, relative to the root.
        units_per_metre: Depth units in a metre.
        depth_range: Metres between which the median depth of a view must lie, as a check of the unit.
        use_mask: Leave out pixels where ``mask_valid`` is black. Views then need that file.
        pose: Read poses from the camera files (``camera_location``, ``camera_rotation_final_quaternion`` as w, x, y, z
            of a camera that looks along -z). Omnidata's tools state this form; no sample was at hand to prove it.
        max_facing_away: Share of normals that may point away from their ray, as a check of the axes.
    """

    split: Literal["train", "val", "test"] = "train"
    scenes: tuple[str, ...] | None = Field(default=None, min_length=1)
    axes: AxesName = "opencv"
    layout: str = "{domain}/replica/{scene}"
    units_per_metre: float = Field(default=512.0, gt=0)
    depth_range: tuple[float, float] = (0.1, 50.0)
    use_mask: bool = True
    pose: bool = True
    max_facing_away: float = Field(default=0.05, ge=0, le=1)


class ReplicaOmnidataReader:
    """Reads Omnidata's renders of Replica; a sequence is one view, named ``scene/point_P_view_V``, its frame is 0.

    Args:
        root: Folder that holds the domains.
        settings: See :class:`ReplicaOmnidataSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A scene or domain is missing.
    """

    normal_source: Literal["file"] = "file"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = ReplicaOmnidataSettings.parse(settings, "Replica Omnidata reader")
        self._root = require_folder(Path(root), "Omnidata's domains", _REMEDY)
        codes = np.arange(1 << 16)
        self._metres = (np.where(codes == _UNKNOWN_DEPTH, 0, codes) / self._settings.units_per_metre).astype(np.float32)
        self._clips = {
            name: (0,) for scene in self._settings.scenes or SPLITS[self._settings.split] for name in self._views(scene)
        }

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the views: name -> (0,)."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield one view.

        Args:
            sequence: ``scene/point_P_view_V``.
            frames: (0,).

        Yields:
            Canonical frames.

        Raises:
            SourceError: A file is missing, damaged, of another size, or contradicts the axes or the unit.
        """
        require_known(self._root, self._clips, sequence, frames)
        for _ in frames:
            yield self._frame(sequence)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use."""
        require_known(self._root, self._clips, sequence, frames)
        return hash_files(self._root, self._files(sequence).values())

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _folder(self, domain: str, scene: str) -> Path:
        return self._root / self._settings.layout.format(domain=domain, scene=scene)

    def _domains(self) -> tuple[str, ...]:
        return "rgb", "normal", "depth_zbuffer", "point_info", *(("mask_valid",) if self._settings.use_mask else ())

    def _views(self, scene: str) -> list[str]:
        folders = {domain: self._folder(domain, scene) for domain in self._domains()}
        for domain, folder in folders.items():
            require_folder(folder, f"domain {domain} of scene {scene}", _REMEDY)
        matches = (_VIEW.fullmatch(path.name) for path in listing(folders["rgb"]))
        views = [match.group(1) for match in matches if match]
        if not views:
            raise SourceError.at(folders["rgb"], "expected point_P_view_V_domain_rgb.png, found none", _REMEDY)
        return [f"{scene}/{view}" for view in sorted(views, key=_by_number)]

    def _files(self, sequence: str) -> dict[str, Path]:
        scene, _, view = sequence.partition("/")
        return {
            domain: self._folder(domain, scene)
            / f"{view}_domain_{domain}.{'json' if domain == 'point_info' else 'png'}"
            for domain in self._domains()
        }

    def _frame(self, sequence: str) -> Frame:
        files = self._files(sequence)
        image = read_image_bytes(files["rgb"])
        shape = image_size(image)
        intrinsics, pose = _camera(files["point_info"], shape, self._settings.pose)
        stored = open_normals(files["normal"])
        require_shape(files["normal"], stored.shape, shape, "its picture")
        mask = None
        if self._settings.use_mask:
            mask = read_mask(files["mask_valid"])
            require_shape(files["mask_valid"], mask.shape, shape, "its picture")
        normal, valid = stored.unit(self._settings.axes, keep=mask)
        self._check_facing(normal, valid, intrinsics, files["normal"])
        return Frame(
            sequence=sequence,
            frame=0,
            image=image,
            normal=normal,
            valid=valid,
            depth=self._depth(files["depth_zbuffer"], shape),
            intrinsics=intrinsics,
            cam_to_world=pose,
        )

    def _depth(self, path: Path, shape: tuple[int, int]) -> FloatMap:
        stored = read_png(path)
        if stored.ndim != 2 or stored.dtype != np.uint16:
            problem = f"expected a grey picture of 16 bits, found {stored.dtype} {stored.shape}"
            raise SourceError.at(path, problem, DAMAGED)
        require_shape(path, stored.shape, shape, "its picture")
        depth = self._metres[stored]
        sample = depth[::_STEP, ::_STEP]
        median = float(np.median(sample[sample > 0])) if sample.any() else None
        low, high = self._settings.depth_range
        if median is not None and not low <= median <= high:
            problem = f"its median depth is {median:.3g} m, expected {low} to {high} m"
            raise SourceError.at(path, problem, "Check units_per_metre, or widen depth_range")
        return depth

    def _check_facing(self, normal: FloatMap, valid: BoolMap, intrinsics: Matrix, path: Path) -> None:
        away = share_away(normal, valid, intrinsics, _GRAZING)
        if away > self._settings.max_facing_away:
            problem = f"{away:.1%} of the normals point away from the camera when read as '{self._settings.axes}'"
            raise SourceError.at(path, problem, "Correct the card's axes, or raise max_facing_away")


def _by_number(view: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", view))


def _camera(path: Path, shape: tuple[int, int], with_pose: bool) -> tuple[Matrix, Matrix | None]:
    """Matrix of a centred pinhole and camera-to-world pose."""
    try:
        values = json.loads(read_bytes(path, "a view's camera").decode("utf-8"))
        fov = float(values["field_of_view_rads"])
        intrinsics = field_of_view_intrinsics(*shape, math.degrees(fov))
        if not with_pose:
            return intrinsics, None
        quaternion = np.array(values["camera_rotation_final_quaternion"], dtype=np.float64)
        pose = np.eye(4)
        pose[:3, 3] = np.array(values["camera_location"], dtype=np.float64)
        pose[:3, :3] = Rotation.from_quat(quaternion, scalar_first=True).as_matrix() @ axes_matrix("opencv", "opengl")
        if not np.isfinite(pose).all():
            raise ValueError("its pose is not finite")
    except KeyError as error:
        hint = suggest(str(error.args[0]), values).rstrip(".")
        raise SourceError.at(path, f"expected a key {error}", f"{hint}; or set pose: false") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise SourceError.at(path, f"expected a view's camera as JSON ({error})", DAMAGED) from error
    return intrinsics, pose
