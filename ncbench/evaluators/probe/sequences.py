"""Predictions of one sequence that fit the truth of another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.evaluators.probe.pool import Gain, Moments, certainty
from ncbench.evaluators.probe.readings import AS_DECLARED
from ncbench.evaluators.probe.sample import Doubles, angles
from ncbench.evaluators.view import View

MOST_SEQUENCES, MOST_FRAMES = 64, 4
"""How many sequences, and frames of each, are compared with one another."""
_ROWS, _COLUMNS = 24, 32
_LEAST_PIXELS = 64


@dataclass(frozen=True)
class Thumbnail:
    """A frame on a coarse grid over the whole picture, whatever its size.

    Attributes:
        sequence: Name of the clip.
        frame: Index within the clip.
        target: (768, 3) true normals, NaN where unknown.
        preds: (768, 3) unit predictions, NaN where there is none.
    """

    sequence: str
    frame: int
    target: Doubles
    preds: Doubles


@dataclass(frozen=True)
class Swap:
    """A sequence whose predictions fit another's truth.

    Attributes:
        sequence: Whose predictions.
        other: Whose truth they fit best.
        gain: Errors against the own truth and against the other's.
        correlation: How far they follow the other truth from place to place.
        own_correlation: The same for the own.
    """

    sequence: str
    other: str
    gain: Gain
    correlation: float
    own_correlation: float


def thumbnail(preds: NDArray[np.float32], view: View) -> Thumbnail | None:
    """Reduce a frame; None where the sizes differ."""
    height, width = view.size
    if preds.shape[:2] != view.size:
        return None
    rows = ((np.arange(_ROWS) + 0.5) * height / _ROWS).astype(np.int64)[:, None]
    columns = ((np.arange(_COLUMNS) + 0.5) * width / _COLUMNS).astype(np.int64)
    answers = preds[rows, columns].reshape(-1, 3).astype(np.float64)
    length = np.linalg.norm(answers, axis=-1, keepdims=True)
    usable = np.isfinite(length) & (length > 0)
    known = view.valid[rows, columns].reshape(-1, 1)
    return Thumbnail(
        view.sequence,
        view.frame,
        np.where(known, view.normal[rows, columns].reshape(-1, 3), np.nan).astype(np.float64),
        np.where(usable, answers / np.where(usable, length, 1.0), np.nan),
    )


def find_swaps(thumbnails: Sequence[Thumbnail]) -> list[Swap]:
    """Find for each sequence the other one whose truth its predictions fit best.

    Args:
        thumbnails: Of several sequences; frames of the same index are compared.

    Returns:
        One for each sequence that shares a frame index with another. Nothing is judged here.
    """
    by_sequence: dict[str, dict[int, Thumbnail]] = defaultdict(dict)
    for item in thumbnails:
        by_sequence[item.sequence][item.frame] = item
    found = []
    for name, own in by_sequence.items():
        rivals = [(_cosine(own, other), rival) for rival, other in by_sequence.items() if rival != name]
        cosine, rival = max(rivals, default=(float("nan"), ""), key=lambda pair: np.nan_to_num(pair[0], nan=-2.0))
        if np.isfinite(cosine):
            swap = _compare(name, own, rival, by_sequence[rival])
            found += [swap] if swap is not None else []
    return found


def _cosine(own: dict[int, Thumbnail], other: dict[int, Thumbnail]) -> float:
    """Mean cosine of predictions against the other truth, over all frames that both have; NaN where there is none."""
    shared = sorted(own.keys() & other.keys())
    cosines = [np.einsum("ni,ni->n", own[frame].preds, other[frame].target) for frame in shared]
    known = [values[np.isfinite(values)] for values in cosines]
    return float(np.concatenate(known).mean()) if known and sum(map(len, known)) >= _LEAST_PIXELS else float("nan")


def _compare(name: str, own: dict[int, Thumbnail], rival: str, other: dict[int, Thumbnail]) -> Swap | None:
    shared = sorted(own.keys() & other.keys())
    preds = np.concatenate([own[frame].preds for frame in shared])
    straight = np.concatenate([own[frame].target for frame in shared])
    crossed = np.concatenate([other[frame].target for frame in shared])
    place = np.arange(_ROWS * _COLUMNS)
    quadrant = 2 * (place // _COLUMNS >= _ROWS // 2) + (place % _COLUMNS >= _COLUMNS // 2)
    group = np.concatenate([4 * k + quadrant for k in range(len(shared))])
    known = np.isfinite(preds[:, 0]) & np.isfinite(straight[:, 0]) & np.isfinite(crossed[:, 0])
    if known.sum() < _LEAST_PIXELS:
        return None
    preds, straight, crossed, group = preds[known], straight[known], crossed[known], group[known]
    before, after = angles(preds, straight), angles(preds, crossed)
    return Swap(
        name,
        rival,
        Gain(float(before.mean()), float(after.mean()), certainty(before - after, group)),
        float(Moments.of(preds, crossed).correlation[AS_DECLARED]),
        float(Moments.of(preds, straight).correlation[AS_DECLARED]),
    )
