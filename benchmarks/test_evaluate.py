"""The whole command `ncbench evaluate FOLDER` against decoding its pictures and doing nothing else."""

import resource
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
from ncbench.evaluators.predictions import FolderOptions
from ncbench.evaluators.run import evaluate

HEIGHT, WIDTH, SEQUENCES, FRAMES = 480, 640, 4, 60
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
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for sequence in range(SEQUENCES):
        for kind in ("raw/{}/rgb", "raw/{}/normal", "preds/{}"):
            (root / kind.format(f"s{sequence}")).mkdir(parents=True)
        for frame in range(FRAMES):
            truth, name = smooth_normals(rng), f"{frame:06d}"
            Image.fromarray(picture).save(root / f"raw/s{sequence}/rgb/{name}.png")
            np.save(root / f"raw/s{sequence}/normal/{name}.npy", truth)
            noisy = truth + rng.normal(size=truth.shape).astype(np.float32) * 0.1
            noisy /= np.linalg.norm(noisy, axis=-1, keepdims=True)
            Image.fromarray(np.round((noisy + 1) * 127.5).astype(np.uint8)).save(root / f"preds/s{sequence}/{name}.png")
    card = DatasetCard.parse(CARD, "benchmark")
    prepare(recipe_for(card, root / "raw"), root / "stores" / "stills")
    (root / "stills.yaml").write_text(yaml.safe_dump(PROTOCOL))
    return root


def run_evaluate(root, jobs, number):
    options = FolderOptions(axes="opencv", name=f"run{number}")
    return evaluate(
        root / "preds",
        str(root / "stills.yaml"),
        stores=root / "stores",
        predictions=root / "predictions",
        results=root / "results",
        options=options,
        jobs=jobs,
        on_mistake="off",
    )


def decode_all(root):
    for path in sorted(Path(root / "preds").glob("*/*.png")):
        cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def timed(work):
    """Wall seconds, and CPU seconds of this process and its children."""
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    start = time.perf_counter()
    work()
    wall = time.perf_counter() - start
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True))
    return wall, cpu


def test_a_folder_of_pictures(workplace, benchmark):
    """Share of plain decoding, and what two jobs gain; 240 pictures of 480x640."""
    cv2.setNumThreads(1)
    count = SEQUENCES * FRAMES
    run_evaluate(workplace, 1, 0)  # kernels compile, files come into the page cache
    rounds = {"decode": [], "one": [], "two": []}
    for number in range(1, 6):
        rounds["decode"].append(timed(lambda: decode_all(workplace)))
        rounds["one"].append(timed(lambda number=number: run_evaluate(workplace, 1, number)))
        rounds["two"].append(timed(lambda number=number: run_evaluate(workplace, 2, 100 + number)))
    benchmark.pedantic(lambda: run_evaluate(workplace, 1, 50), rounds=1)
    wall = {name: float(np.median([one[0] for one in found])) for name, found in rounds.items()}
    cpu = {name: float(np.median([one[1] for one in found])) for name, found in rounds.items()}
    share = {"wall": wall["decode"] / wall["one"], "cpu": cpu["decode"] / cpu["one"]}
    benchmark.extra_info |= {"pictures": count, "wall": wall, "cpu": cpu, "share_of_decoding": share}
    benchmark.extra_info["two_jobs_speedup"] = wall["one"] / wall["two"]
    print(
        f"\n{count} pictures: decoding alone {count / wall['decode']:.0f} a second, evaluate {count / wall['one']:.0f} "
        f"({share['wall']:.2f} of decoding; {share['cpu']:.2f} by CPU time), two jobs {count / wall['two']:.0f} "
        f"({wall['one'] / wall['two']:.2f} times one)"
    )
