"""The whole command `ncbench evaluate FOLDER` against decoding its pictures and doing nothing else."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from ncbench.cards import DatasetCard
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import recipe_for

HEIGHT, WIDTH, SEQUENCES, FRAMES = 480, 640, 6, 109  # 654 pictures, as NYUv2's test set
MADE = 16  # different pictures; more would only make the benchmark's own preparation longer
ROUNDS = 3
CARD = {
    "name": "stills",
    "version": "1.0.0",
    "title": "Stills",
    "summary": "",
    "role": "test",
    "licence": {"name": "CC0-1.0", "redistribution": True},
    "source": {"kind": "manual", "instructions": "Made by the benchmark."},
    "reader": "ncbench.datasets.readers.folder:FolderReader",
    "settings": {"image": "{sequence}/rgb/{frame}.png", "normal": "{sequence}/normal/{frame}.npy", "fov_degrees": 60},
    "axes": "opencv",
    "normals": "file",
}
PROTOCOL = {"name": "stills", "version": "1.0.0", "title": "Stills", "summary": "", "dataset": "stills"}
DECODE = """
import sys, cv2
cv2.setNumThreads(1)
for path in sys.stdin.read().split("\\n"):
    assert cv2.imread(path, cv2.IMREAD_UNCHANGED) is not None
"""


def smooth_normals(rng):
    """(H, W, 3) float32: a bumpy surface that faces the camera, with noise like that of a real map."""
    heights = cv2.resize(rng.normal(size=(12, 16)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * 20
    slope_y, slope_x = np.gradient(heights + rng.normal(size=heights.shape) * 0.05)
    normal = np.stack([slope_x, slope_y, -np.ones_like(slope_x)], -1)
    return (normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    made = root / "made"
    made.mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(made / "rgb.png")
    for number in range(MADE):
        truth = smooth_normals(rng)
        np.save(made / f"{number}.npy", truth)
        noisy = truth + rng.normal(size=truth.shape).astype(np.float32) * 0.1
        noisy /= np.linalg.norm(noisy, axis=-1, keepdims=True)
        Image.fromarray(np.round((noisy + 1) * 127.5).astype(np.uint8)).save(made / f"{number}.png")
    for sequence in (f"s{k}" for k in range(SEQUENCES)):
        for kind in (f"raw/{sequence}/rgb", f"raw/{sequence}/normal", f"preds/{sequence}"):
            (root / kind).mkdir(parents=True)
        for frame in range(FRAMES):
            number = (frame + int(sequence[1:])) % MADE
            (root / f"raw/{sequence}/rgb/{frame:06d}.png").hardlink_to(made / "rgb.png")
            (root / f"raw/{sequence}/normal/{frame:06d}.npy").hardlink_to(made / f"{number}.npy")
            # predictions are files of their own, so that each has pages of its own to be read from
            (root / f"preds/{sequence}/{frame:06d}.png").write_bytes((made / f"{number}.png").read_bytes())
    card = DatasetCard.parse(CARD, "benchmark")
    prepare(recipe_for(card, root / "raw"), root / "stores" / "stills")
    (root / "stills.yaml").write_text(yaml.safe_dump(PROTOCOL))
    return root


def evaluate(root, jobs, name, probe):
    """Run the command as a user does, from the start of its process to its end; returns its result file."""
    command = [
        sys.executable,
        "-m",
        "ncbench",
        "evaluate",
        str(root / "preds"),
        "--protocol",
        str(root / "stills.yaml"),
    ]
    command += ["--stores", str(root / "stores"), "--results", str(root / "results"), "--axes", "opencv"]
    subprocess.run([*command, "--name", name, "--jobs", str(jobs), "--probe", probe], check=True, capture_output=True)
    return json.loads((root / "results" / "stills" / name / "result.json").read_text())


def decode(root, processes):
    """Decode all pictures in some processes that share nothing."""
    paths = sorted(str(path) for path in Path(root / "preds").glob("*/*.png"))
    shares = [paths[k::processes] for k in range(processes)]
    workers = [subprocess.Popen([sys.executable, "-c", DECODE], stdin=subprocess.PIPE, text=True) for _ in shares]
    for worker, share in zip(workers, shares, strict=True):
        worker.stdin.write("\n".join(share))
        worker.stdin.close()
    assert [worker.wait() for worker in workers] == [0] * processes


def timed(work):
    """Wall seconds, and CPU seconds of the processes that it starts."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_folder_of_pictures(workplace, benchmark):
    """Share of plain decoding, with one job and with two; 654 pictures of 480x640."""
    count = SEQUENCES * FRAMES
    os.environ["OMP_NUM_THREADS"] = "1"
    reference = evaluate(workplace, 1, "warm", "stop")  # kernels compile, files come into the page cache
    found = {}

    def scored(jobs, probe):
        found[jobs, probe] = evaluate(workplace, jobs, f"run{jobs}{probe}", probe)

    works = {
        "decode_1": lambda: decode(workplace, 1),
        "decode_2": lambda: decode(workplace, 2),
        "evaluate_1": lambda: scored(1, "stop"),
        "evaluate_2": lambda: scored(2, "stop"),
        "evaluate_1_no_probe": lambda: scored(1, "off"),
        "import_1": lambda: subprocess.run([sys.executable, "-c", "import ncbench.evaluators.run"], check=True),
    }
    rounds = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            rounds[name].append(timed(work))
    benchmark.pedantic(lambda: scored(1, "stop"), rounds=1)
    assert all(result["metrics"] == reference["metrics"] for result in found.values())
    wall = {name: float(np.median([one[0] for one in times])) for name, times in rounds.items()}
    cpu = {name: float(np.median([one[1] for one in times])) for name, times in rounds.items()}
    ratios = {
        "one_job_to_one_decoder": wall["decode_1"] / wall["evaluate_1"],
        "two_jobs_to_two_decoders": wall["decode_2"] / wall["evaluate_2"],
        "one_job_without_probe": wall["decode_1"] / wall["evaluate_1_no_probe"],
        "cpu_one_job": cpu["decode_1"] / cpu["evaluate_1"],
        "two_jobs_to_one": wall["evaluate_1"] / wall["evaluate_2"],
        "two_decoders_to_one": wall["decode_1"] / wall["decode_2"],
    }
    benchmark.extra_info |= {"pictures": count, "wall": wall, "cpu": cpu, "ratios": ratios}
    print()
    for name in works:
        rate = "" if name.startswith("import") else f", {count / wall[name]:.0f} pictures a second"
        print(f"{name:22} {wall[name]:6.2f} s wall, {cpu[name]:6.2f} s CPU{rate}")
    for name, ratio in ratios.items():
        print(f"{name:26} {ratio:.2f}")
