"""DSINE's ready-made evaluation folder ``dsine_eval`` (Bae and Davison, CVPR 2024): six sets in one layout.

``<set>/<scene>/<name>_img.<png|jpg>``, ``<name>_normal.<png|exr|pkl>`` and ``<name>_intrins.npy`` (3 x 3, the centre of
the top-left pixel is (0, 0)). Normals are x left, y up, z to the viewer. What marks a pixel without normal differs:
black in PNG (8 bits; 16 bits in vkitti), a norm of at most 0.5 in EXR, all zero in OASIS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ncbench.datasets.formats.camera_files import read_intrinsics
from ncbench.datasets.formats.images import image_size, read_image_bytes
from ncbench.datasets.formats.normal_maps import InvalidRule, StoredNormals, open_normals
from ncbench.datasets.frame import BoolMap, FloatMap, Frame
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.depth_normals import check_intrinsics
from ncbench.datasets.readers.dsine_eval_pickle import read_oasis_normals
from ncbench.datasets.readers.layout import listing, require_folder, require_known, require_shape
from ncbench.datasets.readers.nyuv2_axes import check_facing
from ncbench.errors import SourceError
from ncbench.names import AxesName
from ncbench.settings import Settings, suggest

_REMEDY = "Unpack dsine_eval.zip and name the folder dsine_eval"
_PICTURE = re.compile(r"(.+)_img\.(png|jpg|jpeg)")
_VIDEO_FRAME = re.compile(r"frame_(\d+)")
_BLACK = InvalidRule(colours=((0, 0, 0),), min_norm=0.0)
_SHORT = InvalidRule(min_norm=float(np.nextafter(0.5, 1)))  # DSINE keeps norms above 0.5, not at it

SetName = Literal["nyuv2", "scannet", "ibims", "sintel", "vkitti", "oasis"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one of the sets keeps its normals."""

    suffix: str
    invalid: InvalidRule
    bits: int = 8


_KINDS: Mapping[SetName, _Kind] = {
    "nyuv2": _Kind("png", _BLACK),
    "scannet": _Kind("png", _BLACK),
    "ibims": _Kind("exr", _SHORT),
    "sintel": _Kind("exr", _SHORT),
    "vkitti": _Kind("png", _BLACK, bits=16),
    "oasis": _Kind("pkl", _BLACK),
}


class DsineEvalSettings(Settings):
    """Settings of :class:`DsineEvalReader`.

    Attributes:
        set: Which of the six sets.
        scenes: Sub-folders to read, in this order; None takes all. NYUv2 has ``test`` and ``train``.
        count: How many pictures there must be, so that half an archive is noticed; None does not check.
        axes: Axes of the stored normals after DSINE's own decoding.
    """

    set: SetName
    scenes: tuple[str, ...] | None = Field(default=None, min_length=1)
    count: int | None = Field(default=None, ge=1)
    axes: AxesName


