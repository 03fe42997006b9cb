"""Lists of images and clips: the ones shipped in ``datasets/splits``, or the user's own."""

from __future__ import annotations

from pathlib import Path

from ncbench.catalog import shipped_root
from ncbench.errors import CardError
from ncbench.settings import suggest


def read_list(name: str) -> list[list[str]]:
    """Read a list.

    Args:
        name: A list's name (``datasets/splits/<name>.txt`` of the current directory or of ncbench), or a path that ends
            in ``.txt``.

    Returns:
        The words of each line; empty lines and what follows a ``#`` are left out.

    Raises:
        CardError: No such list, it cannot be read, or it is empty.
    """
    path = Path(name) if name.endswith(".txt") else _find(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: expected a list as text, but it cannot be read ({error})") from error
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    lines = [words for words in lines if words]
    if not lines:
        raise CardError(f"{path}: expected a list with at least one line, found none")
    return lines


def _find(name: str) -> Path:
    folders = (Path.cwd() / "datasets" / "splits", shipped_root() / "datasets" / "splits")
    for folder in folders:
        if (folder / f"{name}.txt").is_file():
            return folder / f"{name}.txt"
    names = {path.stem for folder in folders for path in folder.glob("*.txt")}
    raise CardError(f"no list is called '{name}' in datasets/splits. {suggest(name, names)}")
