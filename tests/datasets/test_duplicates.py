import io

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ncbench.datasets.duplicates import find_duplicates, hash_store, near_pairs, picture_hash
from ncbench.datasets.frame import Frame
from ncbench.datasets.manifest import seal
from ncbench.datasets.pictures import decode_image
from ncbench.datasets.schema import store_schema
from ncbench.datasets.shards import write_shard
from ncbench.datasets.store import open_store
from ncbench.errors import StoreError

BITS = st.lists(st.integers(0, 2**64 - 1), max_size=12)


def encoded(pixels, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def make_store(folder, pictures):
    folder.mkdir()
    normal = np.zeros((4, 6, 3), np.float32)
    frames = [Frame("clip", 10 * i, p, normal, np.zeros((4, 6), bool)) for i, p in enumerate(pictures)]
    record = write_shard(
        folder / "data-00000-of-00001.arrow", frames, store_schema({}), {"source": "s", "rows": len(frames)}
    )
    seal(folder, [record], name="x", card_text="", card_digest="", recipe_digest="")
    return folder


@given(BITS, BITS, st.integers(0, 64), st.integers(1, 4))
def test_near_pairs_are_those_of_counting_bits_one_by_one(queries, references, most, limit):
    found = near_pairs(np.array(queries, np.uint64), np.array(references, np.uint64), most, limit)
    expected = []
    for i, query in enumerate(queries):
        distances = sorted(((query ^ reference).bit_count(), j) for j, reference in enumerate(references))
        expected += [(i, j, distance) for distance, j in distances if distance <= most][:limit]
    assert found == expected


def test_the_hash_is_imagehash_s(tiny_data):
    store = open_store(tiny_data / "data" / "stores" / "tiny")
    picture = store.values(0, ["image"])["image"]
    expected = imagehash.phash(Image.open(io.BytesIO(picture)))
    assert picture_hash(picture) == int(str(expected), 16)
    rows, hashes = hash_store(store.path)
    assert rows.tolist() == list(range(len(store)))
    assert imagehash.hex_to_hash(f"{int(hashes[0]):016x}") - expected == 0


def test_recompressed_and_scaled_copies_are_found_others_not(tiny_data, tmp_path):
    tiny = open_store(tiny_data / "data" / "stores" / "tiny")
    one, two = (decode_image(tiny.read(name, 0, ["image"]).image) for name in ("one", "two"))
    large = np.array(Image.fromarray(one).resize((320, 240), Image.Resampling.BICUBIC))
    noise = np.random.default_rng(2).integers(0, 255, (64, 80, 3)).astype(np.uint8)
    plain = np.full((48, 64, 3), 7, np.uint8)
    training = make_store(
        tmp_path / "training", [encoded(noise), encoded(large, "JPEG", quality=60), encoded(plain), None]
    )
    test = make_store(tmp_path / "test", [encoded(two), encoded(one), encoded(plain)])
    found = find_duplicates(test, training, max_distance=8)
    assert found[["sequence", "frame", "training_sequence", "training_frame"]].to_numpy().tolist() == [
        ["clip", 10, "clip", 10]
    ]
    assert found["distance"].iloc[0] <= 8
    assert list(find_duplicates(test, make_store(tmp_path / "none", [None])).columns) == list(found.columns)


def test_bytes_that_are_no_picture(tmp_path):
    with pytest.raises(StoreError, match="cannot be decoded"):
        picture_hash(b"nonsense")
