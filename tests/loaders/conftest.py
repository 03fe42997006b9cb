"""A small moving store with everything that a frame can hold, and tiny ones in which only the order matters."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from ncbench.datasets.frame import Frame
from ncbench.datasets.manifest import seal
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.datasets.schema import store_schema
from ncbench.datasets.shards import shard_name, write_shard
from ncbench.datasets.store import open_store


def png(picture):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def write_store(folder, frames, rows=3, name="made"):
    """Seal frames as a store with so many rows a shard."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(itertools.batched(frames, rows)) if hasattr(itertools, "batched") else _batched(list(frames), rows)
    records = [
        write_shard(
            folder / shard_name(index, len(parts)), part, store_schema({}), {"rows": len(part), "source": f"{index}"}
        )
        for index, part in enumerate(parts)
    ]
    seal(folder, records, name=name, card_text="name: made\n", card_digest="c", recipe_digest="r")
    return open_store(folder)


def _batched(items, size):
    return [items[start : start + size] for start in range(0, len(items), size)]


def tiny_frames(sequences, size=(2, 3)):
    """Frames whose normals are a wall's; ``sequences`` is name -> frame numbers."""
    wall = np.broadcast_to(np.array([0, 0, -1], np.float32), (*size, 3))
    for name, numbers in sequences.items():
        for number in numbers:
            picture = np.full((*size, 3), number % 256, np.uint8)
            yield Frame(name, number, png(picture), wall, np.ones(size, bool))


def rendered(kind, seed, frames, size):
    """Frames of an analytic scene, with depth, flow, occlusion and camera."""
    scene = make_scene(kind, seed, frames, *size)
    for index in range(frames):
        frame = render_frame(scene, index)
        yield Frame(
            f"{kind}{seed}",
            index,
            png(frame.rgb),
            frame.normal.astype(np.float32),
            frame.valid,
            frame.depth.astype(np.float32),
            frame.flow.astype(np.float32),
            frame.occluded,
            frame.intrinsics,
            frame.cam_to_world,
        )


@pytest.fixture(scope="session")
def moving_folder(tmp_path_factory):
    """Two sequences of two sizes, in three shards."""
    folder = tmp_path_factory.mktemp("stores") / "moving"
    frames = [*rendered("room", 4, 5, (48, 64)), *rendered("objects", 2, 4, (40, 56))]
    write_store(folder, frames, name="moving")
    return folder


@pytest.fixture
def moving(moving_folder):
    return open_store(moving_folder)


@pytest.fixture(scope="session")
def tiny_stores(tmp_path_factory):
    """Two stores of clips with gaps and of several sizes, cheap to decode."""
    root = tmp_path_factory.mktemp("tiny")
    first = {"a": range(7), "b": [0, 1, 2, 8, 9, 10, 11], "c": [5]}
    write_store(root / "one", tiny_frames(first), rows=4, name="one")
    second = [*tiny_frames({"x": range(6)}, (4, 4)), *tiny_frames({"y": range(0, 10, 2)}, (2, 3))]
    write_store(root / "two", second, rows=5, name="two")
    return root


@pytest.fixture
def tiny_pair(tiny_stores):
    return {name: open_store(tiny_stores / name) for name in ("one", "two")}


@pytest.fixture
def make_store(tmp_path):
    """Write a store of tiny frames: name -> frame numbers."""
    return lambda sequences, name="made", **options: write_store(
        tmp_path / name, tiny_frames(sequences), name=name, **options
    )


@pytest.fixture
def seal_frames(tmp_path):
    """Write a store of given frames."""
    return lambda frames: write_store(tmp_path / "sealed", frames)
