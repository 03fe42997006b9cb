"""Order and signs of normal channels: applied as configured, and caught where depth says otherwise."""

import itertools

import numpy as np
import pytest

from ncbench.datasets.readers.normal_components import (
    Components,
    check_order,
    facing_normals,
    finite_rows,
    metric_depth,
)
from ncbench.errors import CardError, SourceError

ALL = list(itertools.product(itertools.permutations("RGB"), itertools.product((1, -1), repeat=3)))


def scene(seed=0):
    """Random unit normals that face a camera looking along z."""
    normal = np.random.default_rng(seed).normal(size=(20, 20, 3)) * [1, 0.7, 0.4] - [0.1, 0.2, 1]
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def store(normal, channels, signs):
    """Write x, y, z into the channels that a configuration names; the inverse of ``Components.apply``."""
    rgb = np.zeros_like(normal)
    for axis, (channel, sign) in enumerate(zip(channels, signs, strict=True)):
        rgb[..., "RGB".index(channel)] = sign * normal[..., axis]
    return rgb.astype(np.float32)


@pytest.mark.parametrize(("channels", "signs"), ALL)
def test_every_order_is_undone_and_accepted_and_no_other_is(channels, signs):
    normal, usable = scene(), np.ones((20, 20), dtype=bool)
    rgb = store(normal, channels, signs)
    right = Components(channels=channels, signs=signs)
    np.testing.assert_allclose(right.apply(rgb), normal, atol=1e-6)
    check_order("file", right, rgb, normal, usable)
    wrong = Components(channels=("B", "G", "R") if channels != ("B", "G", "R") else ("R", "G", "B"), signs=signs)
    with pytest.raises(SourceError) as caught:
        check_order("file.exr", wrong, rgb, normal, usable)
    message = str(caught.value)
    assert message.startswith("file.exr: ")
    assert f"{list(channels)} times {list(signs)} fits" in message


def test_noise_and_too_few_pixels_decide_nothing():
    normal = scene()
    rgb = store(normal, "RGB", (1, 1, 1))
    wrong = Components(channels=("B", "G", "R"))
    few = np.zeros((20, 20), dtype=bool)
    few[:3, :10] = True
    check_order("file", wrong, rgb, normal, few)
    noise = np.random.default_rng(1).normal(size=normal.shape).astype(np.float32)
    check_order("file", wrong, noise, normal, np.ones((20, 20), dtype=bool))


def test_normals_that_point_away_are_left_out_and_many_are_an_error():
    rays = np.broadcast_to([0.0, 0.0, 1.0], (20, 20, 3))
    normal = (2.0 * scene()).astype(np.float32)
    normal[:2] *= -1
    normal[5, 5] = 0
    usable = finite_rows(normal, 0.5, 10)
    away = usable & (normal[..., 2] >= 0)
    unit, valid = facing_normals("file", normal, usable, rays, 0.2)
    np.testing.assert_array_equal(valid, usable & ~away)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), valid, atol=1e-6)
    with pytest.raises(SourceError, match=r"file: .*point away"):
        facing_normals("file", -normal, usable, rays, 0.2)


def test_metric_depth_drops_what_is_unknown_or_far_and_doubts_absurd_units():
    stored = np.array([[100.0, 250.0, 0.0, -5.0], [np.nan, np.inf, 1e9, 300.0]], dtype=np.float32)
    expected = np.array([[1.0, 2.5, 0, 0], [0, 0, 0, 3.0]], dtype=np.float32)
    np.testing.assert_allclose(metric_depth("f", stored, 0.01, 500.0), expected)
    assert not metric_depth("f", np.zeros((2, 2), np.float32), 0.01, 500.0).any()
    with pytest.raises(SourceError, match="median depth of 0.0002.* m"):
        metric_depth("f", stored, 1e-6, 500.0)
    with pytest.raises(SourceError, match="depth_scale"):
        metric_depth("f", stored, 1e4, 1e9)


def test_a_channel_twice_is_refused():
    with pytest.raises(CardError, match="named once"):
        Components.parse({"channels": ["R", "R", "B"]}, "card")
