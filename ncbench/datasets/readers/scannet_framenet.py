"""ScanNet stills with FrameNet's normals (Huang et al., ICCV 2019), rendered from the reconstructed mesh.

Files: ``scannet-frames/<scene>/frame-<6 digits>-{color,normal,orient-mask,renderdepth}.png`` at 640 x 480 (further
kinds are not read). The list that papers test on is DSINE's 300 of FrameNet's test pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ncbench.datasets.formats.camera_files import intrinsics_from_numbers
from ncbench.datasets.formats.images import image_size, read_depth_file, read_image_bytes, read_mask
from ncbench.datasets.formats.normal_maps import InvalidRule, open_normals
from ncbench.datasets.frame import Frame
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.depth_normals import rays_of
from ncbench.datasets.readers.layout import listing, require_folder, require_known, require_shape
from ncbench.datasets.readers.nyuv2 import Sign
from ncbench.datasets.readers.nyuv2_axes import check_against_depth
from ncbench.datasets.readers.scannet_lists import read_list
from ncbench.errors import CardError, SourceError
from ncbench.names import AxesName
from ncbench.settings import Settings

_REMEDY = "Unpack FrameNet's zip files, so that scannet-frames holds a folder a scan, and name the folder above"
_LINE = re.compile(r"(scene\d{4}_\d{2})/(\d{6})")
_PICTURE = re.compile(r"frame-(\d{6})-color\.png")
_BLACK = InvalidRule(colours=((0, 0, 0),), min_norm=0.0)
_KINDS = ("color", "normal", "renderdepth")


class FramenetSettings(Settings):
    """Settings of :class:`FramenetReader`.

    Attributes:
        images: List of pictures, see ``read_list``: ``scene0532_00/000000`` a line. None reads all that lie there.
        intrinsics: fx, fy, cx, cy of the 640 x 480 pictures: what FrameNet's own loader uses for every scan.
        orient_mask: Leave out pixels that FrameNet's ``orient-mask`` leaves out. DSINE's files, the published
            protocol, count every pixel that is not black; so does the default.
        axes: Axes of the stored normals. Inferred from TiltedSN's loader, stated nowhere; checked against
            ``renderdepth``.
        signs: Signs to multiply the stored (x, y, z) with before ``axes`` apply, for files in yet other axes.
        depth_units: Stored units of ``renderdepth`` a metre.
        axes_slack: See ``check_against_depth``, degrees; None switches the check off.
    """

    images: str | None = None
    intrinsics: tuple[float, float, float, float] = (577.591, 578.73, 318.905, 242.684)
    orient_mask: bool = False
    axes: AxesName
    signs: tuple[Sign, Sign, Sign] = (1, 1, 1)
    depth_units: float = Field(default=1000.0, gt=0)
    axes_slack: float | None = Field(default=10.0, gt=0)


class FramenetReader:
    """Reads the pictures. A sequence is one picture, ``<scene>-<6 digits>``, frame 0.

    Args:
        root: Folder that holds ``scannet-frames``, or that folder itself.
        settings: See :class:`FramenetSettings`.

    Raises:
        CardError: A setting or the list is wrong.
        SourceError: A folder or file is missing.
    """

    normal_source: Literal["file"] = "file"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = FramenetSettings.parse(settings, "FrameNet reader")
        self._root = Path(root)
        frames = self._root / "scannet-frames"
        self._folder = require_folder(frames if frames.is_dir() else self._root, "FrameNet's scans", _REMEDY)
        self._stems = self._found() if self._settings.images is None else self._listed(self._settings.images)
        for name in self._stems:
            for path in self._files(name):
                if not path.is_file():
                    raise SourceError.at(path, "expected a file, found none", _REMEDY)
        self._intrinsics = intrinsics_from_numbers(np.array(self._settings.intrinsics))

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the pictures: name -> (0,)."""
        return dict.fromkeys(self._stems, (0,))

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield one picture.

        Args:
            sequence: Its name.
            frames: (0,).

        Yields:
            The canonical frame; the depth is rendered from the mesh, like the normals.

        Raises:
            SourceError: A file is damaged, sizes differ, or the normals contradict the depth under the card's axes.
        """
        require_known(self._root, self.sequences(), sequence, frames)
        picture, normal_path, depth_path, *masks = self._files(sequence)
        for number in frames:
            image = read_image_bytes(picture)
            shape = image_size(image)
            stored = open_normals(normal_path, invalid=_BLACK)
            require_shape(normal_path, stored.shape, shape, "its picture")
            depth = read_depth_file(depth_path, scale=1 / self._settings.depth_units)
            require_shape(depth_path, depth.shape, shape, "its picture")
            keep = None
            for path in masks:  # one at most
                keep = read_mask(path)
                require_shape(path, keep.shape, shape, "its picture")
            normal, valid = stored.unit(self._settings.axes, self._settings.signs, keep)
            if self._settings.axes_slack is not None:
                rays = rays_of(self._intrinsics, shape, self._root)
                named, slack = self._settings.axes, self._settings.axes_slack
                check_against_depth(normal, valid, depth, rays, normal_path, named, slack)
            yield Frame(
                sequence=sequence,
                frame=number,
                image=image,
                normal=normal,
                valid=valid,
                depth=depth,
                intrinsics=self._intrinsics.copy(),
            )

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames."""
        require_known(self._root, self.sequences(), sequence, frames)
        return hash_files(self._root, self._files(sequence))

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: none."""
        return {}

    def _found(self) -> dict[str, Path]:
        stems = {}
        for folder in listing(self._folder):
            for path in listing(folder) if folder.is_dir() else ():
                match = _PICTURE.fullmatch(path.name)
                if match is not None:
                    stems[f"{folder.name}-{match.group(1)}"] = folder / f"frame-{match.group(1)}"
        if not stems:
            raise SourceError.at(self._folder, "expected <scene>/frame-000000-color.png, found none", _REMEDY)
        return stems

    def _listed(self, name: str) -> dict[str, Path]:
        stems: dict[str, Path] = {}
        for words in read_list(name):
            match = _LINE.fullmatch(words[0])
            if match is None or len(words) != 1:
                raise CardError(
                    f"list '{name}': expected a line such as scene0532_00/000000, found '{' '.join(words)}'"
                )
            stems["-".join(match.groups())] = self._folder / match.group(1) / f"frame-{match.group(2)}"
        return stems

    def _files(self, name: str) -> list[Path]:
        stem = self._stems[name]
        kinds = (*_KINDS, "orient-mask") if self._settings.orient_mask else _KINDS
        return [stem.with_name(f"{stem.name}-{kind}.png") for kind in kinds]
