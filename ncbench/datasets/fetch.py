"""Bring a data set's official files into one raw folder."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, overload

from ncbench.cards import DatasetCard, digest
from ncbench.datasets.download import Retry
from ncbench.datasets.fetch_files import PARTIAL, RECEIPT, Progress, fetch_files, find_local, read_receipt
from ncbench.datasets.fetch_plan import FetchPlan, plan_fetch
from ncbench.datasets.readers.base import hash_files, make_reader
from ncbench.errors import CardError, SourceError, StoreError
from ncbench.files import write_json
from ncbench.registry import load_attribute
from ncbench.sources import Download, DownloadSource, GeneratedSource, ManualSource, select


@overload
def fetch(
    card: DatasetCard,
    to: Path,
    *,
    scenes: Iterable[str] | None = None,
    local: Path | None = None,
    dry_run: Literal[False] = False,
    progress: Progress | None = None,
    retry: Retry | None = None,
    jobs: int = 1,
) -> bool: ...
@overload
def fetch(
    card: DatasetCard,
    to: Path,
    *,
    scenes: Iterable[str] | None = None,
    local: Path | None = None,
    dry_run: Literal[True],
    progress: Progress | None = None,
    retry: Retry | None = None,
    jobs: int = 1,
) -> FetchPlan: ...
def fetch(
    card: DatasetCard,
    to: Path,
    *,
    scenes: Iterable[str] | None = None,
    local: Path | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    retry: Retry | None = None,
    jobs: int = 1,
) -> bool | FetchPlan:
    """Make sure that a raw folder holds a data set's source files.

    Generated sources are written into a folder beside the target and renamed when complete, so an interrupted run
    leaves no half. Downloads resume where they stopped, are checked, and unpacked safely; ``fetch.json`` in the raw
    folder records what is there. Sources behind a download page or terms are never fetched around them: the files are
    taken from the raw folder or from ``local``, and their layout is checked by the data set's reader.

    Args:
        card: The data set.
        to: The raw folder.
        scenes: Names or shell patterns of the scenes wanted; None means all of them. Only for cards that list scenes.
        local: A folder of the user's: archives in it are used in place of downloads; a folder that the reader accepts
            as it is is linked to, not copied.
        dry_run: Write nothing, return the plan.
        progress: Opens a progress report for one file, given its name; reports are called with (bytes done, bytes in
            all or 0 where unknown). Several may be open at once, each in a thread, if ``jobs`` allows.
        retry: Patience with failing servers.
        jobs: How many files are downloaded at once.

    Returns:
        True where files were written, False where they were there already; the plan in a dry run.

    Raises:
        CardError: No such scene.
        SourceError: The files must be obtained by hand and are not there, a file cannot be had or is not what the card
            says, an archive is unsafe, or the folder holds something else.
        StoreError: The disk is full, the folder cannot be written, or another process fetches into it.
    """
    source = card.source
    if source.kind == "generate":
        if scenes is not None or local is not None:
            raise CardError(f"{card.name}: its files are made here; scenes and local files do not apply.")
        return plan_fetch(card, [], [], to, None) if dry_run else _generate(card, source, to)
    files = select(source.downloads, scenes, card.name)
    if dry_run:
        return plan_fetch(card, files, source.downloads, to, local)
    if local is not None and _accepts(card, local) is None:
        return _link(to, local)
    if source.kind == "manual":
        files = _given_by_hand(card, source, files, to, local)
        if not files:
            return False
    elif _is_foreign(card, to):
        return False
    written = fetch_files(
        card, files, to, known=source.downloads, local=local, progress=progress, retry=retry, jobs=jobs
    )
    _check_layout(card, source, files, to)
    return written


def _given_by_hand(
    card: DatasetCard, source: ManualSource, files: Sequence[Download], to: Path, local: Path | None
) -> list[Download]:
    """Decide what to take from the user's folder; nothing where the raw folder is complete without it."""
    refusal = _accepts(card, to)
    if local is None:
        if refusal is None and not (to / PARTIAL).exists():
            return []
        raise _by_hand(card, source, f"Found instead: {refusal or f'{to} is half unpacked: run again with --local'}")
    absent = [item for item in files if item.packing != "none" and find_local(item, local) is None]
    given = [item for item in files if find_local(item, local) is not None]
    if absent or not given:
        names = ", ".join(item.name for item in absent) or "any of its files"
        raise _by_hand(
            card, source, f"{local} holds neither the unpacked data set nor {names}: {_accepts(card, local)}"
        )
    return given


