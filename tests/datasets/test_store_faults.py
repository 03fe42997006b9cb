"""What may happen to a store between two commands: damage, kills, two writers, folders that cannot be written."""

import errno
import fcntl
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from ncbench.cards import DatasetCard, digest, to_yaml
from ncbench.datasets.integrity import repair, verify
from ncbench.datasets.lock import claimed
from ncbench.datasets.manifest import Manifest
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import Recipe, recipe_for, recipe_to_repair
from ncbench.datasets.shards import reusable
from ncbench.datasets.store import open_store
from ncbench.errors import CardError, NcbenchError, SourceError, StoreError
from ncbench.files import write_bytes

READER = '''
import time
import numpy as np
from ncbench.datasets.frame import Frame
from ncbench.datasets.readers.base import hash_files


class Reader:
    """One number a file, which is the frame's depth."""

    def __init__(self, root, settings):
        self.root, self.delay = root, settings.get("delay", 0)

    def sequences(self):
        folders = sorted(path for path in self.root.iterdir() if path.is_dir())
        return {folder.name: sorted(int(path.stem) for path in folder.iterdir()) for folder in folders}

    def read(self, sequence, frames):
        for frame in frames:
            time.sleep(self.delay)
            depth = np.full((4, 6), float((self.root / sequence / f"{frame}.txt").read_text()), np.float32)
            normal = np.zeros((4, 6, 3), np.float32)
            normal[..., 2] = -1
            yield Frame(sequence, frame, None, normal, np.ones((4, 6), bool), depth, intrinsics=np.eye(3))

    def fingerprint(self, sequence, frames):
        return hash_files(self.root, [self.root / sequence / f"{frame}.txt" for frame in frames])

    def extra_features(self):
        return {}
'''
CARD = {
    "name": "faults",
    "version": "1.0.0",
    "title": "Faults",
    "summary": "A test.",
    "role": "test",
    "licence": {"name": "none", "redistribution": False},
    "source": {"kind": "manual", "instructions": "none"},
    "reader": "faults_test_reader:Reader",
    "axes": None,
    "normals": "analytic",
    "shard_rows": 4,
}
SHARD = "data-00001-of-00003.arrow"


@pytest.fixture
def source(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "faults_test_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path / "code")
    root = tmp_path / "source"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for frame in range(6):
            (root / name / f"{frame}.txt").write_text(str(frame + 1))
    return root


def recipe(root, **changes):
    return recipe_for(DatasetCard.parse(CARD | changes, where="here"), root)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


@pytest.fixture
def built(source, tmp_path):
    prepare(recipe(source), tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("manifest", ["missing", "damaged"])
def test_a_damaged_shard_is_never_sealed_whatever_became_of_the_manifest(built, source, place, manifest):
    before = contents(built)
    flip(built / SHARD, int(place * (built / SHARD).stat().st_size))
    if manifest == "missing":
        (built / "manifest.json").unlink()
    else:
        flip(built / "manifest.json", 200)
    stamps = {path.name: path.stat().st_mtime_ns for path in built.glob("data-*")}
    prepare(recipe(source), built)
    assert contents(built) == before
    assert {path.name for path in built.glob("data-*") if path.stat().st_mtime_ns != stamps[path.name]} == {SHARD}


def test_a_shard_ends_with_the_hash_of_what_comes_before(built):
    for path in built.glob("data-*"):
        content = path.read_bytes()
        assert content[-40:] == b"NCB-SHA2" + hashlib.sha256(content[:-40]).digest()
        assert content[-48:-40] == b"\xff\xff\xff\xff\0\0\0\0", "Arrow's end mark: readers stop there"


def test_any_flipped_bit_of_a_shard_without_manifest_is_seen(built):
    path = built / SHARD
    content = path.read_bytes()
    metadata = json.loads(content[content.index(b'{"recipe"') : content.index(b"}", content.index(b'{"recipe"')) + 1])
    assert reusable(path, metadata).sha256 == hashlib.sha256(content).hexdigest()
    for bit in random.Random(0).sample(range(8 * len(content)), 300):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert reusable(path, metadata) is None
    for length in (0, 10, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert reusable(path, metadata) is None


def test_any_flipped_bit_of_the_manifest_is_seen(built):
    path = built / "manifest.json"
    content = path.read_bytes()
    for bit in random.Random(1).sample(range(8 * len(content)), 300):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(StoreError):
            open_store(built)
        with pytest.raises(StoreError):
            verify(built)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["sequences"][0].update(name="c"),
        lambda values: values["sequences"][0].update(height=5),
        lambda values: values["shards"][0].update(source="0" * 64),
        lambda values: values["shards"][0].update(bytes=1),
        lambda values: values.update(name="other"),
        lambda values: values.update(recipe="0" * 64),
        lambda values: values["files"].pop("card.yaml"),
        lambda values: values["written_with"].update(pyarrow="0"),
        lambda values: values.pop("checksum"),
    ],
)
def test_a_changed_field_of_the_manifest_is_named_and_prepare_heals_it(built, source, change):
    before, path = contents(built), built / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    for look in (open_store, verify, lambda store: repair(store, recipe(source))):
        with pytest.raises(StoreError, match=r"manifest.json: is damaged .*checksum.*ncbench prepare"):
            look(built)
    prepare(recipe(source), built)
    assert contents(built) == before


def test_a_manifest_that_contradicts_its_shards_is_found_and_not_repaired_but_prepared(built, source):
    before, manifest = contents(built), Manifest.load(built)
    renamed = replace(manifest.sequences[1], name="c")
    forged = replace(manifest, sequences=(manifest.sequences[0], renamed))
    (built / "manifest.json").write_bytes(forged.to_json())
    assert open_store(built).sequences.keys() == {"a", "c"}
    assert {problem.file for problem in verify(built)} == {"manifest.json"}
    assert SHARD in str(verify(built)[0])
    with pytest.raises(StoreError, match=r"manifest.json: contradicts its shards.*ncbench prepare"):
        repair(built, recipe(source))
    prepare(recipe(source), built)
    assert contents(built) == before


def test_repair_mends_the_small_files_and_names_them(built, source):
    before = contents(built)
    for name in ("state.json", "dataset_info.json"):
        flip(built / name, 9)
        assert [problem.file for problem in repair(built, recipe_to_repair(built, source))] == [name]
        assert contents(built) == before
    flip(built / "state.json", 9)
    (built / "dataset_info.json").unlink()
    flip(built / SHARD, 900)
    names = [problem.file for problem in repair(built, recipe_to_repair(built, source))]
    assert sorted(names) == [SHARD, "dataset_info.json", "state.json"]
    assert contents(built) == before


@pytest.mark.parametrize("damage", ["reworded", "other recipe", "no yaml", "missing"])
def test_a_damaged_card_comes_back_from_the_catalogue(built, source, tmp_path, monkeypatch, damage):
    before, path = contents(built), built / "card.yaml"
    text = path.read_text()
    changed = {"reworded": text.replace("A test", "B test"), "other recipe": text.replace("1.0.0", "1.0.1")}
    path.write_text(changed.get(damage, "{"))
    if damage == "missing":
        path.unlink()
    assert [problem.file for problem in verify(built)] == ["card.yaml"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CardError, match=r"card.yaml: is damaged.*faults"):
        recipe_to_repair(built, source)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "faults.yaml").write_text(text)
    assert [problem.file for problem in repair(built, recipe_to_repair(built, source))] == ["card.yaml"]
    assert contents(built) == before


