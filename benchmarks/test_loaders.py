"""From store to batch: against Hugging Face `datasets`, WebDataset and raw files; start-up, memory, where time goes.

``python -m pytest benchmarks/test_loaders.py -s`` prints the tables of docs/loaders.md. All read the same frames
(windows of a real photograph with normals from its measured disparity) in the same order, four a batch, into torch
tensors: RGB uint8, normals float32, mask bool. The page cache is warm; all are measured by turns within each round.
"""

import cProfile
import gc
import os
import pstats
import statistics
import subprocess
import sys

import psutil
import pytest

from benchmarks import loaders_support as support
from ncbench import open_store
from ncbench.loaders.clips import NormalClips
from ncbench.loaders.loader import Loader

SIZES = {(480, 640): 48, (768, 1024): 24}
ROUNDS = 3
SAMPLES = 32


@pytest.fixture(scope="module", params=list(SIZES), ids=lambda size: f"{size[0]}x{size[1]}")
def made(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("frames")
    sizes = support.write_all(root / "all", request.param, SIZES[request.param])
    yield request.param, root / "all", sizes
    support.shutil.rmtree(root)


def show(request, lines):
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print("\n" + "\n".join(lines))


@pytest.mark.filterwarnings("ignore")
def test_throughput(benchmark, request, made):
    size, root, sizes = made
    wall = {(name, workers): [] for name in support.LOADERS for workers in (0, 1, 2)}
    cpu = {name: [] for name in support.LOADERS}
    for _ in range(ROUNDS):
        for (name, workers), seconds in wall.items():
            source, open_loader = support.LOADERS[name]
            elapsed, used = support.take(open_loader(root / source, workers), SAMPLES)
            seconds.append(elapsed)
            if workers == 0:
                cpu[name].append(used)
    count = SIZES[size]
    rows = {}
    for name, (source, _) in support.LOADERS.items():
        rates = [1 / statistics.median(wall[name, workers]) for workers in (0, 1, 2)]
        rows[name] = (sizes[source] / count / 1e6, statistics.median(cpu[name]) * 1e3, *rates)
    best = rows["ncbench, rgb cells"][1]
    lines = [f"{size[0]} x {size[1]}: MB a sample; processor ms a sample; samples/s with 0, 1, 2 workers"]
    lines += ["| loader | MB | ms | of ours | 0 | 1 | 2 |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {name} | {r[0]:.2f} | {r[1]:.1f} | {r[1] / best:.1f} | {r[2]:.0f} | {r[3]:.0f} | {r[4]:.0f} |"
        for name, r in rows.items()
    ]
    half = {name: sizes[name] / count / 1e6 for name in ("hf16", "half.tar")}
    lines.append(f"float16, MB a sample: datasets {half['hf16']:.2f}, WebDataset {half['half.tar']:.2f}")
    show(request, lines)
    keys = ("mb", "cpu_ms", "samples_s_0", "samples_s_1", "samples_s_2")
    benchmark.extra_info.update({name: dict(zip(keys, row, strict=True)) for name, row in rows.items()}, bytes=sizes)
    source, open_loader = support.LOADERS["ncbench, rgb cells"]
    benchmark.pedantic(support.take, (open_loader(root / source, 0), SAMPLES), rounds=1)


def test_where_the_time_goes(benchmark, request, made):
    size, root, _ = made
    lines = []
    for folder in ("copy", "store"):
        stream = iter(support.ours(root / folder, 0))
        next(stream)
        profile = cProfile.Profile()
        profile.enable()
        for _ in range(SAMPLES // support.BATCH):
            next(stream)
        profile.disable()
        stats = pstats.Stats(profile).stats
        total = sum(entry[2] for entry in stats.values())
        top = sorted(stats.items(), key=lambda item: -item[1][2])[:6]
        lines.append(f"{size[0]} x {size[1]}, {folder}: {total / SAMPLES * 1e3:.1f} ms a sample")
        lines += [f"    {entry[2] / total:4.0%} {name[2]}" for name, entry in top]
        benchmark.extra_info[folder] = {name[2]: entry[2] / total for name, entry in top}
    show(request, lines)
    stream = iter(support.ours(root / "copy", 0))
    benchmark.pedantic(next, (stream,), rounds=3, warmup_rounds=1)


START = """
import sys, time
import ncbench.loaders.loader, ncbench.loaders.clips, ncbench.jit
from ncbench import open_store
start = time.perf_counter()
clips = ncbench.loaders.clips.NormalClips(open_store(sys.argv[1]), length=(1, 14))
next(iter(ncbench.loaders.loader.Loader(clips)))
print(time.perf_counter() - start)
"""


def test_start_up(benchmark, request, tmp_path):
    """Opening a store of 100,000 rows in a new process, up to the first batch; imports are not counted."""
    support.write_long(tmp_path / "long", 100_000)

    def once():
        done = subprocess.run(
            [sys.executable, "-c", START, tmp_path / "long"], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    once()  # numba's cache
    seconds = sorted(once() for _ in range(ROUNDS))
    benchmark.extra_info["seconds"] = seconds
    show(
        request,
        [f"100,000 rows, first batch after: {', '.join(f'{second:.2f}' for second in seconds)} s"],
    )
    benchmark.pedantic(once, rounds=1)


def test_memory(benchmark, request, made):
    """Private memory of the process at each tenth of an epoch; mapped shards are the system's and not counted."""
    size, root, _ = made
    clips = NormalClips(open_store(root / "copy"), length=(1, 4), seed=1)
    process, found = psutil.Process(os.getpid()), []
    for epoch in range(12):
        for _ in Loader(clips):
            pass
        gc.collect()
        if epoch >= 2:
            found.append(process.memory_full_info().uss / 1e6)
    benchmark.extra_info["mb"] = found
    show(
        request,
        [f"{size[0]} x {size[1]}: private MB after each of ten epochs: {', '.join(f'{mb:.0f}' for mb in found)}"],
    )
    benchmark.pedantic(list, (range(1),), rounds=1)
