"""Does a store hold its normals in the axes that it should, and if not, which convention would fit."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ncbench.datasets.audit_measure import SIGNS, Doubles, Sums, measure, median_angle, total
from ncbench.datasets.recipe import stored_card
from ncbench.datasets.store import Store, open_store
from ncbench.errors import SourceError
from ncbench.geometry.axes import AXES, axes_matrix

COLUMNS = ("depth", "intrinsics", "cam_to_world", "flow")
"""Columns that an audit reads beside normals and pictures; ``ray_matrix`` where a store has it."""
CHECKED_FRAMES = 64
MARGIN = 0.02
"""By how much another reading's mean cosine must exceed the intended one's to be preferred."""
AGREES = 45.0
"""Median angle in degrees above which even the best reading does not fit the depth."""
FITS = 0.5
"""Mean cosine that a reading must reach to be proposed; normals of no relation to the depth reach about 0."""
TIE = 0.005
"""Readings whose mean cosines differ by less than this cannot be told apart."""
AWAY = 0.5
"""Share of normals facing away above which they are read with the wrong sign of z."""
_LETTERS = "xyz"


@dataclass(frozen=True)
class AxesFit:
    """The reading of the stored normals that agrees best with the depth.

    Attributes:
        order: Which stored component stands for x, y and z: (0, 1, 2) keeps them.
        signs: What to multiply x, y and z with after that.
        ties: All signs that do as well in this order, the best first.
        score: Mean cosine to the normals from depth under this reading.
        intended: The same as stored.
    """

    order: tuple[int, int, int]
    signs: tuple[int, int, int]
    ties: tuple[tuple[int, int, int], ...]
    score: float
    intended: float

    @property
    def as_stored(self) -> bool:
        """Whether the normals are best left as they are."""
        return self.score - self.intended <= MARGIN


def fit_axes(moment: Doubles, pairs: int) -> AxesFit:
    """Try all 48 orders and signs of the components.

    The mean cosine of a reading is a sum of three entries of the moment matrix, so that no pixel is looked at again.

    Args:
        moment: (3, 3) sum of n_i d_j over pixels, n stored and d from depth.
        pairs: Number of pixels, at least 1.

    Returns:
        The best reading; where several do equally well, the one nearest to leaving all as it is.
    """
    readings = itertools.product(itertools.permutations(range(3)), SIGNS)  # both begin with the identity
    scored = [
        (sum(sign * moment[source, k] for k, (source, sign) in enumerate(zip(order, signs, strict=True))), order, signs)
        for order, signs in readings
    ]
    score, order, signs = max(scored, key=lambda item: item[0])
    ties = [other for value, same, other in scored if same == order and score - value < TIE * pairs and other != signs]
    x, y, z = order
    return AxesFit((x, y, z), signs, (signs, *ties), float(score) / pairs, float(np.trace(moment)) / pairs)


def convention_of(declared: str, signs: tuple[int, int, int]) -> str | None:
    """Name the convention that the files are in.

    Args:
        declared: Convention by which they were read, one of ``AXES``.
        signs: What their stored (OpenCV) form must be multiplied with to be right.

    Returns:
        One of ``AXES``, or None where no convention has these axes.

    Examples:
        >>> convention_of("opengl", (-1, 1, 1))
        'dsine'
    """
    wanted = np.diag(axes_matrix("opencv", declared)) * np.array(signs)
    return next((name for name in AXES if np.array_equal(np.diag(axes_matrix("opencv", name)), wanted)), None)


def axes_problem(sums: Sums, declared: str | None) -> str | None:
    """Say what is wrong with the axes of a store's normals.

    Args:
        sums: Measures over its frames.
        declared: Axes that its card names; None where the reader derives normals from depth.

    Returns:
        What was expected, what was found and the remedy; None where the normals fit or nothing can be told.
    """
    if sums.pairs:
        return _disagreement(sums, declared)
    if sums.rays and sums.away[0] > AWAY * sums.rays:
        return _facing_away(sums, declared)
    return None


def check_axes(store: Store | Path, frames: int = CHECKED_FRAMES) -> None:
    """Fail where normals were read in the wrong axes; fit for ``prepare(..., check=check_axes)``.

    Against normals from depth where depth and camera are there, else by whether normals face the camera. A store with
    neither passes.

    Args:
        store: The store or its folder.
        frames: How many frames to look at, evenly spread.

    Raises:
        SourceError: Naming the convention that fits and the line to change.
        StoreError: The store is damaged.
    """
    opened = store if isinstance(store, Store) else open_store(store)
    columns = audit_columns(opened)
    step = max(1, -(-len(opened) // frames))
    rows = (opened.locate(row) for row in range(0, len(opened), step))
    sums = total(measure(opened.read(*row, columns)).sums for row in rows)
    card = stored_card(opened.path)
    problem = axes_problem(sums, card.axes)
    if problem is not None:
        raise SourceError(f"{opened.path}: {problem}")


def audit_columns(store: Store, *more: str) -> tuple[str, ...]:
    """Name the columns of a store that ``measure`` needs, and more."""
    return (*COLUMNS, *more, *(("ray_matrix",) if "ray_matrix" in store.columns else ()))


def _disagreement(sums: Sums, declared: str | None) -> str | None:
    fit = fit_axes(sums.moment, sums.pairs)
    found = median_angle(sums.angles[0])
    where = f"over {sums.pairs} pixels"
    if fit.as_stored or fit.score < FITS:
        if found <= AGREES:
            return None
        return (
            f"expected normals that agree with the depth, but no order or sign of their components does (median angle "
            f"{found:.1f} degrees {where}). Check that they are in camera, not world, axes, and check depth and camera"
        )
    if fit.order != (0, 1, 2):
        order = ", ".join(_LETTERS[source] for source in fit.order)
        return (
            f"expected normals that agree with the depth, but their median angle is {found:.1f} degrees {where}; their "
            f"components come in the order {order} (mean cosine {fit.score:.3f} instead of {fit.intended:.3f}). "
            "Correct the order of channels (BGR for RGB?) in the reader or its settings"
        )
    return _wrong_signs(sums, declared, fit, found, where)


def _wrong_signs(sums: Sums, declared: str | None, fit: AxesFit, found: float, where: str) -> str:
    better = median_angle(sums.angles[SIGNS.index(fit.signs)])
    told = f"the median angle to the depth is {found:.1f} degrees {where}"
    if declared is None:
        mirrored = ", ".join(letter for letter, sign in zip(_LETTERS, fit.signs, strict=True) if sign < 0)
        return f"{told}; with {mirrored} negated it is {better:.1f}. Correct the camera or the signs in the reader"
    names = [name for signs in fit.ties if (name := convention_of(declared, signs)) is not None]
    if not names:
        return f"{told} with axes: {declared}; signs {fit.signs} fit ({better:.1f}), which no convention has"
    written = " or ".join(f"'axes: {name}'" for name in names)
    return (
        f"the card says axes: {declared}, and {told}; read as {' or '.join(names)} it is {better:.1f}. Write {written} "
        "in the card and prepare again"
    )


def _facing_away(sums: Sums, declared: str | None) -> str:
    told = f"{sums.away[0] / sums.rays:.0%} of the normals face away from the camera"
    if declared is None:
        return f"{told}. Correct the signs in the reader"
    z_signs = {name: axes_matrix("opencv", name)[2, 2] for name in AXES}
    fitting = " or ".join(name for name in AXES if z_signs[name] != z_signs[declared])
    return (
        f"the card says axes: {declared}, and {told}. The files are in {fitting} axes (without depth it cannot be told "
        "which): write that in the card and prepare again"
    )