class DsineEvalReader:
    """Reads one of the six sets.

    ``sintel`` comes as video: a sequence a scene, frames numbered as in the file names. Pictures of the other sets
    do not belong together: each is a sequence of its own called ``<scene>-<name>``, frame 0.

    Args:
        root: Folder ``dsine_eval``, the folder that holds it, or the folder of the set.
        settings: See :class:`DsineEvalSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A folder or file is missing, or there are more or fewer pictures than ``count``.
    """

    normal_source: Literal["file"] = "file"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = DsineEvalSettings.parse(settings, "dsine_eval reader")
        self._kind = _KINDS[self._settings.set]
        self._root = Path(root)
        name = self._settings.set
        below = (self._root / "dsine_eval" / name, self._root / name, self._root)
        # the set called ibims holds a scene called ibims: only pictures tell a set's folder from a scene's
        folder = next((path for path in below if any(path.glob("*/*_img.*"))), self._root)
        self._folder = require_folder(folder, f"the scenes of {name}", _REMEDY)
        self._places = self._find()
        total = sum(len(frames) for frames in self._places.values())
        if self._settings.count not in (None, total):
            problem = f"expected {self._settings.count} pictures of {name}, found {total}"
            raise SourceError.at(self._folder, problem, _REMEDY)

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips or single pictures: name -> ascending frame numbers."""
        return {name: tuple(frames) for name, frames in self._places.items()}

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named frames.

        Args:
            sequence: Name of the clip or picture.
            frames: Frame numbers, in the order wanted.

        Yields:
            Canonical frames without depth, flow or pose.

        Raises:
            SourceError: A file is damaged, of another size than its picture, or most of its normals point away.
        """
        require_known(self._root, self.sequences(), sequence, frames)
        for number in frames:
            picture, normal_path, camera = self._files(sequence, number)
            image = read_image_bytes(picture)
            shape = image_size(image)
            intrinsics = read_intrinsics(camera)
            check_intrinsics(intrinsics, camera)
            normal, valid = self._normal(normal_path, shape)
            check_facing(normal, valid, intrinsics, normal_path, self._settings.axes)
            yield Frame(sequence=sequence, frame=number, image=image, normal=normal, valid=valid, intrinsics=intrinsics)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames."""
        require_known(self._root, self.sequences(), sequence, frames)
        return hash_files(self._root, [path for number in frames for path in self._files(sequence, number)])

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _find(self) -> dict[str, dict[int, Path]]:
        scenes = [path.name for path in listing(self._folder) if path.is_dir()]
        for name in self._settings.scenes or ():
            if name not in scenes:
                remedy = suggest(name, scenes).rstrip(".")
                raise SourceError.at(self._folder, f"the settings ask for folder '{name}', which is not there", remedy)
        places: dict[str, dict[int, Path]] = {}
        for scene in self._settings.scenes or scenes:
            for path in listing(self._folder / scene):
                match = _PICTURE.fullmatch(path.name)
                if match is not None:
                    sequence, number = self._place(path, scene, match.group(1))
                    places.setdefault(sequence, {})[number] = path
        if not places:
            raise SourceError.at(self._folder, "expected pictures <scene>/<name>_img.png, found none", _REMEDY)
        for sequence, frames in places.items():
            for number in frames:
                self._require_partners(frames[number])
            places[sequence] = dict(sorted(frames.items()))
        return places

    def _place(self, path: Path, scene: str, name: str) -> tuple[str, int]:
        if self._settings.set != "sintel":
            return f"{scene}-{name}", 0
        match = _VIDEO_FRAME.fullmatch(name)
        if match is None:
            raise SourceError.at(path, "expected a name such as frame_0001_img.png", _REMEDY)
        return scene, int(match.group(1))

    def _require_partners(self, picture: Path) -> None:
        for path in self._partners(picture):
            if not path.is_file():
                raise SourceError.at(path, "expected a file, found none, although the picture is there", _REMEDY)

    def _partners(self, picture: Path) -> tuple[Path, Path]:
        name = picture.name.rpartition("_img.")[0]
        return picture.with_name(f"{name}_normal.{self._kind.suffix}"), picture.with_name(f"{name}_intrins.npy")

    def _files(self, sequence: str, number: int) -> tuple[Path, Path, Path]:
        picture = self._places[sequence][number]
        return picture, *self._partners(picture)

    def _normal(self, path: Path, shape: tuple[int, int]) -> tuple[FloatMap, BoolMap]:
        if self._kind.suffix == "pkl":
            vectors, everywhere = read_oasis_normals(path, *shape), np.ones(shape, dtype=np.bool_)
            stored = StoredNormals(path, vectors, everywhere, self._kind.invalid.min_norm)
        else:
            stored = open_normals(path, invalid=self._kind.invalid)
            self._check_bits(path)
        require_shape(path, stored.shape, shape, "its picture")
        return stored.unit(self._settings.axes)

    def _check_bits(self, path: Path) -> None:
        """A picture of the wrong depth would decode to plausible normals at another precision."""
        if self._kind.suffix != "png":
            return
        with path.open("rb") as stream:
            found = stream.read(25)[24]  # the bit depth in a PNG's header, which has been checked before
        if found != self._kind.bits:
            raise SourceError.at(path, f"expected {self._kind.bits} bits a channel, found {found}", _REMEDY)
