"""Table 2 of NormalCrafter's paper in miniature: leave out one part of the recipe at a time and score what is left.

    python benchmarks/ablation_mini.py --base data/training --to data/ablation-mini

``--base`` holds the runs of the complete chain (docs/train-mini.md). Variants that are finished are only scored, so
that the command can be repeated and given other variants with ``--only``. The result is a table, one row a variant
and protocol, in ``benchmarks/results/training-ablation-mini.csv``.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "training-ablation-mini.csv"
PROTOCOLS = ("rooms", "sintel-mini")
METRICS = ("mean", "median", "within_11_25", "within_22_5", "within_30", "bfd_flicker")
AUTOENCODER, DECODER = "autoencoder-mini", "normalcrafter-vae-mini"
STAGE1, STAGE2 = "normalcrafter-stage1-mini", "normalcrafter-stage2-mini"
# a vision transformer with random weights, since there is none to download: what SFR does to the features is real, what
# it teaches is not
_SEMANTIC = "settings.semantic={random: {hidden: 32, layers: 1, heads: 2, patch: 4}, hidden: 64, block: %s}"
_EVERYTHING = "settings.learns=[spatial, in_out, embeddings, mixers, temporal]"
_NETWORKS = (
    "settings.networks={unet: {channels: [64, 128, 128], heads: [2, 4, 4], layers: 1, time_embedding: 32}, "
    "image_encoder: {hidden: 32, layers: 1, heads: 2, patch: 56, token: 32}}"
)


@dataclass(frozen=True)
class Run:
    """One training run of a variant.

    Attributes:
        recipe: What is trained.
        init: Folder to start from, below the base for a recipe's name, else below the variant's own folder.
        changes: To the recipe.
    """

    recipe: str
    init: str
    changes: tuple[str, ...] = ()


def variants() -> dict[str, tuple[Run, ...]]:
    """List what is trained for each variant beyond the complete chain."""
    listed: dict[str, tuple[Run, ...]] = {
        "full": (),
        "without stage 2": (),
        # stage 1 never decodes: its U-Net is the same, and only the decoder is put back
        "without VAE fine-tuning": (Run(STAGE2, "start"),),
        # from random weights, temporal layers must learn as well
        "without stage 1": (Run(STAGE2, DECODER, (_NETWORKS, _EVERYTHING)),),
    }
    for block in ("down1", "down2", "mid", "up0", "up1"):
        semantic = _SEMANTIC % block
        listed[f"with SFR at {block}"] = (Run(STAGE1, DECODER, (semantic,)), Run(STAGE2, STAGE1, (semantic,)))
    return listed


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and score the variants asked for, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=Path("data/training"))
    parser.add_argument("--to", type=Path, default=Path("data/ablation-mini"))
    parser.add_argument("--stores", type=Path, default=Path("data/stores"))
    parser.add_argument("--only", nargs="+", choices=list(variants()), default=list(variants()))
    options = parser.parse_args(arguments)
    rows = {(row["variant"], row["protocol"]): row for row in _read(RESULT)}
    for name in options.only:
        weights = _trained(name, options.base, options.to / name.replace(" ", "-"), options.stores)
        for row in _scores(name, weights, options.to / name.replace(" ", "-"), options.stores):
            rows[row["variant"], row["protocol"]] = row
            print(*row.values(), sep="  ", flush=True)
        _write(RESULT, list(rows.values()))


def _trained(name: str, base: Path, to: Path, stores: Path) -> Path:
    """Train a variant; return its weights."""
    if name == "full":
        return base / STAGE2 / "model"
    if name == "without stage 2":
        return base / STAGE1 / "model"
    if name == "without VAE fine-tuning" and not (to / "start").exists():
        shutil.copytree(base / STAGE1 / "model", to / "start", ignore=shutil.ignore_patterns("vae"))
        shutil.copytree(base / AUTOENCODER / "model" / "vae", to / "start" / "vae")
    for run in variants()[name]:
        own = to / run.init
        init = own if own.exists() else base / run.init
        changes = [part for change in run.changes for part in ("--set", change)]
        _call("train", run.recipe, "--to", to / run.recipe, "--init", init, "--stores", stores, *changes)
    return to / STAGE2 / "model"


def _scores(name: str, weights: Path, to: Path, stores: Path) -> list[dict[str, str]]:
    rows = []
    for protocol in PROTOCOLS:
        places = ("--stores", stores, "--predictions", to / "predictions")
        model = "normalcrafter-mini"
        _call("predict", model, protocol, "--weights", weights, *places)
        _call("evaluate", model, "--protocol", protocol, *places, "--results", to / "results")
        result = json.loads((to / "results" / protocol / model / "result.json").read_text(encoding="utf-8"))
        values = {metric: f"{result['metrics'][metric]:.2f}" for metric in METRICS}
        rows.append({"variant": name, "protocol": protocol, **values})
    return rows


def _call(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "ncbench", *map(str, words)], check=True)


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["variant", "protocol", *METRICS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
