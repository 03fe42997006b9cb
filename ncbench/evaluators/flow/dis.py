"""Dense inverse search by OpenCV: the default estimate, since it needs no weights.

Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016. It is good to a third of a pixel for motion
below a dozen pixels, and useless beyond thirty (docs/flow.md).
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import cv2
import numpy as np
from pydantic import Field

from ncbench.errors import ScoreError
from ncbench.evaluators.flow.base import Correspondence, FlowSource
from ncbench.evaluators.flow.pictures import picture_pair
from ncbench.evaluators.view import View
from ncbench.settings import Settings

SMALLEST = 12
"""Least height and width in pixels that OpenCV takes."""


class DisSettings(Settings):
    """Settings of ``DisFlow``, on top of OpenCV's preset MEDIUM.

    Attributes:
        finest_scale: Level of the pyramid to stop at: 0 is full size, four to six times as slow, and a fifth to a third
            more exact. None is the preset's own, half size.
    """

    finest_scale: int | None = Field(default=None, ge=0, le=4)


class DisFlow(FlowSource):
    """OpenCV's DIS on grey pictures; the answer does not depend on the number of threads."""

    estimated: ClassVar[bool] = True

    def __init__(self, settings: DisSettings | None = None) -> None:
        self.settings = settings or DisSettings()

    @property
    def name(self) -> str:
        """``dis-medium``, with ``-scale<n>`` where the finest scale is set."""
        finest = self.settings.finest_scale
        return "dis-medium" if finest is None else f"dis-medium-scale{finest}"

    def match(self, a: View, b: View) -> Correspondence:
        """Find the pixels of frame a in frame b; see ``FlowSource.match``. ``visible`` is None."""
        pictures = picture_pair(a, b, self.name)
        if min(a.size) < SMALLEST:
            raise ScoreError(
                f"sequence '{a.sequence}': flow source '{self.name}' needs pictures of at least {SMALLEST} x "
                f"{SMALLEST} pixels, got {a.size}"
            )
        engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        if self.settings.finest_scale is not None:
            engine.setFinestScale(self.settings.finest_scale)
        grey_a, grey_b = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures)
        return Correspondence(np.asarray(engine.calc(grey_a, grey_b, cast("Any", None)), np.float32), None)
