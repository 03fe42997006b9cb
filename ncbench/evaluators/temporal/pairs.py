"""From linked frames to numbers: each metric's pixels, their mean, and how much of the picture they cover."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ncbench.errors import ScoreError
from ncbench.evaluators.temporal.links import Link, away_from_edges
from ncbench.evaluators.temporal.metrics import (
    CHARGES,
    Values,
    accel_error,
    charged,
    dtheta_error,
    opw_error,
    rc_error,
    tge_error,
)
from ncbench.evaluators.temporal.options import TemporalOptions
from ncbench.evaluators.view import BoolMap


@dataclass(frozen=True, slots=True)
class Measure:
    """One value.

    Attributes:
        metric: Name of the metric.
        frame: The frame it is about.
        other: The frame that one is compared with.
        value: The value; NaN where no pixel counts.
        coverage: Share of the picture (of both, where both ways are averaged) whose pixels count.
        pixels: How many these are.
    """

    metric: str
    frame: int
    other: int
    value: float
    coverage: float
    pixels: int


def measure_opw(ahead: Link, back: Link | None, options: TemporalOptions) -> list[Measure]:
    """Measure ``opw`` of a pair of frames, and of the truth over the same pixels.

    Args:
        ahead: From frame k to k + 1.
        back: From frame k + 1 to k; None where it is unknown, and then one way stands for both.
        options: Mask and norm.

    Returns:
        ``opw``; with it ``opw_truth`` where the truth is known and, with mask ``truth``, ``opw_excess``.
    """
    links = [ahead] if back is None else [ahead, back]
    masks = [_opw_mask(link, options) for link in links]
    floors = [mask & link.both_valid for mask, link in zip(masks, links, strict=True)]
    own = [
        charged(opw_error(link.reference.preds, link.warped)[mask], CHARGES["opw"])
        for link, mask in zip(links, masks, strict=True)
    ]
    true = [
        opw_error(link.reference.view.normal, link.true_warped)[mask] for link, mask in zip(links, floors, strict=True)
    ]
    found = [_both_ways("opw", ahead, own, options)]
    if any(errors.size for errors in true):
        found.append(_both_ways("opw_truth", ahead, true, options))
        if options.mask == "truth":
            value = found[0].value - found[1].value
            found.append(
                Measure("opw_excess", found[0].frame, found[0].other, value, found[0].coverage, found[0].pixels)
            )
    return found


def measure_rc(link: Link, name: str = "rc_deg") -> list[Measure]:
    """Measure the rotation-compensated change over the pixels that do not move by themselves.

    Args:
        link: From one frame to a later one.
        name: What the value is called.

    Returns:
        One value.

    Raises:
        ScoreError: A pose is unknown.
    """
    mask = _static(link)
    errors = rc_error(link.reference.preds, link.warped, link.rotation)[mask]
    return [_mean(name, link, charged(errors, CHARGES["rc_deg"]))]


def measure_tge(link: Link) -> list[Measure]:
    """Measure how the error changes along the flow.

    Args:
        link: From frame k to k + 1.

    Returns:
        One value.

    Raises:
        ScoreError: A pose is unknown.
    """
    rotation = link.rotation
    return [_against_truth("tge_deg", link, lambda a, b, c, d: tge_error(a, b, c, d, rotation))]


def measure_dtheta(link: Link) -> list[Measure]:
    """Measure how the angular error changes along the flow.

    Args:
        link: From frame k to k + 1.

    Returns:
        One value.
    """
    return [_against_truth("dtheta_deg", link, dtheta_error)]


def measure_accel(ahead: Link, back: Link | None) -> list[Measure]:
    """Measure the second difference at the frame between two others.

    Args:
        ahead: From frame k to k + 1.
        back: From frame k to k - 1; None where that is unknown.

    Returns:
        One value.

    Raises:
        ScoreError: A pose or the motion backward is unknown.
    """
    if back is None:
        raise ScoreError("needs motion backward in time, which the flow source does not know")
    mask = _static(ahead) & back.usable
    errors = accel_error(ahead.reference.preds, ahead.warped, ahead.rotation, back.warped, back.rotation)[mask]
    return [_mean("accel_deg", ahead, charged(errors, CHARGES["accel_deg"]))]


def _opw_mask(link: Link, options: TemporalOptions) -> BoolMap:
    if options.mask == "none":
        return link.inside
    if options.mask == "paper":
        preds = link.reference.preds
        # an isolated hole makes its own edges: it counts nevertheless, or silence would be free
        return link.seen & (away_from_edges(preds, options) | np.isnan(preds[..., 0]))
    return link.usable


def _static(link: Link) -> BoolMap:
    still = link.reference.still
    return link.usable if still is None else link.usable & still


def _against_truth(name: str, link: Link, formula: Callable[..., Values]) -> Measure:
    mask = link.usable & link.both_valid
    errors = formula(link.reference.preds, link.warped, link.reference.view.normal, link.true_warped)[mask]
    return _mean(name, link, charged(errors, CHARGES[name]))


def _mean(name: str, link: Link, errors: Values) -> Measure:
    value = float(errors.mean()) if errors.size else math.nan
    return Measure(
        name, link.reference.view.frame, link.other.view.frame, value, errors.size / link.inside.size, errors.size
    )


def _both_ways(name: str, ahead: Link, errors: list[Values], options: TemporalOptions) -> Measure:
    """Average the ways; one without any pixel is left out."""
    area = ahead.inside.size
    ways = [float(each.sum()) / (each.size if options.norm == "mask" else area) for each in errors if each.size]
    pixels = sum(each.size for each in errors)
    value = sum(ways) / len(ways) if ways else math.nan
    frame, other = ahead.reference.view.frame, ahead.other.view.frame
    return Measure(name, frame, other, value, pixels / (area * len(errors)), pixels)
