"""The forms of an export: how one sequence becomes a folder or a file, and what lies beside the sequences.

Every writer streams: one frame in memory. What it writes is a function of the frames and the options alone.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ncbench.datasets.export_encode import (
    NORMAL_SUFFIX,
    Dtype,
    encode_mask,
    encode_normals,
    encode_npy,
    encode_numbers,
    picture_suffix,
)
from ncbench.datasets.frame import Frame
from ncbench.errors import StoreError

FormName = Literal["folder", "dsine_eval", "marigold", "webdataset", "parquet"]


@dataclass(frozen=True)
class Options:
    """How normals are written."""

    axes: str
    dtype: Dtype


@dataclass(frozen=True)
class Record:
    """What one exported sequence holds.

    Attributes:
        name: Name of its folder or file, without suffix.
        pictures: File names of the pictures, in order, relative to the sequence.
        normals: The same for the normals.
        columns: Columns that every frame has; ``flow`` also counts where only the last frame lacks it.
    """

    name: str
    pictures: tuple[str, ...] = ()
    normals: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


Write = Callable[[Iterator[Frame], Path, str, Options], Record]
Beside = Callable[[str, Options, Sequence[Record]], Mapping[str, bytes]]


@dataclass(frozen=True)
class Form:
    """One way to lay a store out.

    Attributes:
        write: Writes a sequence: (frames, a new path, name, options).
        suffix: Of a sequence's file; empty where it is a folder.
        axes: The only axes that readers of this form understand; None allows all.
        dtypes: Files that normals may be written as; the first is the default.
        beside: Gives the files that lie beside the sequences.
    """

    write: Write
    suffix: str
    axes: str | None
    dtypes: tuple[Dtype, ...]
    beside: Beside


def write_folder(frames: Iterator[Frame], path: Path, name: str, options: Options) -> Record:
    """Write a folder for each column: image, normal, valid, depth, flow, occluded, intrinsics, pose."""
    held: list[set[str]] = []
    pictures, normals = [], []
    for frame in frames:
        files = _files(frame, options) | _camera_files(frame)
        for column, (suffix, content) in files.items():
            (path / column).mkdir(parents=True, exist_ok=True)
            (path / column / f"{frame.frame:06d}.{suffix}").write_bytes(content)
        held.append(set(files))
        pictures += [f"image/{frame.frame:06d}.{files['image'][0]}"] if "image" in files else []
        normals.append(f"normal/{frame.frame:06d}.{files['normal'][0]}")
    shared = set.intersection(*held)
    if len(held) > 1 and all("flow" in columns for columns in held[:-1]):
        shared |= {"flow"}
    return Record(name, tuple(pictures), tuple(normals), tuple(sorted(shared)))


def write_dsine(frames: Iterator[Frame], path: Path, name: str, options: Options) -> Record:
    """Write ``NNNNNN_img``, ``_normal`` and ``_intrins.npy`` into one folder, as DSINE's evaluation reads them."""
    return _write_pairs(frames, path, name, options, with_intrinsics=True)


def write_marigold(frames: Iterator[Frame], path: Path, name: str, options: Options) -> Record:
    """Write ``NNNNNN_img`` and ``NNNNNN_normal.npy`` into one folder, as Marigold's evaluation reads them."""
    return _write_pairs(frames, path, name, options, with_intrinsics=False)


