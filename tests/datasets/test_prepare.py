import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ncbench.cards import DatasetCard
from ncbench.datasets.integrity import repair, verify
from ncbench.datasets.manifest import Manifest, seal, unseal
from ncbench.datasets.prepare import plan_shards, prepare
from ncbench.datasets.recipe import Recipe, stored_card
from ncbench.datasets.recipe import recipe_for as card_recipe
from ncbench.datasets.store import open_store
from ncbench.errors import SourceError, StoreError

READER = '''
import io, os, time
import numpy as np
from PIL import Image
import pyarrow as pa
from ncbench.datasets.frame import Frame
from ncbench.datasets.readers.base import hash_files


class Reader:
    """One .npy of raw directions a frame: root/<sequence>/<frame>.npy."""

    def __init__(self, root, settings):
        self.root, self.settings = root, settings

    def sequences(self):
        folders = sorted(path for path in self.root.iterdir() if path.is_dir())
        return {folder.name: sorted(int(path.stem) for path in folder.iterdir()) for folder in folders}

    def _path(self, sequence, frame):
        return self.root / sequence / f"{frame}.npy"

    def read(self, sequence, frames):
        for frame in frames:
            time.sleep(self.settings.get("delay", 0))
            raw = np.load(self._path(sequence, frame))
            normal = (raw / np.linalg.norm(raw, axis=-1, keepdims=True)).astype(np.float32)
            png = io.BytesIO()
            Image.fromarray((normal * 127 + 128).astype(np.uint8)).save(png, "PNG")
            outdoor = sequence == "outdoor"
            yield Frame(
                sequence=sequence,
                frame=frame,
                image=png.getvalue(),
                normal=normal,
                valid=raw[..., 0] < 1,
                depth=None if outdoor else raw[..., 2].astype(np.float32),
                flow=None if outdoor else np.where(raw[..., :2] > 1, np.nan, raw[..., :2]).astype(np.float32),
                occluded=None if outdoor else raw[..., 1] > 0.5,
                intrinsics=None if outdoor else np.diag([50.0, 50.0, 1.0]),
                cam_to_world=None if outdoor else np.eye(4) * frame,
                extra={"weather": "rain" if outdoor else None},
            )

    def fingerprint(self, sequence, frames):
        return hash_files(self.root, [self._path(sequence, frame) for frame in frames])

    def extra_features(self):
        return {"weather": pa.string()}
'''
FRAMES = {"hall": [0, 1, 2, 3], "outdoor": [10, 20, 30], "stairs": [5]}


@pytest.fixture
def source(tmp_path, monkeypatch):
    code = tmp_path / "code"
    code.mkdir()
    (code / "store_test_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(code)
    rng = np.random.default_rng(1)
    root = tmp_path / "source"
    for name, frames in FRAMES.items():
        (root / name).mkdir(parents=True)
        for frame in frames:
            np.save(root / name / f"{frame}.npy", rng.normal(size=(12, 16 if name == "hall" else 10, 3)))
    return root


def recipe_for(root, **changes):
    values = {"name": "example", "reader": "store_test_reader:Reader", "settings": {}, "root": root, "shard_rows": 3}
    return Recipe(**{**values, "card_text": "name: example\n", "card_digest": "c" * 64, **changes})


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def stamps(folder):
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.iterdir()}


@pytest.fixture
def built(source, tmp_path):
    prepare(recipe_for(source), tmp_path / "store")
    return tmp_path / "store"


def test_plan_is_every_row_once_in_order():
    plan = plan_shards(FRAMES, 3)
    assert plan == [
        [("hall", (0, 1, 2))],
        [("hall", (3,)), ("outdoor", (10, 20))],
        [("outdoor", (30,)), ("stairs", (5,))],
    ]
    assert plan_shards({}, 3) == plan_shards({"empty": []}, 3) == []
    assert plan_shards(FRAMES, 100) == [[(name, tuple(frames)) for name, frames in FRAMES.items()]]
    with pytest.raises(ValueError, match="shard_rows"):
        plan_shards(FRAMES, 0)


