"""The multiple that NormalCrafter's canvas is padded to: 64 as released, less for smaller networks."""

import numpy as np
import pytest
import torch

from ncbench.errors import CardError
from ncbench.models.adapters.normalcrafter_frames import Canvas
from ncbench.models.adapters.normalcrafter_settings import NormalCrafterSettings


def test_the_released_multiple_is_the_default():
    assert NormalCrafterSettings().multiple == 64
    assert Canvas.fit(436, 1024, 1024) == Canvas.fit(436, 1024, 1024, 64)


@pytest.mark.parametrize(
    ("size", "multiple", "outer", "top"),
    [
        ((192, 256), 16, (48, 64), 0),
        ((160, 256), 16, (48, 64), 4),  # 40 rows: 4 white ones on both sides
        ((192, 256), 64, (64, 64), 8),
        ((45, 61), 1, (45, 61), 0),
    ],
)
def test_no_more_is_padded_than_the_multiple_asks_for(size, multiple, outer, top):
    canvas = Canvas.fit(*size, 64, multiple)
    assert (canvas.outer_height, canvas.outer_width) == outer
    assert canvas.top == top
    placed = canvas.place(np.zeros((1, *size, 3), np.uint8), torch.device("cpu"))
    assert placed.shape == (1, 3, *outer)
    white = int((placed[0, 0] == 1).all(dim=1).sum())
    assert white == outer[0] - canvas.inner_height


def test_a_multiple_below_one_is_refused():
    with pytest.raises(CardError, match="multiple"):
        NormalCrafterSettings.parse({"multiple": 0}, where="x")
