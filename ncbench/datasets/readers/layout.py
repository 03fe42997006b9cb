"""Checks of files and folders that all readers share, each with an error that says what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ncbench.errors import SourceError
from ncbench.settings import suggest


def require_folder(path: Path, what: str, remedy: str) -> Path:
    """Check that a folder is there and can be listed.

    Args:
        path: The folder.
        what: What it should hold.
        remedy: What the user can do if it is missing.

    Returns:
        The folder.

    Raises:
        SourceError: It is missing, is a file, or cannot be listed.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise SourceError.at(path, f"expected a folder with {what}, found {found}", remedy)
    listing(path)
    return path


def listing(folder: Path) -> list[Path]:
    """List a folder in a fixed order.

    Args:
        folder: The folder.

    Returns:
        Its entries, sorted by name.

    Raises:
        SourceError: It cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        problem = f"expected a readable folder, but it cannot be listed ({error.strerror})"
        raise SourceError.at(folder, problem, "Check its permissions") from error


def numbered_files(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    """Find the files whose name carries a frame number.

    Args:
        folder: Where to look.
        pattern: Must match the whole name, with the number as group 1. Other names are passed over.

    Returns:
        Number -> file, ascending.

    Raises:
        SourceError: The folder cannot be listed, or two names carry one number.
    """
    found: dict[int, Path] = {}
    for path in listing(folder):
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        number = int(match.group(1))
        if number in found:
            raise SourceError.at(path, f"carries the same frame number as {found[number].name}", "Remove one of them")
        found[number] = path
    return dict(sorted(found.items()))


def require_shape(path: Path, found: tuple[int, ...], expected: tuple[int, ...], reference: str) -> None:
    """Check that a map has the size of the thing it belongs to.

    Args:
        path: The map's file.
        found: Its (H, W, ...); only H and W are compared.
        expected: The (H, W, ...) it should have.
        reference: What has that size.

    Raises:
        SourceError: They differ.
    """
    if tuple(found[:2]) != tuple(expected[:2]):
        problem = f"expected {expected[1]} x {expected[0]} pixels like {reference}, found {found[1]} x {found[0]}"
        raise SourceError.at(path, problem, "All files of one sequence must have one size: fetch or export it again")


def require_known(root: Path, clips: Mapping[str, Sequence[int]], sequence: str, frames: Sequence[int]) -> None:
    """Check that a caller asks for frames that are there.

    Args:
        root: The data set, for the message.
        clips: All sequences with their frame numbers.
        sequence: The one asked for.
        frames: The frames asked for.

    Raises:
        SourceError: The sequence or a frame is not there.
    """
    if sequence not in clips:
        raise SourceError.at(root, f"there is no sequence '{sequence}'", suggest(sequence, clips).rstrip("."))
    missing = sorted(set(frames) - set(clips[sequence]))
    if missing:
        have = clips[sequence]
        problem = f"sequence '{sequence}' has {len(have)} frames from {have[0]} to {have[-1]}, but not {missing[:10]}"
        raise SourceError.at(root, problem, "Correct the list of frames or fetch the data set again")
