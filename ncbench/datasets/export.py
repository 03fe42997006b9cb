"""Hand a store over to other tools: plain folders, the layouts of published evaluations, WebDataset, Parquet."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from ncbench.datasets.export_forms import FORMS, Form, FormName, Options, Record
from ncbench.datasets.store import Store, open_store
from ncbench.engine.local import run
from ncbench.errors import CardError, StoreError
from ncbench.files import write_bytes, write_json
from ncbench.geometry.axes import AXES
from ncbench.settings import suggest

RECEIPT = "export.json"
"""Written last: a folder that holds it is a complete export."""
_PROGRESS = ".ncbench-export"
_TEMPORARY = ".ncbench-tmp"
_SCHEMA = 1


@dataclass(frozen=True)
class _Task:
    """One sequence's work for a worker process."""

    store: Path
    to: Path
    form: FormName
    options: Options
    sequence: str
    name: str


def export(
    store: Path,
    to: Path,
    form: str = "folder",
    axes: str | None = None,
    dtype: str | None = None,
    sequences: Sequence[str] | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a store's frames in the form that another tool reads.

    A sequence appears whole or not at all, and ``export.json`` comes last; after an interruption the same call finishes
    the rest. A complete export of the same data and options is left as it is.

    Args:
        store: The store's folder.
        to: The folder to write: missing, empty, or this export, begun or complete.
        form: ``folder``, ``dsine_eval``, ``marigold``, ``webdataset`` or ``parquet``.
        axes: Convention of the written normals; None takes the form's own (``dsine`` for dsine_eval, ``opengl`` for
            marigold), else ``opencv``.
        dtype: ``png8``, ``png16``, ``npy`` or ``exr``; None takes the form's default.
        sequences: Names of the sequences to write; None writes all.
        jobs: Worker processes; any number writes the same bytes.
        progress: Called with (sequences done, sequences in all).

    Returns:
        The folder.

    Raises:
        CardError: Unknown form, axes, dtype or sequence, or a combination that readers of the form do not understand.
        StoreError: The store is damaged or lacks what the form needs, the folder holds something else, or the disk is
            full.
    """
    opened = open_store(store)
    layout, options = _options(form, axes, dtype)
    chosen = _chosen(opened, sequences)
    name = cast("FormName", form)
    identity = _identity(opened, name, options, chosen)
    if _claim(to, identity):
        return to
    tasks = [_Task(store, to, name, options, sequence, _file_name(sequence)) for sequence in chosen]
    records: dict[str, Record] = {}
    for task, record in run(_write_sequence, tasks, jobs):
        records[task.sequence] = record
        if progress is not None:
            progress(len(records), len(tasks))
    ordered = [records[sequence] for sequence in chosen]
    for file, content in layout.beside(opened.manifest.name, options, ordered).items():
        write_bytes(to / file, content)
    write_json(to / RECEIPT, {**identity, "files": {task.sequence: task.name + layout.suffix for task in tasks}})
    shutil.rmtree(to / _PROGRESS)
    return to


def _options(form: str, axes: str | None, dtype: str | None) -> tuple[Form, Options]:
    layout = next((value for name, value in FORMS.items() if name == form), None)
    if layout is None:
        raise CardError(f"unknown form '{form}'. {suggest(form, FORMS)}")
    wanted = axes or layout.axes or "opencv"
    if wanted not in AXES:
        raise CardError(f"unknown axis convention '{wanted}'. {suggest(wanted, AXES)}")
    if layout.axes is not None and wanted != layout.axes:
        raise CardError(
            f"form {form}: its readers expect {layout.axes} axes, got {wanted}. Leave the axes out, or choose the form "
            "folder."
        )
    kind = next((name for name in layout.dtypes if name == dtype), None if dtype else layout.dtypes[0])
    if kind is None:
        raise CardError(f"form {form} does not hold normals as '{dtype}'. {suggest(str(dtype), layout.dtypes)}")
    return layout, Options(wanted, kind)


def _chosen(store: Store, sequences: Sequence[str] | None) -> list[str]:
    known = store.sequences
    for name in sequences or ():
        if name not in known:
            raise CardError(f"{store.path}: no sequence '{name}'. {suggest(name, known)}")
    chosen = list(known) if sequences is None else [name for name in known if name in sequences]
    taken: dict[str, str] = {}
    for name in chosen:
        other = taken.setdefault(_file_name(name), name)
        if other != name:
            raise CardError(
                f"{store.path}: '{other}' and '{name}' both become '{_file_name(name)}'. Export one by one."
            )
    return chosen


def _file_name(sequence: str) -> str:
    """Make a name that is safe as a file, in lists separated by blanks, and in WebDataset's keys."""
    return re.sub(r"^\.", "_", re.sub(r"[^A-Za-z0-9_.-]", "_", sequence))


def _identity(store: Store, form: FormName, options: Options, chosen: Sequence[str]) -> dict[str, Any]:
    manifest = store.manifest
    source = {"name": manifest.name, "digest": manifest.digest, "card": manifest.card}
    return {"schema": _SCHEMA, "source": source, "form": form, **asdict(options), "sequences": list(chosen)}


def _claim(to: Path, identity: dict[str, Any]) -> bool:
    """Say whether a folder is this very export, complete; else make it ours, if it is new or begun by us."""
    done = _read_json(to / RECEIPT)
    if done is not None and {key: done.get(key) for key in identity} == identity:
        return True
    begun = _read_json(to / _PROGRESS / RECEIPT)
    if to.exists() and any(to.iterdir()) and begun != identity:
        found = "another export" if done or begun else "other files"
        raise StoreError(f"{to}: expected a new or empty folder, found {found}. Choose another folder or empty it.")
    for path in to.glob(f".*{_TEMPORARY}"):
        _remove(path)
    write_json(to / _PROGRESS / RECEIPT, identity)
    return False


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _write_sequence(task: _Task) -> Record:
    """Keep a finished sequence or write it; runs in a worker."""
    form = FORMS[task.form]
    note = task.to / _PROGRESS / f"{task.name}.json"
    target = task.to / (task.name + form.suffix)
    known = _read_json(note)
    if known is not None and target.exists():
        return Record(known["name"], *(tuple(known[key]) for key in ("pictures", "normals", "columns")))
    temporary = task.to / f".{task.name}.{os.getpid()}{_TEMPORARY}"
    try:
        frames = open_store(task.store).clip(task.sequence)
        record = form.write(frames, temporary, task.name, task.options)
        _remove(target)
        temporary.replace(target)
    except OSError as error:
        raise StoreError(
            f"{target}: cannot be written ({error}). Free space and run the same command again."
        ) from error
    finally:
        _remove(temporary)
    write_json(note, asdict(record))
    return record


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
