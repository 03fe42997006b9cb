"""The frames of a side-by-side video: input and truth, then each model's normals over its errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ncbench.errors import NcbenchError, ScoreError
from ncbench.evaluators.angular import angular_error
from ncbench.evaluators.framing import frame_view
from ncbench.evaluators.view import View
from ncbench.protocol import protocol_sequences
from ncbench.reports.layout import Table
from ncbench.reports.page.sources import Shown, Sources, open_sources
from ncbench.reports.pictures import Rgb, errors_to_rgb, normals_to_rgb
from ncbench.reports.video import Panel, compose, write_video
from ncbench.settings import suggest

_BLANK = 255
_EVERY_MODEL = 10_000


@dataclass(frozen=True)
class VideoOptions:
    """What a video shows.

    Attributes:
        models: Names of models, in order; empty for all, best first.
        height: Pixels of a panel.
        errors: Whether a second row shows each model's angular error.
    """

    models: tuple[str, ...] = ()
    height: int = 240
    errors: bool = True


def clip_frames(
    table: Table, sequence: str, stores: Path, predictions: Path, options: VideoOptions = VideoOptions()
) -> Iterator[Rgb]:
    """Draw the frames of one sequence, one at a time.

    Args:
        table: A protocol's table.
        sequence: One of the protocol's sequences.
        stores: Folder of prepared data sets.
        predictions: Folder of prediction stores.
        options: What to show.

    Yields:
        (H, W, 3) uint8 of one size with even sides: input, truth and predictions in the first row, errors below.

    Raises:
        ScoreError: No such sequence or model, or no predictions to show.
        StoreError: The truth's store is damaged.
    """
    sources = open_sources(table, stores, predictions, _EVERY_MODEL)
    shown = _chosen(table, sources, options.models)
    examiner = shown[0].examiner
    known = protocol_sequences(examiner.protocol, examiner.target)
    if sequence not in known:
        raise ScoreError(f"protocol '{table.name}' has no sequence '{sequence}'. {suggest(sequence, known)}")
    firsts = [_first(one, sequence, known[sequence][0]) for one in shown]
    for frame in known[sequence]:
        yield _draw(table, shown, firsts, sequence, frame, options)


def write_clip(
    tables: Sequence[Table],
    clip: str,
    to: Path,
    sources: tuple[Path, Path],
    models: tuple[str, ...] = (),
    fps: float = 12.0,
) -> int:
    """Write the video of one sequence.

    Args:
        tables: Of a report.
        clip: ``protocol/sequence``.
        to: The file; its ending says the format.
        sources: Folders of prepared data sets and of prediction stores.
        models: Names of models, in order; empty for all, best first.
        fps: Frames a second.

    Returns:
        How many frames were written.

    Raises:
        ScoreError: No such protocol, sequence or model.
        StoreError: A store is damaged, or the place cannot be written.
    """
    name, _, sequence = clip.partition("/")
    known = {table.name: table for table in tables if table.kind == "protocol"}
    if name not in known or not sequence:
        raise ScoreError(f"--clip '{clip}': expected PROTOCOL/SEQUENCE, such as rooms/room. {suggest(name, known)}")
    return write_video(to, clip_frames(known[name], sequence, *sources, VideoOptions(models)), fps)


def _chosen(table: Table, sources: Sources, names: Sequence[str]) -> list[Shown]:
    by_name = {table.results[one.index].model: one for one in sources.shown}
    for name in names:
        if name not in by_name:
            raise ScoreError(f"no predictions of '{name}' on {table.name} to show. {suggest(name, by_name)}")
    if not by_name:
        raise ScoreError(f"nothing to show of {table.name}. {' '.join(sources.notices)}")
    return [by_name[name] for name in names] or sources.shown


def _first(one: Shown, sequence: str, frame: int) -> View | None:
    """The sequence's first scored frame, for models that answer in its camera's frame."""
    turned = one.examiner.source.card.space == "first_camera"
    return one.examiner.view(sequence, frame, whole=True) if turned else None


def _draw(
    table: Table,
    shown: Sequence[Shown],
    firsts: Sequence[View | None],
    sequence: str,
    frame: int,
    options: VideoOptions,
) -> Rgb:
    view = shown[0].examiner.view(sequence, frame, whole=True)
    truth = frame_view(view, shown[0].examiner.protocol)
    masked = replace(truth, normal=np.where(truth.valid[..., None], truth.normal, np.float32(0)))
    blank = np.full((*truth.size, 3), _BLANK, np.uint8)
    top = [Panel(f"{sequence}, frame {frame}", blank if truth.image is None else truth.image)]
    top.append(Panel("truth", normals_to_rgb(masked.normal)))
    below = [Panel("", blank), Panel("error, 0° (dark) to 60°", blank)]
    for one, first in zip(shown, firsts, strict=True):
        title = table.results[one.index].values.model.title
        try:
            preds = one.examiner.preds(view, first)
        except NcbenchError:
            top.append(Panel(title, blank))
            below.append(Panel("no prediction", blank))
            continue
        # as the score has it: a pixel without an answer is charged, one without truth is not looked at
        errors = angular_error(preds, masked.normal)
        errors = np.where(truth.valid & np.isnan(errors), one.examiner.protocol.invalid_prediction, errors)
        top.append(Panel(title, normals_to_rgb(preds)))
        below.append(Panel(f"mean {np.nanmean(errors):.1f}°" if truth.valid.any() else "", errors_to_rgb(errors)))
    return compose([*top, *(below if options.errors else [])], len(top), options.height)