def test_a_card_of_other_wording_is_not_taken_for_the_damaged_one(built, source, tmp_path):
    other = DatasetCard.parse(CARD | {"summary": "Other words."}, where="here")
    (tmp_path / "faults.yaml").write_text(to_yaml(other))
    flip(built / "card.yaml", 40)
    before = contents(built)
    with pytest.raises(StoreError, match=r"card.yaml: is damaged.*worded otherwise.*ncbench prepare"):
        repair(built, recipe_to_repair(built, source, str(tmp_path / "faults.yaml")))
    assert contents(built) == before
    prepare(recipe_for(other, source), built)
    assert verify(built) == []
    kept = [name for name in before if name.startswith("data-")]
    assert [contents(built)[name] for name in kept] == [before[name] for name in kept]


def test_a_second_writer_is_refused_and_disturbs_nothing(source, tmp_path):
    out, refusals = tmp_path / "store", []
    (tmp_path / "link").symlink_to(out)

    def again(_done, _total):
        assert (tmp_path / ".store.lock").exists()
        for spelling in (out, tmp_path / "link"):
            with pytest.raises(StoreError, match="another prepare or repair is working on this store") as caught:
                prepare(recipe(source), spelling)
            refusals.append(str(caught.value))

    prepare(recipe(source), out, progress=again)
    assert len(refusals) == 6
    assert str(out) in refusals[0]
    assert verify(out) == []
    assert not (tmp_path / ".store.lock").exists()
    with claimed(out), pytest.raises(StoreError, match="another prepare or repair"):
        repair(out, recipe(source))


def test_another_process_holds_the_lock_until_it_dies(built, source, tmp_path):
    script = f"""
import time
from pathlib import Path
from ncbench.datasets.lock import claimed
with claimed(Path({str(built)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match=r"another prepare.*\.store\.lock"):
            prepare(recipe(source), built)
    finally:
        holder.kill()
        holder.communicate()
    assert (tmp_path / ".store.lock").exists(), "stale: nobody holds it"
    prepare(recipe(source), built)
    assert not (tmp_path / ".store.lock").exists()


def test_who_opened_a_lock_file_that_then_went_away_does_not_hold_it(tmp_path, monkeypatch):
    """The lock file is removed under the lock: this rests on filelock's own check of what it locked."""
    path = tmp_path / ".store.lock"

    def too_late(*arguments, flock=fcntl.flock):
        path.unlink(missing_ok=True)
        flock(*arguments)

    waiting = FileLock(path, blocking=False)
    monkeypatch.setattr(fcntl, "flock", too_late)
    with pytest.raises(Timeout):
        waiting.acquire()


