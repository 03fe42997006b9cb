"""Write rendered clips to disk in the layouts that the readers know.

Each writer has the signature that a card names: ``(out, settings)``. What it writes is a pure function of the settings,
byte for byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, field_validator, model_validator

from ncbench.datasets.formats.sintel import write_cam, write_dpt, write_flo
from ncbench.datasets.mini.render import RenderedFrame, render_frame
from ncbench.datasets.mini.rooms import Kind, make_scene
from ncbench.settings import Settings

SINTEL_SKY_DEPTH = 1e10  # the film's own files hold a huge number, not 0, where there is no surface
_FOG_METRES = 60.0  # distance at which the final pass has lost about two thirds of the light to fog
_FOG = (205.0, 212.0, 222.0)
_OPENGL = np.array([1.0, -1.0, -1.0])


class SequenceSettings(Settings):
    """One clip.

    Attributes:
        name: Folder that the clip is written to.
        kind: Family of scenes, see ``make_scene``.
        seed: Its own seed; without one it follows from the data set's seed and the name.
        count: So many clips, ``name_000`` and on, with seeds that ascend from ``seed`` where there is one; null for one
            clip of just that name.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    kind: Kind
    seed: Annotated[int, Field(ge=0)] | None = None
    count: Annotated[int, Field(ge=1, le=1000)] | None = None

    def clips(self) -> list[SequenceSettings]:
        """List the clips that this stands for, each without ``count``."""
        if self.count is None:
            return [self]
        return [
            self.model_copy(
                update={
                    "name": f"{self.name}_{index:03d}",
                    "seed": None if self.seed is None else self.seed + index,
                    "count": None,
                }
            )
            for index in range(self.count)
        ]


