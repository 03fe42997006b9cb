"""The whole command `ncbench evaluate FOLDER` against decoding its pictures and doing nothing else."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.pictures_support import HEIGHT, KINDS, WIDTH, bumpy_normals, prediction
from ncbench.cards import DatasetCard
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import recipe_for

SEQUENCES, FRAMES = 6, 109  # 654 pictures, as NYUv2's test set
MADE = 16  # different pictures; more would only make the benchmark's own preparation longer
ROUNDS = 5
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
DECODE_BY_PILLOW = """
import sys
import numpy as np
from PIL import Image
for path in sys.stdin.read().split("\\n"):
    assert np.asarray(Image.open(path)).size
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make(tmp_path_factory.mktemp("evaluate"), SEQUENCES)


def make(root, sequences):
    """Prepare a data set of so many sequences, and predictions of it; returns the folder."""
    rng = np.random.default_rng(0)
    made = root / "made"
    made.mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(made / "rgb.png")
    for number in range(MADE):
        truth = bumpy_normals(rng)
        np.save(made / f"{number}.npy", truth)
        for kind in KINDS:
            Image.fromarray(prediction(kind, truth, rng)).save(made / f"{kind}{number}.png")
    for sequence in (f"s{k}" for k in range(sequences)):
        for folder in ("raw/{}/rgb", "raw/{}/normal", *(f"{kind}/{{}}" for kind in KINDS)):
            (root / folder.format(sequence)).mkdir(parents=True)
        for frame in range(FRAMES):
            number = (frame + int(sequence[1:])) % MADE
            (root / f"raw/{sequence}/rgb/{frame:06d}.png").hardlink_to(made / "rgb.png")
            (root / f"raw/{sequence}/normal/{frame:06d}.npy").hardlink_to(made / f"{number}.npy")
            for kind in KINDS:  # files of their own, so that each has pages of its own to be read from
                (root / kind / sequence / f"{frame:06d}.png").write_bytes((made / f"{kind}{number}.png").read_bytes())
    card = DatasetCard.parse(CARD, "benchmark")
    prepare(recipe_for(card, root / "raw"), root / "stores" / "stills")
    (root / "stills.yaml").write_text(yaml.safe_dump(PROTOCOL))
    return root


def evaluate(root, kind, jobs, name, probe):
    """Run the command as a user does, from the start of its process to its end; returns its result file."""
    command = [sys.executable, "-m", "ncbench", "evaluate", str(root / kind), "--protocol", str(root / "stills.yaml")]
    command += ["--stores", str(root / "stores"), "--results", str(root / "results"), "--axes", "opencv"]
    subprocess.run([*command, "--name", name, "--jobs", str(jobs), "--probe", probe], check=True, capture_output=True)
    return json.loads((root / "results" / "stills" / name / "result.json").read_text())


def decode(root, kind, processes, program=DECODE):
    """Decode all pictures in some processes that share nothing."""
    paths = sorted(str(path) for path in Path(root / kind).glob("*/*.png"))
    shares = [paths[k::processes] for k in range(processes)]
    workers = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, text=True) for _ in shares]
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_pictures(workplace, benchmark, kind):
    """Share of plain decoding, with one job and with two; 654 pictures of 480x640."""
    count = SEQUENCES * FRAMES
    os.environ["OMP_NUM_THREADS"] = "1"
    reference = evaluate(workplace, kind, 1, "warm", "stop")  # kernels compile, files come into the page cache
    found = {}

    def scored(jobs, probe):
        found[jobs, probe] = evaluate(workplace, kind, jobs, f"{kind}{jobs}{probe}", probe)

    works = {
        "decode_1": lambda: decode(workplace, kind, 1),
        "decode_2": lambda: decode(workplace, kind, 2),
        "decode_1_pillow": lambda: decode(workplace, kind, 1, DECODE_BY_PILLOW),
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
        "one_job_to_one_pillow": wall["decode_1_pillow"] / wall["evaluate_1"],
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
        print(f"{kind} {name:22} {wall[name]:6.2f} s wall, {cpu[name]:6.2f} s CPU{rate}")
    for name, ratio in ratios.items():
        print(f"{kind} {name:26} {ratio:.2f}")


def test_two_jobs_on_four_times_as_many(tmp_path, benchmark):
    """What two jobs gain where start and end weigh less; smooth pictures."""
    os.environ["OMP_NUM_THREADS"] = "1"
    root = make(tmp_path, 4 * SEQUENCES)
    evaluate(root, "smooth", 1, "warm", "stop")
    works = {
        "decode_1": lambda: decode(root, "smooth", 1),
        "decode_2": lambda: decode(root, "smooth", 2),
        "evaluate_1": lambda: evaluate(root, "smooth", 1, "one", "stop"),
        "evaluate_2": lambda: evaluate(root, "smooth", 2, "two", "stop"),
    }
    wall = {name: [] for name in works}
    for _ in range(3):
        for name, work in works.items():
            wall[name].append(timed(work)[0])
    benchmark.pedantic(works["evaluate_2"], rounds=1)
    seconds = {name: float(np.median(found)) for name, found in wall.items()}
    ratios = {
        "two_jobs_to_one": seconds["evaluate_1"] / seconds["evaluate_2"],
        "two_decoders_to_one": seconds["decode_1"] / seconds["decode_2"],
        "one_job_to_one_decoder": seconds["decode_1"] / seconds["evaluate_1"],
    }
    benchmark.extra_info |= {"pictures": 4 * SEQUENCES * FRAMES, "wall": seconds, "ratios": ratios}
    print()
    for name, found in (seconds | ratios).items():
        print(f"four times as many {name:24} {found:6.2f}")
