"""What a protocol states about its depth metrics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ncbench.errors import ScoreError
from ncbench.settings import Settings

Depth = Literal["metres", "relative", "disparity"]
_KNOWN = {"none": "metres", "scale": "depth up to a scale"}
Family = Literal["abs_rel", "delta1", "opw", "tae"]


class DepthOptions(Settings):
    """Everything that changes a depth score; the defaults are DepthCrafter's and Video Depth Anything's.

    Attributes:
        max_depth: Metres. Truth at or beyond it does not count, and aligned predictions are clipped to it: 70 for
            Sintel, 10 for ScanNet, Bonn and NYUv2, 80 for KITTI.
        min_depth: Metres. Truth at or below it does not count.
        prediction: What files without a card hold: ``disparity``, which grows toward the camera, or ``depth``. Of a
            model its card says so (``of_model``).
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

    def of_model(self, depth: Depth | None, model: str) -> DepthOptions:
        """Read predictions as the model's card says that they are, whatever the protocol takes for granted.

        Args:
            depth: What the card says; None for files without a card, which are what the protocol says.
            model: Its name, for the message.

        Returns:
            These options with ``prediction`` as the card has it.

        Raises:
            ScoreError: ``align`` fits less than what the card leaves unknown, so that a score would mean nothing.
        """
        if depth is None:
            return self
        needs = {"metres": "none", "relative": "scale", "disparity": "frame"}[depth]
        order = ("none", "scale", "frame", "video")
        if order.index(self.align) < order.index(needs):
            raise ScoreError(
                f"model '{model}' answers with depth of kind '{depth}', and the protocol's align '{self.align}' does "
                f"not fit what that leaves unknown: it takes {_KNOWN[self.align]}. Score it under a protocol that "
                f"aligns {'scale' if depth == 'relative' else 'scale and shift'}."
            )
        return self.model_copy(update={"prediction": "disparity" if depth == "disparity" else "depth"})

    @model_validator(mode="after")
    def _ordered(self) -> DepthOptions:
        if self.min_depth >= self.max_depth:
            raise ValueError(f"min_depth must be below max_depth, got {self.min_depth} and {self.max_depth}")
        return self
