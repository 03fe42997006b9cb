"""Named axis conventions of camera-space normals, and turns and flips of maps that carry their normals along.

Inside ncbench everything is ``opencv``; the other names exist where files and models are read or written. All four
conventions differ by signs alone, so a conversion is exact in every floating type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import CardError
from ncbench.settings import suggest

if TYPE_CHECKING:
    import torch

Normals = TypeVar("Normals", NDArray[np.float16], NDArray[np.float32], NDArray[np.float64], "torch.Tensor")

# What to multiply an OpenCV vector with, component by component, to get the vector in the named convention.
_SIGNS_FROM_OPENCV: dict[str, tuple[int, int, int]] = {
    "opencv": (1, 1, 1),
    "opengl": (1, -1, -1),
    "dsine": (-1, -1, -1),
    "ldf": (-1, 1, 1),
}

AXES: tuple[str, ...] = tuple(_SIGNS_FROM_OPENCV)
"""Names of the conventions: (x, y, z) is right-down-forward for ``opencv``, right-up-back for ``opengl``,
left-up-back for ``dsine`` and left-down-forward for ``ldf``. In each of them a normal faces the camera."""


def axes_matrix(source: str, target: str) -> NDArray[np.float64]:
    """Give the matrix that takes vectors from one convention to another.

    Args:
        source: Convention of the vectors, one of ``AXES``.
        target: Convention wanted, one of ``AXES``.

    Returns:
        (3, 3) float64, diagonal with entries +1 and -1: ``v_target = matrix @ v_source``. It is a mirror (determinant
        -1) where one convention is left-handed.

    Raises:
        CardError: A name is unknown.
    """
    return np.diag(_signs(source, target)).astype(np.float64)


def convert_axes(normals: Normals, source: str, target: str) -> Normals:
    """Express normals in another axis convention.

    Args:
        normals: (..., 3) floating numpy array or torch tensor.
        source: Convention of ``normals``, one of ``AXES``.
        target: Convention wanted, one of ``AXES``.

    Returns:
        New array of the same kind, shape and dtype. Zero vectors stay zero.

    Raises:
        CardError: A name is unknown.
        TypeError: ``normals`` holds integers (an encoded picture must be decoded first).
        ValueError: The last axis is not three long.

    Examples:
        >>> convert_axes(np.array([0.6, 0.0, -0.8]), "opencv", "opengl") + 0.0
        array([0.6, 0. , 0.8])
    """
    converted: Normals = _multiply(normals, _signs(source, target))
    return converted


def flip_horizontal(normals: Normals) -> Normals:
    """Mirror a normal map left to right; the mirrored surface has the opposite n_x.

    Args:
        normals: (..., H, W, 3) floating numpy array or torch tensor in OpenCV axes.

    Returns:
        The mirrored map, contiguous, same kind and dtype.

    Raises:
        TypeError: ``normals`` holds integers.
        ValueError: The last axis is not three long or there are no image axes.
    """
    flipped: Normals = _multiply(_flip_axis(_require_map(normals), -2), (-1, 1, 1))
    return flipped


def flip_vertical(normals: Normals) -> Normals:
    """Mirror a normal map top to bottom; the mirrored surface has the opposite n_y.

    Args:
        normals: (..., H, W, 3) floating numpy array or torch tensor in OpenCV axes.

    Returns:
        The mirrored map, contiguous, same kind and dtype.

    Raises:
        TypeError: ``normals`` holds integers.
        ValueError: The last axis is not three long or there are no image axes.
    """
    flipped: Normals = _multiply(_flip_axis(_require_map(normals), -3), (1, -1, 1))
    return flipped


def rotate_quarter(normals: Normals, turns: int) -> Normals:
    """Turn a normal map by quarter turns, counter-clockwise as displayed (the direction of ``numpy.rot90``).

    One turn takes the right edge of the picture to the top. A surface that faced right (+x) then faces up (-y), and one
    that faced down (+y) faces right (+x): (n_x, n_y, n_z) becomes (n_y, -n_x, n_z).

    Args:
        normals: (..., H, W, 3) floating numpy array or torch tensor in OpenCV axes.
        turns: Quarter turns; negative values turn clockwise.

    Returns:
        The turned map, contiguous, same kind and dtype; H and W are exchanged where ``turns`` is odd.

    Raises:
        TypeError: ``normals`` holds integers.
        ValueError: The last axis is not three long or there are no image axes.
    """
    current: Any = _require_map(normals)
    turned: Normals
    if turns % 2:
        # a quarter turn is a transposition, which exchanges n_x and n_y, followed by one mirror
        current = current.swapaxes(-2, -3)[..., [1, 0, 2]]
        turned = flip_vertical(current) if turns % 4 == 1 else flip_horizontal(current)
    else:
        half = turns % 4 == 2
        turned = _multiply(
            _flip_axis(_flip_axis(current, -2), -3) if half else current, (-1, -1, 1) if half else (1, 1, 1)
        )
    return turned


def _signs(source: str, target: str) -> tuple[int, int, int]:
    for name in (source, target):
        if name not in _SIGNS_FROM_OPENCV:
            raise CardError(f"unknown axis convention '{name}'. {suggest(name, AXES)} See docs/conventions.md.")
    x, y, z = (a * b for a, b in zip(_SIGNS_FROM_OPENCV[source], _SIGNS_FROM_OPENCV[target], strict=True))
    return x, y, z


def _is_torch(values: object) -> bool:
    """Tell a tensor from an array without importing torch."""
    return type(values).__module__.partition(".")[0] == "torch"


# The functions below take and give arrays and tensors alike; the public ones tie the kind of result to the input's.


def _require_map(normals: Any) -> Any:  # noqa: ANN401 - array or tensor
    if normals.ndim < 3:
        raise ValueError(f"expected a normal map (..., H, W, 3), got shape {tuple(normals.shape)}")
    return normals


def _flip_axis(values: Any, axis: int) -> Any:  # noqa: ANN401 - array or tensor
    return values.flip(axis) if _is_torch(values) else np.flip(values, axis)


def _multiply(values: Any, signs: tuple[int, int, int]) -> Any:  # noqa: ANN401 - array or tensor
    if values.shape[-1] != 3:
        raise ValueError(f"expected x, y, z on the last axis, got shape {tuple(values.shape)}")
    floating = values.is_floating_point() if _is_torch(values) else np.issubdtype(values.dtype, np.floating)
    if not floating:
        raise TypeError(f"expected floating-point normals, got {values.dtype}. Decode a picture to [-1, 1] first.")
    if _is_torch(values):
        return values * values.new_tensor(signs)
    if values.ndim == 1:
        return values * np.asarray(signs, dtype=values.dtype)
    # whole rows at a time: numpy's inner loop over three numbers takes several times as long
    row = np.tile(np.asarray(signs, dtype=values.dtype), values.shape[-2]).reshape(values.shape[-2:])
    rows = values.reshape(*values.shape[:-2], -1) * row.reshape(-1)
    return rows.reshape(values.shape)
