"""What the columns of a table are called, and how their numbers are printed."""

from __future__ import annotations

import math

INTERVAL, RANK, SPEED, MEMORY = "interval", "rank", "frames_per_second", "peak_memory"
EXTRAS = (INTERVAL, RANK, SPEED, MEMORY)
"""Columns that are no metrics."""
MISSING = "-"
_LARGE = 1e7  # from here on the power of ten says more than the digits
_LABELS = {"bfd_rmse": "track rmse", "bfd_bias": "bias", "bfd_flicker": "flicker", "bfd_fast": "fast flicker"}
_LABELS |= {"opw": "OPW", "opw_truth": "OPW of truth", "opw_excess": "OPW excess", "rc_deg": "rc", "tge_deg": "tge"}
_LABELS |= {RANK: "avg. rank", SPEED: "frames/s", MEMORY: "peak GiB"}
_THREE = ("opw", "abs_rel", "delta1")  # papers print them so: models differ in the third decimal


def label(column: str) -> str:
    """Spell a metric, or another column, as a table head.

    Examples:
        >>> label("within_11_25")
        '<11.25°'
    """
    if column.startswith("within_"):
        return f"<{column.removeprefix('within_').replace('_', '.')}°"
    return _LABELS.get(column, column)


def decimals(column: str) -> int:
    """How many decimals a column's numbers are printed with."""
    if column in (RANK, SPEED):
        return 1
    return 3 if column.startswith(_THREE) else 2


def printed(value: float, places: int) -> str:
    """Print a number; a dash where there is none. A value that rounds to zero has no sign, a huge one has a power.

    Examples:
        >>> printed(-0.001, 2), printed(float("nan"), 2), printed(1.5e300, 2)
        ('0.00', '-', '1.50e+300')
    """
    if not math.isfinite(value):
        return MISSING
    return f"{value:z.{places}f}" if abs(value) < _LARGE else f"{value:.2e}"


def signed(value: float, places: int) -> str:
    """Print a difference, with its sign.

    Examples:
        >>> signed(0.25, 1), signed(-0.001, 2)
        ('+0.2', '+0.00')
    """
    text = printed(value, places)
    return text if text.startswith("-") else f"+{text}"
