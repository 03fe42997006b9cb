"""What the viewer shows: pictures, truth and predictions of some clips, one script a (model, clip)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from ncbench.errors import NcbenchError
from ncbench.evaluators.framing import frame_view
from ncbench.evaluators.view import View
from ncbench.reports.page.clips import Clip, choose_clips, choose_stride, thin
from ncbench.reports.page.codes import CENTRE, NONE, PRECISION, STEP, pack, quantize, text
from ncbench.reports.page.plots import Frames, number
from ncbench.reports.page.scripts import slug, write_script
from ncbench.reports.page.sources import Shown, Sources

_QUALITY = 85


def write_viewer(
    folder: Path, key: str, sources: Sources, rows: Sequence[Frames], frames: int, budget: float
) -> dict[str, Any] | None:
    """Write the clips of one protocol.

    Args:
        folder: The page's folder.
        key: Where the protocol's scripts go below its data.
        sources: The models to show and the truth.
        rows: The rows of each of the table's results.
        frames: How many frames in all.
        budget: Bytes in all.

    Returns:
        What the page must know of them; None where there is nothing to show.

    Raises:
        NcbenchError: The truth's store is damaged.
    """
    known = next((one.table for one in rows if one.table is not None), None)
    if not sources.shown or known is None:
        return None
    groups = known.groupby("sequence", sort=False)["frame"]
    sequences = {str(name): [int(frame) for frame in group] for name, group in groups}
    clips = choose_clips(sequences, _difficulty(rows), _hardest_frames(rows), frames)
    if not clips:
        return None
    total = sum(len(clip.frames) for clip in clips)
    written = []
    for index, clip in enumerate(clips):
        share = budget * len(clip.frames) / total
        written.append(_write_clip(folder, f"{key}/{slug(index, clip.sequence)}", clip, sources.shown, rows, share))
    codes = {"step": STEP, "centre": CENTRE, "none": NONE, "precision": PRECISION}
    charge = sources.shown[0].examiner.protocol.invalid_prediction
    return {"codes": codes, "charge": charge, "models": [one.index for one in sources.shown], "clips": written}


def _write_clip(
    folder: Path, key: str, clip: Clip, shown: Sequence[Shown], rows: Sequence[Frames], budget: float
) -> dict[str, Any]:
    samples = [thin(view.normal, 1) for view in _views(shown[0], clip, whole=False, count=1)]
    size = samples[0].shape[:2]
    # the frame that all models answered, if any: a missing answer takes no space
    for one in shown:
        preds = _preds(one, clip, clip.frames[:1])[0]
        samples += [preds] if preds is not None and preds.shape[:2] == size else []
    stride = choose_stride(samples, len(clip.frames), budget)
    pictures, truth = [], []
    for view in _views(shown[0], clip, whole=True):
        kept = thin(np.where(view.valid[..., None], view.normal, np.float32(0)), stride)
        same = view.size == size
        truth.append(text(pack(quantize(kept))) if same else None)
        pictures.append(None if view.image is None or not same else _jpeg(view.image, kept.shape[:2]))
    write_script(folder, f"{key}/truth", {"frames": truth})
    write_script(folder, f"{key}/input", {"frames": pictures})
    for one in shown:
        maps = [
            None if preds is None or preds.shape[:2] != size else text(pack(quantize(thin(preds, stride))))
            for preds in _preds(one, clip, clip.frames)
        ]
        write_script(folder, f"{key}/model-{one.index}", {"frames": maps})
    height, width = thin(samples[0], stride).shape[:2]
    return {
        "key": key,
        "sequence": clip.sequence,
        "frames": list(clip.frames),
        "total": clip.total,
        "height": height,
        "width": width,
        "stride": stride,
        "size": list(size),
        "pictures": any(picture is not None for picture in pictures),
        "scores": [_scores(rows[one.index].table, clip) for one in shown],
    }


def _views(one: Shown, clip: Clip, *, whole: bool, count: int | None = None) -> Iterator[View]:
    for frame in clip.frames[:count]:
        yield frame_view(one.examiner.view(clip.sequence, frame, whole=whole), one.examiner.protocol)


def _preds(one: Shown, clip: Clip, frames: Sequence[int]) -> list[NDArray[np.float32] | None]:
    """Predictions on the scored pixels; None where there is none, which the result counts as failed."""
    examiner = one.examiner
    turned = examiner.source.card.space == "first_camera"
    first = examiner.view(clip.sequence, _first_frame(one, clip), whole=True) if turned else None
    found: list[NDArray[np.float32] | None] = []
    for frame in frames:
        try:
            found.append(examiner.preds(examiner.view(clip.sequence, frame, whole=turned), first))
        except NcbenchError:
            found.append(None)
    return found


def _first_frame(one: Shown, clip: Clip) -> int:
    every = one.examiner.target.sequences[clip.sequence]
    return every[one.examiner.protocol.frames.positions(len(every))[0]]


def _jpeg(image: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """Shrink a picture to the maps' size and encode it; it is looked at, never measured."""
    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    stream = io.BytesIO()
    Image.fromarray(np.asarray(small, np.uint8)).save(stream, format="JPEG", quality=_QUALITY)
    return text(stream.getvalue())


def _scores(table: pd.DataFrame | None, clip: Clip) -> list[list[Any] | None]:
    """Mean error, scored pixels and, where it failed, the reason, of each frame; as the result has them."""
    if table is None:
        return [None] * len(clip.frames)
    found = {int(row["frame"]): row for row in table[table["sequence"] == clip.sequence].to_dict("records")}
    scores: list[list[Any] | None] = []
    for frame in clip.frames:
        row = found.get(frame)
        failed = "" if row is None or row["status"] == "scored" else str(row["error"]) or "failed"
        scores.append(None if row is None else [number(row["mean"]), int(row["pixels"]), failed])
    return scores


def _difficulty(rows: Sequence[Frames]) -> dict[str, float]:
    """Mean over the models of each sequence's mean error, hardest first."""
    worst = [one.worst.sequences for one in rows if one.worst is not None and len(one.worst.sequences)]
    if not worst:
        return {}
    return {str(k): float(v) for k, v in pd.concat(worst).groupby("sequence")["mean"].mean().items()}


def _hardest_frames(rows: Sequence[Frames]) -> dict[str, int]:
    worst = [one.worst.frames for one in rows if one.worst is not None and len(one.worst.frames)]
    if not worst:
        return {}
    means = pd.concat(worst).groupby(["sequence", "frame"])["mean"].mean().reset_index()
    top = means.sort_values("mean", ascending=False, kind="stable").drop_duplicates("sequence")
    return {str(sequence): int(frame) for sequence, frame in zip(top["sequence"], top["frame"], strict=True)}
