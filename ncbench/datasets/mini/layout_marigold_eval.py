"""Write rendered stills as a set of Marigold's evaluation archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ncbench.datasets.mini.layout_scannet import save_png, scene_of
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.mini.render import render_frame

_RIGHT_UP_BACK = np.array([1.0, -1.0, -1.0])


class MarigoldEvalMiniSettings(LayoutSettings):
    """A miniature of one set of the archive.

    Attributes:
        folder: The set's folder.
    """

    folder: str = Field(default="scannet", pattern=r"^[a-z0-9]+(/[a-z0-9]+)?$")


def write_marigold_eval_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write clips as ``<folder>/<clip>/000000_img.png`` and ``000000_normal.npy``, and a list.

    The list is called after the last part of the folder, ``scannet.txt``. The arrays are (H, W, 3) float32 with x
    right, y up, z to the viewer, zero where nothing is hit.

    Args:
        out: An empty folder.
        settings: See ``MarigoldEvalMiniSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = MarigoldEvalMiniSettings.parse(settings, "generator of the Marigold evaluation layout")
    lines = []
    for sequence in checked.sequences:
        scene = scene_of(checked, sequence)
        (out / checked.folder / sequence.name).mkdir(parents=True)
        for index in range(checked.frames):
            frame = render_frame(scene, index)
            stem = f"{sequence.name}/{20 * index:06d}"
            save_png(out / checked.folder / f"{stem}_img.png", frame.rgb)
            normal = frame.normal * _RIGHT_UP_BACK + 0.0
            np.save(out / checked.folder / f"{stem}_normal.npy", normal.astype(np.float32))
            lines.append(f"{stem}_img.png {stem}_normal.npy\n")
    (out / f"{Path(checked.folder).name}.txt").write_text("".join(lines))