def test_frames_come_back_as_the_source_says(built, source):
    store = open_store(built)
    assert store.sequences == FRAMES
    for name, frames in FRAMES.items():
        for number in frames:
            raw = np.load(source / name / f"{number}.npy")
            frame = store.read(name, number)
            valid = raw[..., 0] < 1
            np.testing.assert_array_equal(frame.valid, valid)
            unit = raw / np.linalg.norm(raw, axis=-1, keepdims=True)
            cross, dot = np.linalg.norm(np.cross(frame.normal, unit), axis=-1), (frame.normal * unit).sum(-1)
            assert np.degrees(np.arctan2(cross, dot))[valid].max() < 0.004
            assert (frame.normal[~valid] == 0).all()
            if name == "outdoor":
                optional = (frame.depth, frame.flow, frame.occluded, frame.intrinsics, frame.cam_to_world)
                assert all(value is None for value in optional)
            else:
                np.testing.assert_array_equal(frame.depth, raw[..., 2].astype(np.float32))
                np.testing.assert_array_equal(np.isnan(frame.flow), raw[..., :2] > 1)
                np.testing.assert_array_equal(frame.occluded, raw[..., 1] > 0.5)
                np.testing.assert_array_equal(frame.intrinsics, np.diag([50, 50, 1]))
                np.testing.assert_array_equal(frame.cam_to_world, np.eye(4) * number)
            assert frame.extra == {"weather": "rain" if name == "outdoor" else None}


def test_one_worker_and_two_write_the_same_bytes(built, source, tmp_path):
    seen = []
    prepare(recipe_for(source), tmp_path / "two", jobs=2, progress=lambda *done: seen.append(done))
    assert contents(tmp_path / "two") == contents(built)
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_process_opens_the_source_once(source, tmp_path, monkeypatch, jobs):
    log = tmp_path / "opened"
    code = (
        "import os\nfrom pathlib import Path\nimport store_test_reader\n"
        "class Logged(store_test_reader.Reader):\n"
        "    def __init__(self, root, settings):\n"
        "        super().__init__(root, {})\n"
        "        with Path(settings['log']).open('a') as file:\n"
        "            file.write(f'{os.getpid()}\\n')\n"
    )
    (tmp_path / "code" / "logged_test_reader.py").write_text(code)
    recipe = recipe_for(source, reader="logged_test_reader:Logged", settings={"log": str(log)}, shard_rows=1)
    prepare(recipe, tmp_path / "store", jobs=jobs)
    opened = log.read_text().split()
    assert len(opened) == len(set(opened)) <= (1 if jobs == 1 else 1 + jobs)


