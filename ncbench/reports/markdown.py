"""Text from users in Markdown, so that it stays text."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#|~])")


def escape(text: str) -> str:
    r"""Escape text for GitHub's Markdown, also inside a table's cell.

    Args:
        text: Anything.

    Returns:
        One line that renders as ``text``: no markup, HTML, link or mention, and no cell border.

    Examples:
        >>> print(escape("a|b <i>"))
        a\|b &lt;i&gt;
    """
    flat = " ".join(str(text).split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # a zero-width space keeps a mention from notifying somebody
    return _SPECIAL.sub(r"\\\1", flat).replace("@", "@\u200b")
