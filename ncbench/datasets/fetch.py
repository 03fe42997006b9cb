"""Bring a data set's official files into one raw folder."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ncbench.cards import DatasetCard, GeneratedSource, ManualSource, digest
from ncbench.datasets.readers.base import hash_files, make_reader
from ncbench.errors import SourceError, StoreError
from ncbench.provenance import write_json
from ncbench.registry import load_attribute

RECEIPT = "fetch.json"


def fetch(card: DatasetCard, to: Path) -> bool:
    """Make sure that a raw folder holds a data set's source files.

    Generated sources are written into a folder beside the target and renamed when complete, so an interrupted run
    leaves no half. Sources behind a download page or terms are never fetched around them: the files must lie in the
    folder already, and their layout is checked by the data set's reader.

    Args:
        card: The data set.
        to: The raw folder.

    Returns:
        True where files were written, False where they were there already.

    Raises:
        SourceError: The files must be obtained by hand and are not there, or the folder holds something else.
        StoreError: The disk is full or the folder cannot be written.
    """
    if isinstance(card.source, ManualSource):
        _check_manual(card, card.source, to)
        return False
    return _generate(card, card.source, to)


def _check_manual(card: DatasetCard, source: ManualSource, to: Path) -> None:
    try:
        make_reader(card.reader, to, card.reader_settings())
    except SourceError as error:
        urls = "".join(f"\n  {item.url}" for item in source.downloads)
        raise SourceError(
            f"{card.name} must be obtained by hand: {source.instructions}{urls}\nFound instead: {error}"
        ) from error


def _generate(card: DatasetCard, source: GeneratedSource, to: Path) -> bool:
    generator = load_attribute(source.generator)
    receipt = {
        "dataset": card.name,
        "version": card.version,
        "source": digest(source.model_dump(mode="json")),
        "code": _code_digest(generator),
    }
    if to.exists() and any(to.iterdir()):
        if _read_receipt(to) == receipt:
            return False
        if _read_receipt(to) is None:
            raise SourceError(
                f"{to}: holds files that ncbench did not put there. Choose another folder or empty this one."
            )
        shutil.rmtree(to)
    partial = to.with_name(f".{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        generator(partial, source.settings)
        write_json(partial / RECEIPT, receipt)
        if to.exists():
            to.rmdir()
        partial.rename(to)
    except OSError as error:
        raise StoreError(f"{to}: cannot be written ({error}). Free space or choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _code_digest(generator: Callable[..., None]) -> str:
    """Hash the generator's package: what it writes is a function of the settings and of this code."""
    folder = Path(inspect.getfile(generator)).parent
    return hash_files(folder, sorted(folder.glob("*.py")))


def _read_receipt(folder: Path) -> dict[str, Any] | None:
    try:
        receipt: dict[str, Any] = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return receipt
