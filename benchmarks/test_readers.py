"""Every reader against plainly decoding the files that it reads; angles to the exact normals; ``prepare`` at scale.

``python -m pytest benchmarks/test_readers.py -s`` prints the table of docs/datasets.md. Frames are the miniatures of
the cards, generated at a few times their size (``SCALE``): at the miniatures' own size the cost of opening a file would
hide the cost of its pixels. Ratios are of medians, both measured in one run.
"""

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
ROUNDS = 3


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
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


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
    benchmark.pedantic(read_all, setup=lambda: ((open_reader(card, root),), {}), rounds=ROUNDS, warmup_rounds=1)
    rate = count / benchmark.stats.stats.median
    share = None
    if card.name not in MESHES:
        decode_all(card, root)
        plain = statistics.median(seconds_of(decode_all, card, root) for _ in range(ROUNDS))
        share = plain / benchmark.stats.stats.median
    prepare(recipe_for(card, root), tmp_path / "store")
    size = sum(path.stat().st_size for path in (tmp_path / "store").glob("data-*.arrow")) / count / height / width
    angles = None if errors is None else (errors.mean(), np.median(errors), errors.max())
    shown = "-" if angles is None else ", ".join(f"{angle:.2g}" for angle in angles)
    speed = "-" if share is None else f"{share:.2f}"
    table.append((f"`{card.name}`", f"{height} x {width}", card.normals, shown, f"{rate:.0f}", speed, f"{size:.1f}"))
    benchmark.extra_info.update(
        frames_per_second=rate,
        share_of_plain_decoding=share,
        bytes_per_pixel=size,
        error_degrees_mean_median_max=angles,
    )


LONG = {"frames": 48, "height": 192, "width": 256, "seed": 5}
KINDS = ("room", "outdoor", "objects")


def copies(card, root, times):
    """Generate one clip of each kind, then the same files again under other names, so that a long set is made fast."""
    clips = [{"name": f"{kind}0", "kind": kind} for kind in KINDS]
    source = card.source.model_copy(update={"settings": {**LONG, "sequences": clips}})
    card = card.model_copy(update={"source": source})
    fetch(card, root)
    folders = [path for path in root.rglob("*0") if path.is_dir() and path.name[:-1] in KINDS]
    for folder in folders:
        for index in range(1, times):
            shutil.copytree(folder, folder.with_name(f"{folder.name[:-1]}{index}"))
    return card


@pytest.fixture(scope="module", params=[("sintel-mini", 8), ("rooms", 8)], ids=["sintel", "folder"])
def long_set(request, tmp_path_factory):
    name, times = request.param
    root = tmp_path_factory.mktemp("long") / "raw"
    card = copies(catalog.load(DatasetCard, name), root, times).model_copy(update={"shard_rows": 64})
    yield card, root, times * len(KINDS) * LONG["frames"]
    shutil.rmtree(root)


@pytest.mark.parametrize("jobs", [1, 2])
def test_prepare(benchmark, long_set, tmp_path, jobs, capsys):
    card, root, frames = long_set
    benchmark.group = f"prepare {card.name}, {frames} frames of {LONG['height']} x {LONG['width']}"

    def fresh():
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        return (recipe_for(card, root), tmp_path / "store", jobs), {}

    benchmark.pedantic(prepare, setup=fresh, rounds=ROUNDS)
    rate = frames / benchmark.stats.stats.median
    benchmark.extra_info.update(frames_per_second=rate)
    with capsys.disabled():
        print(f"\nprepare {card.name}, {jobs} jobs: {rate:.0f} frames/s")


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
