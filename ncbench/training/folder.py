"""The folder of a run: whose it is, what it was begun with, and whether a new call may go on with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ncbench.errors import CardError, StoreError
from ncbench.files import canonical, file_sha256, write_json, writing
from ncbench.training.checkpoint import list_checkpoints

RUN = "run.json"
MODEL = "model"
CHECKPOINTS = "checkpoints"
PICTURES = "pictures"
RECIPE = "recipe.yaml"
LOADER = "loader.yaml"
PROVENANCE = "provenance.json"
_LOCK = ".lock"
_WEIGHTS = {".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".json"}


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; the system lets go when this one ends, however it does.

    Args:
        folder: Made if need be.

    Raises:
        StoreError: Another run writes there, or it holds something else.
    """
    if folder.is_dir() and not (folder / RUN).is_file() and any(one.name != _LOCK for one in folder.iterdir()):
        raise StoreError(f"{folder}: holds files that no training run put there. Choose another folder for --to.")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(f"{folder}: another process trains here. Wait for it, or choose another folder.") from error
    try:
        yield
    finally:
        lock.release()


def check_same(folder: Path, identity: Mapping[str, Any], *, restart: bool = False) -> None:
    """Write down what a run is, or compare with what it was begun as.

    A run that has left neither a checkpoint nor a model, since it stopped before, has nothing that must be kept.

    Args:
        folder: The run's folder.
        identity: Everything that the trained parameters depend on, but for the number of steps; plain values.
        restart: Whether a run that was begun with something else is removed, so that this one begins anew.

    Raises:
        CardError: The run there was begun with something else; names every difference.
    """
    path = folder / RUN
    now = json.loads(canonical(identity))
    if not path.is_file() or not (list_checkpoints(folder / CHECKPOINTS) or (folder / MODEL).is_dir()):
        write_json(path, now)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    found = list(differences(before, now))
    if found and not restart:
        raise CardError(
            f"{folder}: this run was begun with other settings: {'; '.join(found)}. Go on with those, choose another "
            "folder for --to, or remove what is there and begin anew with --restart."
        )
    if found:
        clear(folder)
        write_json(path, now)


def clear(folder: Path) -> None:
    """Remove what a run left in its folder, the note of what it was last: an interrupted removal is still a run's."""
    left = [one for one in folder.iterdir() if one.name not in (_LOCK, RUN)]
    for one in left:
        if one.is_dir():
            shutil.rmtree(one)
        else:
            one.unlink()
    (folder / RUN).unlink(missing_ok=True)


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:  # noqa: ANN401 - plain values
    """Name what differs between nested plain values.

    Yields:
        ``key was X, is now Y``, with dots between nested keys.

    Examples:
        >>> list(differences({"a": {"b": 1}}, {"a": {"b": 2}}))
        ['a.b was 1, is now 2']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted({*before, *now}):
            yield from differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield f"{key} was {_short(before)}, is now {_short(now)}"


def weights_digest(init: Path | None) -> dict[str, str]:
    """Hash the files of weights that a run starts from.

    Returns:
        Relative path -> hex sha256, for tensors and their configurations; empty without a folder.
    """
    if init is None:
        return {}
    files = sorted(path for path in init.rglob("*") if path.suffix in _WEIGHTS and path.is_file())
    return {path.relative_to(init).as_posix(): file_sha256(path) for path in files}


def files_digest(paths: Iterable[Path]) -> dict[str, str]:
    """Hash single files that a run depends on.

    Returns:
        Path as given, with slashes -> hex sha256.

    Raises:
        StoreError: One cannot be read.
    """
    return {path.as_posix(): file_sha256(path) for path in paths}


def _short(value: Any) -> str:  # noqa: ANN401 - plain values
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
