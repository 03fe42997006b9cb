"""Write rendered stills as iBims-1, in its MATLAB form or its plain form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.mini.layout_nyuv2 import write_mat5
from ncbench.datasets.mini.layout_scannet import save_png, scene_of
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.mini.render import RenderedFrame, render_frame

_RAW_UNITS = 65535 / 50
_FEWEST_PIXELS = 60
_LEVEL = 0.999999  # cosine to the upright of a normal that counts as upright; likewise for walls
_FLOOR = 0.05  # metres: what is lower is floor
_TABLE = 0.3  # metres: what is level and higher is a table top


class IbimsMiniSettings(LayoutSettings):
    """A miniature of iBims-1.

    Attributes:
        form: ``mat`` (one structure a file) or ``plain`` (folders of PNG and text).
    """

    form: Literal["mat", "plain"] = "mat"


class Planes(NamedTuple):
    """Planes of one kind: (H, W) uint8 labels, and (N, 7) rows whose columns 4 to 6 are the normals.

    The normals are in the axes of the official script: x right, y forward, z up. What columns 0 to 3 hold officially is
    not documented; here they are zero.
    """

    labels: NDArray[np.uint8]
    rows: NDArray[np.float64]


def write_ibims_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write clips as pictures ``<clip>_01``, ``<clip>_02``, ...

    The calibration counts pixels from 1, and in the MATLAB form it is transposed. A block of pixels at the right is
    marked as transparent, one at the left as invalid (0 in the masks, which are 1 elsewhere).

    Args:
        out: An empty folder.
        settings: See ``IbimsMiniSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = IbimsMiniSettings.parse(settings, "generator of the iBims-1 layout")
    for sequence in checked.sequences:
        scene = scene_of(checked, sequence)
        for index in range(checked.frames):
            write = _write_mat if checked.form == "mat" else _write_plain
            write(out, f"{sequence.name}_{index + 1:02d}", render_frame(scene, index))


def planes_of(frame: RenderedFrame) -> dict[str, Planes]:
    """Find the planes that iBims-1 labels: walls, table tops and floors.

    Args:
        frame: A rendered frame, whose world has z up.

    Returns:
        ``wall``, ``table`` and ``floor``.
    """
    upright = frame.normal @ frame.cam_to_world[:3, :3].T
    height, width = frame.valid.shape
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1)
    seen = (pixels @ np.linalg.inv(frame.intrinsics).T) * frame.depth[..., None]
    above = (seen @ frame.cam_to_world[:3, :3].T + frame.cam_to_world[:3, 3])[..., 2]
    level = frame.valid & (upright[..., 2] > _LEVEL)
    kinds = {
        "wall": frame.valid & (np.abs(upright[..., 2]) < 1 - _LEVEL),
        "table": level & (above > _TABLE),
        "floor": level & (above < _FLOOR),
    }
    return {kind: _label(frame, mask) for kind, mask in kinds.items()}


def _label(frame: RenderedFrame, mask: NDArray[np.bool_]) -> Planes:
    """Give each group of pixels with one body and one normal a label, if it is large enough."""
    labels = np.zeros(mask.shape, dtype=np.uint8)
    rows = []
    keys = np.concatenate([frame.ids[mask][:, None], np.round(frame.normal[mask], 9) + 0.0], axis=1)
    groups, members, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    inside = np.zeros(len(keys), dtype=np.uint8)
    for place in np.flatnonzero(counts >= _FEWEST_PIXELS):
        _, nx, ny, nz = groups[place]
        rows.append([0, 0, 0, 0, nx, nz, -ny])
        inside[members.ravel() == place] = len(rows)
    labels[mask] = inside
    return Planes(labels, np.array(rows, dtype=np.float64).reshape(-1, 7))


def _masks(frame: RenderedFrame) -> dict[str, NDArray[np.uint8]]:
    height, width = frame.valid.shape
    keep = {name: np.ones((height, width), dtype=np.uint8) for name in ("mask_invalid", "mask_transp")}
    keep["mask_invalid"][height // 4 : height // 2, : width // 8] = 0
    keep["mask_transp"][height // 4 : height // 2, -(width // 8) :] = 0
    return keep


def _counted_from_one(frame: RenderedFrame) -> NDArray[np.float64]:
    return np.asarray(np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1]], dtype=np.float64) @ frame.intrinsics)


def _write_mat(out: Path, name: str, frame: RenderedFrame) -> None:
    data: dict[str, Any] = {"rgb": frame.rgb, "depth": frame.depth, "edges": np.zeros(frame.valid.shape, np.uint8)}
    data |= {"calib": _counted_from_one(frame).T, **_masks(frame)}
    for kind, planes in planes_of(frame).items():
        data |= {f"mask_{kind}": planes.labels, f"mask_{kind}_paras": planes.rows}
    write_mat5(out / f"{name}.mat", {"data": data})


def _write_plain(out: Path, name: str, frame: RenderedFrame) -> None:
    planes = {f"mask_{kind}": found.labels for kind, found in planes_of(frame).items()}
    pictures: dict[str, NDArray[Any]] = {
        "rgb": frame.rgb,
        "depth": np.rint(frame.depth * _RAW_UNITS).astype(np.uint16),
        **{kind: (255 * keep).astype(np.uint8) for kind, keep in _masks(frame).items()},
        **planes,
    }
    for kind, picture in pictures.items():
        (out / kind).mkdir(exist_ok=True)
        save_png(out / kind / f"{name}.png", picture)
    for kind, found in planes_of(frame).items():
        if len(found.rows):
            lines = (",".join(repr(float(value)) for value in row) for row in found.rows)
            (out / f"mask_{kind}" / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    matrix = _counted_from_one(frame)
    (out / "calib").mkdir(exist_ok=True)
    numbers = ",".join(repr(float(matrix[place])) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    (out / "calib" / f"{name}.txt").write_text(f"{numbers}\n")
