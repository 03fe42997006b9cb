"""The slices that ncbench ships. Their bins are round numbers that a reader can picture, not tuned ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.slices.base import NOT_APPLICABLE, LabelMap, Slice, digitized, range_labels
from ncbench.evaluators.slices.depth_edges import RELATIVE_JUMP, edge_distance
from ncbench.evaluators.slices.visibility import seen_before
from ncbench.evaluators.view import View
from ncbench.geometry.cameras import hypersim_rays, pinhole_rays
from ncbench.registry import load_attribute
from ncbench.settings import suggest

IBIMS_PLANES = {"wall": "mask_wall", "table": "mask_table", "floor": "mask_floor"}
"""Kind of plane -> the column of iBims-1 that labels it (0 is none)."""


def named_slices(names: Iterable[str]) -> tuple[Slice, ...]:
    """Make slices with their default bins.

    Args:
        names: As a protocol lists them: ``depth_edge``, ``depth``, ``slant``, ``motion``, ``occlusion``,
            ``disocclusion``, ``border``, ``plane``; or ``package.module:function`` of a function without arguments
            that returns a ``Slice``.

    Returns:
        The slices in this order.

    Raises:
        ScoreError: No slice has such a name, or the function returns something else.
        CardError: The function cannot be imported.
    """
    return tuple(_own_slice(name) if ":" in name else _shipped_slice(name) for name in names)


def _shipped_slice(name: str) -> Slice:
    if name not in SLICES:
        raise ScoreError(f"no slice '{name}'. {suggest(name, SLICES)} A slice of your own: package.module:function.")
    return SLICES[name]()


def _own_slice(spec: str) -> Slice:
    made = load_attribute(spec)()
    if not isinstance(made, Slice):
        raise ScoreError(
            f"slice '{spec}': expected a function that returns an ncbench.evaluators.slices.base.Slice, "
            f"got {type(made).__name__}"
        )
    return made


def depth_edge_slice(edges: Sequence[float] = (0, 2, 5, 10), relative_jump: float = RELATIVE_JUMP) -> Slice:
    """Distance in pixels to the nearest depth edge; not applicable where the depth is unknown."""

    def label(view: View, _: View | None) -> LabelMap:
        depth = _depth(view)
        labels = digitized(edge_distance(depth, relative_jump), edges)
        return np.where(depth > 0, labels, NOT_APPLICABLE).astype(np.int8)

    return Slice("depth_edge", range_labels(edges, "px"), ("depth",), label)


def depth_slice(edges: Sequence[float] = (0, 2, 5, 10, 20, 50)) -> Slice:
    """z-depth in metres; not applicable where unknown."""

    def label(view: View, _: View | None) -> LabelMap:
        depth = _depth(view)
        return np.where(depth > 0, digitized(depth, edges), NOT_APPLICABLE).astype(np.int8)

    return Slice("depth", range_labels(edges, "m"), ("depth",), label)


def slant_slice(edges: Sequence[float] = (0, 30, 60, 75, 90)) -> Slice:
    """Angle in degrees between the true normal and the direction back to the camera: 0 is seen head-on, 90 grazing.

    90 and more is a truth that faces away from the camera. Not applicable where the truth is invalid.
    """

    def label(view: View, _: View | None) -> LabelMap:
        cosines = -np.einsum("hwc,hwc->hw", _directions(view), view.normal)
        # cosines fall as angles rise; rounding may take one beyond 1, and no angle is below 0
        labels = digitized(-np.minimum(cosines, 1), (-np.cos(np.radians(edges))).tolist())
        return np.where(view.valid, labels, NOT_APPLICABLE).astype(np.int8)

    return Slice("slant", range_labels(edges, "deg"), ("intrinsics|extra.ray_matrix",), label)


def motion_slice(edges: Sequence[float] = (0, 1, 10, 40)) -> Slice:
    """Length in pixels of the flow to the next frame; 10 and 40 are the bounds of Sintel's flow benchmark."""

    def label(view: View, _: View | None) -> LabelMap:
        assert view.flow is not None  # noqa: S101 - in ``needs``
        return digitized(np.hypot(view.flow[..., 0], view.flow[..., 1]), edges)

    return Slice("motion", range_labels(edges, "px"), ("flow",), label)


def occlusion_slice() -> Slice:
    """Whether the next frame still shows a pixel; hidden and out of the picture count alike."""

    def label(view: View, _: View | None) -> LabelMap:
        assert view.occluded is not None  # noqa: S101 - in ``needs``
        return view.occluded.astype(np.int8)

    return Slice("occlusion", ("visible next", "occluded next"), ("occluded",), label)


