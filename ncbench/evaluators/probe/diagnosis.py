"""What the probe answers, and the words for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ncbench.errors import ScoreError
from ncbench.evaluators.probe.fit import Candidate
from ncbench.evaluators.probe.frame_offset import OffsetFit
from ncbench.evaluators.probe.grid import FIRST_TRANSPOSED, LAYOUTS, UNDO
from ncbench.evaluators.probe.readings import AS_DECLARED, FileAxes, file_axes
from ncbench.evaluators.probe.sequences import Swap
from ncbench.evaluators.probe.shift import ShiftFit

Kind = Literal[
    "fits",
    "cannot_tell",
    "axes",
    "bgr",
    "colours",
    "decoded_twice",
    "world",
    "mirrored",
    "turned",
    "transposed",
    "other_sequence",
    "frame_offset",
    "shifted",
    "truncated",
]
_KIND_OF_LAYOUT: tuple[Kind, ...] = (
    "axes",
    "mirrored",
    "mirrored",
    "turned",
    "transposed",
    "turned",
    "turned",
    "transposed",
)
_OTHER_VECTORS: dict[Kind, tuple[str, str]] = {
    "world": ("they are in world axes", "n = n @ R with R = cam_to_world[:3, :3]"),
    "colours": ("they are colours that nobody decoded", "n = 2 * c - 1 for colours c in [0, 1]"),
    "decoded_twice": ("they were decoded twice", "n = (n + 1) / 2, or drop one of the two decodings"),
}
FATAL_SHIFT = 2.0
"""Pixels from which a shift is taken for a mistake that must be mended before scoring."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with predictions, if anything.

    Attributes:
        kind: ``fits`` (as declared, and clearly better than any other convention), ``cannot_tell`` (no alarm, and no
            proof), or the mistake.
        message: What was expected and what was found, in one or two sentences.
        fix: The remedy: a line of the model card, or of numpy. Empty where there is nothing to mend.
        fatal: Whether scores would mean nothing, so that evaluation must stop.
        error_declared: Mean error in degrees as declared, over the pixels that decided: near edges for ``shifted``,
            where the truth changes for ``frame_offset``, sampled all over otherwise. NaN where it cannot be measured.
        error_fixed: The same under the fix.
        axes: The convention that the files are in; None where it has no name or is not in question.
        alternatives: Other named conventions that fit as well.
        frames: How many frames were looked at.
        pixels: How many pixels.
    """

    kind: Kind
    message: str
    fix: str
    fatal: bool
    error_declared: float
    error_fixed: float
    axes: str | None
    alternatives: tuple[str, ...]
    frames: int
    pixels: int

    def require(self, where: str) -> None:
        """Stop where scores would mean nothing.

        Args:
            where: Whose predictions on what, for the message.

        Raises:
            ScoreError: The mistake is fatal; the message holds the remedy.
        """
        if self.fatal:
            raise ScoreError(f"{where}: {self.message} Remedy: {self.fix}")


@dataclass(frozen=True)
class Context:
    """What every diagnosis states.

    Attributes:
        declared: Axes that the files were read in.
        frames: How many frames were looked at.
        pixels: How many pixels.
    """

    declared: str
    frames: int
    pixels: int

    def diagnosis(
        self,
        kind: Kind,
        message: str,
        *,
        fix: str = "",
        fatal: bool = False,
        errors: tuple[float, float] = (float("nan"), float("nan")),
        axes: str | None = None,
        alternatives: tuple[str, ...] = (),
    ) -> Diagnosis:
        """Fill in the rest."""
        return Diagnosis(kind, message, fix, fatal, *errors, axes, alternatives, self.frames, self.pixels)


def of_candidate(found: Candidate, alternatives: tuple[str, ...], context: Context) -> Diagnosis:
    """Put a better reading into words.

    Args:
        found: The reading that fits.
        alternatives: Other conventions that fit as well.
        context: Of the run.

    Returns:
        The diagnosis; always fatal.
    """
    axes = file_axes(found.reading, context.declared)
    kind = _kind(found, axes)
    what, fix = _remedy(kind, found, axes, alternatives, context)
    return context.diagnosis(
        kind,
        f"The card says axes: {context.declared}, and the mean error is {_degrees(found.gain.before)}; {what}: then it "
        f"is {_degrees(found.gain.after)} ({context.pixels} pixels of {context.frames} frames).",
        fix=fix,
        fatal=True,
        errors=(found.gain.before, found.gain.after),
        axes=None if found.layout else axes.name,
        alternatives=alternatives,
    )


def of_swaps(swaps: list[Swap], context: Context) -> Diagnosis:
    """Put exchanged sequences into words; always fatal."""
    worst = max(swaps, key=lambda swap: swap.gain.before - swap.gain.after)
    named = ", ".join(f"'{swap.sequence}' fits '{swap.other}'" for swap in swaps[:4])
    more = f" and {len(swaps) - 4} more" if len(swaps) > 4 else ""
    return context.diagnosis(
        "other_sequence",
        f"Predictions of another sequence: {named}{more}. '{worst.sequence}' is off its own truth by "
        f"{_degrees(worst.gain.before)} on average, and off that of '{worst.other}' by {_degrees(worst.gain.after)}.",
        fix="rename the folders of the predictions, or correct 'pattern'",
        fatal=True,
        errors=(worst.gain.before, worst.gain.after),
    )


def of_offset(fit: OffsetFit, context: Context) -> Diagnosis:
    """Put an offset by one frame into words; always fatal."""
    side = "before" if fit.step < 0 else "after"
    return context.diagnosis(
        "frame_offset",
        f"Predictions fit the frame {side} theirs: where the truth changes they are off it by {_degrees(fit.before)} "
        f"on average, and off that of the frame {side} by {_degrees(fit.after)} ({fit.windows} windows of three "
        "frames).",
        fix=f"frame_offset: {-fit.step} (added to the present one)",
        fatal=True,
        errors=(fit.before, fit.after),
    )


def of_shift(fit: ShiftFit, context: Context) -> Diagnosis:
    """Put a shift into words; fatal from ``FATAL_SHIFT`` on."""
    across = f"{abs(fit.dx):.1f} pixels to the {'right' if fit.dx > 0 else 'left'}" if abs(fit.dx) >= 0.2 else ""
    along = f"{abs(fit.dy):.1f} pixels {'down' if fit.dy > 0 else 'up'}" if abs(fit.dy) >= 0.2 else ""
    where = " and ".join(part for part in (across, along) if part)
    fix = (
        "resize with pixel centres kept in place (x -> (x + 0.5) s - 0.5: align_corners=False, cv2.resize, PIL)"
        if fit.length < FATAL_SHIFT
        else f"undo the crop or padding: move the maps by ({-fit.dx:+.1f}, {-fit.dy:+.1f}) pixels in (x, y)"
    )
    return context.diagnosis(
        "shifted",
        f"Predictions lie {where} of the truth: near edges the mean error is {_degrees(fit.before)}, moved back "
        f"{_degrees(fit.after)}.",
        fix=fix,
        fatal=fit.length >= FATAL_SHIFT,
        errors=(fit.before, fit.after),
    )


def of_truncation(error: float, context: Context) -> Diagnosis:
    """Put 8-bit truncation into words; a warning."""
    return context.diagnosis(
        "truncated",
        "The files hold 8-bit values that were truncated instead of rounded: a bias of 0.34 degrees.",
        fix="save np.rint((n + 1) / 2 * 255), or 16 bits, or float",
        errors=(error, error),
    )


def _kind(found: Candidate, axes: FileAxes) -> Kind:
    if found.world:
        return "world"
    if found.coding is not None:
        return found.coding
    if found.layout:
        return _KIND_OF_LAYOUT[found.layout]
    return "bgr" if axes.bgr else "axes"


def _remedy(
    kind: Kind, found: Candidate, axes: FileAxes, alternatives: tuple[str, ...], context: Context
) -> tuple[str, str]:
    """Say what was found, and what to do."""
    straight = found.reading == AS_DECLARED
    if found.layout:
        shape = " (height and width are exchanged)" if found.layout >= FIRST_TRANSPOSED else ""
        what, fix = f"the maps are {LAYOUTS[found.layout]}{shape}", f"n = {UNDO[found.layout]}"
        return (what, fix) if straight else (f"{what}, with {axes.steps}", f"{fix}; n = {axes.code}")
    if kind in _OTHER_VECTORS:
        what, fix = _OTHER_VECTORS[kind]
        return (what, fix) if straight else (f"{what}, {_in_axes(axes)}", f"{fix}; {_axes_fix(axes, context)}")
    names = (axes.name, *alternatives)
    if kind == "bgr" or axes.name is None:
        return f"your files are {_in_axes(axes)}", _axes_fix(axes, context)
    listed = " or ".join(f"`{name}`" for name in names)
    return f"your files are {listed}", " or ".join(f"axes: {name}" for name in names)


def _in_axes(axes: FileAxes) -> str:
    if axes.name is None:
        return f"in axes without a name ({axes.steps})"
    return f"in `{axes.name}` axes with channels in the order BGR" if axes.bgr else f"in `{axes.name}` axes"


def _axes_fix(axes: FileAxes, context: Context) -> str:
    if axes.name is None:
        return f"n = {axes.code}"
    if not axes.bgr:
        return f"axes: {axes.name}"
    return "n = n[..., ::-1]" + (f" and axes: {axes.name}" if axes.name != context.declared else "")


def _degrees(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.1f} degrees"
