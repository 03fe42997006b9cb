"""Colour changes: a curve on each channel, then one linear mix of the channels."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ncbench.loader_card import Photometric

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma


class Colour(NamedTuple):
    """The change that all frames of one clip share; the defaults change nothing."""

    brightness: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


def draw_colour(settings: Photometric | None, draws: NDArray[np.float64]) -> Colour:
    """Turn uniform numbers into a change.

    Args:
        settings: The ranges; None changes nothing.
        draws: (6,) uniform in [0, 1).

    Returns:
        The change; ``hue`` in degrees.
    """
    if settings is None or draws[0] >= settings.probability:
        return Colour()
    brightness, contrast, gamma, saturation, hue = (2 * draws[1:] - 1).tolist()
    return Colour(
        1 + brightness * settings.brightness,
        1 + contrast * settings.contrast,
        math.exp(gamma * math.log1p(settings.gamma)),
        1 + saturation * settings.saturation,
        hue * settings.hue,
    )


def change_colour(image: NDArray[np.uint8], colour: Colour) -> NDArray[np.uint8]:
    """Apply a change: gamma, brightness and contrast as one table, then saturation and hue as one matrix.

    Args:
        image: (H, W, 3) RGB.
        colour: The change.

    Returns:
        The changed picture, rounded and clipped; the same object where nothing changes.
    """
    changed = image
    if (colour.brightness, colour.contrast, colour.gamma) != (1.0, 1.0, 1.0):
        values = np.linspace(0, 1, 256) ** colour.gamma * colour.brightness
        table = np.rint(np.clip((values - 0.5) * colour.contrast + 0.5, 0, 1) * 255).astype(np.uint8)
        changed = np.asarray(cv2.LUT(np.ascontiguousarray(changed), table), np.uint8)
    if (colour.saturation, colour.hue) != (1.0, 0.0):
        matrix = colour_matrix(colour.saturation, colour.hue)
        changed = np.asarray(cv2.transform(np.ascontiguousarray(changed), matrix), np.uint8)
    return changed


def colour_matrix(saturation: float, hue: float) -> NDArray[np.float64]:
    """Make the matrix that scales colourfulness and turns hue; grey stays.

    Args:
        saturation: Factor of the distance from grey (ITU-R BT.601 luma).
        hue: Degrees of turn around the axis (1, 1, 1).

    Returns:
        (3, 3) float64, applied to (R, G, B); rows sum to 1.
    """
    angle = math.radians(hue)
    third, root = 1 / 3, math.sqrt(1 / 3)
    skew = root * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    turn = math.cos(angle) * np.eye(3) + (1 - math.cos(angle)) * third + math.sin(angle) * skew
    saturate = saturation * np.eye(3) + (1 - saturation) * _GREY
    return np.asarray(turn @ saturate)
