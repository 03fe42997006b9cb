"""How often is the probe right, how often does it cry wolf, and what does it cost?

``python -m pytest benchmarks/test_probe.py -s`` prints the tables and writes ``benchmarks/results/probe.json``. Both
counts can be changed: ``NCBENCH_PROBE_TRIALS`` (trials a row, 20 by default) and ``NCBENCH_PROBE_HONEST`` (honest runs,
500 by default). Every trial follows from its seed.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import probe_mistakes, probe_predictions
from ncbench.datasets.readers.motorcycle import SEQUENCE, MotorcycleReader, export_motorcycle
from ncbench.evaluators.angular import AngularState, angular_error
from ncbench.evaluators.probe import Probe
from ncbench.evaluators.view import view_of
from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product

RESULTS = Path(__file__).parent / "results" / "probe.json"
QUIET = ("fits", "cannot_tell")
SEEDS = 8  # scenes of each kind


def honest_trial(seed, index):
    """Predictions without a mistake: any scene, number of clips, axes, error; poses and raw numbers or not."""
    rng = np.random.default_rng([seed, index])
    name = list(probe_predictions.HONEST)[index % len(probe_predictions.HONEST)]
    clips = [1, 1, 2, 2, int(rng.integers(4, 9))][rng.integers(5)]
    seeds = rng.choice(SEEDS, clips, replace=False)
    views = tuple(
        view for each in seeds for view in probe_predictions.clip(rng.choice(probe_predictions.KINDS), int(each))
    )
    views = views[:1] if rng.random() < 0.1 else views
    views = probe_mistakes.without_poses(views) if rng.random() < 0.5 else views
    maps = probe_predictions.HONEST[name](views, rng, rng.uniform(0, 30))
    axes = str(rng.choice(list(probe_mistakes.TO_FILE)))
    files = [m @ probe_mistakes.TO_FILE[axes].T for m in maps]
    return name, probe_mistakes.Trial(files, views, axes, bool(rng.random() < 0.5))


def run_honest(count, seed=0):
    """Return kind -> Counter of diagnoses, and the false alarms in words."""
    table, alarms = {}, []
    for index in range(count):
        name, trial = honest_trial(seed, index)
        found = probe_mistakes.probe(trial)
        table.setdefault(name, Counter())[found.kind] += 1
        if found.kind not in QUIET:
            alarms.append({"run": index, "predictions": name, "kind": found.kind, "message": found.message})
    return table, alarms


def run_mistake(mistake, control, count, seed=0):
    """Return how many trials lie in the stated regime, and what was said inside and outside of it."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{mistake} {control}".encode())])
    row = {"mistake": mistake, "predictions": control, "trials": count, "detectable": 0, "right": 0}
    missed, outside = Counter(), Counter()
    for _ in range(count):
        views = probe_predictions.random_views(rng, SEEDS)
        maps = probe_predictions.CONTROLS[control](views, rng, rng.uniform(0, 30))
        trial, right = probe_mistakes.MISTAKES[mistake](rng, views, maps)
        found = probe_mistakes.probe(trial)
        if probe_mistakes.detectable(mistake, trial, views, maps):
            row["detectable"] += 1
            row["right"] += int(right(found))
            missed.update([] if right(found) else [found.kind])
        else:
            outside.update(["right" if right(found) else found.kind])
    return row | {"missed": dict(missed), "outside": dict(outside)}


def motorcycle(folder):
    """Give the real pair, and normals of its depth by another method than the truth's."""
    export_motorcycle(folder, {})
    views = tuple(view_of(frame, None) for frame in MotorcycleReader(folder, {}).read(SEQUENCE, (0, 1)))
    maps = []
    for view in views:
        normal, valid = normals_by_cross_product(view.depth, pinhole_rays(view.intrinsics, *view.size))
        maps.append(np.where(valid[..., None], normal, probe_predictions.FRONTAL))
    return views, maps


# A pair of pictures has no third frame, no other sequence and no rotation; its truth is smoothed over 7 pixels.
NOT_ON_A_PAIR = ("frame_offset", "other_sequence", "world", "half_pixel", "crop")


