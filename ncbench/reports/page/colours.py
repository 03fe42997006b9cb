"""The colours of errors and flicker, made once for the page's scripts."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np

from ncbench.reports.page.codes import text
from ncbench.reports.pictures import ERROR_LIMIT

FLICKER_LIMIT = 10.0
"""Degrees at both ends."""


def colour_tables() -> dict[str, Any]:
    """Give the colour tables: perceptually even ones that colour-blind readers can tell apart.

    Returns:
        ``error`` and ``flicker``: ``limit`` in degrees, and ``table``, 256 x RGB as base64; from 0 to the limit, and
        from minus the limit to the limit.
    """
    return {
        "error": {"limit": ERROR_LIMIT, "table": _table("inferno")},
        "flicker": {"limit": FLICKER_LIMIT, "table": _table("PuOr_r")},
    }


def _table(name: str) -> str:
    colours = mpl.colormaps[name](np.arange(256) / 255)[:, :3]
    return text(np.rint(colours * 255).astype(np.uint8).tobytes())
