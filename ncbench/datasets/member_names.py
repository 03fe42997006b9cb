"""Which names of archive members may become files: the same answer on every operating system."""

from __future__ import annotations

import re
import unicodedata

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f\ud800-\udfff]')  # ":" also stops drive letters and streams
_LONGEST_PART, _LONGEST_PATH = 255, 1024  # bytes; what the file systems in use have in common


class NameRegister:
    """The names of one archive, each checked alone and against all earlier ones."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}

    def add(self, name: str, *, folder: bool) -> tuple[str, ...]:
        """Check one member's name and remember it.

        Args:
            name: As the archive holds it; ``/`` separates parts.
            folder: Whether the member is a folder; folders may repeat, files may not.

        Returns:
            The parts of the relative path; empty for the archive's root (``./``).

        Raises:
            ValueError: The name is unsafe or cannot be a file everywhere; the message says why.
        """
        parts = split_name(name)
        if not parts and not folder:
            raise ValueError("it names no file")
        for depth in range(1, len(parts) + 1):
            last = depth == len(parts)
            repeated = self._remember("/".join(parts[:depth]), folder=folder or not last)
            if repeated and last and not folder:
                raise ValueError("it appears twice")
        return parts

    def _remember(self, spelling: str, *, folder: bool) -> bool:
        """Remember one path and say whether it was there already."""
        key = unicodedata.normalize("NFD", unicodedata.normalize("NFD", spelling).casefold())
        count = len(self._seen)
        before, was_folder = self._seen.setdefault(key, (spelling, folder))
        if before != spelling:
            raise ValueError(f"it differs from {before!r} only in the case or the composition of its letters")
        if was_folder != folder:
            raise ValueError(f"{spelling!r} is a file and a folder")
        return len(self._seen) == count


def split_name(name: str) -> tuple[str, ...]:
    """Split a member's name into the parts of a relative path.

    Args:
        name: As the archive holds it; ``./`` and repeated slashes are dropped.

    Returns:
        The parts; empty for the archive's root.

    Raises:
        ValueError: The name is absolute, leaves the folder, or is not a file name on every operating system.

    Examples:
        >>> split_name("./training//clean/frame_0001.png")
        ('training', 'clean', 'frame_0001.png')
    """
    if name.startswith("/"):
        raise ValueError("it is absolute")
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    for part in parts:
        if part == "..":
            raise ValueError("it leaves the folder")
        if _FORBIDDEN.search(part):
            raise ValueError("it holds a character that is not allowed in file names on every system")
        if part[-1] in ". ":
            raise ValueError("a part of it ends with a dot or a space, which Windows drops")
        if _RESERVED.fullmatch(part.partition(".")[0].rstrip(" ")):
            raise ValueError(f"{part!r} is the name of a device on Windows")
        if len(part.encode()) > _LONGEST_PART:
            raise ValueError(f"a part of it is longer than {_LONGEST_PART} bytes")
    if len("/".join(parts).encode()) > _LONGEST_PATH:
        raise ValueError(f"it is longer than {_LONGEST_PATH} bytes")
    return parts
