"""Names and defaults of flow sources."""

from dataclasses import replace

import numpy as np
import pytest

from ncbench.errors import CardError
from ncbench.evaluators.flow.registry import FLOW_SOURCES, choose_flow, load_flow
from ncbench.evaluators.view import View

SIZE = (16, 20)
BARE = View("clip", 0, np.zeros((*SIZE, 3), np.float32), np.zeros(SIZE, bool))
POSED = replace(BARE, depth=np.ones(SIZE, np.float32), intrinsics=np.eye(3), cam_to_world=np.eye(4))


@pytest.mark.parametrize(
    ("name", "settings", "full"),
    [
        ("gt", {}, "gt"),
        ("rigid", {}, "rigid"),
        ("rigid", {"tolerance": 0.1}, "rigid-0.1"),
        ("dis", {}, "dis-medium"),
        ("dis", {"finest_scale": 0}, "dis-medium-scale0"),
    ],
)
def test_names_carry_the_settings(name, settings, full):
    assert load_flow(name, settings).name == full


def test_unknown_names_and_settings():
    with pytest.raises(CardError, match="unknown flow source 'raf'. Did you mean 'raft'"):
        load_flow("raf")
    with pytest.raises(CardError, match="flow source 'dis': unknown key 'finest'. Did you mean 'finest_scale'"):
        load_flow("dis", {"finest": 0})
    with pytest.raises(CardError, match="flow source 'gt': unknown key"):
        load_flow("gt", {"finest": 0})
    with pytest.raises(CardError, match="'tolerance'"):
        load_flow("rigid", {"tolerance": 0})
    assert set(FLOW_SOURCES) >= {"gt", "rigid", "dis"}


def test_the_default_is_the_best_that_the_data_allow():
    moving = replace(POSED, flow=np.zeros((*SIZE, 2), np.float32), flow_to=1)
    last = replace(POSED, frame=1)
    assert choose_flow(moving, last).name == "gt"
    assert choose_flow(POSED, last).name == "rigid"
    assert choose_flow(POSED, replace(last, cam_to_world=None)).name == "dis-medium"
    assert choose_flow(BARE).name == "dis-medium"
    assert choose_flow().name == "dis-medium"
