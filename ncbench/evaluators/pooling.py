"""How the errors of many frames become one row: over pixels, frames or sequences.

The three give different numbers for the same predictions, and papers do not always say which they used. A ``Pool``
takes frames one at a time, in any order, and pools that saw different frames add up to the same bits as one that saw
all of them: states hold whole numbers, and means are exactly rounded sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

from ncbench.errors import ScoreError
from ncbench.evaluators.angular import AngularState

Pooling = Literal["pixels", "frames", "sequences"]


def pool(states: Mapping[str, Sequence[AngularState]], how: Pooling, decimals: int | None = None) -> dict[str, float]:
    """Pool the states of all frames at once; ``Pool`` does the same without holding them.

    Args:
        states: The frames' states by sequence.
        how: As in ``Pool``.
        decimals: As in ``Pool``.

    Returns:
        As ``Pool.metrics``.

    Raises:
        ScoreError: As ``Pool``.
    """
    pooled = Pool(how, decimals)
    for sequence, frames in states.items():
        for state in frames:
            pooled.add(sequence, state)
    return pooled.metrics()


def mean_of(rows: Sequence[Mapping[Any, float]], decimals: int | None = None) -> dict[str, float]:
    """Average the metrics of frames (or sequences), each alike; the same bits for any order of the rows.

    Args:
        rows: Metric -> value of each frame with a valid pixel; all name the same metrics.
        decimals: Decimals that values are rounded to before their mean; None keeps them whole.

    Returns:
        Metric -> mean; empty for no rows.
    """
    if not rows:
        return {}
    table = {name: [row[name] for row in rows] for name in rows[0]}
    if decimals is not None:
        table = {name: [round(value, decimals) for value in values] for name, values in table.items()}
    return {name: math.fsum(values) / len(values) for name, values in table.items()}


class Pool:
    """Pools frames in little memory: one state for ``pixels``, one for each open sequence, a row for each frame.

    Attributes:
        how: ``pixels``: statistics over all pixels of all frames (DSINE, E2E-FT, Lotus, StableNormal). ``frames``: the
            mean over frames of each frame's values, the median too (Marigold). ``sequences``: the mean over sequences
            of values pooled within each.
        decimals: Decimals that a frame's values are rounded to before their mean (Marigold: 4); None keeps them whole.
    """

    def __init__(self, how: Pooling, decimals: int | None = None) -> None:
        if decimals is not None and how != "frames":
            raise ScoreError(f"decimals round a frame's values: they go with pooling over frames, found {how!r}")
        self.how = how
        self.decimals = decimals
        self._thresholds: tuple[float, ...] | None = None
        self._open: dict[str, AngularState] = {}
        self._closed: set[str] = set()
        self._rows: list[dict[str, float]] = []
        self._left_out = 0

    @property
    def left_out(self) -> int:
        """How many frames (or sequences) have no valid pixel, so that no mean counts them; 0 for ``pixels``."""
        waiting = sum(state.count == 0 for state in self._open.values()) if self.how == "sequences" else 0
        return self._left_out + waiting

    def add(self, sequence: str, state: AngularState) -> None:
        """Add a frame, or several frames of one sequence unless pooling is over frames.

        Args:
            sequence: Name of the sequence (or clip) that it belongs to.
            state: Its errors.

        Raises:
            ScoreError: The sequence is closed, or earlier states have other thresholds.
        """
        self._expect(state.thresholds)
        if self.how == "frames":
            self._keep_row(state)
            return
        self._expect_open({sequence})
        key = sequence if self.how == "sequences" else ""
        self._open[key] = self._open[key] + state if key in self._open else state

    def close(self, sequence: str) -> None:
        """Say that a sequence is complete, so that its histogram (1.4 MB) can go; does nothing but for ``sequences``.

        Args:
            sequence: Name of the sequence.
        """
        if self.how == "sequences" and sequence in self._open:
            self._keep_row(self._open.pop(sequence))
            self._closed.add(sequence)

    def merge(self, other: Pool) -> None:
        """Take in what another pool saw.

        Args:
            other: Pool of other frames; unchanged.

        Raises:
            ScoreError: The pools differ in kind or thresholds, or a sequence closed in one has frames in the other.
        """
        if (self.how, self.decimals) != (other.how, other.decimals):
            raise ScoreError(
                f"pools of different kinds do not merge: over {self.how} with decimals {self.decimals}, "
                f"and over {other.how} with decimals {other.decimals}"
            )
        if other._thresholds is not None:
            self._expect(other._thresholds)
        self._expect_open(other._open.keys() | other._closed)
        other._expect_open(self._open.keys())
        for sequence, state in other._open.items():
            self.add(sequence, state)
        self._closed |= other._closed
        self._rows += other._rows
        self._left_out += other._left_out

    def metrics(self) -> dict[str, float]:
        """Return the pooled values as ``AngularState.metrics`` names them; empty where no frame has a valid pixel."""
        return mean_of(self._rows + [row for state in self._open.values() if (row := state.metrics())], self.decimals)

    def _keep_row(self, state: AngularState) -> None:
        if row := state.metrics():
            self._rows.append(row)
        else:
            self._left_out += 1

    def _expect(self, thresholds: tuple[float, ...]) -> None:
        if self._thresholds is None:
            self._thresholds = thresholds
        elif self._thresholds != thresholds:
            raise ScoreError(f"states of different thresholds do not pool: {self._thresholds} and {thresholds}")

    def _expect_open(self, sequences: Set[str]) -> None:
        if late := sorted(sequences & self._closed):
            raise ScoreError(f"sequence '{late[0]}' was closed, but more of its frames came. Close it after the last.")
