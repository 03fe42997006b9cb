"""The schema of a protocol: ``evaluators/<name>.yaml``, everything that changes a number."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ncbench.names import Name, SemVer
from ncbench.settings import Settings

Degrees = Annotated[float, Field(gt=0, le=180)]
_PROSE = {"title", "summary", "expected"}


class Expected(Settings):
    """A value that a result must reach, checked by ``ncbench report --check expected``.

    Attributes:
        model: Name of a model card.
        metric: As result files name it.
        value: What is expected.
        tolerance: How far a result may be off.
        source: Where the value comes from: a paper's table, a command.
        required: Whether the check fails where the model has no result; published values of models that not every
            machine can run are not required.
    """

    model: str
    metric: str
    value: float
    tolerance: float = Field(gt=0)
    source: str
    required: bool = True


class FrameChoice(Settings):
    """Which frames of each sequence count; positions are those in the data set, not frame numbers.

    Attributes:
        start: First position.
        stride: Distance between chosen positions.
        count: At most so many frames of a sequence; null for all.
        spread: ``first`` takes the first ``count``, ``uniform`` spreads them evenly from the first to the last.
    """

    start: int = Field(default=0, ge=0)
    stride: int = Field(default=1, ge=1)
    count: int | None = Field(default=None, ge=1)
    spread: Literal["first", "uniform"] = "first"

    def positions(self, length: int) -> list[int]:
        """Name the chosen positions of a sequence.

        Args:
            length: How many frames it has.

        Returns:
            Ascending positions, each once; empty where ``start`` lies past the end.

        Examples:
            >>> FrameChoice(count=3, spread="uniform").positions(11)
            [0, 5, 10]
        """
        every = list(range(self.start, length, self.stride))
        if self.count is None or self.count >= len(every):
            return every
        if self.spread == "first":
            return every[: self.count]
        last = len(every) - 1
        # rounded to the nearest position in integers, so that every machine chooses the same frames
        return [every[(2 * k * last + self.count - 1) // (2 * max(self.count - 1, 1))] for k in range(self.count)]


class ClipWindows(Settings):
    """Windows that a sequence is cut into for pooling (UniGeo scores clips of 25 frames, 5 of them shared).

    Attributes:
        length: Frames of a window; the last one of a sequence may be shorter.
        overlap: Frames that a window shares with the one before; they count in both.
    """

    length: int = Field(ge=1)
    overlap: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _advances(self) -> ClipWindows:
        if self.overlap >= self.length:
            raise ValueError(f"overlap must be below the length, got {self.overlap} of {self.length}")
        return self

    def windows(self, length: int) -> list[range]:
        """Cut a sequence.

        Args:
            length: How many frames it has.

        Returns:
            Ranges of positions that cover every frame.

        Examples:
            >>> ClipWindows(length=4, overlap=1).windows(8)
            [range(0, 4), range(3, 7), range(6, 8)]
        """
        step = self.length - self.overlap
        starts = range(0, max(length - self.overlap, 1), step)
        return [range(start, min(start + self.length, length)) for start in starts]


class Crop(Settings):
    """Pixels that do not count on each side, at the truth's own size."""

    top: int = Field(default=0, ge=0)
    bottom: int = Field(default=0, ge=0)
    left: int = Field(default=0, ge=0)
    right: int = Field(default=0, ge=0)


