"""A miniature of 3D Ken Burns in its official form: samples of four views, Unreal's units and axes, three zips each."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ncbench.datasets.mini.layouts import SequenceSettings
from ncbench.datasets.mini.render import RenderedFrame, render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.datasets.mini.scene import Scene
from ncbench.datasets.mini.source_files import hold_still, move_camera, pack_zip, write_exr, write_png
from ncbench.settings import Settings

SKY_DEPTH = 1e6  # centimetres; Unreal's far plane, where a file holds no surface
_BASELINE = 0.2  # metres
_VIEWS = {"tl": (0.0, 0.0), "tr": (_BASELINE, 0.0), "bl": (0.0, _BASELINE), "br": (_BASELINE, _BASELINE)}
_STEP = 9  # frames of the scene between samples, so that they are no video


class KenBurnsLayoutSettings(Settings):
    """A miniature of 3D Ken Burns.

    Attributes:
        seed: Seed of every capture that has none of its own.
        samples: Samples of each capture.
        height: Picture's height in pixels.
        width: Picture's width in pixels.
        captures: The captures; the first is zipped, the others are folders.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    samples: Annotated[int, Field(ge=1, le=99)] = 1
    height: Annotated[int, Field(ge=8, le=4096)]
    width: Annotated[int, Field(ge=8, le=4096)]
    captures: Annotated[tuple[SequenceSettings, ...], Field(min_length=1)]


def write_ken_burns_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write samples as ``<capture>/NNNNN-{tl,tr,bl,br}-image.png``, ``-depth.exr``, ``-normal.exr`` and ``-meta.json``.

    Depth is z-depth in centimetres (float32, one channel); normals are in Unreal's camera (x right, y **up**, z
    forward, facing the camera) with x in channel **B** and z in R, half precision and of length near 1, as the sky's
    are (0, 0, -1). The first capture becomes three zip archives.

    Args:
        out: An empty folder.
        settings: See ``KenBurnsLayoutSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = KenBurnsLayoutSettings.parse(settings, "generator of the 3D Ken Burns layout")
    for place, capture in enumerate(checked.captures):
        for sample in range(checked.samples):
            scene = ken_burns_scene(checked, capture, sample)
            for view in _VIEWS:
                _write_view(out, capture.name, sample + 1, view, render_frame(move_view(scene, sample, view), 0))
            meta = {"intSample": sample + 1, "fltFov": math.degrees(scene.camera.field_of_view)}
            (out / capture.name / f"{sample + 1:05d}-meta.json").write_text(json.dumps(meta))
        if place == 0:
            for kind in ("", "-depth", "-normal"):
                pack_zip(out / f"{capture.name}{kind}")


def ken_burns_scene(settings: KenBurnsLayoutSettings, capture: SequenceSettings, sample: int) -> Scene:
    """Make the scene of a sample, its bodies stopped.

    Args:
        settings: Of the miniature.
        capture: One of its captures.
        sample: From 0.

    Returns:
        The scene; its camera stands where the top-left view does at frame ``sample * 9``.
    """
    seed = capture.seed if capture.seed is not None else (settings.seed << 32) + zlib.crc32(capture.name.encode())
    frames = settings.samples * _STEP
    return hold_still(make_scene(capture.kind, seed, frames, settings.height, settings.width), sample * _STEP)


def move_view(scene: Scene, sample: int, view: str) -> Scene:
    """Put the camera of ``ken_burns_scene`` where a view of the rig is."""
    return move_camera(scene, sample * _STEP, *_VIEWS[view])


def _write_view(out: Path, capture: str, number: int, view: str, frame: RenderedFrame) -> None:
    stem = f"{number:05d}-{view}"
    write_png(out / capture / f"{stem}-image.png", frame.rgb)
    depth = np.where(frame.valid, frame.depth * 100, SKY_DEPTH).astype(np.float32)
    write_exr(out / f"{capture}-depth" / f"{stem}-depth.exr", {"Y": depth})
    normal = np.where(frame.valid[..., None], frame.normal, (0.0, 0.0, -1.0)) * (1.0, -1.0, 1.0)
    x, y, z = np.moveaxis(normal.astype(np.float16), -1, 0)
    write_exr(out / f"{capture}-normal" / f"{stem}-normal.exr", {"B": x, "G": y, "R": z})