def _is_foreign(card: DatasetCard, to: Path) -> bool:
    """Whether the folder was filled by somebody else with what the reader accepts; an error where it does not."""
    receipt = read_receipt(to)
    ours = receipt is not None and receipt.get("dataset") == card.name and "files" in receipt
    if ours or not to.exists() or all(path.name.startswith(".") for path in to.iterdir()):
        return False
    refusal = _accepts(card, to)
    if refusal is not None:
        raise SourceError(
            f"{to}: holds files that ncbench did not put there, and that are not {card.name}. Choose another folder or "
            f"empty this one.\nFound: {refusal}"
        )
    return True


def _accepts(card: DatasetCard, folder: Path) -> SourceError | None:
    """Let the card's reader look at a folder; None where it finds its layout."""
    try:
        make_reader(card.reader, folder, card.reader_settings())
    except SourceError as error:
        return error
    return None


def _check_layout(
    card: DatasetCard, source: ManualSource | DownloadSource, files: Sequence[Download], to: Path
) -> None:
    if len(files) < len(source.downloads):  # a selection need not be a whole data set
        return
    refusal = _accepts(card, to)
    if refusal is not None:
        raise SourceError(
            f"{to}: all files of {card.name} are here, but its reader does not find its layout: {refusal}\n"
            "The publisher may have changed the archives; correct the card."
        ) from refusal


def _by_hand(card: DatasetCard, source: ManualSource, found: str) -> SourceError:
    urls = "".join(f"\n  {item.url}" for item in source.downloads)
    return SourceError(f"{card.name} must be obtained by hand: {source.instructions}{urls}\n{found}")


def _link(to: Path, local: Path) -> bool:
    """Make the raw folder a link to the user's own: hundreds of gigabytes are not copied."""
    if to.exists() and to.resolve() == local.resolve():
        return False
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise SourceError(f"{to}: exists already. Remove it or choose another folder with --to.")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        if to.exists():
            to.rmdir()
        to.symlink_to(local.resolve(), target_is_directory=True)
    except OSError as error:
        raise StoreError(
            f"{to}: no link to {local} can be made ({error}). Pass the folder itself with 'ncbench prepare --raw'."
        ) from error
    return True


def _generate(card: DatasetCard, source: GeneratedSource, to: Path) -> bool:
    generator = load_attribute(source.generator)
    identity = {
        "dataset": card.name,
        "version": card.version,
        "source": digest(source.model_dump(mode="json")),
        "code": _code_digest(generator),
    }
    if _is_generated(to, identity):
        return False
    partial = to.parent / f".{to.name}.{os.getpid()}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        generator(partial, source.settings)
        write_json(partial / RECEIPT, identity | {"generated": _contents(partial)})
        shutil.rmtree(to, ignore_errors=True)
        partial.rename(to)
    except OSError as error:
        raise StoreError(f"{to}: cannot be written ({error}). Free space or choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _is_generated(to: Path, identity: dict[str, str]) -> bool:
    """Whether a folder holds just what would be generated; False where it may be replaced, an error where not."""
    if not to.exists():
        return False
    if not to.is_dir():
        raise StoreError(f"{to}: is a file, not a folder. Choose another place.")
    receipt, found = read_receipt(to) or {}, _contents(to)
    listed = receipt.get("generated", {})
    strangers = sorted(set(found) - set(listed))
    if strangers:
        raise SourceError(
            f"{to}: holds files that ncbench did not put there ({strangers[0]}). Choose another folder or empty "
            "this one."
        )
    return found == listed and all(receipt.get(key) == value for key, value in identity.items())


def _contents(folder: Path) -> dict[str, str]:
    """Hash every file of a generated folder but the receipt."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECEIPT)
    return {path.relative_to(folder).as_posix(): hash_files(folder, [path]) for path in files}


def _code_digest(generator: Callable[..., None]) -> str:
    """Hash the generator's package: what it writes is a function of the settings and of this code."""
    folder = Path(inspect.getfile(generator)).parent
    return hash_files(folder, sorted(folder.glob("*.py")))