def write_webdataset(frames: Iterator[Frame], path: Path, name: str, options: Options) -> Record:
    """Write a tar in WebDataset's naming: the key of a sample is ``<name>/NNNNNN``, then ``.normal.npy`` and so on."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for frame in frames:
            for column, (suffix, content) in _files(frame, options).items():
                ending = suffix if column == "image" else f"{column}.{suffix}"
                _add(archive, f"{name}/{frame.frame:06d}.{ending}", content)
            values = _numbers(frame) | {"axes": options.axes}
            _add(archive, f"{name}/{frame.frame:06d}.json", json.dumps(values).encode())
    return Record(name)


def write_parquet(frames: Iterator[Frame], path: Path, name: str, options: Options) -> Record:
    """Write a Parquet file that `datasets` reads: a row group a frame, arrays as the bytes of PNG, NPY or EXR files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    as_picture = {"image"} | ({"normal"} if options.dtype == "png8" else set())
    kinds = {"sequence": pa.string(), "frame": pa.int32(), "height": pa.int32(), "width": pa.int32(), "image": picture}
    kinds |= {"normal": picture if "normal" in as_picture else pa.binary()}
    kinds |= {column: pa.binary() for column in ("valid", "depth", "flow", "occluded")}
    kinds |= {column: pa.list_(pa.float64()) for column in ("intrinsics", "cam_to_world")}
    described = {key: _feature(kind) for key, kind in kinds.items()}
    note = {"huggingface": json.dumps({"info": {"features": described}}), "ncbench.axes": options.axes}
    schema = pa.schema(kinds.items(), metadata=note)
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as writer:
        for frame in frames:
            files = {column: content for column, (_, content) in _files(frame, options).items()}
            cells = {key: {"bytes": files[key], "path": None} if key in as_picture else files[key] for key in files}
            row = {"sequence": frame.sequence, **_numbers(frame), **cells}
            arrays = [pa.array([row.get(field.name)], field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return Record(name)


def _feature(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - pyarrow ships no types
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"}
    return {"dtype": str(kind), "_type": "Value"}


def _files(frame: Frame, options: Options) -> dict[str, tuple[str, bytes]]:
    """Encode what a frame holds: column -> (suffix, bytes)."""
    normal = encode_normals(frame.normal, frame.valid, options.axes, options.dtype)
    files = {"normal": (NORMAL_SUFFIX[options.dtype], normal), "valid": ("png", encode_mask(frame.valid))}
    if frame.image is not None:
        files["image"] = (picture_suffix(frame.image), frame.image)
    if frame.depth is not None:
        files["depth"] = ("npy", encode_npy(frame.depth))
    if frame.flow is not None:
        files["flow"] = ("npy", encode_npy(frame.flow))
    if frame.occluded is not None:
        files["occluded"] = ("png", encode_mask(frame.occluded))
    return files


def _camera_files(frame: Frame) -> dict[str, tuple[str, bytes]]:
    matrices = {"intrinsics": frame.intrinsics, "pose": frame.cam_to_world}
    return {key: ("txt", encode_numbers(value)) for key, value in matrices.items() if value is not None}


def _numbers(frame: Frame) -> dict[str, Any]:
    height, width = frame.size
    matrices = {"intrinsics": frame.intrinsics, "cam_to_world": frame.cam_to_world}
    listed = {key: None if value is None else value.ravel().tolist() for key, value in matrices.items()}
    return {"sequence": frame.sequence, "frame": frame.frame, "height": height, "width": width, **listed}


def _write_pairs(frames: Iterator[Frame], path: Path, name: str, options: Options, *, with_intrinsics: bool) -> Record:
    path.mkdir(parents=True, exist_ok=True)
    pictures, normals = [], []
    for frame in frames:
        image = _required(frame, frame.image, "picture")
        stem = f"{frame.frame:06d}"
        pictures.append(f"{stem}_img.{picture_suffix(image)}")
        normals.append(f"{stem}_normal.{NORMAL_SUFFIX[options.dtype]}")
        (path / pictures[-1]).write_bytes(image)
        (path / normals[-1]).write_bytes(encode_normals(frame.normal, frame.valid, options.axes, options.dtype))
        if with_intrinsics:
            matrix = _required(frame, frame.intrinsics, "intrinsics")
            (path / f"{stem}_intrins.npy").write_bytes(encode_npy(matrix))
    return Record(name, tuple(pictures), tuple(normals))


def _required(frame: Frame, value: Any, what: str) -> Any:  # noqa: ANN401 - gives back what it is given
    if value is None:
        raise StoreError(
            f"sequence '{frame.sequence}' frame {frame.frame}: this form needs {what}, the store has none. Choose "
            "the form folder, webdataset or parquet."
        )
    return value


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # its time and owner stay zero, so that the same frames give the same bytes
    entry.size = len(content)
    entry.mode = 0o644
    archive.addfile(entry, io.BytesIO(content))


def _nothing_beside(name: str, options: Options, records: Sequence[Record]) -> Mapping[str, bytes]:  # noqa: ARG001 - one signature for all forms
    return {}


def _split_list(name: str, options: Options, records: Sequence[Record]) -> Mapping[str, bytes]:  # noqa: ARG001 - one signature for all forms
    lines = [f"{record.name}/{picture}" for record in records for picture in record.pictures]
    return {"split.txt": "\n".join(lines).encode()}  # as the published lists: no newline at the end


def _filename_list(name: str, options: Options, records: Sequence[Record]) -> Mapping[str, bytes]:  # noqa: ARG001 - one signature for all forms
    lines = [
        f"{record.name}/{picture} {record.name}/{normal}\n"
        for record in records
        for picture, normal in zip(record.pictures, record.normals, strict=True)
    ]
    return {"filename_list.txt": "".join(lines).encode()}


def _folder_card(name: str, options: Options, records: Sequence[Record]) -> Mapping[str, bytes]:
    """Write a card with which ``ncbench prepare`` reads the folder back, where every frame has a picture."""
    shared = set.intersection(*(set(record.columns) for record in records))
    endings = {Path(picture).suffix for record in records for picture in record.pictures}
    if "image" not in shared or len(endings) != 1:
        return {}
    settings = {"image": f"{{sequence}}/image/{{frame}}{endings.pop()}"}
    settings["normal"] = f"{{sequence}}/normal/{{frame}}.{NORMAL_SUFFIX[options.dtype]}"
    patterns = {"depth": "depth", "flow": "flow", "intrinsics": "intrinsics", "poses": "pose"}
    for key, column in patterns.items():
        if column in shared:
            ending = "npy" if key in ("depth", "flow") else "txt"
            settings[key] = f"{{sequence}}/{column}/{{frame}}.{ending}"
    card = {
        "name": f"{name}-export",
        "version": "1.0.0",
        "title": f"{name}, exported",
        "summary": f"Frames of {name} as plain files; the terms of the original data set hold.",
        "role": "both",
        "licence": {"name": f"as {name}", "redistribution": False},
        "source": {"kind": "manual", "instructions": "Pass the folder that holds this card with --raw."},
        "reader": "ncbench.datasets.readers.folder:FolderReader",
        "settings": settings,
        "axes": options.axes,
        "normals": "file",
    }
    return {"dataset.yaml": yaml.safe_dump(card, sort_keys=False, width=120).encode()}


FORMS: dict[FormName, Form] = {
    "folder": Form(write_folder, "", None, ("png16", "png8", "npy", "exr"), _folder_card),
    "dsine_eval": Form(write_dsine, "", "dsine", ("exr", "png16", "png8"), _split_list),
    "marigold": Form(write_marigold, "", "opengl", ("npy",), _filename_list),
    "webdataset": Form(write_webdataset, ".tar", None, ("npy", "png16", "png8", "exr"), _nothing_beside),
    "parquet": Form(write_parquet, ".parquet", None, ("png16", "png8", "npy", "exr"), _nothing_beside),
}
"""All forms by name."""
