"""Folders of tensors and numbers that appear whole or not at all: the checkpoints of a run.

Tensors are in safetensors, all else in JSON, so that opening one never runs code.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ncbench.errors import StoreError
from ncbench.files import mib, sync_folder, writing

STATE = "state.json"
_NAME = re.compile(r"step-(\d{8})")
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")

Tensors = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds.

    Attributes:
        step: Updates done.
        tensors: Name of a file (``parameters``, ``optimizer``, ``ema``) -> name -> tensor on the CPU.
        values: Whatever else, as JSON.
    """

    step: int
    tensors: Tensors
    values: Mapping[str, Any]


def write_checkpoint(root: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint, then remove the oldest ones.

    Args:
        root: Folder of the run's checkpoints.
        checkpoint: What to write; tensors of one file must not share memory.
        keep: How many of the newest stay.

    Returns:
        Its folder. It appears by one rename after all of it has reached the disk.

    Raises:
        StoreError: The disk is full or not writable. Older checkpoints stay as they were.
    """
    folder = root / f"step-{checkpoint.step:08d}"
    partial = root / f".{folder.name}.partial"
    try:
        with writing(folder):
            root.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _require_space(root, folder, checkpoint)
            _fill(partial, checkpoint)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
            sync_folder(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in list_checkpoints(root)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def list_checkpoints(root: Path) -> list[Path]:
    """List the folders of complete checkpoints, oldest first."""
    return sorted(path for path in root.glob("step-*") if _NAME.fullmatch(path.name) and (path / STATE).is_file())


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint.

    Args:
        folder: From ``list_checkpoints``.

    Returns:
        What it holds.

    Raises:
        StoreError: It is damaged.
    """
    try:
        values = json.loads((folder / STATE).read_text(encoding="utf-8"))
        sizes = values.pop("files")
        for name, size in sizes.items():
            found = (folder / name).stat().st_size
            if found != size:
                raise ValueError(f"{name} has {found} bytes, expected {size}")
        tensors = {Path(name).stem: load_file(folder / name) for name in sizes}
        return Checkpoint(int(values.pop("step")), tensors, values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise StoreError(
            f"{folder}: this checkpoint is damaged ({error}). Remove the folder, and the run goes on from the one "
            "before."
        ) from error


def tensor_bytes(tensors: Tensors) -> int:
    """Count the bytes that tensors take."""
    return sum(value.numel() * value.element_size() for part in tensors.values() for value in part.values())


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file and wait until it has reached the disk.

    Raises:
        OSError: As any write.
    """
    with system_errors():
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    sync(path)


@contextmanager
def system_errors() -> Iterator[None]:
    """Turn what safetensors raises when the disk is full, which only its words tell, into the OSError that it was.

    Raises:
        OSError: Instead of a SafetensorError.
    """
    try:
        yield
    except SafetensorError as error:
        found = _SYSTEM_ERROR.search(str(error))
        number = int(found.group(1)) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from error


def sync(path: Path) -> None:
    """Wait until a file or a folder's list of names has reached the disk."""
    if path.is_dir():
        sync_folder(path)
        return
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _fill(folder: Path, checkpoint: Checkpoint) -> None:
    sizes: dict[str, int] = {}
    for name, tensors in checkpoint.tensors.items():
        path = folder / f"{name}.safetensors"
        save_tensors(tensors, path)
        sizes[path.name] = path.stat().st_size
    values = {"step": checkpoint.step, **checkpoint.values, "files": sizes}
    (folder / STATE).write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    sync(folder / STATE)
    sync_folder(folder)


def _require_space(root: Path, folder: Path, checkpoint: Checkpoint) -> None:
    needed, free = tensor_bytes(checkpoint.tensors), shutil.disk_usage(root).free
    if free < needed:
        raise StoreError(
            f"{folder}: the disk is full: a checkpoint needs {mib(needed)}, {mib(free)} are free. Older checkpoints "
            "are as they were. Free space and run the same command again, or keep fewer (--set checkpoint.keep=1)."
        )
