"""Table 2 of NormalCrafter's paper in miniature: leave out one part of the recipe at a time and score what is left.

    OMP_NUM_THREADS=1 python benchmarks/ablation_mini.py --base data/training --to data/ablation-mini --seeds 0 1 2

``--base`` holds the autoencoder and the fine-tuned decoder (docs/train-mini.md), which all variants share; the rest is
trained here, once for each seed. What is finished is only scored, so that the command can be repeated, and be given
other variants with ``--only``, once ``full`` is there. The result is a table, one row a variant, seed and protocol, in
``benchmarks/results/training-ablation-mini.csv``; the command ends with its means and ranges over seeds.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ncbench.training.folder import MODEL

RESULT = Path(__file__).parent / "results" / "training-ablation-mini.csv"
KEYS = ("variant", "seed", "protocol")
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
        init: Run to start from: of this variant, else of the complete chain, else of the base.
        changes: To the recipe.
    """

    recipe: str
    init: str
    changes: tuple[str, ...] = ()


FULL = "full"
VARIANTS: dict[str, tuple[Run, ...]] = {
    FULL: (Run(STAGE1, DECODER), Run(STAGE2, STAGE1)),
    "without stage 2": (),
    # stage 1 never decodes: its U-Net is the same, and only the decoder is put back
    "without VAE fine-tuning": (Run(STAGE2, "start"),),
    # from random weights, temporal layers must learn as well
    "without stage 1": (Run(STAGE2, DECODER, (_NETWORKS, _EVERYTHING)),),
} | {
    f"with SFR at {block}": (
        Run(STAGE1, DECODER, (_SEMANTIC % block,)),
        Run(STAGE2, STAGE1, (_SEMANTIC % block,)),
    )
    for block in ("down1", "down2", "mid", "up0", "up1")
}


@dataclass(frozen=True)
class Places:
    """Folders of the runs of one seed."""

    base: Path
    root: Path
    stores: Path
    seed: int

    def of(self, variant: str) -> Path:
        """Return a variant's folder."""
        return self.root / f"seed-{self.seed}" / variant.replace(" ", "-")

    def init(self, variant: str, name: str) -> Path:
        """Find the run that another starts from."""
        candidates = [self.of(variant) / name, self.of(FULL) / name, self.base / name]
        return next((path for path in candidates if path.exists()), candidates[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and score the variants asked for, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=Path("data/training"))
    parser.add_argument("--to", type=Path, default=Path("data/ablation-mini"))
    parser.add_argument("--stores", type=Path, default=Path("data/stores"))
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args(arguments)
    rows = {tuple(row[key] for key in KEYS): row for row in _read(RESULT)}
    for seed, name in itertools.product(options.seeds, options.only):
        places = Places(options.base, options.to, options.stores, seed)
        for row in _scores(name, _trained(name, places), places):
            rows[tuple(row[key] for key in KEYS)] = row
            print(*row.values(), sep="  ", flush=True)
        _write(RESULT, list(rows.values()))
    print(over_seeds(list(rows.values())).to_string())


def over_seeds(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Return the mean over seeds and, in brackets, the range, for each variant and protocol in the order of rows."""
    table = pd.DataFrame(rows).astype(dict.fromkeys(METRICS, float))
    groups = table.groupby(["variant", "protocol"], sort=False)
    values = groups[list(METRICS)].agg(lambda one: f"{one.mean():.2f} ({one.min():.2f}-{one.max():.2f})")
    return values.assign(seeds=groups["seed"].nunique())


def _trained(name: str, places: Places) -> Path:
    """Train a variant; return its weights."""
    if name == "without stage 2":
        return places.of(FULL) / STAGE1 / MODEL
    folder = places.of(name)
    if name == "without VAE fine-tuning" and not (folder / "start").exists():
        stage1 = places.of(FULL) / STAGE1 / MODEL
        shutil.copytree(stage1, folder / "start", ignore=shutil.ignore_patterns("vae"))
        shutil.copytree(places.base / AUTOENCODER / MODEL / "vae", folder / "start" / "vae")
    for run in VARIANTS[name]:
        changes = [part for change in (*run.changes, f"seed={places.seed}") for part in ("--set", change)]
        words = ("--to", folder / run.recipe, "--init", places.init(name, run.init), "--stores", places.stores)
        _call("train", run.recipe, *words, *changes)
    return folder / STAGE2 / MODEL


def _scores(name: str, weights: Path, places: Places) -> list[dict[str, str]]:
    rows = []
    folder, model = places.of(name), "normalcrafter-mini"
    for protocol in PROTOCOLS:
        given = ("--stores", places.stores, "--predictions", folder / "predictions")
        _call("predict", model, protocol, "--weights", weights, *given)
        _call("evaluate", model, "--protocol", protocol, *given, "--results", folder / "results")
        result = json.loads((folder / "results" / protocol / model / "result.json").read_text(encoding="utf-8"))
        values = {metric: f"{result['metrics'][metric]:.2f}" for metric in METRICS}
        rows.append(dict(zip(KEYS, (name, str(places.seed), protocol), strict=True)) | values)
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
        writer = csv.DictWriter(file, [*KEYS, *METRICS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
