"""The same frames in every form that is compared, and a loader for each."""

import io
import itertools
import shutil
import time
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import torch
import webdataset
from PIL import Image
from skimage.data import stereo_motorcycle
from torch.utils.data import DataLoader, Dataset

from ncbench import open_store
from ncbench.datasets.frame import Frame
from ncbench.datasets.manifest import seal
from ncbench.datasets.schema import store_schema
from ncbench.datasets.shards import shard_name, write_shard
from ncbench.loaders.clips import NormalFrames
from ncbench.loaders.loader import Loader
from ncbench.loaders.training_copy import write_training_copy

FOCAL, BASELINE, OFFSET, CENTRE = 994.978, 0.193001, 31.086, (311.193, 254.877)
SHARD_ROWS = 32
BATCH = 4


def motorcycle():
    """The real pair's left picture with normals from its disparity, and where they are known."""
    picture, _, disparity = stereo_motorcycle()
    known = np.isfinite(disparity)
    depth = np.where(known, FOCAL * BASELINE / (np.where(known, disparity, 1.0).astype(np.float64) + OFFSET), np.nan)
    y, x = np.indices(depth.shape)
    points = np.stack([(x - CENTRE[0]) / FOCAL * depth, (y - CENTRE[1]) / FOCAL * depth, depth], axis=-1)
    across, down = np.full_like(points, np.nan), np.full_like(points, np.nan)
    across[:, 1:-1], down[1:-1] = points[:, 2:] - points[:, :-2], points[2:] - points[:-2]
    normals = np.cross(down, across)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return picture, np.nan_to_num(normals, nan=0.0).astype(np.float32)


def frames(size, count):
    """Windows of the real picture, mirrored beyond its edges, each moved on by a few pixels: no two are equal."""
    picture, normals = motorcycle()
    height, width = size
    for index in range(count):
        rows = np.arange(height) + 5 * index
        columns = np.arange(width) + 7 * index
        window = np.ix_(_mirrored(rows, picture.shape[0]), _mirrored(columns, picture.shape[1]))
        normal = np.ascontiguousarray(normals[window])
        yield np.ascontiguousarray(picture[window]), normal, (normal != 0).any(axis=-1)


def _mirrored(places, length):
    folded = places % (2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def write_all(root, size, count):
    """Write the frames in every form; returns the bytes of each."""
    for folder in ("store", "raw", "packed"):
        (root / folder).mkdir(parents=True)
    write_store(root / "store", size, count)
    write_training_copy(open_store(root / "store"), root / "copy")
    with webdataset.TarWriter(str(root / "frames.tar")) as tar, webdataset.TarWriter(str(root / "half.tar")) as half:
        for index, (picture, normal, valid) in enumerate(frames(size, count)):
            encoded, name = png(picture), f"{index:05d}"
            tar.write({"__key__": name, "image.png": encoded, "normal.npy": normal, "valid.npy": valid})
            half.write(
                {"__key__": name, "image.png": encoded, "normal.npy": normal.astype(np.float16), "valid.npy": valid}
            )
            for folder, save in (("raw", np.savez), ("packed", np.savez_compressed)):
                (root / folder / f"{name}.png").write_bytes(encoded)
                save(root / folder / f"{name}.npz", normal=normal, valid=valid)
    write_hf(root / "hf", size, count, "float32")
    write_hf(root / "hf16", size, count, "float16")
    return {path.name: bytes_of(path) for path in sorted(root.iterdir())}


def bytes_of(path):
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def write_store(folder, size, count, rows=SHARD_ROWS):
    def canonical():
        for index, (picture, normal, valid) in enumerate(frames(size, count)):
            yield Frame("motorcycle", index, png(picture), normal, valid)

    stream, total = canonical(), -(-count // rows)
    records = [
        write_shard(
            folder / shard_name(index, total),
            itertools.islice(stream, rows),
            store_schema({}),
            {"rows": min(rows, count - index * rows), "source": "benchmark"},
        )
        for index in range(total)
    ]
    seal(folder, records, name="bench", card_text="name: bench\n", card_digest="none", recipe_digest="none")


def write_hf(folder, size, count, kind):
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "normal": datasets.Array3D((*size, 3), kind),
            "valid": datasets.Array2D(size, "bool"),
        }
    )

    def rows():
        for picture, normal, valid in frames(size, count):
            yield {"image": {"bytes": png(picture), "path": None}, "normal": normal.astype(kind), "valid": valid}

    cache = folder.with_name(folder.name + "-cache")
    made = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(cache), writer_batch_size=8)
    made.save_to_disk(str(folder))
    shutil.rmtree(cache)


