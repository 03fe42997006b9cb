"""Stores in other people's tools: Hugging Face `datasets`, pyarrow and pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ncbench.datasets.cells import decode_cell, is_cell
from ncbench.datasets.store import Store

_MATRICES = {"intrinsics": (3, 3), "cam_to_world": (4, 4)}


def decode_rows(rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Decode rows of a store that Hugging Face `datasets` opened, for ``Dataset.with_transform``.

    Args:
        rows: Column -> values, as `datasets` hands them to a transform.

    Returns:
        Column -> values: array cells as tensors in the shapes and types of the store (``normal`` (H, W, 3) float32 in
        OpenCV axes, ``valid`` (H, W) bool and so on), pictures as (H, W, 3) uint8 tensors, matrices as (3, 3) and
        (4, 4) float64; the rest, and what is null, as it is.

    Raises:
        StoreError: A cell is damaged.

    Examples:
        ```py
        rooms = datasets.load_from_disk("data/stores/rooms").with_transform(decode_rows)
        rooms[0]["normal"].shape  # (192, 256, 3)
        ```
    """
    return {name: [_decoded(name, value) for value in values] for name, values in rows.items()}


def _decoded(name: str, value: Any) -> Any:  # noqa: ANN401 - any column
    if isinstance(value, bytes) and is_cell(value):
        return torch.from_numpy(decode_cell(value))
    if name == "image" and value is not None:
        return torch.from_numpy(np.array(value.convert("RGB")))
    if name in _MATRICES and value is not None:
        return torch.tensor(value, dtype=torch.float64).reshape(_MATRICES[name])
    return value


def arrow_table(store: Store, columns: Sequence[str]) -> pa.Table:
    """Look at some columns of a whole store at once; nothing is decoded, and shards of this machine are not copied.

    Args:
        store: An open store.
        columns: Names out of ``store.columns``.

    Returns:
        The rows in the store's order; ``.to_pandas()`` makes a DataFrame of them.

    Raises:
        StoreError: A shard is missing or damaged.
    """
    return pa.concat_tables(table.select(list(columns)) for table in store.tables())
