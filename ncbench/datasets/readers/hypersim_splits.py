"""Which of Hypersim's frames are read: the official split, minus what is known to be broken, minus what is absent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from ncbench.datasets.formats.arrays import read_bytes
from ncbench.datasets.formats.hypersim import ImageRow, read_split_rows
from ncbench.errors import CardError, SourceError
from ncbench.settings import Settings

BROKEN = ("ai_004_009/cam_01", "ai_038_007/cam_00", "ai_006_001/cam_00/53")
"""Trajectories and frames that are unusable upstream: no light (issue 22), missing textures (22), no geometry (7)."""

_LISTED = re.compile(r"(ai_\d{3}_\d{3})/rgb_(cam_\d{2})_fr(\d{4})\.png")
_SHOWN = 10


class HypersimSelection(Settings):
    """Which frames are listed.

    Attributes:
        split: Part of the official partition by scene; ``all`` joins the three.
        split_table: The official table, relative to the root.
        scenes: Scenes to read, in this order; None takes all of the split.
        missing_scenes: ``error`` wants every scene of the split, ``skip`` reads those that are there. A data set that
            is prepared from a part of the scenes is another data set: say so in its card.
        broken: Trajectories (``scene/camera``) and frames (``scene/camera/frame``) to leave out.
        frame_list: A text file, relative to the root, with the frames to keep in the naming of Marigold's
            ``hypersim_filtered_*.txt`` (``.../ai_VVV_NNN/rgb_cam_XX_frIIII.png`` on every line): the published
            training recipe leaves out frames with NaN normals that way, without decoding any. None keeps all.
    """

    split: Literal["train", "val", "test", "all"] = "train"
    split_table: str = "metadata_images_split_scene_v1.csv"
    scenes: tuple[str, ...] | None = Field(default=None, min_length=1)
    missing_scenes: Literal["error", "skip"] = "error"
    broken: tuple[str, ...] = BROKEN
    frame_list: str | None = None


def clips_of(root: Path, selection: HypersimSelection, has_scene: Callable[[str], bool]) -> dict[str, tuple[int, ...]]:
    """List the trajectories.

    Args:
        root: The data set.
        selection: What is wanted.
        has_scene: Tells whether a scene's files are there.

    Returns:
        ``scene/camera`` -> ascending frame ids, scenes in the order of the table or of ``selection.scenes``.

    Raises:
        CardError: A wanted scene is not in the split.
        SourceError: A table or scene is missing, or nothing is left.
    """
    table = root / selection.split_table
    rows = [row for row in read_split_rows(table) if selection.split in ("all", row.split)]
    scenes = _present_scenes(root, rows, selection, has_scene)
    listed = None if selection.frame_list is None else _read_frame_list(root / selection.frame_list)
    broken = set(selection.broken)
    clips: dict[str, list[int]] = {}
    for row in sorted(rows, key=lambda row: scenes.get(row.scene, 0)):
        name = f"{row.scene}/{row.camera}"
        if row.scene not in scenes or name in broken or f"{name}/{row.frame}" in broken:
            continue
        if listed is None or (row.scene, row.camera, row.frame) in listed:
            clips.setdefault(name, []).append(row.frame)
    if not clips:
        raise SourceError.at(table, f"no frame of split '{selection.split}' is left", "Check the reader's settings")
    return {name: tuple(sorted(set(frames))) for name, frames in clips.items()}


def _present_scenes(
    root: Path, rows: Iterable[ImageRow], selection: HypersimSelection, has_scene: Callable[[str], bool]
) -> dict[str, int]:
    """Scenes to read with their rank."""
    known = dict.fromkeys(row.scene for row in rows)
    wanted = list(known if selection.scenes is None else selection.scenes)
    strangers = [scene for scene in wanted if scene not in known]
    if strangers:
        raise CardError(f"Hypersim reader: scenes {strangers[:_SHOWN]} are not in split '{selection.split}'")
    absent = [scene for scene in wanted if not has_scene(scene)]
    if absent and selection.missing_scenes == "error":
        problem = f"{len(absent)} of {len(wanted)} scenes of split '{selection.split}' are missing: {absent[:_SHOWN]}"
        remedy = "Fetch them, or name the scenes you have in the setting scenes, or set missing_scenes: skip"
        raise SourceError.at(root, problem, remedy)
    return {scene: rank for rank, scene in enumerate(wanted) if scene not in set(absent)}


def _read_frame_list(path: Path) -> set[tuple[str, str, int]]:
    text = read_bytes(path, "a list of frames").decode("utf-8", errors="replace")
    found = {(scene, camera, int(frame)) for scene, camera, frame in _LISTED.findall(text)}
    if not found:
        problem = "expected lines with ai_VVV_NNN/rgb_cam_XX_frIIII.png, found none"
        raise SourceError.at(path, problem, "Fetch the list again")
    return found
