import colorsys

import numpy as np
import pytest

from ncbench.loader_card import Photometric
from ncbench.loaders.photometric import Colour, change_colour, colour_matrix, draw_colour
from ncbench.loaders.randomness import key_of, uniforms

PICTURE = np.random.default_rng(1).integers(0, 256, (5, 7, 3)).astype(np.uint8)


def test_the_defaults_change_nothing():
    assert change_colour(PICTURE, Colour()) is PICTURE
    assert draw_colour(None, np.zeros(6)) == Colour()
    assert draw_colour(Photometric(brightness=0.5, probability=0.3), np.full(6, 0.9)) == Colour()


@pytest.mark.parametrize(
    "colour", [Colour(brightness=1.3), Colour(contrast=0.7), Colour(gamma=1.8), Colour(1.1, 0.8, 0.6)]
)
def test_curves(colour):
    exact = (PICTURE / 255) ** colour.gamma * colour.brightness
    exact = np.clip((exact - 0.5) * colour.contrast + 0.5, 0, 1) * 255
    assert abs(change_colour(PICTURE, colour) - exact).max() <= 0.5 + 1e-9


def test_the_matrix_keeps_grey_and_turns_red_to_green():
    for saturation, hue in ((1, 40), (0.3, -70), (0, 0)):
        np.testing.assert_allclose(colour_matrix(saturation, hue) @ np.ones(3), 1)
    np.testing.assert_allclose(colour_matrix(1, 120) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(colour_matrix(1, 240) @ [1, 0, 0], [0, 0, 1], atol=1e-12)
    grey = change_colour(PICTURE, Colour(saturation=0.0))
    assert (grey == grey[..., :1]).all()
    assert abs(grey[..., 0] - PICTURE @ [0.299, 0.587, 0.114]).max() <= 0.5 + 1e-9
    turned = colour_matrix(1, 60) @ [0.6, 0.5, 0.5]
    assert colorsys.rgb_to_hsv(*turned)[0] == pytest.approx(1 / 6, abs=1e-6)  # red a little: 60 degrees on is yellow


def test_draws_fill_their_ranges():
    settings = Photometric(brightness=0.4, contrast=0.2, gamma=0.5, saturation=0.3, hue=20, probability=0.5)
    drawn = [draw_colour(settings, uniforms(key_of("colour", index), 6)) for index in range(2000)]
    changed = np.array([colour for colour in drawn if colour != Colour()])
    assert 900 < len(changed) < 1100
    np.testing.assert_allclose(changed.min(axis=0), [0.6, 0.8, 1 / 1.5, 0.7, -20], rtol=0.02)
    np.testing.assert_allclose(changed.max(axis=0), [1.4, 1.2, 1.5, 1.3, 20], rtol=0.02)
