"""Every reader against plainly decoding the files that it reads; angles to the exact normals; ``prepare`` at scale.

``python -m pytest benchmarks/test_readers.py -s`` prints the table of docs/datasets.md. Frames are the miniatures of
the cards, generated at a few times their size (``SCALE``): at the miniatures' own size the cost of opening a file would
hide the cost of its pixels. Reading is measured in processor time, which other work on the machine stretches less than
the clock; both sides of a ratio take turns in one run, and the median of the rounds' ratios counts.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import readers_support as support
from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.datasets.fetch import fetch
from ncbench.datasets.prepare import prepare
from ncbench.datasets.readers.base import make_reader
from ncbench.datasets.recipe import recipe_for

SCALE = {"motorcycle": 1, "rooms": 2, "sintel-mini": 2}
OTHERS = 3
NAMES = ["rooms", "motorcycle", *sorted(name for name in catalog.find(DatasetCard) if name.endswith("-mini"))]
MESHES = {"objaverse-mini", "replica-mesh-mini"}  # ray-cast: no picture is decoded that could be compared
ROUNDS = 5


def scaled(card):
    """A card whose generator draws larger pictures; focal lengths and principal points follow."""
    factor = SCALE.get(card.name, OTHERS)
    source = card.source.model_copy(update={"settings": larger(card.source.settings, factor)})
    return card.model_copy(update={"source": source, "settings": larger(card.settings, factor)})


def larger(values, factor):
    known = {"height", "width", "size", "focal", "sizes", "intrinsics"}
    return {key: grown(key, value, factor) if key in known else value for key, value in values.items()}


def grown(key, value, factor):
    if isinstance(value, dict):
        return {name: grown(key, item, factor) for name, item in value.items()}
    if key == "intrinsics" and isinstance(value, list):
        return [value[0] * factor, value[1] * factor, *((place + 0.5) * factor - 0.5 for place in value[2:])]
    if isinstance(value, list):
        return [side * factor for side in value]
    return value if isinstance(value, str) else value * factor


@pytest.fixture(scope="module")
def table(request):
    rows = []
    yield rows
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print("\n| card | size | normals | error, degrees: mean, median, max | frames/s | of plain | bytes/pixel |")
        print("|---|---|---|---|---|---|---|")
        for row in rows:
            print("|", " | ".join(row), "|")


@pytest.fixture(scope="module", params=NAMES)
def made(request, tmp_path_factory):
    card = scaled(catalog.load(DatasetCard, request.param))
    root = tmp_path_factory.mktemp("raw") / card.name
    fetch(card, root)
    yield card, root
    shutil.rmtree(root)


def open_reader(card, root):
    return make_reader(card.reader, root, card.reader_settings())


def stream(reader):
    for sequence, numbers in reader.sequences().items():
        yield from reader.read(sequence, numbers)


def read_all(reader):
    """Read everything, one frame in memory at a time."""
    return sum(1 for _ in stream(reader))


def seconds_of(function, *arguments):
    """Time by the clock and of the processor."""
    start, busy = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - start, time.process_time() - busy


def decode_all(card, root):
    if card.name == "nyuv2-mini":
        support.decode_nyuv2(root)
    else:
        support.decode_plainly(*support.inputs(root))


def test_read(benchmark, table, made, tmp_path):
    card, root = made
    benchmark.group = f"read {card.name}"
    frames = list(stream(open_reader(card, root)))
    count, (height, width) = len(frames), frames[0].size
    errors = support.errors_of(card, frames)
    del frames
    plain, reading = [], []

    def take_turns():
        if card.name not in MESHES:
            plain.append(seconds_of(decode_all, card, root))
        return (open_reader(card, root),), {}

    def read(reader):
        reading.append(seconds_of(read_all, reader))

    benchmark.pedantic(read, setup=take_turns, rounds=1 if card.name in MESHES else ROUNDS, warmup_rounds=1)
    rate = count / statistics.median(busy for _, busy in reading[1:])
    by_clock, share = (median_ratio(plain, reading, which) for which in range(2))
    prepare(recipe_for(card, root), tmp_path / "store")
    size = sum(path.stat().st_size for path in (tmp_path / "store").glob("data-*.arrow")) / count / height / width
    angles = None if errors is None else (errors.mean(), np.median(errors), errors.max())
    shown = "-" if angles is None else ", ".join(f"{angle:.2g}" for angle in angles)
    speed = "-" if share is None else f"{share:.2f}"
    table.append((f"`{card.name}`", f"{height} x {width}", card.normals, shown, f"{rate:.0f}", speed, f"{size:.1f}"))
    benchmark.extra_info.update(
        frames_per_processor_second=rate,
        share_of_plain_decoding=share,
        share_of_plain_decoding_by_the_clock=by_clock,
        bytes_per_pixel=size,
        error_degrees_mean_median_max=angles,
    )


def median_ratio(plain, reading, which):
    """Median over the rounds, without the first, which warms up; None where nothing was decoded plainly."""
    if not plain:
        return None
    return statistics.median(a[which] / b[which] for a, b in zip(plain[1:], reading[1:], strict=True))


LONG = {"frames": 24, "height": 192, "width": 256, "seed": 5}
COPIES = 168
KINDS = ("room", "outdoor", "objects")


def copies(card, root, times):
    """Generate one clip of each kind, then link the same files under other names, so that a long set is made fast."""
    clips = [{"name": f"{kind}0", "kind": kind} for kind in KINDS]
    source = card.source.model_copy(update={"settings": {**LONG, "sequences": clips}})
    card = card.model_copy(update={"source": source})
    fetch(card, root)
    folders = [path for path in root.rglob("*0") if path.is_dir() and path.name[:-1] in KINDS]
    for folder in folders:
        for index in range(1, times):
            shutil.copytree(folder, folder.with_name(f"{folder.name[:-1]}{index}"), copy_function=os.link)
    return card


@pytest.fixture(scope="module")
def long_set(tmp_path_factory):
    """Stored normals, from which nothing is derived: the less work on a frame, the more the start of workers counts."""
    root = tmp_path_factory.mktemp("long") / "raw"
    card = copies(catalog.load(DatasetCard, "rooms"), root, COPIES)
    yield card, root, COPIES * len(KINDS) * LONG["frames"]
    shutil.rmtree(root)


PREPARE = """
import atexit, resource, sys, time
from pathlib import Path
from ncbench.cards import DatasetCard
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import recipe_for

