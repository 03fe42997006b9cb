"""Look at a store as a whole: are its normals what they should be, what is missing, what comes twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ncbench.datasets.audit_axes import audit_columns, axes_problem, convention_of, fit_axes
from ncbench.datasets.audit_measure import SIGNS, WORLD_AXES, FrameMeasure, Sums, measure, median_angle, total
from ncbench.datasets.recipe import stored_card
from ncbench.datasets.store import open_store
from ncbench.engine.local import run

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

AWAY_WARNING = 0.02
"""Share of normals facing away from the camera above which an audit warns."""
ANGLE_WARNING = 15.0
"""Median angle to the depth in degrees above which an audit warns; synthetic data should be under 5."""
_CHUNK = 32
_AXIS_NAMES = ("+x", "+y", "+z", "-x", "-y", "-z")

Rows = tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Measures of some frames of one sequence: a table row for each, and their sums."""

    sequence: str
    rows: tuple[dict[str, Any], ...]
    sums: Sums


@dataclass(frozen=True)
class AuditReport:
    """Tables that describe a store.

    Attributes:
        name: Name of the data set.
        findings: One row a check: ``check``, ``state`` (ok, warning, error, none), ``detail``.
        sequences: One row a sequence.
        frames: One row a frame.
        signs: One row for each of the 8 choices of signs: agreement with the depth, and normals facing away.
        slant: Histogram of the angle between the normal and the direction to the camera, in bins of 5 degrees.
        up: One row for each axis of the world: share of normals near it, and how far their mean is off.
        duplicates: Frames whose picture is, byte for byte, that of an earlier frame.
    """

    name: str
    findings: pd.DataFrame
    sequences: pd.DataFrame
    frames: pd.DataFrame
    signs: pd.DataFrame
    slant: pd.DataFrame
    up: pd.DataFrame
    duplicates: pd.DataFrame

    @property
    def ok(self) -> bool:
        """Whether no check found an error; warnings pass."""
        return not (self.findings["state"] == "error").any()

    def save(self, to: Path) -> list[Path]:
        """Write every table as CSV into a folder; returns the files."""
        to.mkdir(parents=True, exist_ok=True)
        names = ("findings", "sequences", "frames", "signs", "slant", "up", "duplicates")
        for name in names:
            getattr(self, name).to_csv(to / f"{name}.csv", index=False, float_format="%.6g")
        return [to / f"{name}.csv" for name in names]


