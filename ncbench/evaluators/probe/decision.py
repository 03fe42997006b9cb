"""When is a mistake certain enough to be named: the rule, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ncbench.evaluators.probe.diagnosis import (
    Context,
    Diagnosis,
    of_candidate,
    of_offset,
    of_shift,
    of_swaps,
    of_truncation,
)
from ncbench.evaluators.probe.fit import Candidate, candidates
from ncbench.evaluators.probe.frame_offset import OffsetFit
from ncbench.evaluators.probe.grid import FIRST_TRANSPOSED
from ncbench.evaluators.probe.pool import Gain, Moments, Pool, errors, gain
from ncbench.evaluators.probe.precision import rounding
from ncbench.evaluators.probe.readings import AS_DECLARED, complexity, file_axes, named_readings
from ncbench.evaluators.probe.sequences import Swap
from ncbench.evaluators.probe.shift import ShiftFit
from ncbench.geometry.axes import axes_matrix

_SAME_CORRELATION = 0.05


@dataclass(frozen=True)
class Rule:
    """Thresholds.

    Attributes:
        share: By which share the mean error must fall.
        degrees: By how many degrees it must fall besides.
        certainty: Mean gain of a quarter of a frame over its standard error.
        correlation: How far the mended predictions must follow the truth from place to place.
        correlation_gain: Share by which what is missing to full correlation must shrink. Honest predictions follow the
            truth best as they are, whatever their noise and bias: a signed permutation can only lower the trace of a
            positive semi-definite covariance.
        overwhelming: Share by which the error must fall where the predictions follow the truth no better than before:
            a turn may carry a truth of floor and walls into itself.
        world_share: ``share`` by which world axes must beat the best order and signs of the components.
        swap_share: ``share`` for predictions of another sequence, of which there may be many to choose from.
        swap_degrees: ``degrees`` for them.
        offset_share: ``share`` for a neighbouring frame; an average over the past gains up to a quarter.
        agreeing: Share of windows of three frames in which the neighbouring frame must fit best.
        windows: Least number of such windows.
        shift_share: ``share`` for a shift, near edges.
        shift_degrees: ``degrees`` for a shift, near edges.
        shift_certainty: ``certainty`` for a shift.
        tie: Readings whose errors differ by less than this share (or 0.25 degrees) are equally good.
    """

    share: float = 0.2
    degrees: float = 3.0
    certainty: float = 3.0
    correlation: float = 0.55
    correlation_gain: float = 0.25
    overwhelming: float = 0.4
    world_share: float = 0.2
    swap_share: float = 0.3
    swap_degrees: float = 5.0
    offset_share: float = 0.3
    agreeing: float = 0.75
    windows: int = 3
    shift_share: float = 0.15
    shift_degrees: float = 1.0
    shift_certainty: float = 5.0
    tie: float = 0.05


@dataclass(frozen=True)
class Evidence:
    """Everything that was measured.

    Attributes:
        pool: Sampled pixels.
        swaps: For each sequence the other one that fits best.
        offset: Neighbouring frames; None without three consecutive ones.
        shift: Moves; None without edges.
    """

    pool: Pool
    swaps: Sequence[Swap]
    offset: OffsetFit | None
    shift: ShiftFit | None


def decide(evidence: Evidence, declared: str, rule: Rule) -> Diagnosis:
    """Name the mistake that the evidence proves; mistakes that spoil every number come first.

    Args:
        evidence: What was measured.
        declared: Axes that the files were read in.
        rule: Thresholds.

    Returns:
        The diagnosis.
    """
    pool = evidence.pool
    context = Context(declared, pool.frames, len(pool.target))
    if not len(pool.target):
        return context.diagnosis("cannot_tell", "No pixel is known both to the truth and to the predictions.")
    tried = candidates(pool, declared)
    proved = [candidate for candidate in tried if candidate.certain]
    better = proved or [candidate for candidate in tried if _proves(candidate, rule)]
    swaps = [swap for swap in evidence.swaps if _exchanged(swap, rule)]
    if swaps and not (better and min(c.gain.after for c in better) < min(swap.gain.after for swap in swaps)):
        return of_swaps(swaps, context)
    if better:
        best = _simplest(better, rule)
        return of_candidate(best, _as_good(best, tried, declared, rule), context)
    return _place(evidence, context, rule) or _precise(pool, context) or _verdict(pool, context, rule)


def _proves(candidate: Candidate, rule: Rule) -> bool:
    """Whether a reading explains the predictions where the declared one does not."""
    if (candidate.reading, candidate.layout, candidate.coding, candidate.world) == (AS_DECLARED, 0, None, False):
        return False
    follows = candidate.correlation >= rule.correlation
    if np.isnan(candidate.gain.before):  # the size alone rules the declared layout out
        return follows
    if not (follows and candidate.gain.clear(rule.share, rule.degrees, rule.certainty)):
        return False
    if candidate.coding is not None:
        # it moves predictions aside and hardly changes how they follow the truth: the offset has proved it already
        return True
    overwhelming = candidate.gain.after <= (1 - rule.overwhelming) * candidate.gain.before
    level = candidate.correlation >= candidate.declared_correlation - _SAME_CORRELATION
    return (overwhelming and level) or _closer(candidate.correlation, candidate.declared_correlation, rule)


def _closer(correlation: float, declared: float, rule: Rule) -> bool:
    return 1 - correlation <= (1 - rule.correlation_gain) * (1 - declared)


def _exchanged(swap: Swap, rule: Rule) -> bool:
    follows = swap.correlation >= rule.correlation and _closer(swap.correlation, swap.own_correlation, rule)
    return follows and swap.gain.clear(rule.swap_share, rule.swap_degrees, rule.certainty)


def _simplest(better: Sequence[Candidate], rule: Rule) -> Candidate:
    least = min(candidate.gain.after for candidate in better)
    plain = [candidate for candidate in better if not candidate.world]
    if plain and least >= (1 - rule.world_share) * min(candidate.gain.after for candidate in plain):
        better, least = plain, min(candidate.gain.after for candidate in plain)
    equal = [candidate for candidate in better if candidate.gain.after <= _tied(least, rule)]
    return min(equal, key=lambda candidate: (candidate.rank, candidate.gain.after))


def _as_good(best: Candidate, tried: Sequence[Candidate], declared: str, rule: Rule) -> tuple[str, ...]:
    """Name the other conventions that the same evidence allows."""
    if complexity(best.reading, declared) > 1:
        return ()
    same = [
        other
        for other in tried
        if (other.layout, other.coding, other.world) == (best.layout, best.coding, best.world)
        and other.reading != best.reading
        and complexity(other.reading, declared) <= 1
        and other.gain.after <= _tied(best.gain.after, rule)
    ]
    names = [file_axes(other.reading, declared).name for other in same]
    return tuple(sorted(name for name in names if name is not None and name != declared))


def _tied(least: float, rule: Rule) -> float:
    return least + max(rule.tie * least, 0.25)


def _place(evidence: Evidence, context: Context, rule: Rule) -> Diagnosis | None:
    """Mistakes of time and place, which move predictions without changing them."""
    offset, shift = evidence.offset, evidence.shift
    late = offset is not None and offset.holds(rule.offset_share, rule.degrees, rule.windows, rule.agreeing)
    moved = shift is not None and shift.holds(rule.shift_share, rule.shift_degrees, rule.shift_certainty)
    if late and moved and offset is not None and shift is not None:
        late = offset.after / offset.before < shift.after / shift.before
    if late and offset is not None:
        return of_offset(offset, context)
    return of_shift(shift, context) if moved and shift is not None else None


def _precise(pool: Pool, context: Context) -> Diagnosis | None:
    known = np.isfinite(pool.preds[0, :, 0])
    as_in_file = pool.preds[0][known] * np.diag(axes_matrix("opencv", context.declared))
    measured = rounding(as_in_file)
    if measured is None or not measured.truncated:
        return None
    return of_truncation(float(errors(pool.preds[0][known], pool.target[known], AS_DECLARED).mean()), context)


def _verdict(pool: Pool, context: Context, rule: Rule) -> Diagnosis:
    """Nothing is wrong: say whether that is proved."""
    known = np.isfinite(pool.preds[0, :, 0])
    if not known.any():
        sizes = " Their height and width are exchanged." if np.isfinite(pool.preds[FIRST_TRANSPOSED:]).any() else ""
        return context.diagnosis("cannot_tell", f"The predictions fit the truth under no reading.{sizes}")
    preds, target, group = pool.preds[0][known], pool.target[known], pool.group[known]
    own = errors(preds, target, AS_DECLARED)
    mean = float(own.mean())
    others = {name: gain(errors(preds, target, k), own, group) for name, k in named_readings(context.declared).items()}
    unclear = tuple(name for name, other in others.items() if name != context.declared and not _apart(other, rule))
    follows = float(Moments.of(preds, target).correlation[AS_DECLARED]) >= rule.correlation
    found = f"The mean error is {mean:.1f} degrees as declared (axes: {context.declared})"
    if follows and not unclear:
        message = f"{found}, and every other convention fits clearly worse."
        return context.diagnosis("fits", message, errors=(mean, mean), axes=context.declared)
    reason = (
        f"{' and '.join(unclear)} cannot be told from it on these pictures"
        if unclear and follows
        else "the predictions, or the truth, vary too little, or they have too little to do with each other"
    )
    message = f"{found}; {reason}."
    return context.diagnosis("cannot_tell", message, errors=(mean, mean), alternatives=unclear)


def _apart(other: Gain, rule: Rule) -> bool:
    return other.clear(rule.share, rule.degrees, rule.certainty)
