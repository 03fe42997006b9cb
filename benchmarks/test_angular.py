"""Angular metrics against the loop that the field uses and against plain numpy: speed and memory, in one run.

``python -m pytest benchmarks/test_angular.py -s`` prints the table. Speeds are pixels per CPU-second on one thread,
with all arrays in memory. "Of copying" compares with ``np.copyto`` of the bytes that scoring reads (25 a pixel).

The field's loop is written from its description: float32 ``cosine_similarity`` over the channels of (1, 3, H, W),
clamp, ``acos``, boolean mask, errors of all images grown by ``torch.cat``, numpy statistics at the end.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.pictures_support import KINDS, bumpy_normals, prediction
from ncbench.datasets.formats.normal_maps import open_normals
from ncbench.evaluators.angular import THRESHOLDS, AngularState, metric_name
from ncbench.evaluators.angular_torch import angular_state_torch
from ncbench.evaluators.pooling import Pool

HEIGHT, WIDTH, IMAGES = 480, 640, 50
PIXELS = HEIGHT * WIDTH
GROUP = f"angular metrics, {IMAGES} images of {HEIGHT} x {WIDTH}"


def statistics(errors):
    """Metrics of pooled float32 errors, as the field computes them."""
    values = {"mean": np.average(errors), "median": np.median(errors), "rmse": np.sqrt(np.sum(errors**2) / errors.size)}
    return values | {metric_name(t): 100 * np.sum(errors < t) / errors.size for t in THRESHOLDS}


def by_the_usual_loop(images):
    total = None
    for preds, target, mask in images:
        cosine = torch.cosine_similarity(preds, target, dim=1).clamp(-1.0, 1.0)
        errors = (torch.acos(cosine) * 180.0 / np.pi)[mask]
        total = errors if total is None else torch.cat((total, errors), dim=0)
    return statistics(total.numpy())


def by_plain_numpy(images):
    found = []
    for preds, target, mask in images:
        lengths = np.sqrt(np.einsum("hwc,hwc->hw", preds, preds) * np.einsum("hwc,hwc->hw", target, target))
        cosine = np.einsum("hwc,hwc->hw", preds, target) / lengths
        found.append(np.degrees(np.arccos(np.clip(cosine, -1, 1)))[mask])
    return statistics(np.concatenate(found))


def by_pool(images, how="pixels"):
    pool = Pool(how)
    for number, (preds, target, mask) in enumerate(images):
        sequence, place = divmod(number, IMAGES)
        pool.add(str(sequence), AngularState.score(preds, target, mask))
        if place == IMAGES - 1:
            pool.close(str(sequence))
    return pool.metrics()


def made(count=8):
    """A few images with smooth truth, noise that grows to the right, and a mask with holes."""
    rng = np.random.default_rng(0)
    y, x = np.indices((HEIGHT, WIDTH), np.float32) / HEIGHT
    images = []
    for number in range(count):
        target = np.stack([0.6 * np.sin(5 * x + number), 0.5 * np.cos(4 * y), np.full_like(x, -1)], axis=-1)
        target /= np.linalg.norm(target, axis=-1, keepdims=True)
        preds = target + 0.4 * x[..., None] * rng.standard_normal(target.shape, np.float32)
        preds /= np.linalg.norm(preds, axis=-1, keepdims=True)
        mask = np.sin(9 * x + number) + np.cos(7 * y) > -1.2
        images.append((preds, target, mask))
    return images


def repeated(images, count):
    return (images[i % len(images)] for i in range(count))


def channels_first(images):
    planes = [[torch.from_numpy(np.moveaxis(v, -1, 0)[None].copy()) for v in image[:2]] for image in images]
    return [(*pair, torch.from_numpy(image[2][None])) for pair, image in zip(planes, images, strict=True)]


@pytest.fixture(scope="module")
def images():
    torch.set_num_threads(1)
    return made()


@pytest.fixture(scope="module")
def table(request):
    rows = []
    yield rows
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print("\n| what | value | unit |\n|---|---|---|")
        for row in rows:
            print("| {} | {:.1f} | {} |".format(*row))


def record(benchmark, table, label, pixels, note=""):
    rate = pixels / benchmark.stats.stats.median / 1e6
    benchmark.extra_info["Mpixel/s"] = rate
    table.append((label, rate, f"Mpixel/s{note}"))
    return rate


RATES = {}
WAYS = {
    "the usual loop": (by_the_usual_loop, channels_first, 3),
    "plain numpy": (by_plain_numpy, list, 7),
    "ours": (by_pool, list, 15),
}


@pytest.mark.benchmark(group=GROUP, timer=time.process_time)
@pytest.mark.parametrize("way", WAYS)
def test_whole_set(benchmark, table, images, way):
    function, convert, rounds = WAYS[way]
    inputs = convert(images)
    function(inputs)
    found = benchmark.pedantic(
        function, setup=lambda: ((list(repeated(inputs, IMAGES)),), {}), rounds=rounds, warmup_rounds=1
    )
    for name, value in by_pool(repeated(images, IMAGES)).items():
        assert found[name] == pytest.approx(value, abs=2e-3 if name in {"mean", "median", "rmse"} else 0.05)
    RATES[way] = record(benchmark, table, way, IMAGES * PIXELS)
    if way == "ours":
        ratios = {f"times {peer}": RATES[way] / RATES[peer] for peer in RATES if peer != way}
        benchmark.extra_info.update(ratios)
        table.extend((label, ratio, "ratio") for label, ratio in ratios.items())


@pytest.mark.benchmark(group="one map at a time", timer=time.process_time)
@pytest.mark.parametrize("kind", ["float32", "float64", "all valid"])
def test_score(benchmark, table, images, kind):
    """Against a copy of the same bytes, taken in turns; maps are many enough not to stay in the cache."""
    dtype = "float64" if kind == "float64" else "float32"
    maps = [(p.astype(dtype), t.astype(dtype), m | (kind == "all valid")) for p, t, m in images]
    size = sum(array.nbytes for array in maps[0])
    source, copy = np.ones(size * len(maps), np.uint8).reshape(len(maps), size), np.empty(size, np.uint8)
    turns = iter(range(10**9))

    def setup():
        place = next(turns) % len(maps)
        start = time.process_time()
        np.copyto(copy, source[place])
        copies.append(time.process_time() - start)
        return maps[place], {}

    copies = []
    benchmark.pedantic(AngularState.score, setup=setup, rounds=200, warmup_rounds=16)
    share = float(np.median(copies)) / benchmark.stats.stats.median
    benchmark.extra_info.update({"share of copy": share, "best Mpixel/s": PIXELS / benchmark.stats.stats.min / 1e6})
    best = PIXELS / benchmark.stats.stats.min / 1e6
    record(benchmark, table, f"score, {kind}", PIXELS, f"; {share:.2f} of copying; best {best:.0f}")


@pytest.mark.benchmark(group="from a decoded picture to a state", timer=time.process_time)
@pytest.mark.parametrize("kind", KINDS)
def test_pictures(benchmark, table, tmp_path, kind):
    """Pixels compared as they are, against unit vectors in memory and then their angles, taken in turns."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(8):
        truth, path = bumpy_normals(rng), tmp_path / f"{number}.png"
        Image.fromarray(prediction(kind, truth, rng)).save(path)
        made.append((open_normals(path), truth, rng.random(truth.shape[:2]) < 0.9))
    turns, apart = iter(range(10**9)), []

    def setup():
        stored, truth, mask = made[next(turns) % len(made)]
        start = time.process_time()
        AngularState.score(stored.unit("opencv")[0], truth, mask)
        apart.append(time.process_time() - start)
        return (stored.colours("opencv"), truth, mask), {}

    benchmark.pedantic(AngularState.score_colours, setup=setup, rounds=200, warmup_rounds=16)
    share = benchmark.stats.stats.median / float(np.median(apart))
    benchmark.extra_info["share of two steps"] = share
    record(benchmark, table, f"pixels as they are, {kind}", PIXELS, f"; {share:.2f} of the time of two steps")


