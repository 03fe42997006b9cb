"""File patterns with ``{sequence}`` and ``{frame}``, for data sets whose layout the user describes."""

from __future__ import annotations

import glob
import itertools
import re
from pathlib import Path, PurePosixPath

from ncbench.errors import CardError, SourceError

Place = tuple[str | None, int | None]
"""Sequence and frame of a file; None where the pattern does not say."""

_HOLDER = re.compile(r"\{([^{}]*)\}")
_EXPRESSIONS = {"sequence": r"[^/]+", "frame": r"\d+"}
_PADDING = re.compile(r"(?<=^frame):0?\d*d$")
_SHOWN = 12
_LOOKED_AT = 1000


class PathPattern:
    """One pattern, relative to the root of a data set.

    ``{sequence}`` stands for one folder or file name (or a piece of one), ``{frame}`` for a number with any zero
    padding (``{frame:04d}`` says the same); a placeholder that comes twice stands for the same text.

    Args:
        text: For example ``{sequence}/rgb/{frame}.png``.
        key: The setting it comes from, for messages.

    Raises:
        CardError: An unknown placeholder, a brace without partner, an absolute path, or ``..``.
    """

    def __init__(self, text: str, key: str) -> None:
        self.text, self.key = text, key
        path = PurePosixPath(text)
        if not text or path.is_absolute() or ".." in path.parts:
            raise CardError(f"key '{key}': expected a path inside the data set, found '{text}'")
        self._regex, self._glob = _translate(path.as_posix(), key)
        self.has_sequence = "sequence" in self._regex.groupindex
        self.has_frame = "frame" in self._regex.groupindex

    def find(self, root: Path) -> dict[Place, Path]:
        """Find all files that match.

        Args:
            root: The data set.

        Returns:
            (sequence, frame) -> file.

        Raises:
            SourceError: None matches, or two have one sequence and frame.
        """
        found: dict[Place, Path] = {}
        for path in sorted(root.glob(self._glob)):
            match = self._regex.fullmatch(path.relative_to(root).as_posix())
            if match is None or not path.is_file():
                continue
            groups = match.groupdict()
            place = groups.get("sequence"), int(groups["frame"]) if self.has_frame else None
            if place in found:
                problem = f"stands for the same sequence and frame as {found[place].name} (key '{self.key}')"
                raise SourceError.at(path, problem, "Remove one of them")
            found[place] = path
        if not found:
            problem = f"no file matches '{self.text}' (key '{self.key}'); the folder holds {_some_files(root)}"
            raise SourceError.at(root, problem, "Correct the pattern or the folder")
        return found

    def place(self, sequence: str | None, frame: int) -> Place:
        """Reduce a frame's place to what this pattern distinguishes.

        Args:
            sequence: Name matched by ``{sequence}``, or None.
            frame: Number of the frame.

        Returns:
            The key to look up in what ``find`` returned.
        """
        return sequence if self.has_sequence else None, frame if self.has_frame else None


def _translate(text: str, key: str) -> tuple[re.Pattern[str], str]:
    """Write a pattern as a regular expression for whole paths and as a glob that finds at least those."""
    expression, wild, seen = "", "", set[str]()
    for index, part in enumerate(_HOLDER.split(text)):
        if index % 2 == 0:
            if "{" in part or "}" in part:
                raise CardError(f"key '{key}': a brace has no partner in '{text}'")
            expression += re.escape(part)
            wild += glob.escape(part)
        elif (name := _PADDING.sub("", part)) not in _EXPRESSIONS:
            raise CardError(
                f"key '{key}': unknown placeholder '{{{part}}}' in '{text}'. Valid: {{sequence}}, {{frame}}."
            )
        else:
            expression += f"(?P={name})" if name in seen else f"(?P<{name}>{_EXPRESSIONS[name]})"
            wild += "*"
            seen.add(name)
    return re.compile(expression), wild


def _some_files(root: Path) -> str:
    """Name a few files, so that the user sees what the pattern should have matched."""
    files = (path for path in root.rglob("*") if path.is_file())
    names = sorted(path.relative_to(root).as_posix() for path in itertools.islice(files, _LOOKED_AT))
    if not names:
        return "no files"
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
