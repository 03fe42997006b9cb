"""A picture of a store for the eye: frames with their normals, and histograms of what an audit measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ncbench.datasets.audit import AuditReport
from ncbench.datasets.audit_measure import frame_rays
from ncbench.datasets.frame import Frame
from ncbench.datasets.pictures import decode_image
from ncbench.datasets.store import Store, open_store
from ncbench.geometry.axes import convert_axes

Picture = NDArray[np.uint8]

_TILE = 240  # pixels, width of one picture
_BACKGROUND, _INK, _BAR = (255, 255, 255), (30, 30, 30), (70, 110, 170)
_NONE, _AWAY, _TOWARD = (40, 40, 40), (214, 60, 60), (150, 190, 150)
_LINE = 14  # pixels, height of a line of text


def contact_sheet(store: Path, report: AuditReport, to: Path, frames: int = 6) -> Path:
    """Draw some frames of a store (picture, normals, which of them face away) and the histogram of slants.

    Normals are coloured in OpenGL axes, as papers do: red to the right, green up, blue to the viewer.

    Args:
        store: The store's folder.
        report: Its audit.
        to: The PNG file to write.
        frames: How many frames, evenly spread.

    Returns:
        The file.

    Raises:
        StoreError: The store is damaged.
    """
    opened = open_store(store)
    step = max(1, -(-len(opened) // frames))
    strips = [_strip(_read(opened, row)) for row in range(0, len(opened), step)]
    shares = report.slant["share"].to_numpy()
    sheet = _stack([_findings(report), *strips, histogram(shares, 180, "slant: angle between normal and camera")])
    to.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(to, format="PNG")
    return to


def colour_normals(normal: NDArray[np.floating], valid: NDArray[np.bool_]) -> Picture:
    """Colour a normal map.

    Args:
        normal: (H, W, 3) in OpenCV axes.
        valid: (H, W) bool.

    Returns:
        (H, W, 3) uint8: OpenGL axes, [-1, 1] to [0, 255]; dark grey where invalid.
    """
    shown = np.rint((convert_axes(normal.astype(np.float64), "opencv", "opengl") + 1) * 127.5)
    return np.where(valid[..., None], shown, _NONE).astype(np.uint8)


def colour_facing(frame: Frame) -> Picture:
    """Colour which normals face away from the camera: red those that do; dark grey where unknown.

    Args:
        frame: A frame.

    Returns:
        (H, W, 3) uint8.
    """
    rays = frame_rays(frame)
    shown = np.full((*frame.size, 3), _NONE, np.uint8)
    if rays is not None:
        away = np.einsum("hwc,hwc->hw", frame.normal, rays) > 0
        shown[frame.valid & ~away], shown[frame.valid & away] = _TOWARD, _AWAY
    return shown


def histogram(shares: NDArray[np.floating], upper: float, title: str) -> Image.Image:
    """Draw a histogram.

    Args:
        shares: (N,) share of each bin, over equal bins from 0 to ``upper``.
        upper: End of the last bin, degrees.
        title: Text above it.

    Returns:
        The drawing.
    """
    width, height = 3 * _TILE, 110
    image = Image.new("RGB", (width, height + 3 * _LINE), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.text((4, 1), f"{title}, degrees; the highest bin holds {np.max(shares, initial=0.0):.1%}", fill=_INK)
    highest = float(np.max(shares, initial=0.0)) or 1.0
    step = width / max(1, len(shares))
    for index, share in enumerate(shares):
        top = _LINE + height * (1 - share / highest)
        draw.rectangle((index * step, top, (index + 1) * step - 2, _LINE + height), fill=_BAR)
    for mark in np.linspace(0, upper, 7)[:-1]:
        draw.text((mark / upper * width + 2, _LINE + height + 1), f"{mark:g}", fill=_INK)
    return image


def _read(store: Store, row: int) -> Frame:
    extra = ("ray_matrix",) if "ray_matrix" in store.columns else ()
    return store.read(*store.locate(row), ("image", "intrinsics", *extra))


def _strip(frame: Frame) -> Image.Image:
    """One frame: picture, normals, facing."""
    height, width = frame.size
    picture = np.full((height, width, 3), _NONE, np.uint8) if frame.image is None else decode_image(frame.image)
    size = (_TILE, max(1, round(_TILE * height / width)))
    strip = Image.new("RGB", (3 * _TILE, size[1] + _LINE), _BACKGROUND)
    ImageDraw.Draw(strip).text((4, 1), f"{frame.sequence}  frame {frame.frame}  {height} x {width}", fill=_INK)
    for index, tile in enumerate((picture, colour_normals(frame.normal, frame.valid), colour_facing(frame))):
        resized = Image.fromarray(tile).resize(
            size, Image.Resampling.BOX if width > _TILE else Image.Resampling.NEAREST
        )
        strip.paste(resized, (index * _TILE, _LINE))
    return strip


def _findings(report: AuditReport) -> Image.Image:
    lines = [f"{report.name}: picture, normals (OpenGL colours), facing (red: away)"]
    lines += [f"{row.state:8} {row.check}: {row.detail}"[:118] for row in report.findings.itertuples()]
    image = Image.new("RGB", (3 * _TILE, _LINE * len(lines) + 4), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    for index, line in enumerate(lines):
        draw.text((4, 1 + index * _LINE), line.encode("latin-1", "replace").decode("latin-1"), fill=_INK)
    return image


def _stack(parts: Iterable[Image.Image]) -> Image.Image:
    images = list(parts)
    sheet = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), _BACKGROUND)
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    return sheet
