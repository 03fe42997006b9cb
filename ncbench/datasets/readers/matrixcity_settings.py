"""What a card may say about MatrixCity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from ncbench.datasets.readers.matrixcity_clips import ClipRule
from ncbench.datasets.readers.normal_components import Components
from ncbench.names import AxesName
from ncbench.settings import Settings

View = Literal["street", "aerial"]
SIZES: Mapping[View, tuple[int, int]] = {"street": (1000, 1000), "aerial": (1080, 1920)}
"""Height and width of the official pictures."""


class MatrixCitySettings(Settings):
    """Settings of ``MatrixCityReader``.

    Attributes:
        axes: Camera axes of the pose files, and of the stored normals once the pose has turned them into the camera.
        city: Which city; only the Small City has normals of its own.
        views: Street, aerial, or both.
        split: ``train``, ``test``, or for the streets ``train_dense`` (a picture every metre).
        blocks: Blocks to read, in this order; None takes all.
        normals: ``file``, or ``cross_product`` of depth differences; None takes what the city has.
        components: Order and signs of the world normal's channels, after n = 2 px - 1. Unreal's y is negated; the
            official loader reads BGR, so that x, y, z are R, G, B. Checked against depth.
        lengths: Least and greatest length of a stored normal that is meant (anti-aliased edges are shorter).
        depth: Which precision of depth to read; float16 clips at 65504 (655 m).
        depth_scale: Metres per stored unit (centimetres).
        depth_channel: Channel of the depth files, where they have several.
        beyond: Stored depth from which on nothing was hit; for float16 alone.
        max_depth: Metres from which on depth and normal are dropped.
        cameras: ``transforms`` (``<block>/transforms.json``) or ``pose`` (``pose/<block>/...``); None takes the first
            of these that is there.
        clips: How frames are put in order.
        sizes: Height and width by view; None accepts any.
        flow: Derive flow and occlusion from depth and poses.
    """

    axes: AxesName = "opengl"
    city: Literal["small_city", "big_city"] = "small_city"
    views: tuple[View, ...] = Field(default=("street", "aerial"), min_length=1)
    split: str = Field(default="train", pattern=r"^[a-z_]+$")
    blocks: tuple[str, ...] | None = Field(default=None, min_length=1)
    normals: Literal["file", "cross_product"] | None = None
    components: Components = Components(channels=("R", "G", "B"), signs=(1, -1, 1))
    lengths: tuple[float, float] = (0.5, 1.5)
    depth: Literal["float32", "float16"] = "float32"
    depth_scale: float = Field(default=0.01, gt=0)
    depth_channel: str = "B"
    beyond: float = Field(default=65504.0, gt=0)
    max_depth: float = Field(default=2000.0, gt=0)
    cameras: Literal["transforms", "pose"] | None = None
    clips: ClipRule = ClipRule()
    sizes: dict[View, tuple[int, int]] | None = Field(default_factory=lambda: dict(SIZES))
    flow: bool = True
