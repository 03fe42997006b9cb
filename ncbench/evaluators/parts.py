"""Scores of finished pieces on disk, so that an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.cards import digest
from ncbench.evaluators.angular import AngularState
from ncbench.evaluators.examiner import Examiner, Piece
from ncbench.evaluators.scoring import Measures, PieceScores
from ncbench.evaluators.statistics.units import UnitStatistics, narrowed
from ncbench.files import TEMPORARY_SUFFIX, writing

LAYOUT = 2
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
_UNITS = "units_"
_SLICES = "slices_"


class Parts:
    """A folder of scored pieces, each under a name that stands for all that its scores depend on.

    A part that is missing, damaged or of other predictions, data or protocol is simply scored again.

    Args:
        folder: Where they lie; made when the first is kept.
        examiner: What the scores are of.
        identity: Whatever else they depend on, as plain values (the version of the code).
    """

    def __init__(self, folder: Path, examiner: Examiner, identity: dict[str, Any]) -> None:
        self._folder = folder
        self._paths: dict[Piece, Path] = {}
        self._examiner = examiner
        card = examiner.source.card
        self._identity = {
            "layout": LAYOUT,
            "protocol": examiner.protocol.scoring(),
            "data": examiner.target.manifest.digest,
            "model": {"axes": card.axes, "space": card.space, "depth": card.depth},
            **identity,
        }

    def load(self, piece: Piece) -> PieceScores | None:
        """Read a piece's scores; None where there are none to use.

        Raises:
            NcbenchError: A file of predictions is unreadable.
        """
        try:
            with np.load(self._path(piece), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            return _from_arrays(arrays)
        except _DAMAGED:
            return None

    def keep(self, piece: Piece, scores: PieceScores) -> None:
        """Write a piece's scores, whole or not at all; one with a frame that failed is not kept, but tried again.

        Raises:
            StoreError: The disk is full or the folder cannot be written.
        """
        if any(row["status"] != "scored" for row in scores.rows):
            return
        path = self._path(piece)
        temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
        # short-lived: compressing costs more than it saves; and not synced: a part that a power cut spoils is damaged,
        # which its checksums tell
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **_to_arrays(scores))
            temporary.replace(path)

    def clear(self) -> None:
        """Remove the folder: the result holds everything."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, piece: Piece) -> Path:
        if piece not in self._paths:  # files of predictions are hashed once
            self._paths[piece] = self._folder / f"{self._name(piece)}.npz"
        return self._paths[piece]

    def _name(self, piece: Piece) -> str:
        content = self._examiner.source.fingerprint(piece.sequence, piece.frames)
        windows = [[window.start, window.stop] for window in piece.windows]
        place = {"sequence": piece.sequence, "frames": list(piece.frames), "windows": windows}
        return digest(self._identity | place | {"predictions": content})


def _to_arrays(scores: PieceScores) -> dict[str, NDArray[Any]]:
    state = scores.state
    text = {
        "rows": scores.rows,
        "clips": scores.clips,
        "thresholds": state.thresholds,
        # Python's own whole numbers: the sum of squares may need more than 64 bits
        "sums": [state.total, state.total_squared, state.count, state.invalid],
        "measures": asdict(scores.measures) if scores.measures else None,
    }
    arrays: dict[str, NDArray[Any]] = {
        "text": np.frombuffer(json.dumps(text).encode(), np.uint8),
        "histogram": narrowed(np.trim_zeros(state.histogram, "b")),  # most of its bins are beyond any error
    }
    if scores.units:
        arrays |= {_UNITS + name: value for name, value in scores.units.to_arrays().items()}
    if scores.slices:
        arrays |= {_SLICES + name: value for name, value in scores.slices.items()}
    return arrays


def _from_arrays(arrays: dict[str, NDArray[Any]]) -> PieceScores:
    text = json.loads(arrays["text"].tobytes())
    units = _with_prefix(arrays, _UNITS)
    empty = AngularState.empty(text["thresholds"])
    empty.histogram[: len(arrays["histogram"])] = arrays["histogram"]
    return PieceScores(
        rows=text["rows"],
        state=AngularState(empty.thresholds, empty.histogram, *text["sums"]),
        clips=text["clips"],
        units=UnitStatistics.from_arrays(units) if units else None,
        slices=_with_prefix(arrays, _SLICES) or None,
        measures=Measures(**text["measures"]) if text["measures"] else None,
    )


def _with_prefix(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
