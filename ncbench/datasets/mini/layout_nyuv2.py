"""Write rendered stills as NYU Depth v2's MATLAB files, with GeoNet's normals and masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ncbench.datasets.mini.layout_scannet import scene_of, with_focal
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.mini.render import RenderedFrame, render_frame

_USER_BLOCK = 512
_HEADER_TEXT = 116
_CROP = (45 / 480, 472 / 480, 43 / 640, 608 / 640)  # what DSINE crops its training pictures to


class Nyuv2MiniSettings(LayoutSettings):
    """A miniature of NYU Depth v2.

    Attributes:
        focal: Focal length in pixels; the set has one camera.
    """

    focal: Annotated[float, Field(gt=0)]


def write_nyuv2_layout(out: Path, settings: Mapping[str, Any]) -> None:
    """Write ``nyu_depth_v2_labeled.mat``, ``norm_gt_l.mat``, ``masks.mat`` (version 7.3) and ``splits.mat`` (5).

    All frames of all clips follow each other; the odd ones, counted from 1, are test pictures. The normals are float32
    with x left, y up, z to the viewer; the masks keep the middle of the picture.

    Args:
        out: An empty folder.
        settings: See ``Nyuv2MiniSettings``.

    Raises:
        CardError: The settings are wrong.
    """
    checked = Nyuv2MiniSettings.parse(settings, "generator of the NYUv2 layout")
    frames = render_stills(checked, checked.focal)
    keep = np.zeros((checked.height, checked.width), dtype=np.bool_)
    top, bottom = (round(part * checked.height) for part in _CROP[:2])
    left, right = (round(part * checked.width) for part in _CROP[2:])
    keep[top:bottom, left:right] = True
    depths = np.stack([frame.depth for frame in frames], axis=-1).astype(np.float32)
    pictures = np.stack([frame.rgb for frame in frames], axis=-1)
    write_mat73(out / "nyu_depth_v2_labeled.mat", {"images": pictures, "depths": depths, "rawDepths": depths})
    normals = np.stack([0.0 - frame.normal for frame in frames], axis=-1).astype(np.float32)
    write_mat73(out / "norm_gt_l.mat", {"norm_gt_l": normals})
    masks = np.stack([keep & frame.valid for frame in frames], axis=-1).astype(np.uint8)
    write_mat73(out / "masks.mat", {"masks": masks})
    numbers = np.arange(1, len(frames) + 1, dtype=np.uint16)
    write_mat5(out / "splits.mat", {"trainNdxs": numbers[1::2, None], "testNdxs": numbers[::2, None]})


def render_stills(settings: LayoutSettings, focal: float) -> list[RenderedFrame]:
    """Render all frames of all clips with one focal length in pixels."""
    scenes = [with_focal(scene_of(settings, sequence), focal) for sequence in settings.sequences]
    return [render_frame(scene, index) for scene in scenes for index in range(settings.frames)]


def write_mat5(path: Path, values: Mapping[str, Any]) -> None:
    """Write variables as MATLAB 5 does, compressed, without the time of writing in the header.

    Args:
        path: The file to make.
        values: Name -> numbers, or a mapping that becomes a structure.
    """
    from scipy.io import savemat

    savemat(path, dict(values), do_compression=True)
    text = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 1970"
    with path.open("r+b") as stream:
        stream.write(text.ljust(_HEADER_TEXT))


def write_mat73(path: Path, values: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as MATLAB 7.3 does: HDF5 behind a block of 512 bytes, dimensions reversed, classes as attributes.

    Args:
        path: The file to make.
        values: Name -> numbers in MATLAB's order of dimensions.
    """
    import h5py

    names = {"uint8": b"uint8", "uint16": b"uint16", "float32": b"single", "float64": b"double"}
    with h5py.File(path, "w", userblock_size=_USER_BLOCK) as file:
        for name, array in values.items():
            reversed_array = np.ascontiguousarray(array.T)
            chunks = (1, *reversed_array.shape[1:])
            stored = file.create_dataset(
                name, data=reversed_array, chunks=chunks, compression="gzip", compression_opts=3
            )
            stored.attrs["MATLAB_class"] = np.bytes_(names[array.dtype.name])
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 1970 HDF5 schema 1.00 ."
    with path.open("r+b") as stream:
        stream.write(text.ljust(_HEADER_TEXT) + bytes(8) + b"\x00\x02IM")
