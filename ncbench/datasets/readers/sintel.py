"""MPI Sintel, training part: pictures, depth, cameras, flow, occlusions; normals by plane fit, as DSINE made them.

The data set has no normals of its own. DSINE (Bae and Davison, CVPR 2024) fitted planes to the depth in 5 x 5 windows
with a relative depth threshold of 0.05 and at least 4 neighbours; up to which depth it kept normals is not published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.formats.images import image_file_size, image_size, read_image_bytes, read_mask
from ncbench.datasets.formats.sintel import read_cam, read_dpt, read_flo
from ncbench.datasets.frame import BoolMap, FloatMap, Frame, Matrix
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.depth_normals import PlaneFit, plane_fit_normals, rays_of
from ncbench.datasets.readers.layout import listing, numbered_files, require_folder, require_known, require_shape
from ncbench.errors import SourceError
from ncbench.geometry.cameras import invert_pose
from ncbench.settings import Settings, suggest

_REMEDY = (
    "Unpack MPI-Sintel-complete.zip and MPI-Sintel-depth-training-20150305.zip into one folder and name that folder"
)
_PICTURE = re.compile(r"frame_(\d{4,})\.png")
_DEPTH = re.compile(r"frame_(\d{4,})\.dpt")
_FLOW_FOLDERS = ("flow", "invalid", "occlusions")


class SintelSettings(Settings):
    """Settings of :class:`SintelReader`.

    Attributes:
        render_pass: ``final`` (with fog, blur and grain) or ``clean``.
        sequences: Sequences to read, in this order; None takes all.
        flow: Read flow and occlusions too.
        plane_fit: How normals are fitted to the depth.
        max_depth: Depth in metres from which on a pixel counts as sky or backdrop: no depth, no normal. Our own choice
            (published protocols do not state theirs); the sky is stored as a huge number.
    """

    render_pass: Literal["clean", "final"] = "final"  # noqa: S105 - a rendering pass, no secret
    sequences: tuple[str, ...] | None = Field(default=None, min_length=1)
    flow: bool = True
    plane_fit: PlaneFit = PlaneFit()
    max_depth: float = Field(default=80.0, gt=0)


class SintelReader:
    """Reads ``training/`` of the official layout.

    Frame numbers are those of the file names (the first is 1). ``occluded`` is the data set's own mask joined with the
    pixels whose flow leaves the picture. The last frame of a sequence has neither flow nor occlusions.

    Args:
        root: Folder that holds ``training``, or ``training`` itself.
        settings: See :class:`SintelSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: A folder or file is missing.
    """

    normal_source: Literal["plane_fit"] = "plane_fit"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = SintelSettings.parse(settings, "Sintel reader")
        self._root = Path(root)
        training = self._root / "training"
        self._training = training if training.is_dir() else self._root
        self._folders = ("depth", "camdata_left", *(_FLOW_FOLDERS if self._settings.flow else ()))
        for name in (self._settings.render_pass, *self._folders):
            remedy = _REMEDY if name not in _FLOW_FOLDERS else f"{_REMEDY}, or set flow: false"
            require_folder(self._training / name, "one sub-folder a sequence", remedy)
        self._clips = {name: self._numbers(name) for name in self._names()}

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips: name -> ascending frame numbers as in the file names."""
        return self._clips

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame]:
        """Yield the named frames of one clip.

        Args:
            sequence: Name of the clip.
            frames: Frame numbers, in the order wanted.

        Yields:
            Canonical frames; ``extra`` holds ``render_pass``.

        Raises:
            SourceError: A file is missing, truncated, corrupt, or its size is not that of the sequence's first picture.
        """
        require_known(self._root, self._clips, sequence, frames)
        first = self._file(self._settings.render_pass, sequence, self._clips[sequence][0], "png")
        shape = image_file_size(first)
        for number in frames:
            yield self._frame(sequence, number, shape, first.name)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash all files that ``read`` would use for these frames."""
        require_known(self._root, self._clips, sequence, frames)
        return hash_files(self._root, [path for number in frames for path in self._files(sequence, number).values()])

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: ``render_pass``."""
        import pyarrow as pa

        return {"render_pass": pa.string()}

    def _names(self) -> list[str]:
        pictures = self._training / self._settings.render_pass
        found = _subfolders(pictures)
        if not found:
            raise SourceError.at(pictures, "expected one sub-folder a sequence, found none", _REMEDY)
        if self._settings.sequences is None:
            for folder in self._folders:
                lost = sorted(set(_subfolders(self._training / folder)) - set(found))
                if lost:
                    problem = f"expected the pictures of {lost}, of which '{folder}' has a sub-folder, found none"
                    raise SourceError.at(pictures, problem, f"{_REMEDY}, or name the sequences to read")
            return found
        for name in self._settings.sequences:
            if name not in found:
                remedy = suggest(name, found).rstrip(".")
                raise SourceError.at(pictures, f"the settings ask for sequence '{name}', which is not there", remedy)
        return list(self._settings.sequences)

    def _numbers(self, sequence: str) -> tuple[int, ...]:
        folder = self._training / self._settings.render_pass / sequence
        numbers = tuple(numbered_files(folder, _PICTURE))
        require_folder(self._training / "depth" / sequence, "the depth of this sequence", _REMEDY)
        if not numbers:
            raise SourceError.at(folder, "expected pictures frame_0001.png, frame_0002.png, ..., found none", _REMEDY)
        # depth tells how many frames there were: a first or last picture may be missing too
        everything = {*numbers, *numbered_files(self._training / "depth" / sequence, _DEPTH)}
        missing = sorted(set(range(min(everything), max(everything) + 1)) - set(numbers))
        if missing:
            problem = (
                f"expected every picture from {min(everything)} to {max(everything)}, but {missing[:10]} is missing"
            )
            raise SourceError.at(folder, problem, _REMEDY)
        for number in numbers:
            for path in self._files(sequence, number, last=numbers[-1]).values():
                if not path.is_file():
                    raise SourceError.at(path, "expected a file, found none, although the picture is there", _REMEDY)
        return numbers

    def _files(self, sequence: str, number: int, last: int | None = None) -> dict[str, Path]:
        """All files of one frame by kind; those between two frames only where a next frame exists."""
        end = self._clips[sequence][-1] if last is None else last
        kinds = {
            "image": (self._settings.render_pass, "png"),
            "depth": ("depth", "dpt"),
            "cam": ("camdata_left", "cam"),
        }
        if self._settings.flow and number < end:
            kinds |= {"flow": ("flow", "flo"), "invalid": ("invalid", "png"), "occlusions": ("occlusions", "png")}
        return {kind: self._file(folder, sequence, number, suffix) for kind, (folder, suffix) in kinds.items()}

    def _file(self, folder: str, sequence: str, number: int, suffix: str) -> Path:
        return self._training / folder / sequence / f"frame_{number:04d}.{suffix}"

    def _frame(self, sequence: str, number: int, shape: tuple[int, int], reference: str) -> Frame:
        files = self._files(sequence, number)
        image = read_image_bytes(files["image"])
        require_shape(files["image"], image_size(image), shape, reference)
        depth = self._depth(files["depth"], shape)
        intrinsics, cam_to_world = _camera(files["cam"])
        normal, valid = plane_fit_normals(depth, rays_of(intrinsics, shape, files["cam"]), self._settings.plane_fit)
        flow, occluded = _motion(files, shape) if "flow" in files else (None, None)
        return Frame(
            sequence=sequence,
            frame=number,
            image=image,
            normal=normal,
            valid=valid,
            depth=depth,
            flow=flow,
            occluded=occluded,
            intrinsics=intrinsics,
            cam_to_world=cam_to_world,
            extra={"render_pass": self._settings.render_pass},
        )

    def _depth(self, path: Path, shape: tuple[int, int]) -> FloatMap:
        stored = read_dpt(path)
        require_shape(path, stored.shape, shape, "its picture")
        known = (stored > 0) & (stored < self._settings.max_depth)  # NaN and infinity fail both
        return np.where(known, stored, np.float32(0))


def leaves_picture(flow: NDArray[np.float32]) -> BoolMap:
    """Tell which pixels move to where no bilinear sample can be taken.

    Args:
        flow: (H, W, 2) in pixels, NaN where unknown.

    Returns:
        (H, W) bool, True where the target is outside [0, W-1] x [0, H-1]; False where the flow is unknown.
    """
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float64) + flow[..., 0]
    y = np.arange(height, dtype=np.float64)[:, None] + flow[..., 1]
    return np.asarray((x < 0) | (x > width - 1) | (y < 0) | (y > height - 1), dtype=np.bool_)


def _subfolders(folder: Path) -> list[str]:
    return [path.name for path in listing(folder) if path.is_dir()]


def _camera(path: Path) -> tuple[Matrix, Matrix]:
    intrinsics, world_to_cam = read_cam(path)
    pose = np.eye(4)
    pose[:3] = world_to_cam
    try:
        return intrinsics, invert_pose(pose)
    except ValueError as error:
        raise SourceError.at(path, f"its extrinsics are no rigid motion: {error}", _REMEDY) from error


def _motion(files: Mapping[str, Path], shape: tuple[int, int]) -> tuple[FloatMap, BoolMap]:
    flow, unknown, hidden = read_flo(files["flow"]), read_mask(files["invalid"]), read_mask(files["occlusions"])
    for kind, found in (("flow", flow.shape), ("invalid", unknown.shape), ("occlusions", hidden.shape)):
        require_shape(files[kind], found, shape, "its picture")
    flow[unknown | ~np.isfinite(flow).all(axis=2)] = np.nan
    return flow, hidden | leaves_picture(flow)