card, raw, out, jobs = sys.argv[1:]
recipe = recipe_for(DatasetCard.model_validate_json(card), Path(raw))
start, busy = time.perf_counter(), time.process_time()
prepare(recipe, Path(out), int(jobs))
clock, busy = time.perf_counter() - start, time.process_time() - busy

@atexit.register  # by then the workers have ended, whose time counts
def report():
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(clock, busy + workers.ru_utime + workers.ru_stime)
"""


def start_prepare(card, root, out, jobs):
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", PREPARE, card.model_dump_json(), str(root), str(out), str(jobs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process):
    """Seconds by the clock and of processors."""
    text, _ = process.communicate()
    assert process.returncode == 0
    clock, busy = map(float, text.split())
    return clock, busy


def test_prepare(benchmark, long_set, tmp_path, capsys):
    """One job, two jobs, and what the machine allows: two processes of one job each, which share nothing."""
    card, root, frames = long_set
    benchmark.group = f"prepare {card.name}, {frames} frames of {LONG['height']} x {LONG['width']}"
    ones, pairs, twos = [], [], []

    def take_turns():
        ones.append(finish(start_prepare(card, root, tmp_path / "one", 1)))
        both = [start_prepare(card, root, tmp_path / name, 1) for name in ("left", "right")]
        pairs.append(max(finish(process) for process in both))

    def two_jobs():
        twos.append(finish(start_prepare(card, root, tmp_path / "two", 2)))

    benchmark.pedantic(two_jobs, setup=take_turns, rounds=1)
    rate = {1: frames / median_of(ones, 0), 2: frames / median_of(twos, 0)}
    faster = statistics.median(one[0] / two[0] for one, two in zip(ones, twos, strict=True))
    possible = statistics.median(2 * one[0] / pair[0] for one, pair in zip(ones, pairs, strict=True))
    busy = {1: median_of(ones, 1), 2: median_of(twos, 1)}
    free = statistics.median(2 * one[1] / two[1] for one, two in zip(ones, twos, strict=True))
    benchmark.extra_info.update(
        frames_per_second_one_job=rate[1],
        frames_per_second_two_jobs=rate[2],
        times_faster=faster,
        times_faster_of_two_processes_that_share_nothing=possible,
        times_faster_on_two_free_cores_by_processor_time=free,
        processor_seconds_one_job=busy[1],
        processor_seconds_two_jobs=busy[2],
    )
    with capsys.disabled():
        print(f"\nprepare {card.name}, {frames} frames: {rate[1]:.0f} frames/s with 1 job, {rate[2]:.0f} with 2")
        print(f"{faster:.2f} times faster (two processes that share nothing: {possible:.2f} times)")
        print(f"processor time {busy[1]:.1f} s with 1 job, {busy[2]:.1f} s with 2: {free:.2f} times on two free cores")
    shutil.rmtree(tmp_path)


def median_of(times, which):
    return statistics.median(pair[which] for pair in times)


PEAK = """
import re, sys
from pathlib import Path
from ncbench.cards import DatasetCard
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import recipe_for

