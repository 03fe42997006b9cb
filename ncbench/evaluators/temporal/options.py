"""What a protocol states about its temporal metrics."""

from __future__ import annotations

import itertools
from typing import Literal

from pydantic import Field, field_validator

from ncbench.settings import Settings

Family = Literal["opw", "rc", "tge", "dtheta", "accel", "bfd", "rc_at", "sharpness"]

BFD_METRICS = ("bfd_rmse", "bfd_bias", "bfd_flicker", "bfd_fast")
_NAMES: dict[str, tuple[str, ...]] = {
    "opw": ("opw", "opw_truth", "opw_excess"),
    "rc": ("rc_deg",),
    "tge": ("tge_deg",),
    "dtheta": ("dtheta_deg",),
    "accel": ("accel_deg",),
    "bfd": BFD_METRICS,
    "sharpness": ("sharpness", "sharpness_ratio"),
}
METRIC_NAMES = tuple(name for names in _NAMES.values() for name in names)
"""Every temporal metric but ``rc@k``, whose number is the protocol's choice."""


class TemporalOptions(Settings):
    """Which temporal metrics, over which pixels.

    Attributes:
        metrics: Families of metrics to compute (docs/temporal.md explains each).
        mask: Which pixels count. ``truth``: valid truth, visible in both frames, away from edges of the true normals;
            ``image``: the same with edges of the picture and without the truth, for clips that have none; ``paper``:
            ``opw`` keeps away from edges of the *prediction*, as Buffer Anytime does; ``none``: ``opw`` takes every
            pixel that stays in the picture. The last two concern ``opw`` alone; all else is masked by the truth.
        norm: ``opw`` is divided by the number of pixels in the mask, or by the picture's area as the paper prints it.
        cycle_threshold: Pixels that going there and back by an estimated flow may miss the start by.
        edge_distance: Least city-block distance in pixels from an edge; 0 keeps all.
        canny_low: Canny's lower threshold on the gradient, grey levels.
        canny_high: Canny's upper threshold.
        moving_threshold: Pixels by which the flow may differ from the motion of the static scene; where it differs more
            something moves by itself, and the camera's rotation cannot be compensated.
        rc_steps: How many frames ``rc@k`` looks ahead, ascending.
        track_stride: Distance in pixels between the tracks of ``bfd``.
        track_window: Frames that a track lasts.
    """

    metrics: tuple[Family, ...] = ("opw", "rc", "tge", "dtheta", "accel", "bfd", "rc_at", "sharpness")
    mask: Literal["truth", "image", "paper", "none"] = "truth"
    norm: Literal["mask", "area"] = "mask"
    cycle_threshold: float = Field(default=1.0, gt=0)
    edge_distance: int = Field(default=3, ge=0)
    canny_low: float = Field(default=100.0, ge=0)
    canny_high: float = Field(default=200.0, gt=0)
    moving_threshold: float = Field(default=1.0, gt=0)
    rc_steps: tuple[int, ...] = (1, 2, 4, 8, 16)
    track_stride: int = Field(default=4, ge=1)
    track_window: int = Field(default=12, ge=2)

    @field_validator("rc_steps")
    @classmethod
    def _ascending(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if not steps or steps[0] < 1 or any(a >= b for a, b in itertools.pairwise(steps)):
            raise ValueError(f"expected ascending whole numbers from 1, got {list(steps)}")
        return steps

    @field_validator("metrics")
    @classmethod
    def _each_once(cls, metrics: tuple[Family, ...]) -> tuple[Family, ...]:
        if not metrics or len(set(metrics)) < len(metrics):
            raise ValueError(f"expected at least one metric, and each once, got {list(metrics)}")
        return metrics

    def names(self, family: Family) -> tuple[str, ...]:
        """Give the columns that a family fills.

        Examples:
            >>> TemporalOptions(rc_steps=(1, 4)).names("rc_at")
            ('rc@1', 'rc@4')
        """
        return tuple(f"rc@{step}" for step in self.rc_steps) if family == "rc_at" else _NAMES[family]
