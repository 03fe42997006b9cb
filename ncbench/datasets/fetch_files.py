"""Files of a data set into its raw folder: download, unpack, record; each step is done once, whatever kills it."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ncbench.cards import DatasetCard
from ncbench.datasets.archives import Unpacked, unpack
from ncbench.datasets.download import Received, Retry, WrongBytesError, check_file, download
from ncbench.datasets.fetch_parallel import Stop, bring_each
from ncbench.datasets.remote import redact
from ncbench.errors import SourceError, StoreError
from ncbench.files import TEMPORARY_SUFFIX, leftovers, write_json
from ncbench.progress import Report
from ncbench.sources import Download

RECEIPT = "fetch.json"
PARTIAL = ".partial"  # unfinished downloads and half-unpacked archives
ARCHIVES = ".archives"  # complete archives that wait for being unpacked

Progress = Callable[[str], AbstractContextManager[Report]]


class Receipt:
    """What a raw folder holds already: ``fetch.json``, written anew after every file or archive."""

    def __init__(self, folder: Path, card: DatasetCard, known: Sequence[Download]) -> None:
        self._path = folder / RECEIPT
        values = read_receipt(folder) or {}
        self._files: dict[str, Any] = dict(values.get("files", {}))
        self._archives: dict[str, Any] = dict(values.get("archives", {}))
        self._head = {"dataset": card.name, "version": card.version}
        items = {item.key: item for item in known}
        for key, entry in self._files.items():
            if key not in items or not _is_same(entry, items[key]):
                raise SourceError.at(
                    self._path,
                    f"{key} was fetched from {entry['url']} (sha256 {entry['sha256']}), which is not what the card of "
                    f"{card.name} {card.version} names",
                    "Choose another folder with --to, or delete this one.",
                )

    def holds(self, item: Download) -> bool:
        """Whether a file has been stored, or unpacked, completely."""
        return item.key in self._files

    def size(self, item: Download) -> int:
        """Bytes of a file that ``holds`` knows."""
        return int(self._files[item.key]["bytes"])

    def record(self, unit: Sequence[Download], received: Sequence[Received], unpacked: Unpacked | None) -> None:
        """Write down that the files of one unit are stored or unpacked."""
        for item, got in zip(unit, received, strict=True):
            entry = {"url": redact(item.url), "bytes": got.bytes, "sha256": got.sha256, "published": got.published}
            self._files[item.key] = entry
        if unpacked is not None:
            self._archives[unit[0].unit] = {"files": unpacked.files, "bytes": unpacked.bytes}
        self.write()

    def write(self) -> None:
        """Write the receipt atomically, in an order that does not depend on what was fetched first."""
        ordered = {"files": dict(sorted(self._files.items())), "archives": dict(sorted(self._archives.items()))}
        write_json(self._path, self._head | ordered)


def read_receipt(folder: Path) -> dict[str, Any] | None:
    """Read the receipt of a raw folder.

    Args:
        folder: The raw folder.

    Returns:
        Its values; None where there is none or it is unreadable.
    """
    with suppress(OSError, ValueError):
        receipt = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
        if isinstance(receipt, dict):
            return receipt
    return None


def find_local(item: Download, local: Path | None) -> Path | None:
    """Find a copy of a file in the user's own folder, by its relative path or by its name."""
    if local is None or not item.name:
        return None
    return next((path for path in (local / item.key, local / item.name) if path.is_file()), None)


def fetch_files(
    card: DatasetCard,
    files: Sequence[Download],
    to: Path,
    *,
    known: Sequence[Download],
    local: Path | None = None,
    progress: Progress | None = None,
    retry: Retry | None = None,
    jobs: int = 1,
) -> bool:
    """Store or unpack files into a raw folder, skipping what its receipt names.

    Args:
        card: The data set.
        files: The files wanted.
        to: The raw folder; made.
        known: All files of the card, so that a receipt of another version is recognised.
        local: Folder whose copies are used in place of the network.
        progress: Opens a progress report for one file, by its name; called in threads for several jobs.
        retry: Patience with failing servers.
        jobs: How many files are downloaded at once. They are unpacked one after the other.

    Returns:
        Whether anything was written.

    Raises:
        SourceError: A file cannot be had, is not what the card says, or cannot be unpacked safely.
        StoreError: The disk is full or cannot be written, or another process fetches into the same folder.
    """
    receipt = Receipt(to, card, known)
    todo = [item for item in files if not receipt.holds(item)]
    if not todo and not any((to / name).exists() for name in (PARTIAL, ARCHIVES)):
        return False
    with _alone(to):
        # what a killed run was writing; nobody else may be writing here
        for path in [*leftovers(to), *(to / PARTIAL).rglob(f".*{TEMPORARY_SUFFIX}")]:
            path.unlink(missing_ok=True)
        receipt.write()

        def bring(item: Download, stop: Stop | None) -> tuple[Path, Received]:
            return _get(item, to, local, progress, retry or Retry(), stop)

        units = {unit[0].unit: unit for unit in _units(todo)}
        got: dict[str, tuple[Path, Received]] = {}
        with closing(bring_each([item for unit in units.values() for item in unit], bring, jobs)) as arriving:
            for item, brought in arriving:
                got[item.key] = brought
                unit = units[item.unit]
                if all(part.key in got for part in unit):
                    _finish(unit, [got[part.key] for part in unit], to, receipt)
        _drop_archives([item for item in known if receipt.holds(item)], to)
        _tidy(to)
    return bool(todo)