class LayoutSettings(Settings):
    """A miniature data set.

    Attributes:
        seed: Seed of every clip that has none of its own.
        frames: Frames of each clip, at least 2 (flow needs a successor).
        height: Picture's height in pixels.
        width: Picture's width in pixels.
        sequences: The clips; names must differ.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    frames: Annotated[int, Field(ge=2, le=9999)]
    height: Annotated[int, Field(ge=8, le=4096)]
    width: Annotated[int, Field(ge=8, le=4096)]
    sequences: Annotated[tuple[SequenceSettings, ...], Field(min_length=1)]

    @field_validator("sequences")
    @classmethod
    def _one_entry_a_clip(cls, sequences: tuple[SequenceSettings, ...]) -> tuple[SequenceSettings, ...]:
        return tuple(clip for sequence in sequences for clip in sequence.clips())

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [sequence.name for sequence in self.sequences]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sequence names must differ, found more than once: {', '.join(twice)}")
        return self


def write_folder_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write clips as plain folders of pictures and arrays.

    Each clip holds ``rgb/0000.png`` (8 bit), ``normal/0000.npy`` (float32 (H, W, 3), **OpenGL** camera axes: x right,
    y up, z to the viewer; zero where there is no surface), ``depth/0000.npy`` (float32 (H, W), z-depth in metres, 0 for
    none), ``flow/0000.npy`` (float32 (H, W, 2), pixels to the next frame, NaN for none; absent for the last frame),
    ``occluded/0000.png`` (8-bit grey, 255 where the next frame does not show the point; absent for the last frame),
    ``intrinsics.txt`` (3 x 3, pixels) and ``poses.txt`` (a row of 16 numbers a frame: camera-to-world, OpenCV axes).

    Args:
        out: An empty folder.
        settings: See ``LayoutSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = LayoutSettings.parse(settings, "generator of the folder layout")
    for sequence in checked.sequences:
        root = out / sequence.name
        _make_folders(root, "rgb", "normal", "depth", "flow", "occluded")
        poses = []
        for index, frame in enumerate(_render(checked, sequence)):
            name = f"{index:04d}"
            _write_png(root / "rgb" / f"{name}.png", frame.rgb)
            normal = frame.normal * _OPENGL + 0.0  # + 0.0 turns the negative zeros of the sky into zeros
            np.save(root / "normal" / f"{name}.npy", normal.astype(np.float32))
            np.save(root / "depth" / f"{name}.npy", frame.depth.astype(np.float32))
            if index + 1 < checked.frames:
                np.save(root / "flow" / f"{name}.npy", frame.flow.astype(np.float32))
                _write_png(root / "occluded" / f"{name}.png", frame.occluded.astype(np.uint8) * 255)
            poses.append(frame.cam_to_world.ravel())
            intrinsics = frame.intrinsics
        np.savetxt(root / "intrinsics.txt", intrinsics, fmt="%.17g")
        np.savetxt(root / "poses.txt", np.stack(poses), fmt="%.17g")


def write_sintel_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write clips in the official layout of MPI Sintel (Butler et al., ECCV 2012), training half.

    Under ``training``: ``clean`` and ``final`` pictures (the final pass is the clean one behind fog and a mild blur),
    ``flow`` (one file fewer than frames; 0 where invalid), ``invalid`` and ``occlusions`` masks of the frames that
    have flow (8-bit grey, 255 where set), ``depth`` (``SINTEL_SKY_DEPTH`` where there is no surface) and
    ``camdata_left`` (intrinsics and the world-to-camera matrix). A pixel without flow is invalid, not occluded.

    Args:
        out: An empty folder.
        settings: See ``LayoutSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = LayoutSettings.parse(settings, "generator of the Sintel layout")
    kinds = ("clean", "final", "flow", "invalid", "occlusions", "depth", "camdata_left")
    for sequence in checked.sequences:
        folders = {kind: out / "training" / kind / sequence.name for kind in kinds}
        _make_folders(out / "training", *(f"{kind}/{sequence.name}" for kind in kinds))
        for index, frame in enumerate(_render(checked, sequence)):
            name = f"frame_{index + 1:04d}"
            _write_png(folders["clean"] / f"{name}.png", frame.rgb)
            _write_png(folders["final"] / f"{name}.png", _final_pass(frame))
            write_dpt(folders["depth"] / f"{name}.dpt", np.where(frame.valid, frame.depth, SINTEL_SKY_DEPTH))
            world_to_cam = np.linalg.inv(frame.cam_to_world)[:3]
            write_cam(folders["camdata_left"] / f"{name}.cam", frame.intrinsics, world_to_cam)
            if index + 1 < checked.frames:
                invalid = np.isnan(frame.flow[..., 0])
                write_flo(folders["flow"] / f"{name}.flo", np.nan_to_num(frame.flow))
                _write_png(folders["invalid"] / f"{name}.png", _mask(invalid))
                _write_png(folders["occlusions"] / f"{name}.png", _mask(frame.occluded & ~invalid))


def _render(settings: LayoutSettings, sequence: SequenceSettings) -> Iterator[RenderedFrame]:
    seed = sequence.seed
    if seed is None:  # by name, not by place, so that a clip stays the same when others come or go
        seed = (settings.seed << 32) + zlib.crc32(sequence.name.encode())
    scene = make_scene(sequence.kind, seed, settings.frames, settings.height, settings.width)
    for index in range(settings.frames):
        yield render_frame(scene, index)


def _make_folders(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    Image.fromarray(picture).save(path, format="PNG", compress_level=6)


def _mask(values: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(values, 255, 0).astype(np.uint8)


def _final_pass(frame: RenderedFrame) -> NDArray[np.uint8]:
    """Fog by distance, then a 3 x 3 binomial blur."""
    clear = np.where(frame.valid, np.exp(-frame.depth / _FOG_METRES), 0.6)[..., None]
    foggy = np.pad(clear * frame.rgb + (1.0 - clear) * np.array(_FOG), ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = 0.25 * foggy[:-2] + 0.5 * foggy[1:-1] + 0.25 * foggy[2:]
    blurred = 0.25 * rows[:, :-2] + 0.5 * rows[:, 1:-1] + 0.25 * rows[:, 2:]
    return np.rint(blurred).astype(np.uint8)
