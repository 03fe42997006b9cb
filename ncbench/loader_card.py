"""``loaders/<name>.yaml``: the data side of a training recipe, from which frames to what a batch holds.

The same settings describe a loader that is made in Python without a file: `ncbench.loaders.clips.NormalClips`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ncbench.names import AxesName, Name, SemVer
from ncbench.settings import Settings

Range = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
Share = Annotated[float, Field(ge=0, le=1)]
Column = Literal["depth", "flow", "occluded", "intrinsics", "cam_to_world"]
Gaps = Literal["split", "chain"]


class Resize(Settings):
    """How large pictures become before they are cropped; their aspect ratio stays unless ``size`` says otherwise.

    Attributes:
        short_edge: Pixels of the shorter side.
        size: Height and width, in place of ``short_edge``.
        scale: Range of a random factor on top, the same for all frames of a clip; needs a crop.
        multiple: Both sides are rounded to the nearest multiple of this, at least one.
        depth_edges: Read depth, where the store has it, so that normals do not mix across its edges.
    """

    short_edge: int | None = Field(default=None, ge=1)
    size: Range | None = None
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
    multiple: int = Field(default=1, ge=1)
    depth_edges: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Resize:
        if (self.short_edge is None) == (self.size is None):
            raise ValueError("give either short_edge or size")
        _ascending("scale", self.scale)
        return self


class Crop(Settings):
    """A window of fixed size, at the same place in all frames of a clip."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    place: Literal["random", "centre"] = "random"


class Photometric(Settings):
    """Changes of colour, the same for all frames of a clip; each number is the half width of a uniform range.

    Attributes:
        brightness: Factor 1 - b to 1 + b.
        contrast: Factor of the distance from mid grey.
        gamma: Exponent from 1 / (1 + g) to 1 + g, on values in [0, 1].
        saturation: Factor of the distance from the pixel's own grey.
        hue: Degrees of turn around the grey axis.
        probability: Share of clips that are changed.
    """

    brightness: Share = 0.0
    contrast: Share = 0.0
    gamma: Share = 0.0
    saturation: Share = 0.0
    hue: float = Field(default=0.0, ge=0, le=180)
    probability: Share = 1.0


class SetEntry(Settings):
    """One data set of a mixture; what is left out here is as in the card.

    Attributes:
        dataset: Name of the store.
        weight: Share by hand, in any unit; either all sets have one or none.
        sequences: Only these.
        length: As in ``LoaderCard``; [1, 1] takes the set as single pictures.
        stride: As in ``LoaderCard``.
        gaps: As in ``LoaderCard``.
        reverse: As in ``LoaderCard``.
    """

    dataset: Name
    weight: float | None = Field(default=None, gt=0)
    sequences: list[str] | None = None
    length: Range | None = None
    stride: Range | None = None
    gaps: Gaps | None = None
    reverse: Share | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SetEntry:
        _ascending("length", self.length or (1, 1))
        _ascending("stride", self.stride or (1, 1))
        return self


class LoaderCard(Settings):
    """``loaders/<name>.yaml``: mixture, clips, sizes, augmentation and order.

    Attributes:
        sets: The mixture.
        balance: What the weights are shares of: ``frames``, or ``samples`` (clips, however long).
        temperature: Weights are raised to 1 / temperature; above 1 evens them out.
        frames_per_epoch: Length of an epoch; by default as many frames as the sets hold.
        length: Shortest and longest clip, in frames.
        stride: Smallest and largest step between frames of a clip.
        gaps: Whether a clip may go on where frame numbers of the sequence leave their step (``chain``) or not
            (``split``).
        reverse: Share of clips that run backwards.
        resize: None leaves the size.
        crop: None leaves the whole picture.
        flip: Share of clips that are mirrored left to right.
        photometric: None leaves the colours.
        columns: What comes beside image, normal and valid.
        axes: Convention of the normals in a batch.
        image: ``uint8`` as stored, or ``float32`` in [-1, 1].
        batch_size: Clips a batch, all of one length and size; the last ones of an epoch hold fewer.
        shuffle: ``shards`` mixes clips within windows of shards, so that reads stay local; ``full`` mixes all;
            ``none`` keeps the store's order and cuts sequences into clips of the longest length.
        shuffle_shards: Shards in a window.
        seed: Decides everything that is drawn.
    """

    name: Name
    version: SemVer
    title: str
    summary: str
    sets: list[SetEntry] = Field(min_length=1)
    balance: Literal["frames", "samples"] = "frames"
    temperature: float = Field(default=1.0, gt=0)
    frames_per_epoch: int | None = Field(default=None, ge=1)
    length: Range = (1, 1)
    stride: Range = (1, 1)
    gaps: Gaps = "split"
    reverse: Share = 0.0
    resize: Resize | None = None
    crop: Crop | None = None
    flip: Share = 0.0
    photometric: Photometric | None = None
    columns: list[Column] = Field(default_factory=list)
    axes: AxesName = "opencv"
    image: Literal["uint8", "float32"] = "uint8"
    batch_size: int = Field(default=1, ge=1)
    shuffle: Literal["shards", "full", "none"] = "shards"
    shuffle_shards: int = Field(default=16, ge=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> LoaderCard:
        _ascending("length", self.length)
        _ascending("stride", self.stride)
        names = [entry.dataset for entry in self.sets]
        if len(set(names)) < len(names):
            raise ValueError(f"each data set may come once, got {', '.join(names)}")
        if len({entry.weight is None for entry in self.sets}) > 1:
            raise ValueError("either all sets have a weight or none has")
        if self.resize and self.resize.scale[0] < self.resize.scale[1] and not self.crop:
            raise ValueError("a random scale gives clips of many sizes; set crop")
        if {"flow", "occluded"} & set(self.columns) and any(self._leaves_time(entry) for entry in self.sets):
            raise ValueError("flow and occluded lead to the next frame; with them, stride must be 1 and reverse 0")
        return self

    def _leaves_time(self, entry: SetEntry) -> bool:
        return (entry.stride or self.stride) != (1, 1) or (self.reverse if entry.reverse is None else entry.reverse) > 0

    def shaping(self) -> dict[str, object]:
        """Return the part of the card that samples and their order depend on; prose is left out."""
        prose = {"name", "version", "title", "summary"}
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in prose}


def _ascending(key: str, values: tuple[float, float]) -> None:
    if values[0] > values[1]:
        raise ValueError(f"{key} must ascend, got {list(values)}")
