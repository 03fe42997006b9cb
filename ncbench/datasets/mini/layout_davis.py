"""Write rendered clips in the layout of DAVIS: JPEG pictures and lists of sequences, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ncbench.datasets.mini.clip_scene import clip_scene
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.mini.render import render_frame


def write_davis_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write ``DAVIS/JPEGImages/480p/<clip>/NNNNN.jpg`` and ``ImageSets/2017/{train,val}.txt`` (the last clip is val).

    The official pictures are 854 x 480; the folder keeps its name at any size.

    Args:
        out: An empty folder.
        settings: See ``LayoutSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = LayoutSettings.parse(settings, "generator of the DAVIS layout")
    base = out / "DAVIS"
    for sequence in checked.sequences:
        folder = base / "JPEGImages" / "480p" / sequence.name
        folder.mkdir(parents=True)
        scene = clip_scene(checked, sequence)
        for index in range(checked.frames):
            picture = Image.fromarray(render_frame(scene, index).rgb)
            picture.save(folder / f"{index:05d}.jpg", format="JPEG", quality=95)
    lists = base / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    names = [sequence.name for sequence in checked.sequences]
    (lists / "train.txt").write_text("".join(f"{name}\n" for name in names[:-1]), encoding="utf-8")
    (lists / "val.txt").write_text(f"{names[-1]}\n", encoding="utf-8")