def audit(
    store: Path,
    max_frames: int | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Measure a store's frames and put together what they say.

    Args:
        store: The store's folder.
        max_frames: Look at this many frames, evenly spread; None looks at all.
        jobs: Worker processes; any number gives the same tables.
        progress: Called with (chunks of frames done, chunks in all).

    Returns:
        The report.

    Raises:
        StoreError: The store is unfinished or damaged.
    """
    opened = open_store(store)
    step = 1 if max_frames is None else max(1, -(-len(opened) // max_frames))
    rows = range(0, len(opened), step)
    chunks = [tuple(rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK)]
    found: dict[Rows, list[Piece]] = {}
    for chunk, pieces in run(partial(_measure_rows, store), chunks, jobs):
        found[chunk] = pieces
        if progress is not None:
            progress(len(found), len(chunks))
    card = stored_card(store)
    skipped = len(opened.manifest.skipped)
    return build_report(card.name, card.axes, [piece for chunk in chunks for piece in found[chunk]], skipped)


def _measure_rows(path: Path, rows: Rows) -> list[Piece]:
    store = open_store(path)
    columns = audit_columns(store, "image")
    return to_pieces(measure(store.read(*store.locate(row), columns)) for row in rows)


def to_pieces(measures: Iterable[FrameMeasure]) -> list[Piece]:
    """Reduce frames' measures, in row order, to what a report needs: histograms are kept a sequence, not a frame."""
    pieces = []
    for sequence, group in itertools.groupby(measures, key=lambda item: item.sequence):
        items = list(group)
        rows = tuple(_frame_row(item) for item in items)
        pieces.append(Piece(sequence, rows, total(item.sums for item in items)))
    return pieces


def build_report(name: str, declared: str | None, pieces: Sequence[Piece], skipped: int = 0) -> AuditReport:
    """Turn measures into tables; a pure function.

    Args:
        name: Name of the data set.
        declared: Axes that its card names, or None.
        pieces: The frames' measures in row order, at least one.
        skipped: Frames that the store leaves out.

    Returns:
        The report.
    """
    import pandas as pd

    sums = total(piece.sums for piece in pieces)
    clips = {sequence: list(group) for sequence, group in itertools.groupby(pieces, key=lambda piece: piece.sequence)}
    frames = pd.DataFrame([row for piece in pieces for row in piece.rows])
    duplicates = _duplicates(frames)
    return AuditReport(
        name=name,
        findings=pd.DataFrame(
            _findings(sums, declared, frames, len(duplicates), skipped), columns=["check", "state", "detail"]
        ),
        sequences=pd.DataFrame([_sequence_row(clip, items) for clip, items in clips.items()]),
        frames=frames,
        signs=pd.DataFrame(_sign_rows(sums, declared)),
        slant=_slant_table(sums),
        up=pd.DataFrame(_up_rows(sums)),
        duplicates=duplicates,
    )


def _share(count: float, whole: float) -> float:
    return count / whole if whole else float("nan")


def _statistics(sums: Sums) -> dict[str, float]:
    return {
        "valid": _share(sums.valid, sums.pixels),
        "depth": _share(sums.known_depth, sums.pixels),
        "flow": _share(sums.known_flow, sums.pixels),
        "length_error": sums.length_error,
        "away": _share(int(sums.away[0]), sums.rays),
        "slant_median": median_angle(sums.slant),
        "depth_angle_median": median_angle(sums.angles[0]),
    }


def _frame_row(item: FrameMeasure) -> dict[str, Any]:
    identity = {"sequence": item.sequence, "frame": item.frame, "height": item.height, "width": item.width}
    return {**identity, "picture": item.picture, **_statistics(item.sums)}


def _sequence_row(name: str, pieces: Sequence[Piece]) -> dict[str, Any]:
    rows = [row for piece in pieces for row in piece.rows]
    identity = {"sequence": name, "frames": len(rows), "height": rows[0]["height"], "width": rows[0]["width"]}
    empty = sum(row["valid"] == 0 for row in rows)
    return {**identity, "without_normals": empty, **_statistics(total(piece.sums for piece in pieces))}


def _sign_rows(sums: Sums, declared: str | None) -> list[dict[str, object]]:
    return [
        {
            "signs": "".join("+" if sign > 0 else "-" for sign in signs),
            "files_would_be": convention_of(declared or "opencv", signs) or "",
            "depth_angle_median": median_angle(sums.angles[index]),
            "mean_cosine": _share(float(np.diag(sums.moment) @ np.array(signs)), sums.pairs),
            "away": _share(int(sums.away[index]), sums.rays),
        }
        for index, signs in enumerate(SIGNS)
    ]


def _slant_table(sums: Sums) -> pd.DataFrame:
    import pandas as pd

    counts = sums.slant.reshape(36, -1).sum(axis=1)
    shares = counts / max(1, counts.sum())
    return pd.DataFrame({"from_degrees": np.arange(36) * 5, "to_degrees": np.arange(36) * 5 + 5, "share": shares})


def _up_rows(sums: Sums) -> list[dict[str, object]]:
    """Describe the axes of the world; the camera's mean up direction marks the one that is up, if any is."""
    rows: list[dict[str, object]] = []
    up = int(np.argmax(WORLD_AXES @ sums.camera_up)) if sums.world else -1
    for index, (name, axis) in enumerate(zip(_AXIS_NAMES, WORLD_AXES, strict=True)):
        mean = sums.near_sum[index]
        off = np.degrees(np.arctan2(np.linalg.norm(np.cross(mean, axis)), mean @ axis)) if mean.any() else np.nan
        share = _share(int(sums.near[index]), sums.world)
        rows.append({"axis": name, "camera_up": index == up, "share": share, "mean_off_degrees": float(off)})
    return rows


def _duplicates(frames: pd.DataFrame) -> pd.DataFrame:
    pictures = frames.loc[frames["picture"] != "", ["sequence", "frame", "picture"]]
    again = pictures["picture"].duplicated()
    first = pictures[~again].rename(columns={"sequence": "same_sequence", "frame": "same_frame"})
    return pictures[again].merge(first, on="picture").drop(columns="picture")


def _findings(
    sums: Sums, declared: str | None, frames: pd.DataFrame, duplicates: int, skipped: int
) -> list[tuple[str, str, str]]:
    empty = int((frames["valid"] == 0).sum())
    sizes = set(zip(frames["height"].tolist(), frames["width"].tolist(), strict=True))
    away = _share(int(sums.away[0]), sums.rays)
    shown = ", ".join(f"{height} x {width}" for height, width in sorted(sizes)[:5])
    return [
        ("unit length", "ok" if sums.length_error < 1e-3 else "error", f"largest error {sums.length_error:.2g}"),
        (
            "facing",
            "none" if not sums.rays else "warning" if away > AWAY_WARNING else "ok",
            f"{away:.2%} of the normals face away from the camera" if sums.rays else "no normals with a known camera",
        ),
        _axes_finding(sums, declared),
        ("up", *_up_finding(sums)),
        (
            "coverage",
            "warning" if empty else "ok",
            f"{_share(sums.valid, sums.pixels):.1%} of the pixels have a normal; {empty} of {len(frames)} frames none",
        ),
        ("size", "ok", f"{len(sizes)} picture size(s): {shown}"),
        ("duplicates", "warning" if duplicates else "ok", f"{duplicates} pictures come again, byte for byte"),
        ("skipped", "warning" if skipped else "ok", f"{skipped} frames of the source are left out"),
    ]


def _axes_finding(sums: Sums, declared: str | None) -> tuple[str, str, str]:
    problem = axes_problem(sums, declared)
    if problem is not None:
        return "axes", "error", problem
    if not sums.pairs:
        return "axes", "none", "no depth to compare the normals with"
    median = median_angle(sums.angles[0])
    cosine = fit_axes(sums.moment, sums.pairs).intended
    detail = f"median angle to normals from depth {median:.2f} degrees, mean cosine {cosine:.4f}"
    return "axes", "warning" if median > ANGLE_WARNING else "ok", detail


def _up_finding(sums: Sums) -> tuple[str, str]:
    if not sums.world:
        return "none", "no poses"
    row = next(row for row in _up_rows(sums) if row["camera_up"])
    detail = f"up is near {row['axis']}: {row['share']:.1%} of the normals within 20 degrees"
    return "ok", f"{detail}, their mean {row['mean_off_degrees']:.2f} degrees off (tells only where the world is level)"
