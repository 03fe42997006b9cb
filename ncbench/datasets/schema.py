"""The columns of a store: frame <-> one Arrow row, with the features that Hugging Face `datasets` reads.

The features are written here rather than by `datasets`, so that a shard's bytes do not depend on its version; a test
compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ncbench.datasets.cells import Codec, decode_cell, encode_cell, is_cell
from ncbench.datasets.frame import BoolMap, FloatMap, Frame
from ncbench.errors import CardError, SourceError
from ncbench.jit import jit

VERSION = 1
"""Version of the store's layout; a reader refuses a newer one."""

UNIT_TOLERANCE = 1e-3

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_CELLS: dict[str, Codec] = {
    "normal": Codec.NORMALS,
    "valid": Codec.MASK,
    "depth": Codec.LOSSLESS,
    "flow": Codec.LOSSLESS,
    "occluded": Codec.MASK,
}
_INTEGERS = ("frame", "height", "width")
_MATRICES = {"intrinsics": (3, 3), "cam_to_world": (4, 4)}
_FIELDS = (
    pa.field("sequence", pa.string(), nullable=False),
    pa.field("frame", pa.int32(), nullable=False),
    pa.field("image", _IMAGE),
    *(pa.field(name, pa.large_binary(), nullable=name not in ("normal", "valid")) for name in _CELLS),
    *(pa.field(name, pa.list_(pa.float64())) for name in _MATRICES),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
)
COLUMNS: tuple[str, ...] = tuple(field.name for field in _FIELDS)


def store_schema(extra: Mapping[str, pa.DataType]) -> pa.Schema:
    """Build the schema of a store.

    Args:
        extra: Card-specific columns: name -> Arrow type.

    Returns:
        The schema; its metadata holds the features under ``huggingface``.

    Raises:
        CardError: An extra column takes a reserved name or has a type that `datasets` cannot hold.
    """
    taken = sorted(set(extra) & set(COLUMNS))
    if taken:
        raise CardError(
            f"extra columns {', '.join(taken)}: these names belong to every store. Rename them in the reader."
        )
    schema = pa.schema([*_FIELDS, *(pa.field(name, kind) for name, kind in extra.items())])
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features(schema)}})})


def features(schema: pa.Schema) -> dict[str, Any]:
    """Describe the columns in the JSON form of ``datasets.Features``."""
    return {
        field.name: {"_type": "Image"} if field.name == "image" else _feature(field.type, field.name)
        for field in schema
    }


def _feature(kind: pa.DataType, name: str) -> Any:  # noqa: ANN401 - nested JSON
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type, name) for field in kind.fields}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type, name), "_type": "List"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type, name), "length": kind.list_size, "_type": "List"}
    plain = {"double": "float64", "float": "float32", "halffloat": "float16"}.get(str(kind), str(kind))
    known = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not known and plain not in ("string", "large_string", "binary", "large_binary"):
        raise CardError(
            f"extra column '{name}': type {kind} is not supported. Use numbers, bool, text, bytes, or lists and "
            "structs of them."
        )
    return {"dtype": plain, "_type": "Value"}


def checked(frame: Frame) -> Frame:
    """Check one frame as it enters a store, and mark pixels without a usable normal as invalid.

    Args:
        frame: What a reader or a model yields.

    Returns:
        The frame, its ``valid`` without zero, NaN and infinite normals, its ``normal`` zero outside ``valid``.

    Raises:
        SourceError: Shapes or types disagree, or a valid normal is not of unit length (within 1e-3).
    """
    where = f"sequence '{frame.sequence}' frame {frame.frame}"
    height, width = _shape_checked(frame, where)
    normal, valid = np.empty((height, width, 3), np.float32), np.empty((height, width), np.bool_)
    stored, wanted = np.ascontiguousarray(frame.normal).reshape(-1), np.ascontiguousarray(frame.valid).reshape(-1)
    off = _clean(stored, wanted, normal.reshape(-1), valid.reshape(-1))
    if off:
        length = np.linalg.norm(normal.astype(np.float64), axis=-1)
        y, x = (int(found[0]) for found in np.nonzero(valid & (np.abs(length - 1) > UNIT_TOLERANCE)))
        raise SourceError(
            f"{where}: expected unit normals, found length {length[y, x]:.6g} at pixel x={x} y={y} ({off} "
            f"of {height * width} pixels are off by more than {UNIT_TOLERANCE}). Normalise them in the reader, or mark "
            "them invalid."
        )
    return replace(frame, normal=normal, valid=valid)


