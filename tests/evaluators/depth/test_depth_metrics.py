"""Frame metrics against closed forms."""

import math

import numpy as np
import pytest

from ncbench.errors import CardError
from ncbench.evaluators.depth.metrics import abs_rel, delta1, opw
from ncbench.evaluators.depth.options import DepthOptions

TARGET = np.array([[1.0, 2.0, 4.0], [5.0, 8.0, np.nan]])
KNOWN = np.isfinite(TARGET)


def test_a_relative_error_is_its_own_mean():
    assert abs_rel(TARGET * 1.1, TARGET, KNOWN) == pytest.approx(0.1)
    assert abs_rel(np.array([[2.0, 2, 2], [5, 4, 9]]), TARGET, KNOWN) == pytest.approx((1 + 0 + 0.5 + 0 + 0.5) / 5)
    assert abs_rel(TARGET, TARGET, KNOWN) == 0


@pytest.mark.parametrize(("factor", "share"), [(1.0, 1), (1.24, 1), (1.25, 0), (1.26, 0), (1 / 1.24, 1), (1 / 1.26, 0)])
def test_delta1_is_strict_and_symmetric(factor, share):
    target = np.array([[1.0, 2.0, 4.0]])  # powers of two, so that 1.25 is met exactly
    assert delta1(target * factor, target, np.ones((1, 3), bool)) == share


def test_no_pixel_is_nan():
    none = np.zeros_like(KNOWN)
    assert math.isnan(abs_rel(TARGET, TARGET, none))
    assert math.isnan(delta1(TARGET, TARGET, none))
    assert opw(TARGET, TARGET, np.zeros((2, 3, 2)), none)[1] == 0


def test_opw_of_a_ramp_that_slides():
    """B_a = x, B_b = x + 3 seen one pixel to the right: W(B_b) = x + 4, so the change is 4 where that is inside."""
    ramp = np.tile(np.arange(6.0), (4, 1))
    flow = np.full((4, 6, 2), (1.0, 0.0))
    everywhere = np.ones((4, 6), bool)
    value, pixels = opw(ramp, ramp + 3, flow, everywhere)
    assert (value, pixels) == (pytest.approx(4), 20)
    assert opw(ramp, ramp + 3, flow, everywhere, "area")[0] == pytest.approx(4 * 20 / 24)
    left = np.arange(6) < 2
    assert opw(ramp, ramp + 3, flow, everywhere & left) == (pytest.approx(4), 8)
    holed = ramp + 3
    holed[2, 2] = np.nan
    assert opw(ramp, holed, flow, everywhere)[1] == 19
    assert opw(np.full((4, 6), 2.0), np.full((4, 6), 2.0), flow, everywhere)[0] == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "key 'max_depth' is required"),
        ({"max_depth": 0}, "max_depth"),
        ({"max_depth": 1e-4}, "min_depth must be below max_depth"),
        ({"max_depth": 70, "metrics": ["tae", "tae"]}, "each once"),
        ({"max_depth": 70, "align": "vidoe"}, "Did you mean 'video'"),
    ],
)
def test_options_are_checked(values, message):
    with pytest.raises(CardError, match=message):
        DepthOptions.parse(values, "protocol 'x', depth")
