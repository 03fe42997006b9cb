"""What the columns of a table are called, and how their numbers are printed."""

from __future__ import annotations

import math

INTERVAL, RANK, SPEED, MEMORY = "interval", "rank", "frames_per_second", "peak_memory"
EXTRAS = (INTERVAL, RANK, SPEED, MEMORY)
"""Columns that are no metrics."""
MISSING = "-"
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
    """Print a number; a dash where there is none. A value that rounds to zero has no sign.

    Examples:
        >>> printed(-0.001, 2), printed(float("nan"), 2)
        ('0.00', '-')
    """
    return f"{value:z.{places}f}" if math.isfinite(value) else MISSING