class Size(Settings):
    """Height and width at which predictions and truth are compared."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)


class Intervals(Settings):
    """Confidence intervals by bootstrap.

    Attributes:
        unit: What is drawn again: whole ``sequences`` (frames of one are alike), or ``frames`` of still pictures.
        resamples: How often; 0 for no intervals.
        confidence: Percent.
        seed: Of the draw.
    """

    unit: Literal["sequences", "frames"] = "sequences"
    resamples: int = Field(default=2000, ge=0, le=100_000)
    confidence: float = Field(default=95.0, gt=50, lt=100)
    seed: int = 0


class Temporal(Settings):
    """Temporal metrics of a video protocol.

    Attributes:
        flow: Where motion comes from: ``auto`` is the data's own flow, else depth and poses, else DIS.
        flow_settings: The source's own settings.
        options: Metrics and their thresholds (``ncbench.evaluators.temporal``).
    """

    flow: Literal["auto", "gt", "rigid", "dis", "raft", "gmflow"] = "auto"
    flow_settings: dict[str, Any] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)


class Probe(Settings):
    """When another reading of the predictions (axes, encoding, place) fits so much better that scoring stops.

    Attributes:
        share: By how much of the error it must be better, both this and
        degrees: by how many degrees.
    """

    share: float = Field(default=0.2, gt=0, lt=1)
    degrees: float = Field(default=3.0, gt=0)


class ProtocolCard(Settings):
    """``evaluators/<name>.yaml``: everything that changes a number.

    Attributes:
        dataset: Name of a data set card.
        task: What is scored: ``normals``, or ``depth`` of video.
        sequences: Which of the data set's sequences; null for all.
        frames: Which frames of each sequence.
        mask: Which pixels of the truth count: ``valid`` as the data set has them.
        crop: Pixels at the sides that do not count; intrinsics move along.
        resolution: ``native`` (the truth's own size), or a size that truth and predictions are brought to.
        resize: What happens to a prediction of another size than the scored one: ``none`` refuses it, ``bilinear``
            resizes it and brings its vectors back to unit length.
        space: Frame of reference of the normals: ``camera``, or ``first_camera`` (the sequence's first scored frame;
            UniGeo): only then may a model answer in it, and its predictions are turned back with the true poses.
        pooling: Over ``pixels`` of all frames (DSINE), as the mean over ``frames`` of each one's values (Marigold), or
            as the mean over ``sequences`` (or clips) of values pooled within each.
        clips: Windows that take the place of sequences in pooling; null for whole sequences.
        decimals: Decimals that a frame's values are rounded to before pooling over frames (Marigold: 4).
        thresholds: Degrees; accuracies count errors strictly below.
        invalid_prediction: Degrees charged where a prediction has no direction.
        temporal: Temporal metrics; null for still pictures.
        depth: Settings of depth metrics (``ncbench.evaluators.depth``), for ``task: depth``.
        slices: Names of the slices that errors are split by (``ncbench.evaluators.slices``).
        intervals: How confidence intervals are drawn.
        probe: When scoring stops because the predictions are read wrongly.
        expected: Values that ``ncbench report --check expected`` compares results with.
    """

    name: Name
    version: SemVer
    title: str
    summary: str
    dataset: Name
    task: Literal["normals", "depth"] = "normals"
    sequences: list[str] | None = None
    frames: FrameChoice = FrameChoice()
    mask: Literal["valid"] = "valid"
    crop: Crop = Crop()
    resolution: Literal["native"] | Size = "native"
    resize: Literal["none", "bilinear"] = "none"
    space: Literal["camera", "first_camera"] = "camera"
    pooling: Literal["pixels", "frames", "sequences"] = "pixels"
    clips: ClipWindows | None = None
    decimals: int | None = Field(default=None, ge=0, le=12)
    thresholds: list[Degrees] = Field(default_factory=lambda: [5.0, 7.5, 11.25, 22.5, 30.0])
    invalid_prediction: float = Field(default=90.0, ge=0, le=180)
    temporal: Temporal | None = None
    depth: dict[str, Any] | None = None
    slices: list[str] = Field(default_factory=list)
    intervals: Intervals = Intervals()
    probe: Probe = Probe()
    expected: list[Expected] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> ProtocolCard:
        if not self.thresholds or any(a >= b for a, b in itertools.pairwise(self.thresholds)):
            raise ValueError(f"thresholds must be a non-empty ascending list, got {self.thresholds}")
        if any(round(threshold * 1000) / 1000 != threshold for threshold in self.thresholds):
            raise ValueError(f"thresholds must be whole multiples of 0.001 degrees, got {self.thresholds}")
        if (self.task == "depth") != (self.depth is not None):
            raise ValueError("a protocol has a 'depth' block where, and only where, its task is depth")
        if self.decimals is not None and self.pooling != "frames":
            raise ValueError(f"decimals round a frame's values: they go with pooling frames, got {self.pooling}")
        if self.pooling == "sequences" and self.intervals.unit == "frames":
            raise ValueError("pooling over sequences draws intervals from sequences: set intervals.unit to sequences")
        if self.clips is not None and self.pooling != "sequences":
            raise ValueError(f"clips take the place of sequences: they go with pooling sequences, got {self.pooling}")
        return self

    def scoring(self) -> dict[str, Any]:
        """Return the part of the card that a number depends on; prose and expected values are left out."""
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in _PROSE}

    def keeps_pixels(self) -> bool:
        """Say whether predictions of the truth's size are scored pixel by pixel, neither cut nor resized."""
        return self.crop == Crop() and isinstance(self.resolution, str)

    def resolution_text(self) -> str:
        """Spell the resolution for a table: ``native`` or ``384x512`` (height x width)."""
        size = self.resolution
        return size if isinstance(size, str) else f"{size.height}x{size.width}"