def _finish(unit: Sequence[Download], got: Sequence[tuple[Path, Received]], to: Path, receipt: Receipt) -> None:
    """Unpack the files of one unit, all of which are here, and write that down."""
    receipt.record(unit, [received for _, received in got], _unpack(unit, [path for path, _ in got], to))
    _drop_archives(unit, to)


def _get(
    item: Download, to: Path, local: Path | None, progress: Progress | None, retry: Retry, stop: Stop | None
) -> tuple[Path, Received]:
    """Bring one file, by copy or download, to where it is stored or unpacked from."""
    copy = find_local(item, local)
    if copy is not None and item.packing != "none":
        return copy, check_file(copy, item)
    place = to / item.key if item.packing == "none" else to / ARCHIVES / item.key
    with suppress(FileNotFoundError, WrongBytesError):  # complete since an earlier run that was killed afterwards
        return place, check_file(place, item)
    source = item if copy is None else item.model_copy(update={"url": copy.resolve().as_uri()})
    opened = progress(item.key) if progress else nullcontext(None)
    with opened as report:
        seen, patience = (report, retry) if stop is None else (stop.reporting(report), stop.waiting(retry))
        return place, download(source, place, to / PARTIAL / item.key, seen, patience)


def _unpack(unit: Sequence[Download], parts: Sequence[Path], to: Path) -> Unpacked | None:
    packing = unit[0].packing
    if packing == "none":
        return None
    target = to / unit[0].to
    scratch = to / PARTIAL / Path(unit[0].unit).with_name(f".{Path(unit[0].unit).name}.unpacked")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        unpacked = unpack(parts, packing, scratch)
        _refuse_own_names(scratch, target, to)
        _merge(scratch, target)
    except OSError as error:
        raise StoreError(
            f"{target}: {unit[0].unit} cannot be unpacked here ({error.strerror or error}). Free space or choose "
            "another folder with --to; the download is kept."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return unpacked


def _refuse_own_names(scratch: Path, target: Path, to: Path) -> None:
    for name in (RECEIPT, PARTIAL, ARCHIVES):
        if target == to and (scratch / name).exists():
            raise SourceError.at(
                scratch, f"holds {name!r}, a name that ncbench keeps for itself", "Set 'to' in the card."
            )


def _merge(source: Path, target: Path) -> None:
    """Move a tree into another; a file that is there already must be the same one."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        place = target / path.name
        if not place.exists():
            path.rename(place)
        elif path.is_dir() and place.is_dir():
            _merge(path, place)
        elif path.is_dir() or place.is_dir() or not filecmp.cmp(path, place, shallow=False):
            raise SourceError.at(
                place,
                "another archive of this data set, or you, put a different file there",
                "Move it away and fetch again, or give the archives different folders ('to' in the card).",
            )


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Keep a second process out of the folder; the lock of a killed process is no obstacle."""
    path = to / PARTIAL / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        raise StoreError(
            f"{to}: another process fetches into this folder. Wait for it, or choose another one."
        ) from error
    except OSError as error:
        raise StoreError(f"{to}: cannot be written ({error}). Free space or choose another folder.") from error
    path.unlink(missing_ok=True)
    _remove_empty(path.parent)


def _drop_archives(files: Sequence[Download], to: Path) -> None:
    for item in files:
        (to / ARCHIVES / item.key).unlink(missing_ok=True)


def _tidy(to: Path) -> None:
    """Remove what killed runs left, but keep unfinished downloads of files that were not wanted this time."""
    for path in [*to.glob(f".{RECEIPT}.*.tmp"), *(to / PARTIAL).rglob(".*.tmp")]:
        path.unlink(missing_ok=True)
    for path in (to / PARTIAL).rglob(".*.unpacked"):
        shutil.rmtree(path, ignore_errors=True)
    for folder in (to / ARCHIVES, to / PARTIAL):
        for path in sorted(folder.rglob("*/"), reverse=True):
            _remove_empty(path)
        _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # not empty, or not there
        folder.rmdir()


def _units(files: Sequence[Download]) -> list[list[Download]]:
    """Group the parts of one archive, in the card's order."""
    units: dict[str, list[Download]] = {}
    for item in files:
        units.setdefault(item.unit, []).append(item)
    return list(units.values())


def _is_same(entry: dict[str, Any], item: Download) -> bool:
    if item.sha256 is not None:
        return bool(entry["sha256"] == item.sha256)
    return bool(entry["url"] == redact(item.url)) and item.bytes in {None, entry["bytes"]}
