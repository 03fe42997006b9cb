"""What scoring reads: the truth and the prediction of a frame, on the same pixels, and where motion comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.store import Store
from ncbench.errors import ScoreError
from ncbench.evaluators.flow.base import FlowSource
from ncbench.evaluators.flow.cache import CachedFlow
from ncbench.evaluators.flow.registry import choose_flow, load_flow
from ncbench.evaluators.framing import frame_prediction
from ncbench.evaluators.predictions import PredictionSource
from ncbench.evaluators.view import FloatMap, View, view_of
from ncbench.geometry.encoding import ColourMap
from ncbench.protocol_card import ProtocolCard

_STILLS = 16
"""Frames of a piece where nothing is carried from one to the next: worth a file of its own when it is done, and few
enough that no thread waits long for the last one."""


@dataclass(frozen=True)
class Piece:
    """Frames that are scored together, in order.

    Attributes:
        sequence: Name of the clip.
        frames: Frame indices in the data set.
        windows: For pooling over clips: positions in ``frames``.
    """

    sequence: str
    frames: tuple[int, ...]
    windows: tuple[range, ...] = ()


@dataclass(frozen=True)
class Examiner:
    """All that scoring needs, in a form that travels to worker processes.

    Attributes:
        protocol: What to score, and how.
        target: The protocol's data.
        source: The predictions.
        flow_cache: Folder that estimated flow is kept in; None keeps none.
    """

    protocol: ProtocolCard
    target: Store
    source: PredictionSource
    flow_cache: Path | None = None

    def view(self, sequence: str, frame: int, *, whole: bool, columns: Sequence[str] = ()) -> View:
        """Read the truth of one frame, at its own size.

        Args:
            sequence: Name of the clip.
            frame: Frame index.
            whole: Also the picture, depth, flow, camera and the data set's own columns.
            columns: Names of what else is wanted where not all is. What framing needs comes in any case: the pose for
                models that answer in the first camera's frame, and depth where the truth is resized, which depth
                guides: it must be one truth for all models and metrics.

        Returns:
            The view.

        Raises:
            StoreError: No such frame, or damage.
        """
        frames = self.target.sequences.get(sequence, [])
        place = frames.index(frame) + 1 if frame in frames else len(frames)
        following = frames[place] if place < len(frames) else None
        wanted = {*columns}
        if self.source.card.space == "first_camera":
            wanted.add("cam_to_world")
        if not self.protocol.keeps_pixels():
            wanted.add("depth")
        return view_of(self.target.read(sequence, frame, None if whole else wanted), following)

    def preds(self, view: View, first: View | None) -> FloatMap:
        """Read the prediction of one frame and bring it onto the scored pixels.

        Args:
            view: The truth at its own size.
            first: The sequence's first scored frame, for models that answer in its camera's frame.

        Returns:
            (H, W, 3) float32 normals in the axes of the view's own camera, or (H, W) float32 depth.

        Raises:
            NcbenchError: There is no prediction, or it does not fit the truth.
        """
        if self.protocol.task == "depth":
            return frame_prediction(self.source.read_depth(view.sequence, view.frame), view, self.protocol)
        return self.framed(self.source.read(view.sequence, view.frame).normal, view, first)

    def preds_for_angles(self, view: View, first: View | None) -> FloatMap | ColourMap:
        """Read what angles alone need, and decode no picture whose pixels can be compared as they are.

        Args:
            view: As for ``preds``.
            first: As for ``preds``.

        Returns:
            Normals as ``preds`` gives them, or colours that mean such normals.

        Raises:
            NcbenchError: As ``preds``.
        """
        found = self.source.read(view.sequence, view.frame)
        as_they_are = self.protocol.keeps_pixels() and self.source.card.space == "camera"
        colours = found.colours if as_they_are else None
        if colours is not None and colours.pixels.shape[:2] == view.size:
            return colours
        return self.framed(found.normal, view, first)

    def framed(self, normal: FloatMap, view: View, first: View | None) -> FloatMap:
        """Bring normals that were read already onto the scored pixels.

        Args:
            normal: (h, w, 3) float32 in OpenCV axes, zero where there is no answer.
            view: As for ``preds``.
            first: As for ``preds``.

        Returns:
            As ``preds``; the argument itself where nothing is to be done.

        Raises:
            NcbenchError: They do not fit the truth.
        """
        if self.source.card.space == "first_camera":
            normal = _into_camera(normal, view, first)
        return frame_prediction(normal, view, self.protocol)

    def flow_source(self, piece: Piece) -> FlowSource:
        """Choose where motion comes from, as the protocol says.

        Args:
            piece: The sequence; ``auto`` looks at its first two frames.

        Returns:
            The source; estimates are kept in ``flow_cache``.

        Raises:
            NcbenchError: The source lacks its package or weights.
        """
        temporal = self.protocol.temporal
        name, settings = (temporal.flow, temporal.flow_settings) if temporal else ("auto", {})
        if name != "auto":
            source = load_flow(name, settings)
        else:
            views = [self.view(piece.sequence, frame, whole=True) for frame in piece.frames[:2]]
            neighbours = len(views) < 2 or views[0].flow_to in (None, views[1].frame)
            # the data's own flow leads to the next stored frame, which is of no use where frames are left out
            source = choose_flow(*(views if neighbours else [replace(v, flow=None, flow_to=None) for v in views]))
        return CachedFlow(source, self.flow_cache) if source.estimated and self.flow_cache else source


def scores_stills(protocol: ProtocolCard) -> bool:
    """Say whether a protocol scores each picture by itself: nothing is carried from one frame to the next."""
    carried = protocol.temporal or protocol.slices or protocol.pooling == "sequences" or protocol.task == "depth"
    return not carried and protocol.space != "first_camera"


def plan_pieces(protocol: ProtocolCard, sequences: Mapping[str, Sequence[int]]) -> list[Piece]:
    """Cut a protocol into pieces: whole sequences where something is carried from frame to frame.

    Args:
        protocol: The protocol.
        sequences: The frames that it covers.

    Returns:
        Pieces in order.
    """
    pieces = []
    for name, frames in sequences.items():
        step = _STILLS if scores_stills(protocol) else len(frames)
        for start in range(0, len(frames), step):
            windows = protocol.clips.windows(len(frames)) if protocol.clips else [range(len(frames))]
            some = tuple(frames[start : start + step])
            pieces.append(Piece(name, some, tuple(windows) if protocol.pooling == "sequences" else ()))
    return pieces


def _into_camera(normal: FloatMap, view: View, first: View | None) -> NDArray[np.float32]:
    """Turn normals from the first camera's frame into this camera's, by the true poses (UniGeo, section 4)."""
    if first is None or first.cam_to_world is None or view.cam_to_world is None:
        raise ScoreError(
            f"sequence '{view.sequence}', frame {view.frame}: the model answers in the first camera's frame, and "
            "the data have no poses to turn its normals back with"
        )
    turn = view.cam_to_world[:3, :3].T @ first.cam_to_world[:3, :3]
    return (normal @ turn.T).astype(np.float32)