KILLED_RUNS = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import Recipe


def run(jobs, check=None):
    root = Path(sys.argv[2])
    recipe = Recipe("faults", "faults_test_reader:Reader", {"delay": 0.02}, root, 2, "name: x\\n", "c" * 64)
    prepare(recipe, Path(sys.argv[3]), jobs=jobs, check=check)


if __name__ == "__main__":
    if sys.argv[4] == "check":
        run(1, lambda store: os.kill(os.getpid(), signal.SIGKILL))
    import faults_test_reader  # every run is a fork of this process: nothing is imported again
    finished = 0
    for text in sys.argv[4:]:
        jobs, delay = text.split(":")
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            run(int(jobs))
            os._exit(0)
        try:
            os.setpgid(child, child)
        except PermissionError:
            pass
        time.sleep(float(delay))
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finished += os.waitpid(child, 0)[1] == 0
    print(finished)
"""


def test_twenty_kills_at_random_moments_leave_what_one_undisturbed_run_makes(source, tmp_path):
    script, out = tmp_path / "code" / "killed_runs.py", tmp_path / "killed"
    script.write_text(KILLED_RUNS)
    for name in ("c", "d", "e"):  # 30 frames in 15 shards, 0.6 s and more
        (source / name).mkdir()
        for frame in range(6):
            (source / name / f"{frame}.txt").write_text(str(frame + 1))
    rng = random.Random(20)
    kills = [f"1:{rng.uniform(0, 0.09):.4f}" for _ in range(14)] + [f"2:{rng.uniform(0.5, 2):.4f}" for _ in range(6)]
    rng.shuffle(kills)
    command = [sys.executable, str(script), str(tmp_path / "code"), str(source), str(out)]
    done = subprocess.run([*command, *kills], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20, "some of the runs were killed"
    small = Recipe("faults", "faults_test_reader:Reader", {"delay": 0.02}, source, 2, "name: x\n", "c" * 64)
    prepare(small, out)
    prepare(small, tmp_path / "undisturbed")
    assert contents(out) == contents(tmp_path / "undisturbed")
    assert verify(out) == []
    assert not list(tmp_path.glob(".*.lock"))


def test_killed_during_the_check_a_store_does_not_open(source, tmp_path):
    script, out = tmp_path / "code" / "killed_runs.py", tmp_path / "killed"
    script.write_text(KILLED_RUNS)
    command = [sys.executable, str(script), str(tmp_path / "code"), str(source), str(out), "check"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with pytest.raises(StoreError, match="unfinished store"):
        open_store(out)
    assert not {"state.json", "dataset_info.json", "manifest.json"} & set(contents(out))


def test_places_that_cannot_hold_a_store(built, source, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    places = [file, file / "store", tmp_path / ("x" * 300)]
    if Path("/proc/self").is_dir():
        places.append(Path("/proc/self/store"))
    for place in places:
        with pytest.raises(StoreError, match=r"Choose another place|choose another folder"):
            prepare(recipe(source), place)
        with pytest.raises(StoreError):
            open_store(place)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["state.json", "manifest.json", "card.yaml", SHARD, "data-00007-of-00009.arrow"])
def test_a_folder_where_a_file_belongs(built, source, name):
    if (built / name).exists():
        (built / name).unlink()
    (built / name).mkdir()
    (built / name / "mine").touch()
    with pytest.raises(StoreError, match=rf"{name}: cannot be written.*what lies there"):
        prepare(recipe(source, shard_rows=4, version="1.0.1"), built)
    assert (built / name / "mine").exists()
    with pytest.raises(NcbenchError):
        open_store(built)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(built, source, tmp_path):
    built.chmod(0o555)
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            prepare(recipe(source, version="1.0.1"), built)
    finally:
        built.chmod(0o755)
    assert verify(built) == []


def test_what_a_read_only_disk_says(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only disk")))
    with pytest.raises(StoreError, match=r"x.json: cannot be written \(Read-only disk\). Check the folder"):
        write_bytes(tmp_path / "x.json", b"1")
    assert list(tmp_path.iterdir()) == []


def test_an_expected_number_of_frames(source, tmp_path):
    out = tmp_path / "store"
    with pytest.raises(SourceError, match=r"expected 13 frames, the files hold 12 in 2 sequences.*--partial"):
        prepare(recipe(source), out, expected_frames=13)
    assert not out.exists()
    prepare(recipe(source), out, expected_frames=12)
    (source / "a" / "5.txt").unlink()
    before = contents(out)
    with pytest.raises(SourceError, match=r"expected 12 frames, the files hold 11"):
        prepare(recipe(source), out, expected_frames=12)
    assert contents(out) == before, "an incomplete source does not touch the store that is there"


def test_the_checksum_is_that_of_the_canonical_content(built):
    values = json.loads((built / "manifest.json").read_text())
    stated = values.pop("checksum")
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    assert stated == hashlib.sha256(text.encode()).hexdigest() == digest(values)