def test_the_source_may_move_and_no_path_or_time_is_kept(built, source, tmp_path):
    moved = source.rename(tmp_path / "elsewhere")
    prepare(recipe_for(moved), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(built)
    assert not any(str(tmp_path).encode() in content for content in contents(built).values())


def test_hugging_face_opens_it_without_ncbench(built, tmp_path):
    script = """
import sys
sys.modules["ncbench"] = None
import datasets, json
data = datasets.load_from_disk(sys.argv[1])
rows = [dict(data[i]) for i in range(len(data))]
pictures = [row.pop("image") for row in rows]
batch = data.with_format("numpy")[2:5]
print(json.dumps({
    "modes": sorted({picture.mode for picture in pictures}), "sizes": [picture.size for picture in pictures],
    "keys": [[row["sequence"], row["frame"]] for row in rows], "pose": [row["cam_to_world"] for row in rows],
    "magic": sorted({row["normal"][:4].decode() for row in rows}), "depth": [row["depth"] is None for row in rows],
    "dtype": str(data.features["normal"].dtype), "frames": [int(n) for n in batch["frame"]],
    "selected": data.select([6, 1])["frame"][:],
    "filtered": len(data.filter(lambda s: s == "hall", input_columns="sequence")),
}))
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, built],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    keys = [[name, frame] for name, frames in FRAMES.items() for frame in frames]
    assert found["keys"] == keys
    assert found["modes"] == ["RGB"]
    assert found["sizes"] == [[16, 12]] * 4 + [[10, 12]] * 4
    assert found["pose"][2] == (np.eye(4) * 2).ravel().tolist()
    assert found["depth"] == [name == "outdoor" for name, _ in keys]
    assert [pose is None for pose in found["pose"]] == found["depth"]
    assert (found["magic"], found["dtype"]) == (["NCBC"], "large_binary")
    assert (found["frames"], found["selected"], found["filtered"]) == ([2, 3, 10], [30, 1], 4)


def test_nothing_to_do_writes_nothing(built, source):
    before = stamps(built)
    prepare(recipe_for(source), built)
    assert stamps(built) == before


def test_another_library_version_is_no_reason_to_write(built, source):
    older = replace(Manifest.load(built), written_with={"pyarrow": "0.17.1"})
    (built / "manifest.json").write_bytes(older.to_json())
    before = stamps(built)
    manifest = prepare(recipe_for(source), built)
    assert stamps(built) == before
    assert manifest.written_with["pyarrow"] == "0.17.1"


def test_only_the_shard_whose_source_changed_is_built(built, source):
    before, digest = stamps(built), open_store(built).manifest.digest
    np.save(source / "stairs" / "5.npy", np.random.default_rng(9).normal(size=(12, 10, 3)))
    prepare(recipe_for(source), built)
    changed = {name for name, stamp in stamps(built).items() if before[name] != stamp}
    assert "data-00002-of-00003.arrow" in changed
    assert not changed & {"data-00000-of-00003.arrow", "data-00001-of-00003.arrow"}
    assert open_store(built).manifest.digest != digest
    assert verify(built) == []


def test_another_recipe_replaces_the_store_and_leaves_strangers(built, source):
    (built / "notes.txt").write_text("mine")
    (built / "sub").mkdir()
    (built / ".data-00000-of-00003.arrow.4.ncbench-tmp").write_text("left by a killed run")
    prepare(recipe_for(source, shard_rows=5), built)
    names = {path.name for path in built.iterdir()}
    shards = {"data-00000-of-00002.arrow", "data-00001-of-00002.arrow"}
    assert names == {*shards, "card.yaml", "dataset_info.json", "state.json", "manifest.json", "notes.txt", "sub"}
    assert verify(built) == []


@pytest.mark.parametrize("changes", [{"card_digest": "d" * 64}, {"settings": {"delay": 0.0}}, {"name": "other"}])
def test_the_recipe_decides_identity(source, changes):
    assert recipe_for(source, **changes).digest != recipe_for(source).digest
    assert recipe_for(source / "x", card_text="other").digest == recipe_for(source).digest
    assert pickle.loads(pickle.dumps(recipe_for(source))) == recipe_for(source)  # noqa: S301 - our own bytes


def test_a_failing_source_leaves_finished_shards_and_no_store(source, tmp_path):
    np.save(source / "outdoor" / "20.npy", np.full((12, 10, 3), 0.2))
    good = np.load(source / "outdoor" / "10.npy")
    np.save(source / "outdoor" / "20.npy", good[:5])
    with pytest.raises(SourceError, match="'outdoor' frame 20"):
        prepare(recipe_for(source), tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["data-00000-of-00003.arrow"]
    with pytest.raises(StoreError, match="unfinished store"):
        open_store(tmp_path / "store")


def test_sizes_are_compared_across_shards_too(source, tmp_path):
    np.save(source / "hall" / "3.npy", np.random.default_rng(9).normal(size=(12, 10, 3)))
    with pytest.raises(SourceError, match=r"'hall' frame 3.*12 x 16.*12 x 10"):
        prepare(recipe_for(source), tmp_path / "store")


def test_a_plan_gives_one_shard_per_sequence(source, tmp_path):
    plan = [[(name, tuple(frames))] for name, frames in FRAMES.items()]
    manifest = prepare(recipe_for(source), tmp_path / "store", plan=plan)
    assert [shard.rows for shard in manifest.shards] == [4, 3, 1]
    assert open_store(tmp_path / "store").sequences == FRAMES
    assert verify(tmp_path / "store") == []


@pytest.mark.parametrize(
    "plan",
    [
        [[("hall", (0,))], [("stairs", (5,))], [("hall", (1,))]],
        [[("hall", (1, 0))]],
        [[("hall", (0,))], [("hall", (0,))]],
    ],
)
def test_a_plan_that_tears_a_sequence_is_refused(source, tmp_path, plan):
    with pytest.raises(SourceError, match=r"'hall' frame .* again or out of order"):
        prepare(recipe_for(source), tmp_path / "store", plan=plan)
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_no_frames(source, tmp_path):
    with pytest.raises(SourceError, match="no frames"):
        prepare(recipe_for(source), tmp_path / "store", plan=[])
    with pytest.raises(StoreError, match="at least one shard"):
        seal(tmp_path, [], name="x", card_text="", card_digest="", recipe_digest="")


def test_a_reader_that_gives_another_frame(source, tmp_path, monkeypatch):
    import store_test_reader

    monkeypatch.setattr(
        store_test_reader.Reader,
        "read",
        lambda self, name, frames, old=store_test_reader.Reader.read: old(self, name, frames[::-1]),
    )
    with pytest.raises(SourceError, match="expected frame 0, the reader gave frame 2"):
        prepare(recipe_for(source), tmp_path / "store")


def test_killed_in_the_middle_and_run_again(source, tmp_path):
    out = tmp_path / "killed"
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(tmp_path / "code")!r})
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import Recipe
root = Path({str(source)!r})
recipe = Recipe("example", "store_test_reader:Reader", {{"delay": 0.1}}, root, 3, "name: example\\n", "c" * 64)
prepare(recipe, Path({str(out)!r}))
"""
    first = out / "data-00000-of-00003.arrow"
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while not (first.exists() and list(out.glob(".data-00001*"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    names = {path.name for path in out.iterdir()}
    assert len(names) == 2, "one shard, and the temporary file of the next"
    before = first.stat().st_mtime_ns
    with pytest.raises(StoreError, match="unfinished store"):
        open_store(out)
    recipe = recipe_for(source, settings={"delay": 0.1})
    prepare(recipe, out)
    assert first.stat().st_mtime_ns == before
    undisturbed = tmp_path / "undisturbed"
    prepare(recipe, undisturbed)
    assert contents(out) == contents(undisturbed)


def test_an_interrupted_rebuild_does_not_open(built, source):
    np.save(source / "stairs" / "5.npy", np.ones((3, 3)))  # not a frame: the third shard fails
    np.save(source / "outdoor" / "30.npy", np.random.default_rng(9).normal(size=(12, 10, 3)))
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the reader raises
        prepare(recipe_for(source), built)
    with pytest.raises(StoreError, match="unfinished store"):
        open_store(built)
    from datasets import load_from_disk

    with pytest.raises(FileNotFoundError):
        load_from_disk(str(built))


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("shard", range(3))
@pytest.mark.parametrize("share", [0.0, 0.4, 0.999])
def test_a_flipped_byte_is_found_and_repaired(built, source, shard, share):
    before = contents(built)
    path = sorted(built.glob("data-*"))[shard]
    flip(path, int(share * path.stat().st_size))
    (problem,) = verify(built)
    assert (problem.file, problem.kind) == (path.name, "changed")
    rows = ["rows 0 to 2 ('hall' frames 0 to 2)", "rows 3 to 5 ('hall' frames 3 to 3, 'outdoor' frames 10 to 20)"]
    rows.append("rows 6 to 7 ('outdoor' frames 30 to 30, 'stairs' frames 5 to 5)")
    assert rows[shard] in str(problem)
    old = stamps(built)
    assert [record.file for record in repair(built, recipe_for(source))] == [path.name]
    assert contents(built) == before
    assert {name for name, stamp in stamps(built).items() if stamp != old[name]} == {path.name}


def test_an_interrupted_rebuild_does_not_take_a_damaged_shard_for_good(built, source):
    before = contents(built)
    flip(built / "data-00000-of-00003.arrow", 5000)
    flip(built / "data-00002-of-00003.arrow", 5000)

    def interrupt(done, _total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(recipe_for(source), built, progress=interrupt)
    assert not (built / "manifest.json").exists()
    rebuilt = (built / "data-00000-of-00003.arrow").stat().st_mtime_ns
    prepare(recipe_for(source), built)
    assert (built / "data-00000-of-00003.arrow").stat().st_mtime_ns == rebuilt
    assert contents(built) == before


def test_shards_of_a_changed_source_are_kept_after_an_interruption(built, source):
    np.save(source / "hall" / "0.npy", np.random.default_rng(8).normal(size=(12, 16, 3)))
    np.save(source / "stairs" / "5.npy", np.random.default_rng(9).normal(size=(12, 10, 3)))

    def interrupt(done, _total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(recipe_for(source), built, progress=interrupt)
    rebuilt = (built / "data-00000-of-00003.arrow").stat().st_mtime_ns
    prepare(recipe_for(source), built)
    assert (built / "data-00000-of-00003.arrow").stat().st_mtime_ns == rebuilt
    assert verify(built) == []


def test_prepare_again_also_rebuilds_a_changed_shard(built, source):
    before = contents(built)
    flip(built / "data-00001-of-00003.arrow", 5000)
    prepare(recipe_for(source), built)
    assert contents(built) == before


def test_missing_resized_extra_and_other_files(built, source):
    before = contents(built)
    (built / "data-00000-of-00003.arrow").unlink()
    path = built / "data-00001-of-00003.arrow"
    path.write_bytes(path.read_bytes()[:-9])
    (built / "data-00007-of-00009.arrow").touch()
    (built / "card.yaml").unlink()
    (built / "state.json").write_text("{}")
    found = [(problem.file[:10], problem.kind) for problem in verify(built, jobs=2)]
    assert found == [
        ("data-00000", "missing"),
        ("data-00001", "resized"),
        ("card.yaml", "missing"),
        ("state.json", "changed"),
        ("data-00007", "extra"),
    ]
    with pytest.raises(StoreError, match=r"data-00000.*is missing"):
        open_store(built)
    assert [(problem.file[:10], problem.kind) for problem in repair(built, recipe_for(source))] == found
    assert contents(built) == before
    assert verify(built) == []
    assert repair(built, recipe_for(source)) == []


def test_repair_refuses_a_changed_source_and_leaves_all_as_it_was(built, source):
    flip(built / "data-00002-of-00003.arrow", 700)
    np.save(source / "stairs" / "5.npy", np.random.default_rng(9).normal(size=(12, 10, 3)))
    before = contents(built)
    with pytest.raises(StoreError, match=r"data-00002.*manifest says.*ncbench prepare"):
        repair(built, recipe_for(source))
    assert contents(built) == before


def test_repair_refuses_another_recipe(built, source):
    with pytest.raises(StoreError, match="another recipe"):
        repair(built, recipe_for(source, shard_rows=2))
    np.save(source / "stairs" / "6.npy", np.ones((12, 10, 3)))
    np.save(source / "stairs" / "7.npy", np.ones((12, 10, 3)))
    with pytest.raises(StoreError, match="another recipe"):
        repair(built, recipe_for(source))


def test_a_card_gives_the_recipe_and_comes_back_from_the_store(source, tmp_path):
    licence = {"name": "none", "redistribution": False}
    values = {"name": "example", "version": "1.0.0", "title": "t", "summary": "s", "role": "test", "licence": licence}
    values |= {"source": {"kind": "manual", "instructions": "none"}, "reader": "store_test_reader:Reader", "axes": None}
    card = DatasetCard.parse({**values, "normals": "analytic", "shard_rows": 4}, where="here")
    recipe = card_recipe(card, source)
    prepare(recipe, tmp_path / "store")
    assert stored_card(tmp_path / "store") == card
    assert repair(tmp_path / "store", card_recipe(stored_card(tmp_path / "store"), source)) == []
    reworded = card.model_copy(update={"summary": "other prose"})
    assert card_recipe(reworded, source / "elsewhere").digest == recipe.digest
    assert card_recipe(card.model_copy(update={"version": "2.0.0"}), source).digest != recipe.digest
    before = stamps(tmp_path / "store")
    prepare(card_recipe(reworded, source), tmp_path / "store")
    after = stamps(tmp_path / "store")
    assert all(after[name] == before[name] for name in before if name.startswith("data-"))
    assert stored_card(tmp_path / "store").summary == "other prose"


def test_unseal_keeps_the_shards(built):
    unseal(built)
    kept = {"card.yaml", *(f"data-0000{i}-of-00003.arrow" for i in range(3))}
    assert {path.name for path in built.iterdir()} == kept
    assert Path(built / "card.yaml").read_text() == "name: example\n"