card, raw, out = sys.argv[1:]
prepare(recipe_for(DatasetCard.model_validate_json(card), Path(raw)), Path(out))
# not getrusage: its peak counts the memory of the parent that this process was forked from
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def peak_mebibytes(card, root, out):
    command = [sys.executable, "-c", PEAK, card.model_dump_json(), str(root), str(out)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("size", [(192, 256), (768, 1024)], ids=str)
@pytest.mark.parametrize("frames", [24, 192])
def test_memory(benchmark, tmp_path, size, frames, capsys):
    """One clip, in shards of 16 rows; longer ones are the same 24 frames again, in the file system's own links."""
    benchmark.group = "peak memory of prepare"
    card = catalog.load(DatasetCard, "rooms")
    clip = {"frames": 24, "height": size[0], "width": size[1], "seed": 5, "sequences": [{"name": "a", "kind": "room"}]}
    card = card.model_copy(update={"source": card.source.model_copy(update={"settings": clip})})
    fetch(card, tmp_path / "raw")
    lengthen(tmp_path / "raw" / "a", 24, frames)
    peak = benchmark.pedantic(peak_mebibytes, (card, tmp_path / "raw", tmp_path / "store"), rounds=1)
    benchmark.extra_info.update(peak_mebibytes=peak)
    with capsys.disabled():
        print(f"\npeak memory of prepare, {frames} frames of {size[0]} x {size[1]}: {peak:.0f} MiB")
    shutil.rmtree(tmp_path)


def lengthen(clip, have, want):
    """Continue a clip by its own files; only the first frames' flow is true, which memory does not mind."""
    for folder in (path for path in clip.iterdir() if path.is_dir()):
        suffix = next(folder.iterdir()).suffix
        last = want - (0 if folder.name in {"rgb", "normal", "depth"} else 1)
        for index in range(have - 1, last):
            target = folder / f"{index:04d}{suffix}"
            if not target.exists():
                target.hardlink_to(folder / f"{index % (have - 1):04d}{suffix}")
    poses = (clip / "poses.txt").read_text().splitlines(keepends=True)
    (clip / "poses.txt").write_text("".join(poses[index % have] for index in range(want)))
