"""All sampled pixels together, and how well a reading of the predictions fits them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncbench.evaluators.probe.readings import READINGS
from ncbench.evaluators.probe.sample import Doubles, FrameSample, angles

_LEAST_IN_GROUP = 8


@dataclass(frozen=True)
class Pool:
    """Sampled pixels of all frames.

    Attributes:
        target: (N, 3) true normals in the camera.
        world: (N, 3) the same in the world; NaN where the pose is unknown.
        preds: (8, N, 3) unit predictions under each of ``grid.LAYOUTS``; NaN where there is none.
        raw: (N, 3) numbers of the files; NaN where unknown.
        group: (N,) a number for each quarter of each frame: errors within one are alike, so that a quarter, not a
            pixel, is one piece of evidence.
        rotations: (K, 3, 3) camera to world, of the frames whose pose is known.
        frames: How many frames there are.
    """

    target: Doubles
    world: Doubles
    preds: Doubles
    raw: Doubles
    group: NDArray[np.int64]
    rotations: Doubles
    frames: int

    @classmethod
    def of(cls, samples: Sequence[FrameSample]) -> Pool:
        """Join samples."""
        nothing = [np.full(sample.target.shape, np.nan) for sample in samples]
        pairs = list(zip(samples, nothing, strict=True))
        worlds = [none if s.rotation is None else s.target @ s.rotation.T for s, none in pairs]
        empty = np.empty((0, 3))
        return cls(
            target=np.concatenate([empty, *(sample.target for sample in samples)]),
            world=np.concatenate([empty, *worlds]),
            preds=np.concatenate([np.empty((8, 0, 3)), *(sample.preds for sample in samples)], axis=1),
            raw=np.concatenate([empty, *(none if s.raw is None else s.raw for s, none in pairs)]),
            group=np.concatenate(
                [np.empty(0, np.int64), *(4 * k + sample.quadrant for k, sample in enumerate(samples))]
            ),
            rotations=np.array([s.rotation for s in samples if s.rotation is not None]).reshape(-1, 3, 3),
            frames=len(samples),
        )


@dataclass(frozen=True)
class Moments:
    """What two sets of unit vectors have in common.

    Attributes:
        cosine: (48,) mean cosine between the target and the predictions under each of ``READINGS``.
        correlation: (48,) the same of their deviations from the mean, divided by their spreads: 1 where predictions
            follow the truth from place to place, 0 for constant predictions, whatever their direction.
        spread: Standard deviation of the target about its mean, as a length: 0 for a single wall.
    """

    cosine: Doubles
    correlation: Doubles
    spread: float

    @classmethod
    def of(cls, preds: Doubles, target: Doubles) -> Moments:
        """Measure (N, 3) predictions against the (N, 3) target; N is at least 1."""
        mean_p, mean_t = preds.mean(0), target.mean(0)
        moment = target.T @ preds / len(preds)
        spread_p = max(1.0 - float(mean_p @ mean_p), 0.0)
        spread_t = max(1.0 - float(mean_t @ mean_t), 0.0)
        centred = moment - np.outer(mean_t, mean_p)
        scale = np.sqrt(spread_p * spread_t)
        return cls(
            cosine=np.einsum("kij,ij->k", READINGS, moment),
            correlation=np.einsum("kij,ij->k", READINGS, centred) / max(scale, 1e-4),
            spread=float(np.sqrt(spread_t)),
        )


@dataclass(frozen=True)
class Gain:
    """By how much one reading's errors are below another's, over the same pixels.

    Attributes:
        before: Mean angle in degrees as declared.
        after: Mean angle under the other reading.
        certainty: Mean gain of a group over its standard error; 0 with fewer than 4 groups.
    """

    before: float
    after: float
    certainty: float

    def clear(self, share: float, degrees: float, certainty: float) -> bool:
        """Whether the other reading is better by a share, by degrees, and not by chance."""
        enough = self.after <= (1 - share) * self.before and self.after <= self.before - degrees
        return enough and self.certainty >= certainty


def gain(before: Doubles, after: Doubles, group: NDArray[np.int64]) -> Gain:
    """Compare two sets of errors pixel by pixel.

    Args:
        before: (N,) degrees.
        after: (N,) degrees.
        group: (N,) which errors belong together.

    Returns:
        The comparison over pixels where both are known; NaN means where none is.
    """
    known = np.isfinite(before) & np.isfinite(after)
    before, after, group = before[known], after[known], group[known]
    if not len(before):
        return Gain(float("nan"), float("nan"), 0.0)
    return Gain(float(before.mean()), float(after.mean()), certainty(before - after, group))


def certainty(values: Doubles, group: NDArray[np.int64]) -> float:
    """Divide the mean over groups by its standard error.

    Args:
        values: (N,).
        group: (N,) small numbers from 0 that say which values belong together; a group of few counts for nothing.

    Returns:
        The ratio, in [-1000, 1000]; 0 with fewer than 4 groups.
    """
    count = np.bincount(group)
    enough = count >= _LEAST_IN_GROUP
    means = np.bincount(group, values)[enough] / count[enough]
    if len(means) < 4:
        return 0.0
    error = float(means.std(ddof=1)) / np.sqrt(len(means))
    return float(np.clip(means.mean() / max(error, 1e-9), -1000, 1000))


def read(vectors: Doubles, reading: int) -> Doubles:
    """Apply one of ``READINGS`` to (..., 3) vectors."""
    return np.asarray(vectors @ READINGS[reading].T)


def errors(vectors: Doubles, target: Doubles, reading: int) -> Doubles:
    """Measure (N, 3) vectors under a reading against the target, in degrees."""
    return angles(read(vectors, reading), target)
