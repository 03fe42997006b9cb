"""The planes that iBims-1 labels: walls, table tops and floors, with one official normal each.

A picture has up to three maps of labels and as many tables; row k - 1 of a table describes label k. The official
script (version 0.9) uses columns 4 to 6, a normal with x right, y forward and z up whose sign it leaves open; what
columns 0 to 3 hold is not documented, and they are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.datasets.frame import Matrix
from ncbench.errors import SourceError

PLANES = ("mask_wall", "mask_table", "mask_floor")
"""Columns with the official plane labels: (H, W) uint8, 0 for none, k for the k-th plane of its kind."""
_COLUMNS = 7


def normals_column(kind: str) -> str:
    """Name the column with the planes' normals that belongs to a column of labels."""
    return f"{kind}_normals"


def read_labels(values: NDArray[Any], path: Path, kind: str) -> NDArray[np.uint8]:
    """Check a map of plane labels.

    Args:
        values: (H, W) whole numbers from 0 to 255, of any type.
        path: Their file, for the message.
        kind: Out of ``PLANES``.

    Returns:
        (H, W) uint8.

    Raises:
        SourceError: They are something else.
    """
    if values.ndim != 2 or not np.array_equal(values, np.clip(np.rint(values), 0, 255)):
        problem = f"expected plane labels from 0 to 255 in '{kind}', found {values.dtype} of shape {values.shape}"
        raise SourceError.at(path, problem, DAMAGED)
    return values.astype(np.uint8)


def read_parameters(path: Path) -> Matrix:
    """Read the table of one picture in the plain form.

    Args:
        path: Seven numbers a line, with commas between them.

    Returns:
        (N, 7) float64.

    Raises:
        SourceError: Unreadable, or other contents.
    """
    lines = read_bytes(path, "parameters of planes").decode("utf-8", "replace").splitlines()
    try:
        rows = np.array([[float(word) for word in line.split(",")] for line in lines if line.strip()], np.float64)
    except ValueError as error:
        raise SourceError.at(path, f"expected {_COLUMNS} numbers a line ({error})", DAMAGED) from error
    return check_parameters(rows, path, path.name)


def check_parameters(rows: NDArray[Any], path: Path, what: str) -> Matrix:
    """Check a table.

    Args:
        rows: (N, 7), or anything without entries where there are no planes.
        path: Its file, for the message.
        what: Its name, for the message.

    Returns:
        (N, 7) float64.

    Raises:
        SourceError: It is something else.
    """
    if rows.size == 0:
        return np.zeros((0, _COLUMNS))
    fits = rows.dtype.kind in "iuf" and rows.ndim == 2 and rows.shape[1] == _COLUMNS
    if not fits or not np.isfinite(rows).all():
        problem = f"expected rows of {_COLUMNS} numbers in '{what}', found {rows.dtype} of shape {rows.shape}"
        raise SourceError.at(path, problem, DAMAGED)
    return rows.astype(np.float64)


def plane_normals(parameters: Matrix, labels: NDArray[np.uint8], rays: NDArray[np.float64]) -> list[list[float]]:
    """Turn the tables' normals into the canonical convention.

    Args:
        parameters: (N, 7), see above.
        labels: (H, W), which pixels are on which plane.
        rays: (H, W, 3) through the pixels, OpenCV axes.

    Returns:
        N unit normals in OpenCV axes. One whose plane has pixels faces the camera; the others keep the file's sign.
    """
    x, forward, up = parameters[:, 4:7].T
    normals = np.stack([x, 0.0 - up, forward], axis=-1)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    for place, normal in enumerate(normals):
        seen = rays[labels == place + 1]
        if len(seen) and float(seen.mean(axis=0) @ normal) > 0:
            normals[place] = 0.0 - normal
    rows: list[list[float]] = normals.tolist()
    return rows
