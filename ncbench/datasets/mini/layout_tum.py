"""Write rendered clips in the form of TUM RGB-D sequences, with its quirks: unsynchronised streams and holes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from ncbench.datasets.mini.clip_scene import clip_scene
from ncbench.datasets.mini.layouts import LayoutSettings, SequenceSettings
from ncbench.datasets.mini.render import RenderedFrame, render_frame
from ncbench.datasets.mini.scene import Matrix

FIELD_OF_VIEW = 60.0  # degrees: one camera for all clips, since the files do not hold it
_START = 1305031452.791720  # seconds; the benchmark's recordings are from 2011
_RATE = 30.0  # frames a second
_DEPTH_LAG, _POSE_LAG = 0.0092, -0.0031  # seconds by which the other streams are off
_REACH = 5.5  # metres: a structured-light sensor sees no farther
_UNITS = 5000.0  # units of the depth files a metre


class TumLayoutSettings(LayoutSettings):
    """As the other layouts, and which frame's depth is lost.

    Attributes:
        lost_depth: Frame of each clip without a depth file near in time; None loses none.
    """

    lost_depth: Annotated[int, Field(ge=0)] | None = None


def write_tum_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write clips as TUM publishes them.

    Each clip holds ``rgb/<t>.png``, ``depth/<t>.png`` (16 bits, 5000 a metre, 0 beyond the sensor's reach),
    ``rgb.txt``, ``depth.txt`` and ``groundtruth.txt`` (t tx ty tz qx qy qz qw, camera-to-world). The three
    streams have times of their own; poses come three times as often as pictures.

    Args:
        out: An empty folder.
        settings: See ``TumLayoutSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = TumLayoutSettings.parse(settings, "generator of the TUM layout")
    for sequence in checked.sequences:
        _write_clip(out / sequence.name, checked, sequence)


def _write_clip(root: Path, settings: TumLayoutSettings, sequence: SequenceSettings) -> None:
    scene = clip_scene(settings, sequence, FIELD_OF_VIEW)
    for name in ("rgb", "depth"):
        (root / name).mkdir(parents=True)
    lists: dict[str, list[str]] = {"rgb": [], "depth": []}
    poses = []
    for index in range(settings.frames):
        frame = render_frame(scene, index)
        time = _START + index / _RATE
        lists["rgb"].append(_write(root, "rgb", time, frame.rgb))
        if index != settings.lost_depth:
            lists["depth"].append(_write(root, "depth", time + _DEPTH_LAG, _sensed(frame)))
        for third in range(3):
            place = scene.camera.pose(index + third / 3)
            poses.append(_pose_line(time + _POSE_LAG + third / 3 / _RATE, place))
    kinds = {"rgb": "# color images\n", "depth": "# depth maps\n"}
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text(kinds[name] + "# timestamp filename\n" + "".join(lines), encoding="utf-8")
    head = "# ground truth trajectory\n# timestamp tx ty tz qx qy qz qw\n"
    (root / "groundtruth.txt").write_text(head + "".join(poses), encoding="utf-8")


def _write(root: Path, kind: str, time: float, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> str:
    name = f"{kind}/{time:.6f}.png"
    Image.fromarray(pixels).save(root / name, format="PNG", compress_level=6)
    return f"{time:.6f} {name}\n"


def _sensed(frame: RenderedFrame) -> NDArray[np.uint16]:
    seen = frame.valid & (frame.depth < _REACH)
    return np.where(seen, np.rint(frame.depth * _UNITS), 0).astype(np.uint16)


def _pose_line(time: float, pose: Matrix) -> str:
    numbers = [*pose[:3, 3].tolist(), *_quaternion(pose[:3, :3])]
    return f"{time:.6f} " + " ".join(f"{value:.9f}" for value in numbers) + "\n"


def _quaternion(rotation: Matrix) -> list[float]:
    """Give x, y, z, w of a rotation: the eigenvector of the largest eigenvalue of Bar-Itzhack's matrix (2000)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.tolist()
    matrix = np.array(
        [
            [xx - yy - zz, 0, 0, 0],
            [yx + xy, yy - xx - zz, 0, 0],
            [zx + xz, zy + yz, zz - xx - yy, 0],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    vector = np.linalg.eigh(matrix / 3)[1][:, -1]  # eigh reads the lower triangle
    return [float(value) for value in (vector if vector[3] >= 0 else -vector)]
