"""Write rendered clips as DSINE's evaluation folder."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.mini.layout_scannet import eight_bits, encode, save_png, scene_of
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.mini.render import RenderedFrame, render_frame
from ncbench.datasets.readers.dsine_eval import SetName

_SIXTEEN_BITS = 65535
_STILL_SCENES: Mapping[str, str] = {"nyuv2": "test", "ibims": "ibims", "oasis": "val"}


class DsineEvalMiniSettings(LayoutSettings):
    """A miniature of ``dsine_eval``.

    Attributes:
        sets: Which of its sets to write; all show the same clips.
    """

    sets: Annotated[tuple[SetName, ...], Field(min_length=1)]


def write_dsine_eval_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write clips under ``dsine_eval/<set>``, each set with its own kind of normals.

    Args:
        out: An empty folder.
        settings: See ``DsineEvalMiniSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = DsineEvalMiniSettings.parse(settings, "generator of the dsine_eval layout")
    numbers = dict.fromkeys(checked.sets, 0)
    for sequence in checked.sequences:
        scene = scene_of(checked, sequence)
        for index in range(checked.frames):
            frame = render_frame(scene, index)
            for kind in checked.sets:
                folder = out / "dsine_eval" / kind / _STILL_SCENES.get(kind, sequence.name)
                folder.mkdir(parents=True, exist_ok=True)
                name = f"frame_{index + 1:04d}" if kind == "sintel" else f"{numbers[kind]:06d}"
                numbers[kind] += 1
                _write_frame(folder, name, kind, frame)


def _write_frame(folder: Path, name: str, kind: SetName, frame: RenderedFrame) -> None:
    suffix, coding = ("jpg", "jpeg") if kind == "vkitti" else ("png", "png")
    (folder / f"{name}_img.{suffix}").write_bytes(encode(frame.rgb, coding))
    np.save(folder / f"{name}_intrins.npy", frame.intrinsics.astype(np.float32))
    left_up_back = 0.0 - frame.normal
    if kind in {"nyuv2", "scannet"}:
        save_png(folder / f"{name}_normal.png", eight_bits(frame, left_up_back))
    elif kind == "vkitti":
        coded = np.rint((left_up_back + 1) * (_SIXTEEN_BITS / 2))
        pixels = np.where(frame.valid[..., None], coded, 0).astype(np.uint16)
        cv2.imwrite(str(folder / f"{name}_normal.png"), pixels[..., ::-1])
    elif kind == "oasis":
        (folder / f"{name}_normal.pkl").write_bytes(oasis_pickle(frame))
    else:
        write_exr(folder / f"{name}_normal.exr", left_up_back.astype(np.float32))


def oasis_pickle(frame: RenderedFrame) -> bytes:
    """Code a frame's normals as OASIS does: those of an inner box, x right, y down, z to the viewer."""
    height, width = frame.valid.shape
    box = {"min_x": width // 8, "max_x": width - width // 8, "min_y": height // 8, "max_y": height - height // 8}
    inner = frame.normal[box["min_y"] : box["max_y"] + 1, box["min_x"] : box["max_x"] + 1]
    return pickle.dumps({**box, "normal": inner * [1.0, 1.0, -1.0] + 0.0}, protocol=2)


def write_exr(path: Path, normal: NDArray[np.float32]) -> None:
    """Write a map of vectors as the float channels R, G, B of an EXR file.

    Args:
        path: The file to make.
        normal: (H, W, 3).
    """
    import OpenEXR

    channels = {name: np.ascontiguousarray(normal[..., place]) for place, name in enumerate("RGB")}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, channels).write(str(path))
