"""Data as classic scripts: the only thing that a page opened from disk may load on demand.

Browsers let a page at ``file://`` neither fetch a file nor read the pixels of a picture file, but they run its scripts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

DATA_FOLDER = "data"


def slug(index: int, name: str) -> str:
    """Make a file name that is unique by its number and readable by its name, whatever the name holds.

    Args:
        index: Position among its siblings.
        name: Any text.

    Returns:
        Lower-case letters, digits and hyphens.

    Examples:
        >>> slug(2, "../<b>Alley 1</b>")
        '2-b-alley-1-b'
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-")
    return f"{index}-{words}" if words else str(index)


def script_text(key: str, values: Any) -> str:  # noqa: ANN401 - anything that JSON can hold
    """Spell values as a script that hands them to the page.

    Args:
        key: What the page asks for.
        values: Anything that JSON can hold; NaN is refused.

    Returns:
        ASCII text that holds no ``<``, so that it could even stand inside a page.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    spelled = [json.dumps(part, separators=(",", ":"), allow_nan=False) for part in (key, values)]
    return f"ncbench.data.put({','.join(spelled)});\n".replace("<", "\\u003c")


def write_script(folder: Path, key: str, values: Any) -> None:  # noqa: ANN401 - anything that JSON can hold
    """Write ``data/<key>.js`` below the page's folder; arguments as in ``script_text``."""
    path = folder / DATA_FOLDER / f"{key}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script_text(key, values), encoding="ascii")
