"""Write rendered clips in the layout of DAVIS: JPEG pictures, labels of the objects that move, lists of sequences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ncbench.datasets.mini.clip_scene import clip_scene
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.scene import Scene

_PALETTE = [channel for number in range(256) for channel in (37 * number % 256, 91 * number % 256, 53 * number % 256)]


def write_davis_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write ``DAVIS/JPEGImages/480p/<clip>/NNNNN.jpg`` and ``ImageSets/2017/{train,val}.txt`` (the last clip is val).

    ``Annotations/480p/<clip>/NNNNN.png`` numbers the objects that move from 1, in a palette. The official pictures are
    854 x 480; the folder keeps its name at any size.

    Args:
        out: An empty folder.
        settings: See ``LayoutSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = LayoutSettings.parse(settings, "generator of the DAVIS layout")
    base = out / "DAVIS"
    for sequence in checked.sequences:
        pictures, labels = (base / kind / "480p" / sequence.name for kind in ("JPEGImages", "Annotations"))
        for folder in (pictures, labels):
            folder.mkdir(parents=True)
        scene = clip_scene(checked, sequence)
        numbers = _instance_numbers(scene)
        for index in range(checked.frames):
            frame = render_frame(scene, index)
            Image.fromarray(frame.rgb).save(pictures / f"{index:05d}.jpg", format="JPEG", quality=95)
            annotation = Image.fromarray(numbers[frame.ids])
            annotation.putpalette(_PALETTE)  # which makes it a picture of palette entries
            annotation.save(labels / f"{index:05d}.png", format="PNG")
    lists = base / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    names = [sequence.name for sequence in checked.sequences]
    (lists / "train.txt").write_text("".join(f"{name}\n" for name in names[:-1]), encoding="utf-8")
    (lists / "val.txt").write_text(f"{names[-1]}\n", encoding="utf-8")


def _instance_numbers(scene: Scene) -> NDArray[np.uint8]:
    """Label of each id that a rendered frame may hold: 1, 2, ... for the bodies that move, 0 for the rest."""
    moves = (scene.body_poses(0) != scene.body_poses(scene.frames - 1)).any(axis=(1, 2))
    return np.concatenate([[0], np.where(moves, np.cumsum(moves), 0)]).astype(np.uint8)
