"""The scene behind one clip of a miniature data set."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

from ncbench.datasets.mini.layouts import LayoutSettings, SequenceSettings
from ncbench.datasets.mini.rooms import make_scene
from ncbench.datasets.mini.scene import Scene


def clip_scene(settings: LayoutSettings, sequence: SequenceSettings, field_of_view: float | None = None) -> Scene:
    """Furnish a clip's scene; its seed follows from its name, so that it stays the same when others come or go.

    Args:
        settings: The data set.
        sequence: The clip.
        field_of_view: Of the camera, across the width, in degrees, for data sets whose clips share one; None leaves the
            scene its own.

    Returns:
        The scene.
    """
    seed = sequence.seed
    if seed is None:
        seed = (settings.seed << 32) + zlib.crc32(sequence.name.encode())
    scene = make_scene(sequence.kind, seed, settings.frames, settings.height, settings.width)
    if field_of_view is None:
        return scene
    return replace(scene, camera=replace(scene.camera, field_of_view=math.radians(field_of_view)))
