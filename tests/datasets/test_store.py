import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ncbench.cards import digest
from ncbench.datasets.frame import Frame
from ncbench.datasets.manifest import Manifest, seal
from ncbench.datasets.pictures import decode_image
from ncbench.datasets.schema import store_schema
from ncbench.datasets.shards import SequenceRecord, shard_name, write_shard
from ncbench.datasets.store import Store, is_store, open_store
from ncbench.errors import StoreError

FRAMES = {"a": [2, 4, 6, 7], "b": [0]}


def picture(value):
    stream = io.BytesIO()
    Image.fromarray(np.full((3, 4, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A store as a model's predictions make it: one shard per sequence, most columns null."""
    wall = np.broadcast_to(np.array([0, 0, -1], np.float32), (3, 4, 3))
    schema, records = store_schema({}), []
    for index, (name, numbers) in enumerate(FRAMES.items()):
        depths = [np.full((3, 4), number, np.float32) if name == "a" else None for number in numbers]
        frames = [
            Frame(name, number, picture(number) if name == "a" else None, wall, np.ones((3, 4), bool), depth)
            for number, depth in zip(numbers, depths, strict=True)
        ]
        metadata = {"rows": len(frames), "source": "none"}
        records.append(write_shard(tmp_path / shard_name(index, 2), frames, schema, metadata))
    seal(tmp_path, records, name="predictions", card_text="model: x\n", card_digest="c", recipe_digest="r")
    return tmp_path


def test_lookup_by_name_and_by_number(folder):
    store = open_store(str(folder))
    assert (len(store), store.sequences) == (5, FRAMES)
    keys = [(name, frame) for name, frames in FRAMES.items() for frame in frames]
    for row, (name, number) in enumerate(keys):
        assert store.index(name, number) == row
        assert store.locate(row) == (name, number)
        for frame in (store[row], store[row - 5], store.read(name, number)):
            assert (frame.sequence, frame.frame, frame.size) == (name, number, (3, 4))
            assert (frame.image is None) == (frame.depth is None) == (name == "b")
    assert [frame.frame for frame in store] == [2, 4, 6, 7, 0]
    assert repr(store).endswith("2 sequences, 5 frames)")


def test_clip_counts_positions_and_streams(folder):
    store = open_store(folder)
    assert [frame.frame for frame in store.clip("a")] == [2, 4, 6, 7]
    assert [frame.frame for frame in store.clip("a", 1, 3)] == [4, 6]
    assert [frame.frame for frame in store.clip("a", -1)] == [7]
    assert [frame.frame for frame in store.clip("b", 0, 99)] == [0]
    stream = store.clip("a", columns=iter(["depth"]))
    assert [frame.depth[0, 0] for frame in stream] == [2, 4, 6, 7]


def test_only_the_wanted_columns_are_decoded(folder, monkeypatch):
    store = open_store(folder)
    decoded = []
    import ncbench.datasets.schema as schema

    monkeypatch.setattr(schema, "decode_cell", lambda *given, old=schema.decode_cell: decoded.append(1) or old(*given))
    frame = store.read("a", 2, columns=("normal", "valid"))
    assert (len(decoded), frame.depth, frame.image) == (2, None, None)
    assert set(store.values(0, ["image", "width"])) == {"image", "width"}
    assert len(decoded) == 2


def test_predictions_have_no_other_columns(folder):
    frame = open_store(folder).read("b", 0)
    assert all(getattr(frame, name) is None for name in ("image", "depth", "flow", "occluded", "intrinsics"))
    assert frame.extra == {}


def test_what_is_not_there(folder):
    store = open_store(folder)
    with pytest.raises(StoreError, match="no frame 3; it has 4 frames from 2 to 7"):
        store.read("a", 3)
    with pytest.raises(StoreError, match=r"no sequence 'c'.*Valid: a, b"):
        store.read("c", 0)
    with pytest.raises(StoreError, match="no sequence 'c'"):
        next(store.clip("c"))
    with pytest.raises(StoreError, match="Did you mean 'depth'"):
        store.read("a", 2, columns=["dept"])
    for row in (5, -6):
        with pytest.raises(IndexError):
            store[row]


def test_a_store_pickles_as_its_path(folder):
    store = open_store(folder)
    store[0]
    data = pickle.dumps(store)
    assert len(data) < 500
    assert pickle.loads(data).read("a", 7).frame == 7  # noqa: S301 - our own bytes


def test_is_store(folder):
    assert is_store(folder)
    assert not is_store(folder / "absent")
    assert not is_store(folder / "card.yaml")


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match=r"not a store.*ncbench prepare"):
        open_store(tmp_path)
    with pytest.raises(StoreError, match="not a store"):
        open_store(tmp_path / "absent")


def test_a_newer_store_asks_for_an_update(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99, "news": True}))
    with pytest.raises(StoreError, match=r"schema 99.*Update ncbench"):
        open_store(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("shards"),
        lambda values: values.update(rows=4),
        lambda values: values["shards"].pop(),
        lambda values: values["shards"][0].update(sha256="0" * 64),
        lambda values: values["sequences"].pop(),
        lambda values: values["sequences"][0].update(frames=[[0, 1]]),
        lambda values: values.update(surprise=1),
        lambda values: values.update(schema=None),
    ],
)
@pytest.mark.parametrize("restate", [False, True])
def test_a_damaged_manifest(folder, change, restate):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    if restate:  # whoever computes the checksum anew still meets the other checks
        del values["checksum"]
        values["checksum"] = digest(values)
    path.write_text(json.dumps(values))
    with pytest.raises(StoreError, match=r"manifest.json: is damaged"):
        open_store(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_a_manifest_that_is_no_json_object(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=r"manifest.json"):
        open_store(folder)


def test_a_shard_of_another_size_or_form(folder):
    path = folder / shard_name(0, 2)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(StoreError, match=r"expected .* bytes.*ncbench repair"):
        open_store(folder)
    path.write_bytes(b"\0" * len(content))
    with pytest.raises(StoreError, match="ncbench repair"):
        open_store(folder)[0]


def test_a_damaged_cell_names_its_frame(folder):
    path = folder / shard_name(0, 2)
    content = bytearray(path.read_bytes())
    content[content.index(b"NCBC") + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"data-00000.*sequence 'a' frame 2.*damaged"):
        open_store(folder)[0]
    assert open_store(folder)[1].frame == 4


def test_reading_needs_neither_datasets_nor_pandas_nor_torch(folder):
    script = (
        "import sys; from ncbench.datasets.store import open_store; store = open_store(sys.argv[1]); store[0]\n"
        "assert not {'datasets', 'pandas', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, folder], check=True)


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 5))
def test_the_manifest_keeps_any_frame_numbers(numbers, step):
    frames = tuple(sorted(number * step for number in numbers))
    values = {"name": "n", "card": "c", "recipe": "r", "shards": (), "files": {}, "written_with": {}}
    text = Manifest(sequences=(SequenceRecord("s", frames, 1, 1),), **values).to_json()
    runs = json.loads(text)["sequences"][0]["frames"]
    assert [frame for run in runs for frame in range(*run)] == list(frames)
    assert len(runs) <= len(frames)


