"""Kill a training run twice, let it go on, and draw its losses over those of a run that nobody disturbed.

    python benchmarks/resume_mini.py --init data/training/normalcrafter-vae-mini --to data/resume-mini

The first stage is trained, whose noise levels, noise and clips are all drawn at random: the losses agree only where
the state of everything that draws is brought back. The figure is ``docs/images/resume.png``; the command fails where
the two runs differ in a single bit of a single weight.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from ncbench.files import file_sha256

FIGURE = Path(__file__).parents[1] / "docs" / "images" / "resume.png"
RECIPE = "normalcrafter-stage1-mini"
STEPS, EVERY, KILLS = 80, 20, (31, 57)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both runs, compare them, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--init", type=Path, default=Path("data/training/normalcrafter-vae-mini"))
    parser.add_argument("--to", type=Path, default=Path("data/resume-mini"))
    parser.add_argument("--stores", type=Path, default=Path("data/stores"))
    options = parser.parse_args(arguments)
    command = [sys.executable, "-m", "ncbench", "train", RECIPE, "--steps", str(STEPS)]
    command += ["--init", str(options.init), "--stores", str(options.stores)]
    changes = (f"checkpoint.every={EVERY}", "checkpoint.keep=1", "log_every=1", "validation=null")
    command += [part for change in changes for part in ("--set", change)]
    whole, broken = options.to / "undisturbed", options.to / "killed"
    subprocess.run([*command, "--to", str(whole)], check=True)
    lost = [_killed([*command, "--to", str(broken)], broken, step) for step in KILLS]
    subprocess.run([*command, "--to", str(broken)], check=True)
    _draw(_losses(whole), _losses(broken), lost)
    name = "model/unet/diffusion_pytorch_model.safetensors"
    if file_sha256(whole / name) != file_sha256(broken / name):
        sys.exit(f"{name} of {whole} and {broken} differ")
    print(f"{name} is the same, bit for bit; figure in {FIGURE}")


def _killed(command: Sequence[str], run: Path, step: int) -> dict[int, float]:
    """Start a run, kill it without warning once it has logged a step, and return the losses it had logged by then."""
    process = subprocess.Popen(command)
    while process.poll() is None and max(_losses(run), default=0) < step:
        time.sleep(0.1)
    process.kill()
    process.wait()
    return _losses(run)


def _losses(run: Path) -> dict[int, float]:
    path = run / "log.jsonl"
    if not path.exists():
        return {}
    # the last line may be half written
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    entries = [json.loads(line) for line in lines]
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


def _draw(whole: dict[int, float], resumed: dict[int, float], lost: Sequence[dict[int, float]]) -> None:
    mpl.rcParams["font.size"] = 9
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(list(whole), list(whole.values()), color="#9bbce0", linewidth=4, label="undisturbed")
    axes.plot(list(resumed), list(resumed.values()), color="#1f3a5f", linewidth=1, label="killed twice and resumed")
    for index, trace in enumerate(lost):
        last = max(trace)
        axes.axvline(last, color="#b03a2e", linestyle=":", linewidth=1.2, label=None if index else "killed here")
        axes.axvline(
            last // EVERY * EVERY, color="#777777", linewidth=0.6, label=None if index else "resumed from here"
        )
    axes.set(xlabel="step", ylabel="loss of stage 1", xlim=(1, STEPS))
    figure.legend(loc="outside upper center", frameon=False, ncols=4)
    figure.savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
