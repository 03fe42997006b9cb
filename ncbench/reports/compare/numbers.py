"""A comparison as JSON, with every number that the Markdown was made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from ncbench.reports.compare.changes import Comparison


def to_json(comparison: Comparison, broken: Sequence[str]) -> str:
    """Spell a comparison as JSON.

    Args:
        comparison: The numbers.
        broken: Rules that are violated, a line each.

    Returns:
        ``rows`` (protocol, model, title, state, reason, ``changes`` with metric, base, head, interval, verdict),
        ``base`` and ``head`` (commits), ``interval``, ``broken``; the same text for the same numbers.
    """
    return json.dumps(asdict(comparison) | {"broken": list(broken)}, indent=1, sort_keys=True, allow_nan=False) + "\n"