def run_motorcycle(folder):
    views, maps = motorcycle(folder)
    rows = []
    for name in [name for name in probe_mistakes.MISTAKES if name not in NOT_ON_A_PAIR]:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        row = {"mistake": name, "trials": 4, "detectable": 0, "right": 0}
        for degrees in (0, 5, 10, 20):
            fields = probe_predictions.smooth_fields(rng, views, degrees)
            noisy = [probe_predictions.turned(m, f) for m, f in zip(maps, fields, strict=True)]
            trial, judge = probe_mistakes.MISTAKES[name](rng, views, noisy)
            if probe_mistakes.detectable(name, trial, views, noisy):
                row["detectable"] += 1
                row["right"] += int(judge(probe_mistakes.probe(trial)))
        rows.append(row)
    return rows


def save(**parts):
    stored = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps(stored | parts, indent=1) + "\n")


@pytest.fixture
def show(capsys):
    def write(text):
        with capsys.disabled():
            print(text, flush=True)

    return write


def test_false_alarms(show):
    count = int(os.environ.get("NCBENCH_PROBE_HONEST", "500"))
    table, alarms = run_honest(count)
    show(f"\n{'honest predictions':20s} {'runs':>5s} {'fits':>5s} {'cannot tell':>12s} {'alarms':>7s}")
    for name, kinds in table.items():
        wrong = sum(kinds.values()) - kinds["fits"] - kinds["cannot_tell"]
        show(f"{name:20s} {sum(kinds.values()):5d} {kinds['fits']:5d} {kinds['cannot_tell']:12d} {wrong:7d}")
    for alarm in alarms:
        show(alarm)
    save(honest={"runs": count, "alarms": alarms, "table": {name: dict(kinds) for name, kinds in table.items()}})
    assert not alarms


def test_mistakes(show):
    count = int(os.environ.get("NCBENCH_PROBE_TRIALS", "20"))
    rows = []
    show(f"\n{'mistake':30s} {'predictions':12s} {'detectable':>10s} {'right':>6s}")
    for mistake in probe_mistakes.MISTAKES:
        for control in probe_predictions.CONTROLS:
            row = run_mistake(mistake, control, count)
            rows.append(row)
            share = f"{row['detectable']}/{count}"
            show(
                f"{mistake:30s} {control:12s} {share:>10s} {row['right']:6d} {row['missed']} outside: {row['outside']}"
            )
    save(mistakes=rows)
    for mistake in probe_mistakes.MISTAKES:
        own = [row for row in rows if row["mistake"] == mistake]
        assert sum(row["right"] for row in own) >= 0.95 * sum(row["detectable"] for row in own), mistake


def test_motorcycle(show, tmp_path):
    rows = run_motorcycle(tmp_path)
    for row in rows:
        show(row)
    save(motorcycle=rows)
    assert all(row["right"] == row["detectable"] for row in rows)


def test_cost(show, tmp_path):
    """The probe on as many frames as ``probe_frames`` reads, against plain scoring of the same frames."""
    views, maps = motorcycle(tmp_path)
    frames = [(m.astype(np.float32), v) for m, v in zip(maps, views, strict=True)] * 36
    seconds = {"probe": [], "score": []}
    for _ in range(3):
        start = time.perf_counter()
        probe = Probe()
        for preds, view in frames:
            probe.add(preds, view)
        probe.diagnose()
        middle = time.perf_counter()
        for preds, view in frames:
            AngularState.of(angular_error(preds[view.valid], view.normal[view.valid]), (5.0, 11.25, 30.0), 90.0)
        seconds["probe"].append(middle - start)
        seconds["score"].append(time.perf_counter() - middle)
    medians = {name: round(float(np.median(values)), 3) for name, values in seconds.items()}
    show(f"\n{len(frames)} frames of {views[0].size}, seconds: {medians}")
    save(cost={"frames": len(frames), "size": list(views[0].size), "seconds": medians})