def disocclusion_slice() -> Slice:
    """Whether the frame before already showed a pixel; see ``seen_before``. Not applicable in a first frame."""

    def label(_: View, previous: View | None) -> LabelMap:
        assert previous is not None  # noqa: S101 - in ``needs``
        assert previous.flow is not None  # noqa: S101 - in ``needs``
        return seen_before(previous.flow, previous.occluded)

    return Slice("disocclusion", ("seen before", "new"), ("previous.flow",), label)


def border_slice(edges: Sequence[float] = (0, 8, 32, 64)) -> Slice:
    """Distance in pixels to the nearest side of the picture: 0 is the outermost row or column."""

    def label(view: View, _: View | None) -> LabelMap:
        height, width = view.size
        rows, columns = np.arange(height), np.arange(width)
        to_side = np.minimum(
            np.minimum(rows, height - 1 - rows)[:, None], np.minimum(columns, width - 1 - columns)[None]
        )
        return digitized(to_side.astype(np.float32), edges)

    return Slice("border", range_labels(edges, "px"), (), label)


def plane_slice(columns: Mapping[str, str] | None = None) -> Slice:
    """Planes that people labelled, as iBims-1 has them, against all other pixels.

    Args:
        columns: Kind of plane -> column of ``View.extra`` with (H, W) labels, 0 for none; the first kind wins where
            two overlap. None takes iBims-1's walls, tables and floors.

    Returns:
        A slice with one bin a kind, and ``other``.
    """
    planes = dict(IBIMS_PLANES if columns is None else columns)

    def label(view: View, _: View | None) -> LabelMap:
        labels = np.full(view.size, len(planes), np.int8)
        for number, column in reversed(list(enumerate(planes.values()))):
            labels[_column(view, column) > 0] = number
        return labels

    return Slice("plane", (*planes, "other"), tuple(f"extra.{column}" for column in planes.values()), label)


def class_slice(column: str, classes: Mapping[int, str]) -> Slice:
    """Classes or instances by number, from a data set's own column.

    Args:
        column: Column of ``View.extra`` with an (H, W) map of integers.
        classes: Number in the map -> name; a name may stand for several numbers. Other numbers are not applicable.

    Returns:
        A slice called like the column, its bins in the order of first appearance.
    """
    bins = tuple(dict.fromkeys(classes.values()))

    def label(view: View, _: View | None) -> LabelMap:
        numbers = _column(view, column)
        labels = np.full(view.size, NOT_APPLICABLE, np.int8)
        for number, name in classes.items():
            labels[numbers == number] = bins.index(name)
        return labels

    return Slice(column, bins, (f"extra.{column}",), label)


SLICES: Mapping[str, Callable[[], Slice]] = {
    "depth_edge": depth_edge_slice,
    "depth": depth_slice,
    "slant": slant_slice,
    "motion": motion_slice,
    "occlusion": occlusion_slice,
    "disocclusion": disocclusion_slice,
    "border": border_slice,
    "plane": plane_slice,
}
"""Every slice that needs no names of classes."""


def _depth(view: View) -> NDArray[np.float32]:
    assert view.depth is not None  # noqa: S101 - in ``needs``
    return np.where(np.isfinite(view.depth), view.depth, np.float32(0))


def _directions(view: View) -> NDArray[np.float32]:
    """(H, W, 3) unit vectors from the camera, by the data set's own camera where it has one (Hypersim)."""
    own = view.extra.get("ray_matrix")
    matrix = np.asarray(view.intrinsics if own is None else own, np.float64)
    return _unit_rays(own is not None, matrix.tobytes(), *view.size)


@functools.lru_cache(maxsize=2)
def _unit_rays(hypersim: bool, matrix: bytes, height: int, width: int) -> NDArray[np.float32]:
    """Kept, since the frames of a sequence nearly always share their camera."""
    rays = (hypersim_rays if hypersim else pinhole_rays)(np.frombuffer(matrix).reshape(3, 3), height, width)
    return np.asarray(rays / np.linalg.norm(rays, axis=-1, keepdims=True), np.float32)


def _column(view: View, name: str) -> NDArray[np.integer[Any]]:
    values = np.asarray(view.extra[name])
    if values.shape != view.size:
        raise ScoreError(
            f"sequence '{view.sequence}', frame {view.frame}: column '{name}' has shape {values.shape}, expected a "
            f"label for each of the {view.size[0]}x{view.size[1]} pixels (height x width)"
        )
    return values
