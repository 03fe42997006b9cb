"""Whether a model could run here, told from its card alone: nothing is imported, downloaded or loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ncbench.cards import ModelCard
from ncbench.models.weights import missing_weights


def obstacles(card: ModelCard, weights: Path | None = None) -> list[str]:
    """Say what a model lacks on this machine.

    Args:
        card: Its card.
        weights: Folder of weights; None looks into the Hub's cache.

    Returns:
        What is missing, one phrase each; empty where it can run.
    """
    modules = [card.adapter.partition(":")[0], *card.requires]
    absent = [f"needs module {name}" for name in dict.fromkeys(modules) if not _importable(name)]
    missing = missing_weights(card, weights)
    if not missing or card.weights is None:
        return absent
    how = "on first use" if card.weights.host == "huggingface" else "for --weights"
    return [*absent, f"{len(missing)} of {len(card.weights.files)} weight files to get {how}"]


def _importable(module: str) -> bool:
    """Look for a module; of a package only itself is looked for, since its parts cannot be without importing it."""
    top = module.partition(".")[0]
    try:
        return importlib.util.find_spec(module if top == "ncbench" else top) is not None
    except (ImportError, ValueError):
        return False