@jit()
def _clean(stored: FloatMap, wanted: BoolMap, normal: FloatMap, valid: BoolMap) -> int:
    """Keep wanted vectors that are finite and not zero; say how many of them are not of unit length.

    One pass over flat arrays, since a constant stride of 3 is what vectorizes.
    """
    off = 0
    zero = np.float32(0)
    for i in range(len(valid)):
        x, y, z = stored[3 * i], stored[3 * i + 1], stored[3 * i + 2]
        length = np.sqrt(np.float64(x) * x + np.float64(y) * y + np.float64(z) * z)
        kept = wanted[i] & (length > 0) & (length < np.inf)  # false for NaN
        normal[3 * i] = x if kept else zero
        normal[3 * i + 1] = y if kept else zero
        normal[3 * i + 2] = z if kept else zero
        valid[i] = kept
        off += kept & (abs(length - 1) > UNIT_TOLERANCE)
    return off


def _shape_checked(frame: Frame, where: str) -> tuple[int, int]:
    valid = np.asarray(frame.valid)
    if valid.ndim != 2 or valid.size == 0 or valid.dtype != np.bool_:
        raise SourceError(
            f"{where}: valid must be bool of shape (H, W), got {valid.dtype} {valid.shape}. Fix the reader."
        )
    height, width = valid.shape
    wanted: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        "normal": (np.float32, (height, width, 3)),
        "depth": (np.float32, (height, width)),
        "flow": (np.float32, (height, width, 2)),
        "occluded": (np.bool_, (height, width)),
        "intrinsics": (np.float64, (3, 3)),
        "cam_to_world": (np.float64, (4, 4)),
    }
    for name, (kind, shape) in wanted.items():
        value = getattr(frame, name)
        if value is None and name != "normal":
            continue
        found = np.asarray(value)
        if found.dtype != kind or found.shape != shape:
            raise SourceError(
                f"{where}: {name} must be {np.dtype(kind).name} of shape {shape} (valid is {height} x {width}), got "
                f"{found.dtype} {found.shape}. Fix the reader."
            )
    return height, width


def to_batch(frame: Frame, schema: pa.Schema) -> pa.RecordBatch:
    """Turn a checked frame into a batch of one row.

    Raises:
        SourceError: The extra columns are not the declared ones, or hold what their type cannot.
    """
    where = f"sequence '{frame.sequence}' frame {frame.frame}"
    extra = [field for field in schema if field.name not in COLUMNS]
    if {field.name for field in extra} != set(frame.extra):
        declared = ", ".join(field.name for field in extra) or "none"
        raise SourceError(f"{where}: extra columns are {sorted(frame.extra)}, but the reader declares {declared}")
    try:
        row = {
            "sequence": _bytes_array(frame.sequence.encode(), pa.string()),
            "image": _image_array(frame.image),
            **{name: _int_array(value) for name, value in zip(_INTEGERS, (frame.frame, *frame.size), strict=True)},
            **{name: _cell_array(getattr(frame, name), codec) for name, codec in _CELLS.items()},
            **{name: _matrix_array(getattr(frame, name)) for name in _MATRICES},
            **{field.name: _extra_array(frame.extra[field.name], field.type) for field in extra},
        }
        return pa.RecordBatch.from_arrays([row[field.name] for field in schema], schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
        raise SourceError(f"{where}: a value does not fit its column ({error}). Fix the reader.") from error


# Arrays of one value, made of its bytes as they lie: ``pa.array`` would copy them, and would import pandas, which takes
# longer than the first shard's pictures.


def _bytes_array(content: bytes, kind: pa.DataType) -> pa.Array:
    offsets = np.array([0, len(content)], np.int64 if kind == pa.large_binary() else np.int32)
    return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(offsets), pa.py_buffer(content)])


def _int_array(value: int) -> pa.Array:
    return pa.Array.from_buffers(pa.int32(), 1, [None, pa.py_buffer(np.array([value], np.int32))])


