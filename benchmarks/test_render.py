"""Frames a second of the miniature renderer, all truth included."""

import pytest

from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import KINDS, make_scene


@pytest.mark.parametrize("kind", KINDS)
def test_render_frame_96x128(benchmark, kind):
    scene = make_scene(kind, 0, 8, 96, 128)
    benchmark(render_frame, scene, 3)
