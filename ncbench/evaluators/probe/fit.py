"""Which reading of the predictions fits the truth best: components, grid, colours, world axes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.evaluators.probe.colours import CODINGS, Coding, certain_coding, decode, offset, solutions
from ncbench.evaluators.probe.grid import LAYOUTS
from ncbench.evaluators.probe.pool import Gain, Moments, Pool, errors, gain
from ncbench.evaluators.probe.readings import AS_DECLARED, READINGS, complexity
from ncbench.evaluators.probe.sample import Doubles, angles
from ncbench.geometry.axes import axes_matrix

TRIED = 6
"""Readings of each family that are measured in degrees; the mean cosine names them."""
_LEAST_PIXELS = 64
# complexity() is at most 3, so that every family comes after the ones before it
_CODING_RANK, _WORLD_RANK = 4, 20
_LAYOUT_RANK = (0, 8, 8, 12, 12, 16, 16, 16)
_TILT = 45.0  # degrees; a model that is off by 30 on average may be so by one rotation
_TURNED = 20.0  # degrees between cameras
_CONE = 0.78  # cosine of 38.7 degrees; colours lie within 35.3 of the grey axis
_IN_CONE = 0.99


@dataclass(frozen=True)
class Candidate:
    """One reading of the predictions.

    Attributes:
        reading: Index into ``READINGS``.
        layout: Index into ``grid.LAYOUTS``.
        coding: What the numbers are taken for; None for plain vectors.
        world: Whether they are taken to be in world axes.
        gain: Errors as declared against errors under this reading.
        correlation: How far the predictions follow the truth from place to place under this reading.
        declared_correlation: The same as declared.
        certain: Whether the file's own numbers prove the coding.
        rank: How much it assumes; smaller is simpler.
    """

    reading: int
    layout: int
    coding: Coding | None
    world: bool
    gain: Gain
    correlation: float
    declared_correlation: float
    certain: bool
    rank: int


def candidates(pool: Pool, declared: str) -> list[Candidate]:
    """Measure every family of readings.

    Args:
        pool: Sampled pixels.
        declared: Axes that the files were read in.

    Returns:
        The best few of each family. Nothing is judged here.
    """
    found = [*_plain(pool, declared), *_world(pool, declared)]
    if np.isfinite(pool.preds[0, :, 0]).sum() >= _LEAST_PIXELS:
        found += _coded(pool, declared)
    return found


def _best(cosine: Doubles) -> list[int]:
    order = np.argsort(-cosine, kind="stable")
    return [int(k) for k in order[:TRIED]]


def _plain(pool: Pool, declared: str) -> Iterator[Candidate]:
    """Orders and signs of the components, on each layout of the grid."""
    as_declared = angles(pool.preds[0], pool.target)
    for layout in range(len(LAYOUTS)):
        preds = pool.preds[layout]
        # the same pixels on both sides, unless the size alone rules the declared layout out
        both = np.isfinite(preds[:, 0]) & (np.isfinite(as_declared) | bool(np.isnan(as_declared).all()))
        if both.sum() < _LEAST_PIXELS:
            continue
        moments = Moments.of(preds[both], pool.target[both])
        before = as_declared[both]
        straight = pool.preds[0][both]
        own = Moments.of(straight, pool.target[both]).correlation[AS_DECLARED] if np.isfinite(before).all() else 0.0
        for reading in {AS_DECLARED, *_best(moments.cosine)} if layout == 0 else _best(moments.cosine):
            after = errors(preds[both], pool.target[both], reading)
            compared = gain(before, after, pool.group[both])
            if np.isnan(before).all():
                compared = Gain(float("nan"), float(after.mean()), 0.0)
            yield Candidate(
                reading,
                layout,
                None,
                False,
                compared,
                float(moments.correlation[reading]),
                float(own),
                False,
                _LAYOUT_RANK[layout] + complexity(reading, declared),
            )


def _world(pool: Pool, declared: str) -> Iterator[Candidate]:
    """World axes: R n for the n of the camera, in any order and sign."""
    known = np.isfinite(pool.world[:, 0]) & np.isfinite(pool.preds[0, :, 0])
    if known.sum() < _LEAST_PIXELS:
        return
    preds, world = pool.preds[0][known], pool.world[known]
    moments = Moments.of(preds, world)
    own = Moments.of(preds, pool.target[known]).correlation[AS_DECLARED]
    before = angles(preds, pool.target[known])
    for reading in _best(moments.cosine):
        if not _beyond_bias(pool.rotations, READINGS[reading]):
            continue
        compared = gain(before, errors(preds, world, reading), pool.group[known])
        correlation = float(moments.correlation[reading])
        rank = _WORLD_RANK + complexity(reading, declared)
        yield Candidate(reading, 0, None, True, compared, correlation, float(own), False, rank)


def _beyond_bias(rotations: Doubles, reading: Doubles) -> bool:
    """Whether a model's own steady bias cannot look like world axes.

    A camera that keeps its direction makes world axes one rotation for all frames. A small one is what a biased model
    does as well.
    """
    if np.linalg.det(reading) < 0:
        return True
    from scipy.spatial.transform import Rotation  # asked for where poses are known, and slow to import

    turns = Rotation.from_matrix(rotations)
    away = np.degrees((turns.inv() * Rotation.from_matrix(reading)).magnitude())
    spread = np.degrees((turns * turns[0].inv()).magnitude())
    return bool(away.min() >= _TILT or spread.max() >= _TURNED)


def _coded(pool: Pool, declared: str) -> Iterator[Candidate]:
    """Colours, and vectors decoded twice; from the file's own numbers where they are known."""
    raw_known = np.isfinite(pool.raw[:, 0]) & np.isfinite(pool.preds[0, :, 0])
    if raw_known.sum() >= _LEAST_PIXELS:
        proved = certain_coding(pool.raw[raw_known])
        if proved is not None:
            yield from _readings_of(pool, raw_known, declared, proved, certain=True)
            return
    known = np.isfinite(pool.preds[0, :, 0])
    grey = axes_matrix(declared, "opencv") @ np.ones(3) / np.sqrt(3)
    in_cone = float(np.mean(pool.preds[0][known] @ grey > _CONE)) >= _IN_CONE
    for coding in CODINGS:
        if coding == "decoded_twice" or in_cone:
            yield from _readings_of(pool, known, declared, coding, certain=False)


def _readings_of(
    pool: Pool, known: NDArray[np.bool_], declared: str, coding: Coding, *, certain: bool
) -> Iterator[Candidate]:
    signs = np.diag(axes_matrix(declared, "opencv"))
    preds, target = pool.preds[0][known], pool.target[known]
    if certain:
        vectors = decode(pool.raw[known], coding)
        decoded = (vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))[None] * signs
    else:
        decoded = solutions(preds * signs, coding) * signs
    before = angles(preds, target)
    # two solutions for a pixel: with directions alone the better one is taken, for the right reading as for the others
    moments = [Moments.of(each, target) for each in decoded]
    tried = range(len(READINGS)) if len(decoded) > 1 else {AS_DECLARED, *_best(moments[0].cosine)}
    for reading in tried:
        after = np.min([errors(each, target, reading) for each in decoded], axis=0)
        if not certain:
            expected = target @ READINGS[reading] * signs
            if not offset(preds * signs, expected, coding).holds:
                continue
        correlation = max(float(moment.correlation[reading]) for moment in moments)
        compared = gain(before, after, pool.group[known])
        rank = _CODING_RANK + complexity(reading, declared)
        own = float(Moments.of(preds, target).correlation[AS_DECLARED])
        yield Candidate(reading, 0, coding, False, compared, correlation, own, certain, rank)