def test_regular_frames_are_one_run():
    values = {"name": "n", "card": "c", "recipe": "r", "shards": (), "files": {}, "written_with": {}}
    text = Manifest(sequences=(SequenceRecord("s", tuple(range(0, 2000, 20)), 1, 1),), **values).to_json()
    assert json.loads(text)["sequences"][0]["frames"] == [[0, 2000, 20]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "LA", "1"])
def test_pictures_decode_to_rgb(mode):
    original = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5).convert(mode)
    stream = io.BytesIO()
    original.save(stream, "PNG")
    found = decode_image(stream.getvalue())
    assert (found.shape, found.dtype) == ((4, 4, 3), np.uint8)
    np.testing.assert_array_equal(found, np.asarray(original.convert("RGB")))


def test_grey_of_16_bits_is_scaled_not_clipped():
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 256, 65535]], np.uint16)).save(stream, "PNG")
    assert decode_image(stream.getvalue()).tolist() == [[[0] * 3, [1] * 3, [255] * 3]]


def test_pictures_that_are_none(folder):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(stream, "TIFF")
    with pytest.raises(StoreError, match="8 bits a channel"):
        decode_image(stream.getvalue())
    for data in (b"", b"GIF89a", picture(3)[:45]):
        with pytest.raises(StoreError, match="cannot be decoded"):
            decode_image(data)
    assert decode_image(Store(folder)[0].image)[0, 0].tolist() == [2, 2, 2]
