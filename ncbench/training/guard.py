"""A loss or gradient that is no number stops a run before it does harm, and names the clips that it came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ncbench.errors import ModelError
from ncbench.files import write_json
from ncbench.loaders.batch import Batch

BAD_BATCH = "bad-batch.json"
_SHOWN = 3


def clips_of(batch: Batch) -> list[dict[str, Any]]:
    """Say where the clips of a batch are from.

    Returns:
        For each: ``dataset``, ``sequence``, ``frames`` in their order, and whether it was ``flipped``.
    """
    named = zip(batch["dataset"], batch["sequence"], batch["frames"].tolist(), batch["flipped"].tolist(), strict=True)
    return [
        {"dataset": data, "sequence": name, "frames": frames, "flipped": flip} for data, name, frames, flip in named
    ]


def is_sound(values: Mapping[str, float]) -> bool:
    """Say whether all numbers are finite."""
    return all(math.isfinite(value) for value in values.values())


def stop(folder: Path, step: int, values: Mapping[str, float], batches: Sequence[Mapping[str, Any]]) -> NoReturn:
    """Write down what happened and raise.

    Args:
        folder: The run's folder.
        step: Number of the update that was not made.
        values: Losses and norm of the gradient, means over all batches of the update.
        batches: Of each batch of the update ``clips`` (see ``clips_of``) and its own ``loss``.

    Raises:
        ModelError: Always.
    """
    culprits = [batch for batch in batches if not math.isfinite(batch["loss"])] or list(batches)
    record = {"step": step, "values": _plain(values), "batches": [_plain(batch) for batch in culprits]}
    write_json(folder / BAD_BATCH, record)
    clips = [clip for batch in culprits for clip in batch["clips"]]
    shown = "; ".join(f"'{c['dataset']}' sequence '{c['sequence']}' frames {c['frames']}" for c in clips[:_SHOWN])
    more = f" and {len(clips) - _SHOWN} more clips" if len(clips) > _SHOWN else ""
    wrong = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))
    raise ModelError(
        f"step {step}: {wrong}, which is no number to learn from; nothing was changed. It came from {shown}{more}; all "
        f"of them are in {folder / BAD_BATCH}. Look at these frames (ncbench audit), lower the learning rate, or "
        "compute with --set precision=fp32. Earlier checkpoints are intact."
    )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Spell numbers that JSON has no spelling for as text."""
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
