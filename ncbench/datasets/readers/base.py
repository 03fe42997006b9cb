"""What a reader of a source format must offer, and nothing more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ncbench.datasets.frame import Frame, Skipped
from ncbench.errors import CardError, SourceError
from ncbench.registry import load_attribute

_BLOCK = 1 << 20


class Reader(Protocol):
    """Reads one source data set from its official files and yields canonical frames.

    A reader is made as ``reader_class(root, settings)``: the raw folder and ``DatasetCard.reader_settings()``.
    Construction checks the layout but decodes no frame. All methods are pure functions of the files, so that one worker
    and sixteen see the same data.
    """

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the clips in their fixed order: name -> ascending frame indices."""
        ...

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame | Skipped]:
        """Yield the named frames of one clip, in the order given, holding one frame in memory at a time.

        A frame that the data set's own rules leave out comes as ``Skipped`` with the reason.

        Raises:
            SourceError: A file is missing, truncated, corrupt or contradicts the layout.
        """
        ...

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash (hex sha256) the contents of all source files that ``read`` would use for these frames."""
        ...

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: column -> pyarrow data type. Empty for most readers."""
        ...


def make_reader(spec: str, root: Path, settings: Mapping[str, Any]) -> Reader:
    """Import a reader and open a raw folder with it.

    Args:
        spec: ``package.module:Class``, as the data set's card names it.
        root: The raw folder.
        settings: As ``DatasetCard.reader_settings`` gives them.

    Returns:
        The reader.

    Raises:
        CardError: No such reader, or the settings do not fit it.
        SourceError: The folder does not hold what the reader reads.
    """
    reader_class = load_attribute(spec)
    if not (isinstance(reader_class, type) and hasattr(reader_class, "read") and hasattr(reader_class, "sequences")):
        raise CardError(f"reader '{spec}' is not a class with the methods of ncbench.datasets.readers.base.Reader")
    reader: Reader = reader_class(root, settings)
    return reader


def hash_files(root: Path, files: Iterable[Path]) -> str:
    """Hash names (relative to ``root``) and contents of files, in the given order.

    Args:
        root: Folder that the names are relative to, so that moving a data set does not change its identity.
        files: The files; each must lie under ``root``.

    Returns:
        Hex sha256.

    Raises:
        SourceError: A file is missing or unreadable.
    """
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        try:
            digest.update(str(path.stat().st_size).encode() + b"\0")
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise SourceError.at(path, f"cannot be read ({error.strerror})", "Fetch the data set again.") from error
    return digest.hexdigest()
