"""The one interface of all flow sources."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

from ncbench.evaluators.view import BoolMap, FloatMap, View


@dataclass(frozen=True, slots=True)
class Correspondence:
    """Where the pixels of frame a lie in frame b.

    Attributes:
        flow: (H, W, 2) float32 displacement (u, v) in pixels from a to b; NaN where unknown.
        visible: (H, W) bool, true where frame b is known to show the same surface point; None where the source cannot
            tell (the cycle check then decides alone).
    """

    flow: FloatMap
    visible: BoolMap | None


class FlowSource(abc.ABC):
    """Says where each pixel of one frame lies in another; scores carry its ``name`` and never mix two of them."""

    estimated: ClassVar[bool] = False
    """True where the motion is guessed from the pictures, so that it needs the cycle check and the sanity gate."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The source and every setting that changes its answer, fit for a table: ``gt``, ``dis-medium``, ..."""

    @abc.abstractmethod
    def match(self, a: View, b: View) -> Correspondence:
        """Find the pixels of frame a in frame b.

        Args:
            a: The frame whose pixels are asked about.
            b: The frame they are looked for in; the same sequence, before or after ``a``.

        Returns:
            The correspondence, at the views' own resolution.

        Raises:
            ScoreError: The views lack what this source needs (pictures, depth, poses, a flow file between these two).
        """
