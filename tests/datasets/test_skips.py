"""Frames that a reader leaves out: counted, listed, limited, and kept through resume, verify and repair."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest

from ncbench.datasets.frame import Frame, Skipped
from ncbench.datasets.integrity import repair, verify
from ncbench.datasets.manifest import Manifest
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import Recipe
from ncbench.datasets.schema import store_schema
from ncbench.datasets.shards import reusable, write_shard
from ncbench.datasets.store import open_store
from ncbench.errors import SourceError, StoreError

READER = '''
import numpy as np
from ncbench.datasets.frame import Frame, Skipped
from ncbench.datasets.readers.base import hash_files


class Reader:
    """One number a file: a negative one is a frame that cannot be used."""

    def __init__(self, root, settings):
        self.root, self.settings = root, settings

    def sequences(self):
        return {
            folder.name: sorted(int(path.stem) for path in folder.iterdir())
            for folder in sorted(self.root.iterdir()) if folder.is_dir()
        }

    def read(self, sequence, frames):
        for frame in frames:
            path = self.root / sequence / f"{frame}.txt"
            value = int(path.read_text())
            if value < 0:
                yield Skipped(sequence, frame, f"{path}: the camera\\nis   broken ({value})")
                continue
            normal = np.zeros((4, 6, 3), np.float32)
            normal[..., 2] = -1
            yield Frame(sequence, frame, None, normal, np.ones((4, 6), bool),
                        flow=np.full((4, 6, 2), value, np.float32), occluded=np.zeros((4, 6), bool))

    def fingerprint(self, sequence, frames):
        return hash_files(self.root, [self.root / sequence / f"{frame}.txt" for frame in frames])

    def extra_features(self):
        return {}
'''


@pytest.fixture
def source(tmp_path, monkeypatch):
    code = tmp_path / "code"
    code.mkdir()
    (code / "skip_test_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(code)
    root = tmp_path / "source"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for frame in range(10):
            (root / name / f"{frame}.txt").write_text(str(frame))
    return root


def spoil(root, *frames, sequence="a"):
    for frame in frames:
        (root / sequence / f"{frame}.txt").write_text(str(-frame - 1))


def recipe_for(root, shard_rows=4):
    return Recipe("skips", "skip_test_reader:Reader", {}, root, shard_rows, "name: skips\n", "c" * 64)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_a_skipped_frame_leaves_a_gap_and_is_listed_with_its_reason(source, tmp_path):
    spoil(source, 5)
    manifest = prepare(recipe_for(source), tmp_path / "store", max_skipped=0.1)
    store = open_store(tmp_path / "store")
    assert store.sequences == {"a": [0, 1, 2, 3, 4, 6, 7, 8, 9], "b": list(range(10))}
    assert len(store) == 19
    assert manifest.skipped == (Skipped("a", 5, "a/5.txt: the camera is broken (-6)"),)
    assert store.manifest == manifest
    written = json.loads((tmp_path / "store" / "manifest.json").read_text())
    listed = [item for shard in written["shards"] for item in shard.get("skipped", [])]
    assert listed == [{"sequence": "a", "frame": 5, "reason": "a/5.txt: the camera is broken (-6)"}]
    assert str(tmp_path) not in (tmp_path / "store" / "manifest.json").read_text()
    from datasets import load_from_disk

    assert load_from_disk(str(tmp_path / "store"))["frame"][:9] == [0, 1, 2, 3, 4, 6, 7, 8, 9]


@pytest.mark.parametrize("bad", [1, 3, 4, 7, 8, 9])
def test_flow_never_leads_to_a_frame_that_is_not_there(source, tmp_path, bad):
    """Shards end after frames 3 and 7: there, the frame after belongs to another shard."""
    spoil(source, bad)
    prepare(recipe_for(source), tmp_path / "store", max_skipped=0.1)
    for frame in open_store(tmp_path / "store").clip("a"):
        if frame.frame + 1 == bad:
            assert frame.flow is None
            assert frame.occluded is None
        else:
            np.testing.assert_array_equal(frame.flow, np.full((4, 6, 2), frame.frame))


def test_the_shard_before_follows_when_its_successor_breaks_or_heals(source, tmp_path):
    prepare(recipe_for(source), tmp_path / "store")
    assert open_store(tmp_path / "store").read("a", 3).flow is not None
    spoil(source, 4)
    prepare(recipe_for(source), tmp_path / "store", max_skipped=0.1)
    assert open_store(tmp_path / "store").read("a", 3).flow is None
    fresh = tmp_path / "fresh"
    prepare(recipe_for(source), fresh, max_skipped=0.1)
    assert contents(fresh) == contents(tmp_path / "store")


def test_one_worker_and_two_write_the_same_bytes(source, tmp_path):
    spoil(source, 0, 3, 4)
    prepare(recipe_for(source), tmp_path / "one", max_skipped=0.2)
    prepare(recipe_for(source), tmp_path / "two", max_skipped=0.2, jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("bad", [(4, 5, 6, 7), tuple(range(10))])
def test_a_shard_or_a_sequence_of_skipped_frames_only(source, tmp_path, bad):
    spoil(source, *bad)
    manifest = prepare(recipe_for(source), tmp_path / "store", max_skipped=0.5)
    store = open_store(tmp_path / "store")
    assert [item.frame for item in manifest.skipped] == list(bad)
    kept = [frame for frame in range(10) if frame not in bad]
    assert store.sequences == ({"a": kept} if kept else {}) | {"b": list(range(10))}
    assert [store.locate(row) for row in range(len(store))] == [
        (name, frame) for name, frames in store.sequences.items() for frame in frames
    ]
    assert [store[row].frame for row in range(len(store))] == [*kept, *range(10)]
    assert verify(tmp_path / "store") == []
    from datasets import load_from_disk

    assert load_from_disk(str(tmp_path / "store"))["frame"][:] == [*kept, *range(10)]


def test_verify_repair_and_resume_keep_them(source, tmp_path):
    spoil(source, 4, 5, 6, 7)
    out = tmp_path / "store"
    prepare(recipe_for(source), out, max_skipped=0.5)
    before = contents(out)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare(recipe_for(source), out, max_skipped=0.5) == Manifest.load(out)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == stamps
    shard = out / "data-00001-of-00005.arrow"
    content = bytearray(shard.read_bytes())
    content[-40] ^= 1
    shard.write_bytes(content)
    (problem,) = verify(out)
    assert "it holds no rows" in str(problem)
    assert [record.file for record in repair(out, recipe_for(source))] == [shard.name]
    assert contents(out) == before


def test_too_many_stop_and_leave_no_store(source, tmp_path):
    spoil(source, 2, 7)
    out = tmp_path / "store"
    with pytest.raises(SourceError, match=r"1\.00% of the 20 frames.*'a' frame 2: a/2\.txt: the camera is broken"):
        prepare(recipe_for(source), out)
    with pytest.raises(StoreError, match="unfinished store"):
        open_store(out)
    prepare(recipe_for(source), out, max_skipped=0.1)
    assert len(open_store(out)) == 18
    with pytest.raises(SourceError, match="may be left out"):
        prepare(recipe_for(source), out, max_skipped=0.05)
    with pytest.raises(StoreError, match="unfinished store"):
        open_store(out)


def test_a_store_without_any_frame_is_refused_at_any_threshold(source, tmp_path):
    spoil(source, *range(10))
    spoil(source, *range(10), sequence="b")
    with pytest.raises(SourceError, match="never all"):
        prepare(recipe_for(source), tmp_path / "store", max_skipped=1.0)


def test_a_check_that_fails_leaves_no_store_that_opens(source, tmp_path):
    def refuse(store):
        assert len(store) == 20
        assert store.read("a", 3).flow is not None
        assert (store.path / "card.yaml").read_text() == "name: skips\n"
        with pytest.raises(StoreError, match="unfinished store"):
            open_store(store.path)
        assert not (store.path / "state.json").exists(), "nor may anybody else open it"
        raise SourceError("wrong axes")

    with pytest.raises(SourceError, match="wrong axes"):
        prepare(recipe_for(source), tmp_path / "store", check=refuse)
    with pytest.raises(StoreError, match="unfinished store"):
        open_store(tmp_path / "store")
    seen = []
    prepare(recipe_for(source), tmp_path / "store", check=seen.append)
    assert [store.path for store in seen] == [tmp_path / "store"]
    assert len(pickle.loads(pickle.dumps(seen[0]))) == 20  # noqa: S301 - our own bytes


def test_a_damaged_note_is_not_taken_for_a_finished_shard(tmp_path):
    normal = np.zeros((4, 6, 3), np.float32)
    normal[..., 2] = -1
    frames = [Frame("a", 0, None, normal, np.ones((4, 6), bool)), Skipped("a", 1, "reason")]
    metadata = {"source": "s", "rows": 2}
    record = write_shard(tmp_path / "x.arrow", frames, store_schema({}), metadata)
    assert (record.rows, record.skipped) == (1, (Skipped("a", 1, "reason"),))
    assert reusable(tmp_path / "x.arrow", metadata) == record
    content = (tmp_path / "x.arrow").read_bytes()
    (tmp_path / "x.arrow").write_bytes(content.replace(b'"frame":1', b'"fromage"'))
    assert reusable(tmp_path / "x.arrow", metadata) is None
    (tmp_path / "x.arrow").write_bytes(content[: content.index(b"ncbench.skipped")])
    assert reusable(tmp_path / "x.arrow", metadata) is None
    with pa.ipc.open_stream(content) as stream:
        assert [batch.num_rows for batch in stream] == [1, 0]
