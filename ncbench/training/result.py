"""What a finished run leaves: the networks in their published layout, and how they came to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ncbench.cards import to_yaml
from ncbench.errors import ModelError
from ncbench.files import replacing_folder
from ncbench.provenance import code_revision, machine, package_versions
from ncbench.recipe_card import RecipeCard
from ncbench.training.checkpoint import sync, system_errors
from ncbench.training.folder import LOADER, MODEL, PROVENANCE, RECIPE
from ncbench.training.stage import Stage


def write_result(folder: Path, stage: Stage, card: RecipeCard, loader_yaml: str, facts: Mapping[str, Any]) -> Path:
    """Write ``<folder>/model``, whole or not at all.

    Args:
        folder: Of the run.
        stage: Holding the parameters to keep.
        card: The recipe as it was run.
        loader_yaml: The loader's card as it was used.
        facts: For the record: identity of the run, steps, seconds, last values, world size, device.

    Returns:
        The folder.

    Raises:
        StoreError: The disk is full or not writable; an earlier result stays.
        ModelError: The stage's own code cannot save it.
    """
    to = folder / MODEL
    record = {**facts, "versions": package_versions(), "code": code_revision(), "machine": machine()}
    with replacing_folder(to, "model") as partial:
        try:
            with system_errors():
                stage.save(partial)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ModelError(f"{to}: the stage cannot save its networks ({error})") from error
        (partial / RECIPE).write_text(to_yaml(card), encoding="utf-8")
        (partial / LOADER).write_text(loader_yaml, encoding="utf-8")
        (partial / PROVENANCE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (partial / "README.md").write_text(_readme(card, record), encoding="utf-8")
        for path in sorted(partial.rglob("*"), reverse=True):
            sync(path)
    return to


def finished_steps(folder: Path) -> int:
    """Say how many steps the finished model of a run has had; 0 where there is none."""
    path = folder / MODEL / PROVENANCE
    return int(json.loads(path.read_text(encoding="utf-8"))["steps"]) if path.is_file() else 0


def _readme(card: RecipeCard, record: Mapping[str, Any]) -> str:
    last = record["last"]
    kept = f"the running mean of the parameters (decay {card.ema})" if card.ema else "the parameters of the last step"
    rows = {
        "recipe": f"{card.name} {card.version}",
        "stage": card.stage,
        "steps": f"{record['steps']:,}, {card.global_batch} clips each",
        "weights are": kept,
        "data": ", ".join(f"{name} (`{digest[:12]}`)" for name, digest in record["data"].items()),
        "started from": record["init"]["name"],
        "last loss": f"{last['loss']:.6g}" if "loss" in last else "-",
        "precision, seed": f"{card.precision}, {card.seed}",
        "time": f"{record['seconds'] / 3600:.2f} h on {record['world']} x {record['device']}",
        "ncbench": f"{record['versions']['ncbench']}, commit {record['code']['commit']}"
        + (" with local changes" if record["code"]["dirty"] else ""),
    }
    if "validation_mean" in last:
        where = card.validation.dataset if card.validation else ""
        psnr = f", PSNR {last['validation_psnr']:.2f} dB" if "validation_psnr" in last else ""
        rows["validation"] = f"mean angular error {last['validation_mean']:.3f} degrees{psnr} on clips of {where}"
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return (
        f"# {card.title}\n\n{card.summary}\n\n| | |\n|---|---|\n{table}\n\n"
        f"`{RECIPE}` and `{LOADER}` are what was run; `{PROVENANCE}` holds the digests of data and weights, versions "
        "and the last values. The terms of the weights that training started from, and of the data, apply here too.\n"
    )
