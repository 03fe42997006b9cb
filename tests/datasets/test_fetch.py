"""From a card's source block to a raw folder: downloads, archives, local copies, plans, and kill -9 at any point."""

import gzip
import hashlib
import io
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.datasets.download import Retry, download
from ncbench.datasets.fetch import fetch as run
from ncbench.errors import CardError, SourceError, StoreError
from ncbench.sources import DownloadSource, ManualSource, select

QUICK = Retry(attempts=3, sleep=lambda _seconds: None)


def zip_of(folder: Path, under: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(under.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return out.getvalue()


def tar_of(folder: Path, under: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(under, under.relative_to(folder))
    return gzip.compress(out.getvalue(), mtime=0)


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="session")
def official(tiny_data):
    """A published data set of two sequences: one as a zip, one as a tar in three parts, and a readme."""
    raw = tiny_data / "data" / "raw" / "tiny"
    archive = tar_of(raw, raw / "two")
    third = len(archive) // 3
    parts = (archive[:third], archive[third : 2 * third], archive[2 * third :])
    files = {"one.zip": zip_of(raw, raw / "one")}
    files |= {f"two.tar.gz.part{letter}": part for letter, part in zip("abc", parts, strict=True)}
    files["readme.txt"] = b"read me\n"
    tops = {path.name: path.read_bytes() for path in raw.iterdir() if path.is_file() and path.name != "fetch.json"}
    return files | tops


@pytest.fixture
def card(official, server, tiny_data):
    """A card that downloads the set; sequence ``one`` with a checksum, ``two`` without."""
    downloads = []
    for name, content in official.items():
        entry = {"url": server.put("set/" + name, content)}
        if name == "one.zip":
            entry |= {"sha256": sha(content), "bytes": len(content), "scenes": ["one"]}
        elif name.startswith("two"):
            entry |= {"join": "two.tar.gz", "scenes": ["two"]}
        downloads.append(entry)
    source = DownloadSource.parse({"kind": "download", "downloads": downloads}, "test")
    base = catalog.read_card(DatasetCard, tiny_data / "datasets" / "tiny.yaml")
    return base.model_copy(update={"source": source})


@pytest.fixture
def fetch():
    return lambda *args, **settings: run(*args, retry=QUICK, **settings)


def by_hand(card, **settings):
    downloads = [item.model_dump() for item in card.source.downloads]
    source = {"kind": "manual", "instructions": "Sign the terms.", "downloads": downloads}
    return card.model_copy(update={"source": ManualSource.parse(source | settings, "test")})


def expected(tiny_data) -> dict[str, str]:
    found = tree(tiny_data / "data" / "raw" / "tiny") | {"readme.txt": sha(b"read me\n")}
    return {name: value for name, value in found.items() if name != "fetch.json"}


def without_receipt(folder: Path) -> dict[str, str]:
    return {name: value for name, value in tree(folder).items() if name != "fetch.json"}


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_everything_arrives_once(card, fetch, server, tmp_path, tiny_data, jobs):
    to = tmp_path / "raw"
    assert fetch(card, to, jobs=jobs) is True
    assert without_receipt(to) == expected(tiny_data)
    asked = {path: len(calls) for path, calls in server.asked.items()}
    assert set(asked.values()) == {1}
    receipt = (to / "fetch.json").read_text()
    assert sha(server.pages["/set/readme.txt"].content) in receipt  # recorded where not published
    assert fetch(card, to) is False
    assert {path: len(calls) for path, calls in server.asked.items()} == asked
    assert (to / "fetch.json").read_text() == receipt


@pytest.mark.parametrize("jobs", [1, 3])
def test_progress_is_one_report_a_file(card, fetch, tmp_path, official, jobs):
    seen = {}

    @contextmanager
    def bar(title):
        yield lambda done, total: seen.__setitem__(title, (done, total))

    fetch(card, tmp_path / "raw", progress=bar, jobs=jobs)
    assert seen == {name: (len(content), len(content)) for name, content in official.items()}


def test_scenes_can_be_fetched_one_after_the_other(card, fetch, tmp_path, tiny_data):
    to = tmp_path / "raw"
    assert fetch(card, to, scenes=["one"]) is True
    assert not (to / "two").exists()
    assert (to / "readme.txt").exists()  # belongs to all scenes
    assert fetch(card, to, scenes=["one"]) is False
    assert fetch(card, to, scenes=["tw*"]) is True
    assert without_receipt(to) == expected(tiny_data)
    assert fetch(card, to) is False
    with pytest.raises(CardError, match="Did you mean 'one'"):
        fetch(card, to, scenes=["onee"])


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_so_many_files_at_once(card, fetch, server, tmp_path, tiny_data, monkeypatch, jobs):
    now, most, lock = 0, 0, threading.Lock()

    def counted(*arguments):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            return download(*arguments)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr("ncbench.datasets.fetch_files.download", counted)
    for page in server.pages.values():
        page.rate = 0.004
    fetch(card, tmp_path / "raw", jobs=jobs)
    assert most == jobs
    assert without_receipt(tmp_path / "raw") == expected(tiny_data)


def test_parallel_downloads_resume_each_at_its_own_place(card, fetch, server, tmp_path, tiny_data):
    drops = {path: 500 + 40 * place for place, path in enumerate(sorted(server.pages)) if not path.endswith(".txt")}
    for path, drop in drops.items():
        server.pages[path].drops = [drop]
    to = tmp_path / "raw"
    assert run(card, to, jobs=4, retry=Retry(attempts=3, wait=0.01)) is True
    assert without_receipt(to) == expected(tiny_data)
    for path, drop in drops.items():
        (_, first), (_, second) = server.asked[path]
        assert (first.get("Range"), second["Range"]) == (None, f"bytes={drop}-")
        assert second["If-Range"] == server.pages[path].etag


def test_one_refusal_ends_the_others_and_they_resume(card, server, tmp_path, tiny_data):
    to, refused = tmp_path / "raw", server.pages["/set/two.tar.gz.partb"]
    refused.statuses, refused.stuck = [403], True
    for path, page in server.pages.items():
        page.rate = 0 if path.endswith(".txt") else 0.01

    def refuse_late(_page):  # not before the others have begun
        begun = [to / ".partial" / name for name in ("one.zip", "two.tar.gz.parta")]
        while not all(path.is_file() and path.stat().st_size for path in begun):
            threading.Event().wait(0.005)

    refused.on_request = [refuse_late]
    with pytest.raises(SourceError, match=r"two.tar.gz.partb: the server answers 403"):
        run(card, to, jobs=3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]
    begun = {path.name: path.stat().st_size for path in (to / ".partial").iterdir() if path.name[0] != "."}
    assert 0 < begun["one.zip"] < len(server.pages["/set/one.zip"].content)
    refused.statuses, refused.on_request = [], []
    assert run(card, to, jobs=3) is True
    assert without_receipt(to) == expected(tiny_data)
    assert server.asked["/set/one.zip"][-1][1]["Range"] == f"bytes={begun['one.zip']}-"


def test_a_failure_to_unpack_ends_the_downloads(card, server, tmp_path, tiny_data, monkeypatch):
    to = tmp_path / "raw"
    server.pages["/set/two.tar.gz.parta"].rate = 0.05

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ncbench.datasets.archives._copy", full)
        with pytest.raises(StoreError, match="one.zip cannot be unpacked here"):
            run(card, to, jobs=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]
    server.pages["/set/two.tar.gz.parta"].rate = 0
    assert run(card, to, jobs=2) is True
    assert without_receipt(to) == expected(tiny_data)
    assert len(server.asked["/set/one.zip"]) == 1


INTERRUPTED = """
import pickle, signal, sys
from pathlib import Path
from ncbench.datasets.fetch import fetch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts with it ignored
try:
    fetch(pickle.load(open(sys.argv[1], "rb")), Path(sys.argv[2]), jobs=4)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_interrupt_leaves_every_file_resumable(card, server, tmp_path, tiny_data):
    to, archives = tmp_path / "raw", [path for path in server.pages if not path.endswith(".txt")]
    for path in archives:
        server.pages[path].rate = 0.1
    # a server that is down lets its download wait for the next attempt: this wait ends early too
    down = server.pages[archives[-1]]
    down.statuses, down.stuck = [503], True
    (tmp_path / "card.pickle").write_bytes(pickle.dumps(card))
    arguments = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "card.pickle"), str(to)]
    with subprocess.Popen(arguments, stdout=-1, stderr=-1, text=True) as child:
        while not all((to / ".partial" / path.removeprefix("/set/")).is_file() for path in archives[:-1]):
            assert child.poll() is None
            threading.Event().wait(0.01)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert (out, err) == ("interrupted\n", "")
    down.statuses = []
    for path in archives:
        server.pages[path].rate = 0
    assert run(card, to, jobs=4) is True
    assert without_receipt(to) == expected(tiny_data)


def test_a_failed_file_keeps_the_finished_ones(card, fetch, server, tmp_path, tiny_data):
    to = tmp_path / "raw"
    page = server.pages["/set/two.tar.gz.partb"]
    page.statuses, page.stuck = [403], True
    with pytest.raises(SourceError, match="two.tar.gz.partb: the server answers 403"):
        fetch(card, to)
    page.statuses = []
    assert fetch(card, to) is True
    assert without_receipt(to) == expected(tiny_data)
    assert len(server.asked["/set/one.zip"]) == len(server.asked["/set/two.tar.gz.parta"]) == 1


def test_a_dry_run_writes_nothing_and_tells_sizes(card, fetch, server, tmp_path, official):
    to = tmp_path / "raw"
    server.pages["/set/readme.txt"].statuses, server.pages["/set/readme.txt"].stuck = [404], True
    plan = fetch(card, to, dry_run=True)
    assert not to.exists()
    assert {item.name: item.bytes for item in plan.files} == {
        name: None if name == "readme.txt" else len(content) for name, content in official.items()
    }
    assert "/set/one.zip" not in server.asked  # the card knows its size
    assert plan.missing == sum(len(content) for name, content in official.items() if name != "readme.txt")
    assert plan.free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.5)
    assert re.search(r"readme.txt: size unknown, missing .*404", str(plan))
    assert "1 of unknown size" in str(plan)
    server.pages["/set/readme.txt"].statuses = []
    fetch(card, to, scenes=["one"])
    states = {item.name: item.state for item in fetch(card, to, dry_run=True).files}
    assert states["one.zip"] == states["readme.txt"] == "fetched"
    assert states["two.tar.gz.parta"] == "missing"


def test_a_plan_knows_what_is_begun(card, fetch, server, tmp_path):
    to = tmp_path / "raw"
    server.pages["/set/one.zip"].drops = [3000, 0, 0]
    with pytest.raises(SourceError, match="attempts in a row"):
        fetch(card, to)
    begun = fetch(card, to, dry_run=True).files[0]
    assert (begun.state, begun.here) == ("begun", 3000)
    assert "one.zip" in str(fetch(card, to, dry_run=True))


def test_terms_are_never_fetched_around(card, fetch, server, tmp_path, official, tiny_data):
    manual = by_hand(card)
    to = tmp_path / "raw"
    with pytest.raises(SourceError, match="by hand: Sign the terms") as caught:
        fetch(manual, to)
    assert "one.zip" in str(caught.value)
    assert not server.asked
    plan = fetch(manual, to, dry_run=True)
    assert plan.steps == "Sign the terms."
    assert not server.asked
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "one.zip").write_bytes(official["one.zip"])
    with pytest.raises(SourceError, match=r"nor two.tar.gz.parta, two.tar.gz.partb, two.tar.gz.partc"):
        fetch(manual, to, local=mine)
    assert not to.exists()
    for name, content in official.items():
        (mine / name).write_bytes(content)
    assert fetch(manual, to, local=mine) is True
    assert without_receipt(to) == expected(tiny_data)
    assert fetch(manual, to, local=mine) is False
    assert fetch(manual, to) is False
    assert not server.asked
    assert str(tmp_path) not in (to / "fetch.json").read_text()  # addresses of the card, not of this machine
    assert (mine / "one.zip").exists()


def test_an_unpacked_folder_is_linked_not_copied(card, fetch, server, tmp_path, tiny_data):
    raw = tiny_data / "data" / "raw" / "tiny"
    for found in (card, by_hand(card)):
        to = tmp_path / found.source.kind / "raw"
        assert fetch(found, to, local=raw) is True
        assert to.is_symlink()
        assert fetch(found, to, local=raw) is False
        assert fetch(found, to) is False
        (tmp_path / "else" / found.source.kind).mkdir(parents=True)
        (tmp_path / "else" / found.source.kind / "file").touch()
        with pytest.raises(SourceError, match="exists already"):
            fetch(found, tmp_path / "else" / found.source.kind, local=raw)
    assert not server.asked


def test_local_copies_spare_the_network_and_are_checked(card, fetch, server, tmp_path, official, tiny_data):
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("one.zip", "readme.txt"):
        (mine / name).write_bytes(official[name])
    assert fetch(card, tmp_path / "raw", local=mine) is True
    assert without_receipt(tmp_path / "raw") == expected(tiny_data)
    assert not {"/set/one.zip", "/set/readme.txt"} & set(server.asked)
    (mine / "one.zip").write_bytes(official["one.zip"] + b"x")
    with pytest.raises(SourceError, match="expected .* bytes, found"):
        fetch(card, tmp_path / "other", local=mine)
    assert (mine / "one.zip").exists()


def test_foreign_files_are_left_alone(card, fetch, server, tmp_path, tiny_data):
    to = tmp_path / "raw"
    to.mkdir()
    (to / "mine.txt").write_text("keep me")
    with pytest.raises(SourceError, match="did not put there"):
        fetch(card, to)
    assert list(tree(to)) == ["mine.txt"]
    shutil.copytree(tiny_data / "data" / "raw" / "tiny", tmp_path / "unpacked")  # by hand: the reader accepts it
    assert fetch(card, tmp_path / "unpacked") is False
    assert not server.asked


def test_another_version_of_the_card_is_noticed(card, fetch, server, tmp_path):
    to = tmp_path / "raw"
    fetch(card, to)
    pinned = [item.model_copy(update={"sha256": sha(b"read me\n")}) if item.name == "readme.txt" else item
              for item in card.source.downloads]  # fmt: skip
    assert fetch(card.model_copy(update={"source": card.source.model_copy(update={"downloads": pinned})}), to) is False
    moved = [item.model_copy(update={"url": server.url("new/readme.txt")}) if item.name == "readme.txt" else item
             for item in card.source.downloads]  # fmt: skip
    with pytest.raises(SourceError, match="readme.txt was fetched from .*set/readme.txt"):
        fetch(card.model_copy(update={"source": card.source.model_copy(update={"downloads": moved})}), to)
    with pytest.raises(SourceError, match="was fetched from"):
        fetch(card.model_copy(update={"source": card.source.model_copy(update={"downloads": pinned[:2]})}), to)


def test_archives_that_disagree_are_noticed(card, fetch, server, tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("readme.txt", "another text")
    server.put("set/readme.zip", out.getvalue())
    more = {
        "kind": "download",
        "downloads": [{"url": server.url("set/readme.txt")}, {"url": server.url("set/readme.zip")}],
    }
    with pytest.raises(SourceError, match="readme.txt: another archive of this data set"):
        fetch(card.model_copy(update={"source": DownloadSource.parse(more, "test")}), tmp_path / "raw")


def test_archives_may_not_touch_our_own_files(card, fetch, server, tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("fetch.json", "{}")
    source = {"kind": "download", "downloads": [{"url": server.put("evil.zip", out.getvalue())}]}
    with pytest.raises(SourceError, match="keeps for itself"):
        fetch(card.model_copy(update={"source": DownloadSource.parse(source, "test")}), tmp_path / "raw")


def test_a_set_whose_layout_has_changed_is_named(card, fetch, server, tmp_path):
    source = {"kind": "download", "downloads": [{"url": server.put("a.txt", b"1")}]}
    with pytest.raises(SourceError, match="its reader does not find its layout"):
        fetch(card.model_copy(update={"source": DownloadSource.parse(source, "test")}), tmp_path / "raw")


def test_files_go_into_their_own_folders(card, fetch, server, tmp_path):
    source = {
        "kind": "download",
        "downloads": [
            {"url": server.put("normal/{scene}.txt".replace("{scene}", scene), scene.encode()), "to": f"normal/{scene}",
             "scenes": [scene]} for scene in ("a", "b")
        ] + [{"url": server.url("depth/{scene}.txt"), "to": "depth", "scenes": ["a", "b"]}],
    }  # fmt: skip
    server.put("depth/a.txt", b"depth a")
    server.put("depth/b.txt", b"depth b")
    found = card.model_copy(update={"source": DownloadSource.parse(source, "test")})
    assert [item.key for item in found.source.downloads] == [
        "normal/a/a.txt",
        "normal/b/b.txt",
        "depth/a.txt",
        "depth/b.txt",
    ]
    fetch(found, tmp_path / "raw", scenes=["b"])
    assert without_receipt(tmp_path / "raw") == {"normal/b/b.txt": sha(b"b"), "depth/b.txt": sha(b"depth b")}


def test_one_process_at_a_time(card, fetch, tmp_path):
    (tmp_path / "raw" / ".partial").mkdir(parents=True)
    with FileLock(tmp_path / "raw" / ".partial" / ".lock"), pytest.raises(StoreError, match="another process"):
        fetch(card, tmp_path / "raw")
    assert fetch(card, tmp_path / "raw") is True


def test_a_full_disk_while_unpacking(card, fetch, tmp_path, monkeypatch, tiny_data):
    to = tmp_path / "raw"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ncbench.datasets.archives._copy", full)
        with pytest.raises(StoreError, match="one.zip cannot be unpacked here .No space left.*download is kept"):
            fetch(card, to)
    assert fetch(card, to) is True
    assert without_receipt(to) == expected(tiny_data)


def test_generated_sets_take_no_scenes(tiny_data, tmp_path, fetch):
    card = catalog.read_card(DatasetCard, tiny_data / "datasets" / "tiny.yaml")
    with pytest.raises(CardError, match="made here"):
        fetch(card, tmp_path / "raw", scenes=["one"])
    assert fetch(card, tmp_path / "raw", dry_run=True).files == ()


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"url": "https://me:pw@h.org/a.zip"}, "no user name or password"),
        ({"url": "ftp://h.org/a.zip"}, "must start with"),
        ({"url": "https://h.org/"}, "ends in no plain file name"),
        ({"url": "https://h.org/a.zip", "name": "../a.zip"}, "pattern"),
        ({"url": "https://h.org/a.zip", "to": "/etc"}, "pattern"),
        ({"url": "https://h.org/a.zip", "to": "a/../b"}, "pattern"),
        ({"url": "https://h.org/a.zip", "sha256": "abc"}, "pattern"),
        ({"url": "https://h.org/a.zip", "join": "b.zip"}, "parts of a tar"),
        ({"url": "https://h.org/{scene}.zip"}, "needs a list of scenes"),
        ({"url": "https://h.org/{scene}.zip", "scenes": ["a"], "bytes": 3}, "one file"),
        ({"url": "https://h.org/a.zip", "shasum": "x"}, "unknown key"),
    ],
)
def test_bad_entries_of_a_card(entry, problem):
    with pytest.raises(CardError, match=problem) as caught:
        DownloadSource.parse({"kind": "download", "downloads": [entry]}, "test")
    assert "pw@" not in str(caught.value) or "no user name" in problem


def test_two_files_of_one_name_are_refused_and_pages_are_no_files():
    twice = [{"url": "https://h.org/1/a.zip"}, {"url": "https://h.org/2/A.zip"}]
    with pytest.raises(CardError, match=r"would both become A\.zip"):
        DownloadSource.parse({"kind": "download", "downloads": twice}, "test")
    twice[1]["to"] = "second"
    assert len(DownloadSource.parse({"kind": "download", "downloads": twice}, "test").downloads) == 2
    page = ManualSource.parse(
        {"kind": "manual", "instructions": "", "downloads": [{"url": "https://h.org/~x/"}]}, "test"
    )
    assert select(page.downloads, None, "test")[0].packing == "none"


# A process that forks a child for each line that it reads: twenty children cost twenty forks, not twenty starts of
# Python. The children are slowed down where they unpack and move, so that a kill hits these steps too.
CHILDREN = """
import os, pickle, sys, time
from pathlib import Path
import ncbench.datasets.archives as archives
from ncbench.datasets.download import Retry, download
from ncbench.datasets.fetch import fetch
import requests, fsspec, filelock
copy, rename = archives._copy, Path.rename
def slow_copy(*args):
    time.sleep(0.004)
    return copy(*args)
def slow_rename(self, target):
    time.sleep(0.004)
    return rename(self, target)
archives._copy, Path.rename = slow_copy, slow_rename
card = pickle.load(open(sys.argv[1], "rb"))
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fetch(card, Path(line.strip()), retry=Retry(wait=0.01), jobs=int(sys.argv[2]))
            code = 0
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and kill -9")
@pytest.mark.parametrize("jobs", [1, 3])
def test_killed_twenty_times_the_result_is_the_same(card, fetch, server, tmp_path, jobs):
    undisturbed = tmp_path / "undisturbed"
    fetch(card, undisturbed)
    for page in server.pages.values():
        page.rate = 0.006  # seconds a KiB
    (tmp_path / "card.pickle").write_bytes(pickle.dumps(card))
    chance = random.Random(20)
    kills, finished, folder, stages = 0, 0, tmp_path / "killed0", set()
    with subprocess.Popen(
        [sys.executable, "-c", CHILDREN, str(tmp_path / "card.pickle"), str(jobs)], stdin=-1, stdout=-1, text=True
    ) as parent:
        assert parent.stdout.readline() == "ready\n"
        while kills < 20 or finished == 0:
            parent.stdin.write(f"{folder}\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            killer = threading.Timer(chance.uniform(0.01, 0.25), os.kill, (child, signal.SIGKILL))
            if kills < 20:
                killer.start()
            code = int(parent.stdout.readline())
            killer.cancel()
            assert code in {0, -signal.SIGKILL}
            if code:
                kills += 1
                stages |= {path.name.partition(".")[2].rpartition(".")[2] for path in folder.rglob(".*")}
            else:
                assert tree(folder) == tree(undisturbed)
                finished += 1
                folder = tmp_path / f"killed{finished}"
    assert kills == 20
    assert "note" in stages  # killed in the middle of downloads


def test_a_kill_after_the_last_receipt(card, fetch, official, tmp_path):
    """Everything is there; what the killed run would have removed is removed by the next one."""
    to = tmp_path / "raw"
    fetch(card, to)
    clean = tree(to)
    for name in (
        ".archives/one.zip",
        ".partial/.lock",
        ".partial/..x.note.7.tmp",
        ".partial/.one.zip.unpacked/one/a.png",
    ):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(b"left")
    (to / ".fetch.json.7.tmp").write_bytes(b"left")
    assert fetch(card, to) is False
    assert tree(to) == clean
    assert not list(to.glob(".*"))


def test_a_kill_between_moving_files_and_the_receipt(card, fetch, tmp_path, monkeypatch, tiny_data):
    """The archive is unpacked again over its own files, which are the same ones."""
    to = tmp_path / "raw"

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("ncbench.datasets.fetch_files.Receipt.record", die)
        with pytest.raises(Killed):
            fetch(card, to)
    assert (to / "one").exists()
    assert fetch(card, to) is True
    assert without_receipt(to) == expected(tiny_data)
