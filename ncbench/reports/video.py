"""Side-by-side videos for a talk or a paper: input, truth, each model's normals and errors, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ncbench.errors import ScoreError
from ncbench.files import replacing_file

Rgb = NDArray[np.uint8]

FORMS = (".mp4", ".gif", ".webm")
_CODECS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("libx264", {"crf": "16", "preset": "slow"}),
    ".webm": ("libvpx-vp9", {"crf": "24", "b": "0"}),
}
_BAR = 24  # pixels above a panel, for its caption
_GAP = 4
_WHITE = 255
_INK = (32, 32, 32)


@dataclass(frozen=True)
class Panel:
    """A captioned picture.

    Attributes:
        caption: One line; what does not fit is cut.
        picture: (H, W, 3) uint8.
    """

    caption: str
    picture: Rgb


def compose(panels: Sequence[Panel], columns: int, height: int) -> Rgb:
    """Put panels of one size side by side, row by row.

    Args:
        panels: At least one; an incomplete last row is filled with white.
        columns: Panels in a row.
        height: Pixels of a panel; its width follows from the first picture.

    Returns:
        (H, W, 3) uint8 with even sides, as video codecs want them.
    """
    tall, wide = panels[0].picture.shape[:2]
    width = max(1, round(wide * height / tall))
    rows = -(-len(panels) // columns)
    size = (columns * (width + _GAP) - _GAP, rows * (height + _BAR + _GAP) - _GAP)
    sheet = Image.new("RGB", (size[0] + size[0] % 2, size[1] + size[1] % 2), (_WHITE,) * 3)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, panel in enumerate(panels):
        left, top = index % columns * (width + _GAP), index // columns * (height + _BAR + _GAP)
        picture = Image.fromarray(np.ascontiguousarray(panel.picture))
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        draw.text((left + 2, top + 4), _fitting(panel.caption, font, width - 4), fill=_INK, font=font)
        sheet.paste(picture, (left, top + _BAR))
    return np.asarray(sheet)


def write_video(path: Path, frames: Iterable[Rgb], fps: float) -> int:
    """Encode frames, holding one at a time.

    Args:
        path: ``.mp4`` (H.264), ``.webm`` (VP9) or ``.gif``; replaced when complete.
        frames: (H, W, 3) uint8 of one size with even sides.
        fps: Frames a second.

    Returns:
        How many frames were written.

    Raises:
        ScoreError: The name has another ending, or there is no frame.
        StoreError: The disk is full or the place cannot be written.
    """
    form = path.suffix.lower()
    if form not in FORMS:
        raise ScoreError(f"{path}: expected a name that ends in {', '.join(FORMS)}")
    counted = _Counted(frames)
    with replacing_file(path) as temporary:
        if form == ".gif":
            _write_gif(temporary, counted, fps)
        else:
            _write_stream(temporary, counted, fps, form)
    return counted.count


class _Counted:
    """Frames on their way through, counted; none at all is an error."""

    def __init__(self, frames: Iterable[Rgb]) -> None:
        self._frames, self.count = frames, 0

    def __iter__(self) -> Iterator[Rgb]:
        for frame in self._frames:
            self.count += 1
            yield frame
        if not self.count:
            raise ScoreError("expected at least one frame for a video, found none")


def _write_stream(path: Path, frames: Iterable[Rgb], fps: float, form: str) -> None:
    codec, options = _CODECS[form]
    with av.open(str(path), "w", format=form[1:], options={"fflags": "+bitexact"}) as container:
        # typed for streams of every kind
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


def _write_gif(path: Path, frames: Iterable[Rgb], fps: float) -> None:
    pictures = (Image.fromarray(frame).quantize(dither=Image.Dither.NONE) for frame in frames)
    first = next(pictures)
    milliseconds = round(1000 / fps)
    first.save(path, format="GIF", save_all=True, append_images=pictures, duration=milliseconds, loop=0)


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Cut text to a width, and say so by an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
