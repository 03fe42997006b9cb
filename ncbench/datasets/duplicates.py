"""Pictures that two stores share, or nearly share: is a test set hidden in a training set?

A perceptual hash (64 bits) survives scaling, recompression and mild changes of colour, not cropping or mirroring. What
is found are candidates for the eye, not proof.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ncbench.datasets.pictures import decode_image
from ncbench.datasets.store import open_store
from ncbench.engine.local import run

if TYPE_CHECKING:
    import pandas as pd

Hashes = NDArray[np.uint64]
_CHUNK = 64
FLAT = 8.0
"""Standard deviation of brightness (of 255) below which a picture is too plain to be told from another."""


def picture_hash(picture: bytes) -> int | None:
    """Hash a picture by the signs of its low frequencies (pHash, as ``imagehash`` computes it).

    Args:
        picture: The encoded picture.

    Returns:
        64 bits; None for a picture that is too plain (black, sky) to be recognised.

    Raises:
        StoreError: The picture does not decode.
    """
    import imagehash

    image = Image.fromarray(decode_image(picture)).convert("L")
    if float(np.asarray(image).std()) < FLAT:
        return None
    return int(str(imagehash.phash(image)), 16)


def hash_store(
    store: Path, jobs: int = 1, progress: Callable[[int, int], None] | None = None
) -> tuple[NDArray[np.int64], Hashes]:
    """Hash all pictures of a store.

    Args:
        store: The store's folder.
        jobs: Worker processes.
        progress: Called with (chunks of pictures done, chunks in all).

    Returns:
        Row numbers (N,) of the pictures that could be hashed, ascending, and their hashes (N,) uint64.

    Raises:
        StoreError: The store is damaged.
    """
    length = len(open_store(store))
    chunks = [(start, min(start + _CHUNK, length)) for start in range(0, length, _CHUNK)]
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for chunk, hashes in run(partial(_hash_rows, store), chunks, jobs):
        found[chunk] = hashes
        if progress is not None:
            progress(len(found), len(chunks))
    pairs = [pair for chunk in chunks for pair in found[chunk]]
    return np.array([row for row, _ in pairs], np.int64), np.array([value for _, value in pairs], np.uint64)


def near_pairs(queries: Hashes, references: Hashes, max_distance: int, limit: int) -> list[tuple[int, int, int]]:
    """Find the hashes that differ in few bits, holding one query's distances in memory at a time.

    Args:
        queries: (N,) uint64.
        references: (M,) uint64.
        max_distance: Bits that may differ.
        limit: At most this many references a query, the nearest first.

    Returns:
        (query, reference, distance), ascending by query, then distance, then reference.
    """
    found: list[tuple[int, int, int]] = []
    for index, query in enumerate(queries):
        distances = np.bitwise_count(references ^ query)
        near = np.flatnonzero(distances <= max_distance)
        nearest = near[np.argsort(distances[near], kind="stable")][:limit]
        found += [(index, int(reference), int(distances[reference])) for reference in nearest]
    return found


def find_duplicates(
    test: Path,
    training: Path,
    max_distance: int = 6,
    limit: int = 5,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """List pictures of one store that look like pictures of another.

    Memory is 16 bytes a picture; time grows with the product of the sizes (about 150 microseconds a test picture for
    75,000 training pictures), after hashing, which dominates.

    Args:
        test: Store whose pictures are looked up.
        training: Store in which they are looked for.
        max_distance: Bits of 64 that may differ. Unrelated pictures differ in about 32.
        limit: At most this many candidates for each test picture.
        jobs: Worker processes that hash.
        progress: Called with (chunks of pictures done, chunks in all), for each store in turn.

    Returns:
        Candidates, nearest first: ``sequence``, ``frame``, ``training_sequence``, ``training_frame``, ``distance``.

    Raises:
        StoreError: A store is damaged.
    """
    import pandas as pd

    rows, queries = hash_store(test, jobs, progress)
    training_rows, references = hash_store(training, jobs, progress)
    a, b = open_store(test), open_store(training)
    table = [
        (*a.locate(int(rows[query])), *b.locate(int(training_rows[reference])), distance)
        for query, reference, distance in near_pairs(queries, references, max_distance, limit)
    ]
    columns = ["sequence", "frame", "training_sequence", "training_frame", "distance"]
    return pd.DataFrame(table, columns=columns).sort_values("distance", kind="stable", ignore_index=True)


def _hash_rows(path: Path, chunk: tuple[int, int]) -> list[tuple[int, int]]:
    store = open_store(path)
    found = []
    for row in range(*chunk):
        picture = store.values(row, ["image"])["image"]
        value = None if picture is None else picture_hash(picture)
        if value is not None:
            found.append((row, value))
    return found