def _cell_array(array: NDArray[Any] | None, codec: Codec) -> pa.Array:
    kind = pa.large_binary()
    return pa.nulls(1, kind) if array is None else _bytes_array(encode_cell(array, codec), kind)


def _image_array(content: bytes | None) -> pa.Array:
    if content is None:  # not pa.nulls, which writes other bytes than every store has so far
        empty = [_bytes_array(b"", pa.binary()), _bytes_array(b"", pa.string())]
        return pa.Array.from_buffers(_IMAGE, 1, [pa.py_buffer(b"\0")], children=empty)
    return pa.Array.from_buffers(
        _IMAGE, 1, [None], children=[_bytes_array(content, pa.binary()), pa.nulls(1, pa.string())]
    )


def _matrix_array(matrix: NDArray[np.float64] | None) -> pa.Array:
    kind = pa.list_(pa.float64())
    if matrix is None:
        return pa.nulls(1, kind)
    flat = pa.py_buffer(np.ascontiguousarray(matrix).reshape(-1))
    numbers = pa.Array.from_buffers(pa.float64(), matrix.size, [None, flat])
    offsets = pa.py_buffer(np.array([0, matrix.size], np.int32))
    return pa.Array.from_buffers(kind, 1, [None, offsets], children=[numbers])


def _extra_array(value: Any, kind: pa.DataType) -> pa.Array:  # noqa: ANN401 - whatever the column's type accepts
    if not isinstance(value, np.ndarray):
        return pa.array([value], kind)
    if pa.types.is_large_binary(kind):
        return _cell_array(value, _codec_of(value))
    return pa.array([value.ravel().tolist()], kind)


def _codec_of(array: NDArray[Any]) -> Codec:
    if array.dtype == np.bool_:
        return Codec.MASK
    return Codec.COLOURS if array.dtype == np.uint8 and array.shape[2:] == (3,) else Codec.LOSSLESS


def from_row(row: Mapping[str, Any], into: Mapping[str, NDArray[Any]] | None = None) -> dict[str, Any]:
    """Decode columns of one row.

    Args:
        row: Column -> Arrow array of length 1, for the columns that the caller wants.
        into: Column -> contiguous array of the cell's shape and type to decode into; others get new arrays.

    Returns:
        Column -> value: arrays in the canonical types, image as encoded bytes, None where null. A card-specific array
        cell is decoded too; other card-specific values are plain Python.

    Raises:
        StoreError: A cell is damaged, or does not fit its place in ``into``.
    """
    places = into or {}
    return {name: _value(name, array, places.get(name)) for name, array in row.items()}


def _value(name: str, array: Any, place: NDArray[Any] | None) -> Any:  # noqa: ANN401 - Arrow arrays of any type
    if array.null_count:
        return None
    if name in _CELLS:
        return decode_cell(_content(array), place)
    if name == "image":
        return array[0]["bytes"].as_py()
    if name not in COLUMNS and pa.types.is_large_binary(array.type):
        content = _content(array)
        return decode_cell(content, place) if is_cell(content) else content.tobytes()
    value = array[0].as_py()
    return np.array(value, np.float64).reshape(_MATRICES[name]) if name in _MATRICES else value


def _content(array: Any) -> memoryview:  # noqa: ANN401 - an Arrow array
    """Look at the bytes of a large binary array's only value where they lie; a scalar would be a copy of them."""
    _, offsets, data = array.buffers()
    start, end = np.frombuffer(offsets, np.int64, 2, 8 * array.offset).tolist()
    return memoryview(b"" if data is None else data)[start:end]


def dataset_info(schema: pa.Schema) -> bytes:
    """Write the content of ``dataset_info.json``, which `datasets` reads."""
    values = {"citation": "", "description": "", "features": features(schema), "homepage": "", "license": ""}
    return json.dumps(values, indent=2).encode()


def dataset_state(files: Iterable[str], digest: str) -> bytes:
    """Write the content of ``state.json``: which shards there are, and that they are complete."""
    values: dict[str, Any] = {
        "_data_files": [{"filename": file} for file in files],
        "_fingerprint": digest[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    return json.dumps(values, indent=2).encode()
