"""What a fetch would do: files, sizes, what is here already, room on the disk. Nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ncbench.cards import DatasetCard
from ncbench.datasets.fetch_files import ARCHIVES, PARTIAL, Receipt, find_local, read_receipt
from ncbench.datasets.remote import TransientError, find_size, redact
from ncbench.errors import SourceError
from ncbench.sources import Download

State = Literal["fetched", "waits for unpacking", "local copy", "begun", "missing"]


@dataclass(frozen=True)
class PlannedFile:
    """One file of a plan.

    Attributes:
        name: Relative path of the file or archive.
        url: Its address, redacted.
        bytes: Size; None where neither the card nor the server says.
        here: Bytes that need no download any more.
        state: What is here.
        problem: Why the server could not be asked; empty where it was not asked or answered.
    """

    name: str
    url: str
    bytes: int | None
    here: int
    state: State
    problem: str = ""


@dataclass(frozen=True)
class FetchPlan:
    """What ``fetch`` would do.

    Attributes:
        dataset: Name of the card.
        folder: The raw folder.
        kind: Kind of the card's source.
        steps: What the user does by hand; empty where nothing is to be done.
        files: The files, in the card's order.
        free: Free bytes of the disk.
    """

    dataset: str
    folder: Path
    kind: str
    steps: str
    files: tuple[PlannedFile, ...]
    free: int

    @property
    def missing(self) -> int:
        """Bytes still to be downloaded, as far as sizes are known."""
        return sum(item.bytes - item.here for item in self.files if item.bytes is not None)

    def __str__(self) -> str:
        """Write the plan as lines of text."""
        unknown = sum(item.bytes is None for item in self.files)
        more = f", and {unknown} of unknown size" if unknown else ""
        lines = [f"{self.dataset} ({self.kind}) into {self.folder}"]
        lines += [self.steps] if self.steps else []
        lines += [_line(item) for item in self.files]
        lines.append(f"to download: {_size(self.missing)}{more}; free: {_size(self.free)}")
        if self.missing > self.free:
            lines.append("the disk is too small: choose another folder with --to, or fewer scenes with --scenes")
        return "\n".join(lines)


def plan_fetch(
    card: DatasetCard, files: Sequence[Download], known: Sequence[Download], to: Path, local: Path | None
) -> FetchPlan:
    """Find out what a fetch would do.

    Args:
        card: The data set.
        files: The files wanted.
        known: All files of the card.
        to: The raw folder.
        local: Folder of copies.

    Returns:
        The plan. Servers are asked for the sizes that the card lacks.

    Raises:
        SourceError: The folder holds another version of the data set.
    """
    receipt = Receipt(to, card, known) if "files" in (read_receipt(to) or {}) else None
    steps = getattr(card.source, "instructions", "")
    planned = tuple(_plan(item, to, local, receipt, ask=card.source.kind == "download") for item in files)
    return FetchPlan(card.name, to, card.source.kind, steps, planned, _free(to))


def _plan(item: Download, to: Path, local: Path | None, receipt: Receipt | None, *, ask: bool) -> PlannedFile:
    name, url = item.key if item.name else redact(item.url), redact(item.url)
    if receipt is not None and receipt.holds(item):
        stored = receipt.size(item)
        return PlannedFile(name, url, stored, stored, "fetched")
    copies: list[tuple[State, Path | None]] = [
        ("local copy", find_local(item, local)),
        ("waits for unpacking", to / ARCHIVES / item.key),
    ]
    for state, path in copies:
        if path is not None and path.is_file():
            stored = path.stat().st_size
            return PlannedFile(name, url, stored, stored, state)
    partial = to / PARTIAL / item.key
    here = partial.stat().st_size if partial.is_file() else 0
    size, problem = item.bytes, ""
    if size is None and ask:
        try:
            size = find_size(item.url)
        except (SourceError, TransientError) as error:
            problem = str(error)
    return PlannedFile(name, url, size, here, "begun" if here else "missing", problem)


def _free(folder: Path) -> int:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _line(item: PlannedFile) -> str:
    size = "size unknown" if item.bytes is None else _size(item.bytes)
    begun = f", {_size(item.here)} here" if item.state == "begun" else ""
    return f"  {item.name}: {size}, {item.state}{begun} ({item.url}){f' - {item.problem}' if item.problem else ''}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
