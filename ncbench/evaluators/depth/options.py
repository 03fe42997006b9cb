"""What a protocol states about its depth metrics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ncbench.settings import Settings

Family = Literal["abs_rel", "delta1", "opw", "tae"]


class DepthOptions(Settings):
    """Everything that changes a depth score; the defaults are DepthCrafter's and Video Depth Anything's.

    Attributes:
        max_depth: Metres. Truth at or beyond it does not count, and aligned predictions are clipped to it: 70 for
            Sintel, 10 for ScanNet, Bonn and NYUv2, 80 for KITTI.
        min_depth: Metres. Truth at or below it does not count.
        prediction: What the model answers: ``disparity``, which grows toward the camera, or ``depth``.
        align: What is fitted to the truth in disparity by least squares: scale and shift, once for a ``video``
            (DepthCrafter) or for each ``frame``; one ``scale`` for a video; or ``none``, for metric predictions.
        metrics: Families to compute (docs/depth-metrics.md explains each).
        opw_map: What ``opw`` compares: aligned ``depth`` in metres, or aligned ``disparity``.
        opw_mask: Pixels of ``opw``. ``truth``: known truth, visible in both frames, away from edges of the truth;
            ``image``: the same with edges of the picture and without the truth; ``paper``: with edges of the
            *prediction*, as Buffer Anytime does; ``none``: all that stay in the picture.
        opw_norm: ``opw`` is divided by the number of pixels in the ``mask``, or by the picture's ``area``.
        cycle_threshold: Pixels that going there and back by an estimated flow may miss the start by.
        edge_distance: Least city-block distance in pixels from an edge; 0 keeps all.
        canny_low: Canny's lower threshold on the gradient, grey levels.
        canny_high: Canny's upper threshold.
        tae_surface: Which of several points that fall into one pixel counts in ``tae``: the ``last`` in reading order,
            as the published code does it, or the ``nearest`` to the camera.
        tae_mask: Pixels of ``tae``: ``all``, as published, or those with ``valid`` truth.
    """

    max_depth: float = Field(gt=0)
    min_depth: float = Field(default=1e-3, gt=0)
    prediction: Literal["disparity", "depth"] = "disparity"
    align: Literal["video", "frame", "scale", "none"] = "video"
    metrics: tuple[Family, ...] = ("abs_rel", "delta1")
    opw_map: Literal["depth", "disparity"] = "depth"
    opw_mask: Literal["truth", "image", "paper", "none"] = "truth"
    opw_norm: Literal["mask", "area"] = "mask"
    cycle_threshold: float = Field(default=1.0, gt=0)
    edge_distance: int = Field(default=3, ge=0)
    canny_low: float = Field(default=100.0, ge=0)
    canny_high: float = Field(default=200.0, gt=0)
    tae_surface: Literal["last", "nearest"] = "last"
    tae_mask: Literal["all", "valid"] = "all"

    @field_validator("metrics")
    @classmethod
    def _each_once(cls, metrics: tuple[Family, ...]) -> tuple[Family, ...]:
        if not metrics or len(set(metrics)) < len(metrics):
            raise ValueError(f"expected at least one metric, and each once, got {list(metrics)}")
        return metrics

    @model_validator(mode="after")
    def _ordered(self) -> DepthOptions:
        if self.min_depth >= self.max_depth:
            raise ValueError(f"min_depth must be below max_depth, got {self.min_depth} and {self.max_depth}")
        return self