class RawFiles(Dataset):
    """PNG and NPZ side by side, decoded by Pillow and numpy."""

    def __init__(self, folder):
        self.pictures = sorted(Path(folder).glob("*.png"))

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        path = self.pictures[index]
        arrays = np.load(path.with_suffix(".npz"))
        return {
            "image": torch.from_numpy(np.array(Image.open(path))),
            "normal": torch.from_numpy(arrays["normal"]),
            "valid": torch.from_numpy(arrays["valid"]),
        }


def ours(folder, workers):
    clips = NormalFrames(open_store(folder), batch_size=BATCH, shuffle="none")
    return Loader(clips, workers=workers, endless=True)


def ours_in_processes(folder, workers):
    clips = NormalFrames(open_store(folder), batch_size=BATCH, shuffle="none")
    return Loader(clips, workers=workers, endless=True, backend="processes")


def plain(dataset, workers):
    """A DataLoader that repeats the same order."""
    order = list(range(len(dataset))) * 50
    return DataLoader(dataset, batch_size=BATCH, sampler=order, num_workers=workers)


def huggingface(folder, workers):
    return plain(datasets.load_from_disk(str(folder)).with_format("torch"), workers)


def web(tar, workers):
    # every worker opens the one shard; it takes every n-th sample of it
    stream = webdataset.WebDataset(str(tar), shardshuffle=False, nodesplitter=None, workersplitter=None)
    stream = stream.repeat(50)
    if workers:
        stream = stream.compose(every_nth)
    stream = stream.decode("rgb8").to_tuple("image.png", "normal.npy", "valid.npy")
    return DataLoader(stream.map(named), batch_size=BATCH, num_workers=workers)


def every_nth(samples):
    worker = torch.utils.data.get_worker_info()
    return itertools.islice(samples, worker.id, None, worker.num_workers)


def named(sample):
    return {
        key: torch.from_numpy(np.array(value)) for key, value in zip(("image", "normal", "valid"), sample, strict=True)
    }


LOADERS = {  # name -> (what it reads, how)
    "ncbench, rgb cells": ("copy", ours),
    "ncbench, rgb cells, processes": ("copy", ours_in_processes),
    "ncbench, PNG": ("store", ours),
    "datasets: Image, Array3D float32": ("hf", huggingface),
    "WebDataset: PNG, NPY float32": ("frames.tar", web),
    "raw files: PNG, NPZ float32": ("raw", lambda folder, workers: plain(RawFiles(folder), workers)),
    "raw files: PNG, NPZ float32, compressed": ("packed", lambda folder, workers: plain(RawFiles(folder), workers)),
}


def take(loader, samples):
    """Seconds and seconds of this process's processor per sample, after the first batch: starting up does not count."""
    stream = iter(loader)
    next(stream)
    start, used, taken = time.perf_counter(), time.process_time(), 0
    while taken < samples:
        taken += len(next(stream)["valid"])
    return (time.perf_counter() - start) / taken, (time.process_time() - used) / taken


def write_long(folder, rows, shard_rows=100):
    """A store of many tiny frames: one shard under many names, which a reader cannot tell from as many shards."""
    one = folder.with_name("one")
    one.mkdir()
    write_store(one, (16, 16), shard_rows, shard_rows)
    manifest = open_store(one).manifest
    folder.mkdir()
    total = rows // shard_rows
    names = [shard_name(index, total) for index in range(total)]
    for name in names:
        (folder / name).hardlink_to(one / manifest.shards[0].file)
    clips = tuple(replace(manifest.sequences[0], name=f"clip{index:05d}") for index in range(total))
    shards = tuple(replace(manifest.shards[0], file=name) for name in names)
    (folder / "manifest.json").write_bytes(replace(manifest, sequences=clips, shards=shards).to_json())