@pytest.mark.benchmark(group="threads, wall time")
def test_two_threads(benchmark, table, images):
    """One and two threads in turns, in short rounds: another process on either core spoils most of them."""
    alone = []
    with ThreadPoolExecutor(2) as two, ThreadPoolExecutor(1) as one:

        def score_all(executor):
            list(executor.map(lambda m: AngularState.score(*m).metrics(), images))

        def setup():
            start = time.perf_counter()
            score_all(one)
            alone.append(time.perf_counter() - start)
            return (two,), {}

        benchmark.pedantic(score_all, setup=setup, rounds=400, warmup_rounds=10)
    best = min(alone) / benchmark.stats.stats.min
    ratio = float(np.median(alone)) / benchmark.stats.stats.median
    benchmark.extra_info.update({"times one thread": ratio, "times one thread, best": best})
    note = f"; {ratio:.2f} times one thread, best rounds {best:.2f} times"
    record(benchmark, table, "two threads over frames, wall time", len(images) * PIXELS, note)


@pytest.mark.benchmark(group="one map at a time", timer=time.process_time)
def test_torch_on_the_processor(benchmark, table, images):
    maps = [torch.from_numpy(array) for array in images[0]]
    benchmark.pedantic(angular_state_torch, maps, rounds=15, warmup_rounds=2)
    record(benchmark, table, "torch, CPU", PIXELS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.benchmark(group="GPU, wall time")
@pytest.mark.parametrize("compiled", [False, True])
def test_torch_on_a_gpu(benchmark, table, images, compiled):
    batch = [
        torch.from_numpy(np.stack(arrays)).cuda().repeat(40, *(1,) * arrays[0].ndim)
        for arrays in zip(*images, strict=True)
    ]
    pixels = batch[2].numel()
    source = torch.ones(pixels * 25, dtype=torch.uint8, device="cuda")
    copy = torch.empty_like(source)
    seconds = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        copy.copy_(source)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    benchmark.pedantic(angular_state_torch, batch, {"compiled": compiled}, rounds=20, warmup_rounds=3)
    share = float(np.median(seconds)) / benchmark.stats.stats.median
    benchmark.extra_info["share of copy"] = share
    record(benchmark, table, f"torch, GPU, compiled={compiled}", pixels, f"; {share:.2f} of copying")


MEMORY = """
import importlib.util, json, pathlib, re
spec = importlib.util.spec_from_file_location("bench", {file!r})
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)
bench.torch.set_num_threads(1)
way, count = {way!r}, {count}
images = bench.made(4)
if way == "the usual loop":
    images = bench.channels_first(images)
run = {{"the usual loop": bench.by_the_usual_loop, "plain numpy": bench.by_plain_numpy}}.get(
    way, lambda found: bench.by_pool(found, way)
)

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024

run(images[:1])
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, at the present size
before = peak()
run(bench.repeated(images, count))
print(json.dumps(peak() - before))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.benchmark(group="memory")
@pytest.mark.parametrize(
    ("way", "count"),
    [(way, count) for way in ("pixels", "frames", "sequences") for count in (50, 200, 2000)]
    + [(way, count) for way in ("the usual loop", "plain numpy") for count in (50, 200)],
)
def test_memory(benchmark, table, way, count):
    """Growth of the peak resident size over the size after the first image, in MiB; each in a process of its own.

    The peak is the kernel's ``VmHWM``: ``ru_maxrss`` of a new process begins at the size of the one that started it.
    """
    code = MEMORY.format(file=str(Path(__file__).resolve()), way=way, count=count)
    command = [sys.executable, "-c", code]
    done = benchmark.pedantic(
        subprocess.run, [command], {"check": True, "capture_output": True, "text": True}, rounds=1
    )
    growth = json.loads(done.stdout)
    benchmark.extra_info["growth MiB"] = growth
    table.append((f"memory: {way}, {count} images", growth, "MiB"))
