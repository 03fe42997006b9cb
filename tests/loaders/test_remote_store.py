import http.server
import multiprocessing
import pickle
import shutil
import threading
from functools import partial

import fsspec
import pytest

from ncbench.datasets.store import open_store
from ncbench.errors import StoreError
from ncbench.loaders.clips import NormalFrames
from ncbench.loaders.loader import Loader


@pytest.fixture
def remote(make_store, request):
    """A store in fsspec's memory, of three shards."""
    store = make_store({"a": range(6)}, rows=2)
    filesystem, root = fsspec.filesystem("memory"), f"/{request.node.name}"
    for path in store.path.iterdir():
        filesystem.pipe(f"{root}/{path.name}", path.read_bytes())
    yield f"memory:/{root}", store
    filesystem.rm(root, recursive=True)


def cached(folder):
    return sorted(path.stem for path in folder.glob("*.arrow"))


def test_shards_are_fetched_on_first_use_and_are_the_same(remote, tmp_path):
    url, store = remote
    opened = open_store(url, cache=tmp_path / "cache")
    assert cached(tmp_path / "cache") == []
    assert opened.sequences == store.sequences
    assert opened[3].image == store[3].image
    hashes = [shard.sha256 for shard in store.manifest.shards]
    assert cached(tmp_path / "cache") == [hashes[1]]
    assert [frame.frame for frame in opened] == list(range(6))
    assert cached(tmp_path / "cache") == sorted(hashes)
    assert url in repr(opened)
    fsspec.filesystem("memory").rm(f"{url.removeprefix('memory:/')}/{store.manifest.shards[0].file}")
    assert open_store(url, cache=tmp_path / "cache")[0].frame == 0  # from the cache
    assert pickle.loads(pickle.dumps(opened))[5].frame == 5  # noqa: S301 - our own bytes


def test_the_cache_stays_within_its_bounds_and_drops_what_was_used_longest_ago(remote, tmp_path):
    url, store = remote
    sizes = [shard.bytes for shard in store.manifest.shards]
    opened = open_store(url, cache=tmp_path / "cache", cache_bytes=sum(sorted(sizes)[1:]))
    for row in (0, 2, 4):
        assert opened[row].frame == row
    kept = [shard.sha256 for shard in store.manifest.shards[1:]]
    assert cached(tmp_path / "cache") == sorted(kept)
    assert opened[0].frame == 0  # still open in this process
    assert open_store(url, cache=tmp_path / "cache", cache_bytes=1)[0].frame == 0
    assert cached(tmp_path / "cache") == [store.manifest.shards[0].sha256]


def test_damage_on_the_way_is_found_and_leaves_nothing(remote, tmp_path):
    url, store = remote
    shard = store.manifest.shards[1]
    path = f"{url.removeprefix('memory:/')}/{shard.file}"
    data = bytearray(fsspec.filesystem("memory").cat_file(path))
    data[len(data) // 2] ^= 1
    fsspec.filesystem("memory").pipe(path, bytes(data))
    opened = open_store(url, cache=tmp_path / "cache")
    with pytest.raises(StoreError, match=rf"{url}/{shard.file}: is damaged"):
        opened[2]
    assert cached(tmp_path / "cache") == []
    assert not list((tmp_path / "cache").glob(".*tmp*"))
    assert opened[0].frame == 0


def test_what_is_not_there_is_said(remote, tmp_path):
    url, store = remote
    with pytest.raises(StoreError, match="no such file"):
        open_store(f"{url}/elsewhere", cache=tmp_path)
    with pytest.raises(StoreError, match="cannot be read"):
        open_store("nonsense://x", cache=tmp_path)
    with pytest.raises(StoreError, match="at least 1"):
        open_store(url, cache=tmp_path, cache_bytes=0)
    filesystem, root = fsspec.filesystem("memory"), url.removeprefix("memory:/")
    filesystem.rm(f"{root}/{store.manifest.shards[2].file}")
    with pytest.raises(StoreError, match=store.manifest.shards[2].file):
        list(open_store(url, cache=tmp_path))
    manifest = filesystem.cat_file(f"{root}/manifest.json").replace(b'"schema": 1', b'"schema": 9')
    filesystem.pipe(f"{root}/manifest.json", manifest)
    with pytest.raises(StoreError, match=rf"{url}/manifest.json: store schema 9.*Update ncbench"):
        open_store(url, cache=tmp_path)


def test_file_urls_and_workers(make_store, tmp_path):
    store = make_store({"a": range(6)}, rows=2)
    opened = open_store(f"file://{store.path}", cache=tmp_path / "cache")
    frames = [batch["frames"].item() for batch in Loader(NormalFrames(opened, shuffle="none"), workers=1)]
    assert frames == list(range(6))


def test_http(make_store, tmp_path):
    store = make_store({"a": range(4)}, rows=2)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(store.path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        opened = open_store(f"http://127.0.0.1:{server.server_port}", cache=tmp_path / "cache")
        assert [frame.frame for frame in opened] == [0, 1, 2, 3]
        server.shutdown()


def _read_all(url, cache, results):
    results.put([frame.frame for frame in open_store(url, cache=cache)])


def test_processes_share_one_cache(make_store, tmp_path):
    store = make_store({"a": range(6)}, rows=2)
    shutil.copytree(store.path, tmp_path / "copy")
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (f"file://{tmp_path}/copy", tmp_path / "cache", results)
    workers = [context.Process(target=_read_all, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [list(range(6))] * 3
    for worker in workers:
        worker.join()
    assert len(cached(tmp_path / "cache")) == 3
