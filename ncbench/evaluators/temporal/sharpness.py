"""How much detail a prediction has where the picture has edges: the guard beside ``opw`` where there is no truth."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.temporal.links import Moment, place
from ncbench.evaluators.temporal.options import TemporalOptions
from ncbench.evaluators.temporal.pairs import Measure
from ncbench.evaluators.view import BoolMap, FloatMap


def picture_edges(image: NDArray[np.uint8], low: float, high: float) -> BoolMap:
    """Find the edges of a (H, W, 3) RGB picture by Canny's method, on its grey values: (H, W) bool."""
    return np.asarray(cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), low, high) > 0)


def mean_gradient(preds: FloatMap, where: BoolMap) -> float:
    """Average the length of the spatial gradient of normals.

    Args:
        preds: (H, W, 3) unit normals, NaN where there is no answer; such a pixel and its neighbours count as flat, so
            that holes do not pass for detail.
        where: (H, W) bool, the pixels to average over.

    Returns:
        Mean of sqrt(|dn/dx|^2 + |dn/dy|^2) by central differences (one-sided at the border), times 180 / pi: degrees
        for each pixel. NaN where ``where`` is empty.
    """
    if not where.any():
        return math.nan
    down, right = np.gradient(preds.astype(np.float64), axis=(0, 1))
    lengths = np.sqrt((np.square(down) + np.square(right)).sum(axis=-1))
    return float(np.degrees(np.nan_to_num(lengths[where])).mean())


def measure_sharpness(moment: Moment, reference: Moment | None, options: TemporalOptions) -> list[Measure]:
    """Measure a frame's sharpness on the picture's edges, alone and relative to another prediction.

    Args:
        moment: The frame.
        reference: The same frame with the prediction to compare with, such as that of the model for single pictures
            that a video model was made from.
        options: Canny's thresholds.

    Returns:
        ``sharpness``, and ``sharpness_ratio`` where there is a reference that is not flat.

    Raises:
        ScoreError: The frame has no picture.
    """
    view = moment.view
    if view.image is None:
        raise ScoreError(f"needs pictures: {place(view)} has none")
    edges = picture_edges(view.image, options.canny_low, options.canny_high)
    pixels = int(edges.sum())
    value = mean_gradient(moment.preds, edges)
    found = [Measure("sharpness", view.frame, view.frame, value, pixels / edges.size, pixels)]
    if reference is not None:
        base = mean_gradient(reference.preds, edges)
        ratio = value / base if base > 0 else math.nan
        found.append(Measure("sharpness_ratio", view.frame, view.frame, ratio, pixels / edges.size, pixels))
    return found
