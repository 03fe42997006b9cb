"""What a recipe gives: its proportions, what a batch looks like, how fast it comes, and a picture for the eye."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ncbench.datasets.audit_sheet import colour_normals
from ncbench.files import replacing_file
from ncbench.geometry.axes import convert_axes
from ncbench.loader_card import LoaderCard
from ncbench.loaders.batch import Batch
from ncbench.loaders.clips import NormalClips
from ncbench.loaders.loader import Loader
from ncbench.loaders.recipes import open_clips

_TILE, _LINE = 160, 14  # pixels: width of a picture, height of a line of text
_BACKGROUND, _INK = (255, 255, 255), (30, 30, 30)
_LONGEST = 7  # frames of a clip that a sheet has room for


@dataclass(frozen=True)
class LoaderReport:
    """What ``describe`` found.

    Attributes:
        mixture: One row a data set: frames, clips and frames in the first epoch, shares, clip lengths.
        batch: One row a tensor of the first batch: shape, type, smallest and largest finite value.
        samples_per_second: Clips a second.
        frames_per_second: Frames a second.
        left_out: Frames that the first epoch leaves out because no clip of the allowed lengths fits; by data set.
    """

    mixture: pd.DataFrame
    batch: pd.DataFrame
    samples_per_second: float
    frames_per_second: float
    left_out: dict[str, int]


def describe(card: LoaderCard, stores: str | Path, batches: int = 16, workers: int = 0) -> LoaderReport:
    """Open a recipe and measure what it gives.

    Args:
        card: The recipe.
        stores: Folder or URL of the prepared data sets.
        batches: How many to read for the speed, after the first.
        workers: Loading processes.

    Returns:
        The report.

    Raises:
        CardError: The recipe does not fit the data.
        StoreError: A store is damaged.
    """
    clips = open_clips(card, stores)
    stream = iter(Loader(clips, workers=workers, endless=True))
    first = next(stream)
    start = time.perf_counter()
    sizes = [tuple(batch["valid"].shape[:2]) for batch in islice(stream, batches)]
    seconds = time.perf_counter() - start
    return LoaderReport(
        mixture=proportions(clips),
        batch=batch_table(first),
        samples_per_second=sum(size[0] for size in sizes) / seconds,
        frames_per_second=sum(size[0] * size[1] for size in sizes) / seconds,
        left_out=_left_out(clips),
    )


def proportions(clips: NormalClips, epoch: int = 0) -> pd.DataFrame:
    """Count what one epoch really holds.

    Args:
        clips: The data.
        epoch: Which epoch.

    Returns:
        Indexed by data set: ``frames`` stored, ``clips`` and ``clip_frames`` of the epoch, ``share_of_clips``,
        ``share_of_frames``, ``passes`` over the set, ``mean_length``.
    """
    refs = clips.plan(epoch).refs
    rows = []
    for index, member in enumerate(clips.mixture.members):
        mine = refs[refs[:, 0] == index, 4]
        rows.append(
            {
                "dataset": member.name,
                "frames": member.frames,
                "clips": len(mine),
                "clip_frames": int(mine.sum()),
                "share_of_clips": len(mine) / max(1, len(refs)),
                "share_of_frames": mine.sum() / max(1, refs[:, 4].sum()),
                "passes": mine.sum() / member.frames,
                "mean_length": mine.mean() if len(mine) else 0.0,
            }
        )
    return pd.DataFrame(rows).set_index("dataset")


def batch_table(batch: Batch) -> pd.DataFrame:
    """Describe a batch's tensors.

    Args:
        batch: A batch.

    Returns:
        Indexed by key: ``shape``, ``dtype``, ``min`` and ``max`` of the finite values, or the text where it is a list.
    """
    rows = []
    for key, value in batch.items():
        if isinstance(value, torch.Tensor):
            finite = value.double()[value.double().isfinite()]
            low, high = (float(finite.min()), float(finite.max())) if finite.numel() else (np.nan, np.nan)
            shape = " x ".join(map(str, value.shape))
            rows.append({"key": key, "shape": shape, "dtype": str(value.dtype)[6:], "min": low, "max": high})
        elif isinstance(value, list):
            names = ", ".join(dict.fromkeys(value))
            rows.append({"key": key, "shape": str(len(value)), "dtype": f"text: {names}", "min": np.nan, "max": np.nan})
    return pd.DataFrame(rows).set_index("key")


def _left_out(clips: NormalClips) -> dict[str, int]:
    counts = {member.name: member.frames - int(member.cut(0)[:, 2].sum()) for member in clips.mixture.members}
    return {name: count for name, count in counts.items() if count}


def contact_sheet(card: LoaderCard, stores: str | Path, to: Path, clips: int = 12) -> Path:
    """Draw clips as a model would get them, each frame's picture above its normals.

    Normals are coloured in OpenGL axes whatever the recipe's: red to the right, green up, blue to the viewer; dark grey
    where invalid.

    Args:
        card: The recipe.
        stores: Folder or URL of the prepared data sets.
        to: The PNG file to write.
        clips: How many, from all data sets by turns.

    Returns:
        The file.

    Raises:
        CardError: The recipe does not fit the data.
        StoreError: A store is damaged, or the file cannot be written.
    """
    data = open_clips(card, stores)
    plan = data.plan(0)
    taken: Counter[int] = Counter()
    refs = []
    for index in range(len(plan.refs)):
        ref = plan.ref(index)
        if taken[ref.member] < -(-clips // len(card.sets)):
            taken[ref.member] += 1
            refs.append(ref)
        if len(refs) == clips:
            break
    strips = [_strip(data.read([ref]), card) for ref in sorted(refs)]
    with replacing_file(to) as temporary:
        _laid_out(strips).save(temporary, format="PNG")
    return to


def _laid_out(strips: Sequence[Image.Image]) -> Image.Image:
    """Put strips beside each other while there is room, then below."""
    places: list[tuple[int, int]] = []
    left = top = deepest = 0
    for strip in strips:
        if left + strip.width > _LONGEST * _TILE:
            left, top = 0, deepest
        places.append((left, top))
        left, deepest = left + strip.width, max(deepest, top + strip.height)
    sheet = Image.new("RGB", (_LONGEST * _TILE, deepest), _BACKGROUND)
    for strip, place in zip(strips, places, strict=True):
        sheet.paste(strip, place)
    return sheet


def _strip(batch: Batch, card: LoaderCard) -> Image.Image:
    frames = batch["frames"][0].tolist()
    shown = min(len(frames), _LONGEST)
    height, width = batch["valid"].shape[-2:]
    tile = (_TILE, max(1, round(_TILE * height / width)))
    strip = Image.new("RGB", (max(2, shown) * _TILE, 2 * tile[1] + _LINE), _BACKGROUND)
    marks = f"{'  flipped' if batch['flipped'][0] else ''}{f'  of {len(frames)}' if shown < len(frames) else ''}"
    title = f"{batch['dataset'][0]}  {batch['sequence'][0]}  frames {frames[0]}..{frames[-1]}  {height}x{width}{marks}"
    ImageDraw.Draw(strip).text((2, 1), title.encode("latin-1", "replace").decode("latin-1"), fill=_INK)
    for place in range(shown):
        normal = convert_axes(_array(batch["normal"][0, place]), card.axes, "opencv")
        pictures = (_picture(batch["image"][0, place]), colour_normals(normal, batch["valid"][0, place].numpy()))
        for row, picture in enumerate(pictures):
            method = Image.Resampling.BOX if width > _TILE else Image.Resampling.NEAREST
            strip.paste(Image.fromarray(picture).resize(tile, method), (place * _TILE, _LINE + row * tile[1]))
    return strip


def _array(picture: torch.Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(picture.permute(1, 2, 0).numpy())


def _picture(image: torch.Tensor) -> NDArray[np.uint8]:
    values = image.permute(1, 2, 0).numpy()
    shown = values if values.dtype == np.uint8 else np.rint((values + 1) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(shown)
