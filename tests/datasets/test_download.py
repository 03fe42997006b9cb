"""Downloads against a server that cuts, lies, changes its mind and refuses."""

import errno
import hashlib
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from ncbench.datasets.download import Received, Retry, check_file, download
from ncbench.datasets.remote import TransientError, find_size, open_remote, redact
from ncbench.errors import SourceError, StoreError
from ncbench.sources import Download

CONTENT = np.random.default_rng(5).bytes(300_000)
OTHER = np.random.default_rng(6).bytes(300_000)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def get(tmp_path, waits):
    def call(url: str, name: str = "file.bin", report=None, attempts: int = 4, **card) -> bytes:
        item = Download(url=url, name=name, **card)
        retry = Retry(attempts=attempts, sleep=waits.append)
        call.received = download(item, tmp_path / "out" / name, tmp_path / "partial" / name, report, retry)
        assert not list((tmp_path / "partial").iterdir())  # nothing is left behind
        return (tmp_path / "out" / name).read_bytes()

    return call


def ranges_asked(server, path="/a.bin"):
    return [headers.get("Range") for method, headers in server.asked[path] if method == "GET"]


def test_a_plain_file(get, server):
    seen = []
    assert get(server.put("a.bin", CONTENT), report=lambda done, total: seen.append((done, total))) == CONTENT
    assert get.received == Received(len(CONTENT), sha(CONTENT), published=False)
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_an_empty_file(get, server):
    assert get(server.put("a.bin", b"")) == b""


def test_published_values_are_compared(get, server):
    url = server.put("a.bin", CONTENT)
    get(url, sha256=sha(CONTENT), bytes=len(CONTENT))
    assert get.received.published
    with pytest.raises(SourceError, match=f"expected sha256 {sha(OTHER)}, found {sha(CONTENT)}"):
        get(url, sha256=sha(OTHER))
    with pytest.raises(SourceError, match="card says 7 bytes, the server announces 300000"):
        get(url, bytes=7)


def test_wrong_bytes_are_not_resumed(get, server, tmp_path):
    url = server.put("a.bin", OTHER)
    with pytest.raises(SourceError, match="sha256"):
        get(url, sha256=sha(CONTENT))
    assert not list((tmp_path / "partial").iterdir())
    server.put("a.bin", CONTENT)
    assert get(url, sha256=sha(CONTENT)) == CONTENT


@pytest.mark.parametrize("validator", [{"etag": '"x"'}, {"etag": None, "modified": "Fri, 20 Nov 2020 10:00:00 GMT"}])
def test_a_cut_is_resumed_where_it_happened(get, server, validator):
    assert get(server.put("a.bin", CONTENT, drops=[100_000, 50_000], **validator)) == CONTENT
    assert ranges_asked(server) == [None, "bytes=100000-", "bytes=150000-"]
    assert server.asked["/a.bin"][1][1]["If-Range"] == next(value for value in validator.values() if value)


@pytest.mark.parametrize("tags", [{"etag": None}, {"etag": 'W/"weak"'}])
def test_without_a_strong_validator_it_restarts(get, server, tags):
    assert get(server.put("a.bin", CONTENT, drops=[100_000], **tags)) == CONTENT
    assert ranges_asked(server) == [None, None]


def test_a_server_without_ranges_restarts(get, server):
    assert get(server.put("a.bin", CONTENT, ranges=False, drops=[100_000, 200_000])) == CONTENT


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changes_between_resumes_is_never_stitched(get, server, honest):
    def change(page):
        if len(server.asked["/a.bin"]) == 2:
            page.content, page.etag = OTHER, '"two"'

    url = server.put("a.bin", CONTENT, drops=[100_000], honour_if_range=honest, on_request=[change])
    assert get(url) == OTHER


def test_it_resumes_after_the_process_ended(get, server, tmp_path):
    url = server.put("a.bin", CONTENT, drops=[100_000, 1000])
    with pytest.raises(SourceError, match=r"101000 bytes are here\)\. .* continues"):
        get(url, attempts=2)
    assert (tmp_path / "partial" / "file.bin").stat().st_size == 101_000
    assert get(url) == CONTENT
    assert ranges_asked(server)[-1] == "bytes=101000-"


def test_a_partial_file_without_its_note_is_worthless(get, server, tmp_path):
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "file.bin").write_bytes(OTHER[:5000])
    assert get(server.put("a.bin", CONTENT)) == CONTENT


@pytest.mark.parametrize("note", [b"", b"[]", b"{", b'{"url": 3}', b"\xff"])
def test_a_damaged_note_restarts(get, server, tmp_path, note):
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "file.bin").write_bytes(OTHER[:5000])
    (tmp_path / "partial" / ".file.bin.note").write_bytes(note)
    assert get(server.put("a.bin", CONTENT)) == CONTENT


def test_a_partial_file_of_another_address_restarts(get, server):
    with pytest.raises(SourceError):
        get(server.put("old.bin", OTHER, drops=[1000]), attempts=1)
    assert get(server.put("a.bin", CONTENT)) == CONTENT


def test_a_complete_partial_file_needs_no_server(get, server, tmp_path):
    url = server.put("a.bin", CONTENT, drops=[1000])
    with pytest.raises(SourceError):
        get(url, attempts=1)
    (tmp_path / "partial" / "file.bin").write_bytes(CONTENT)
    del server.pages["/a.bin"]
    assert get(url) == CONTENT


def test_a_file_that_shrank_restarts_after_416(get, server):
    def shrink(page):
        if len(server.asked["/a.bin"]) == 2:
            page.content = CONTENT[:50_000]

    url = server.put("a.bin", CONTENT, drops=[100_000], honour_if_range=False, on_request=[shrink])
    assert get(url) == CONTENT[:50_000]
    assert ranges_asked(server) == [None, "bytes=100000-", None]


def test_busy_servers_are_asked_again_with_growing_waits(get, server, waits):
    assert get(server.put("a.bin", CONTENT, statuses=[500, 503, 429])) == CONTENT
    assert waits == [1.0, 2.0, 4.0]
    with pytest.raises(SourceError, match=r"502 Bad Gateway \(4 attempts in a row"):
        get(server.put("b.bin", CONTENT, statuses=[502], stuck=True))
    assert len(server.asked["/b.bin"]) == 4


def test_waits_are_bounded():
    retry = Retry(wait=1.0, longest=60.0)
    assert [retry.seconds(failures, None) for failures in (1, 2, 3, 20)] == [1.0, 2.0, 4.0, 60.0]
    assert retry.seconds(1, 30.0) == 30.0
    assert retry.seconds(1, 86_400.0) == 60.0


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "NCBENCH_AUTH_127_0_0_1"),
        (403, "Accept the terms"),
        (404, "has moved"),
        (410, "has moved"),
        (451, "--local"),
    ],
)
def test_refusals_are_final_and_say_what_to_do(get, server, status, advice):
    url = server.put("a.bin", CONTENT, statuses=[status], stuck=True)
    with pytest.raises(SourceError, match=f"{status} .*{advice}") as caught:
        get(url)
    assert url in str(caught.value)
    assert len(server.asked["/a.bin"]) == 1


def test_a_shorter_file_than_announced(get, server):
    with pytest.raises(SourceError, match="the file is shorter|broke|announced"):
        get(server.put("a.bin", CONTENT, length=len(CONTENT) + 1000))
    with pytest.raises(SourceError, match="the file is shorter|broke|announced"):
        get(server.put("b.bin", CONTENT, length=len(CONTENT) + 1000, ranges=False))


def test_endless_drops_end(get, server):
    url = server.put("a.bin", CONTENT, drops=[1000] * 100)
    with pytest.raises(SourceError, match="attempts in a row"):
        get(url)
    assert len(server.asked["/a.bin"]) == 4


def test_attempts_that_bring_much_do_not_count(get, server):
    content = CONTENT * 24  # 7.2 MB, dropped after each 1.1 MB
    assert get(server.put("a.bin", content, drops=[1_100_000] * 6), attempts=2) == content


def test_chunked_answers_have_no_announced_size(get, server):
    seen = []
    url = server.put("a.bin", CONTENT, chunked=True, drops=[131_072])
    assert get(url, report=lambda _done, total: seen.append(total)) == CONTENT
    assert set(seen) == {0, len(CONTENT)}  # the resumed part names the size in its Content-Range


def test_a_web_page_is_not_the_file(get, server):
    url = server.put("a.zip", b"<html>please log in</html>", headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(SourceError, match=r"expected the file file.zip, but a web page .*terms"):
        get(url, name="file.zip")


def test_redirects_are_followed_and_circles_are_not(get, server):
    server.put("a.bin", CONTENT, drops=[1000])
    assert get(server.put("here.bin", location="/a.bin")) == CONTENT
    assert ranges_asked(server) == [None, "bytes=1000-"]
    with pytest.raises(SourceError, match="circle"):
        get(server.put("loop.bin", location="/loop.bin"))
    with pytest.raises(SourceError, match="InvalidSchema"):
        get(server.put("away.bin", location="file:///etc/hostname"))


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz", "SET.GZ"])
def test_a_gzip_file_labelled_as_coded_is_stored_as_it_is(get, server, zipped, name):
    content = zipped(CONTENT)
    url = server.put("a.bin", content, headers={"Content-Encoding": "gzip"}, drops=[1000])
    assert get(url, name=name, sha256=sha(content), bytes=len(content)) == content


def test_a_coded_answer_is_decoded_once(get, server, zipped):
    twice = zipped(zipped(CONTENT))
    url = server.put("a.bin", twice, headers={"Content-Encoding": "gzip"}, drops=[100_000])
    assert get(url, bytes=len(zipped(CONTENT))) == zipped(CONTENT)
    assert server.asked["/a.bin"][0][1]["Accept-Encoding"] == "identity"
    assert ranges_asked(server) == [None, "bytes=100000-"]  # a range of the coded bytes, as HTTP means it
    with pytest.raises(SourceError, match="content coding 'br'"):
        get(server.put("b.bin", CONTENT, headers={"Content-Encoding": "br"}))
    with pytest.raises(SourceError, match="no readable gzip"):
        get(server.put("c.bin", CONTENT, headers={"Content-Encoding": "gzip"}))


def test_no_server_at_all(get, server):
    url = server.put("a.bin", CONTENT)
    server.shutdown()
    server.server_close()
    with pytest.raises(SourceError, match="no connection"):
        get(url)


def test_a_full_disk_before_and_while_writing(get, server, tmp_path, monkeypatch):
    url = server.put("a.bin", CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr("ncbench.datasets.download.shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1000}))
        with pytest.raises(StoreError, match="300000 more bytes are needed for file.bin, 1000 are free"):
            get(url)
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "partial" / "file.bin").symlink_to("/dev/full")
    with pytest.raises(StoreError, match="No space left on device.*kept"):
        get(url)


def test_credentials_come_from_the_environment_or_netrc_and_are_never_shown(get, server, tmp_path, monkeypatch):
    url = server.put("a.bin", CONTENT, login="Basic bWU6c2VjcmV0")  # me:secret
    with pytest.raises(SourceError, match="401") as caught:
        get(url)
    monkeypatch.setenv("NCBENCH_AUTH_127_0_0_1", "me:secret")
    assert get(url) == CONTENT
    monkeypatch.setenv("NCBENCH_AUTH_127_0_0_1", "me:secretwrong")
    with pytest.raises(SourceError, match="401") as caught:
        get(url)
    assert "secret" not in str(caught.value)
    monkeypatch.delenv("NCBENCH_AUTH_127_0_0_1")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert get(url) == CONTENT


def test_credentials_do_not_follow_a_redirect_to_another_host(get, server, monkeypatch):
    server.put("a.bin", CONTENT)
    monkeypatch.setenv("NCBENCH_AUTH_LOCALHOST", "me:secret")
    server.put("start.bin", location=server.url("a.bin"))
    assert get(f"http://localhost:{server.server_port}/start.bin") == CONTENT
    assert "Authorization" in server.asked["/start.bin"][0][1]
    assert "Authorization" not in server.asked["/a.bin"][0][1]


def test_redaction():
    text = "a https://me:pw@h.org/x?X-Amz-Signature=1 b s3://k:s@bucket/y c 'http://u@h/z?token=q' d"
    assert redact(text) == "a https://h.org/x b s3://bucket/y c 'http://h/z' d"


def test_a_local_file_is_copied_and_resumed(get, tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(CONTENT)
    assert get(source.as_uri(), sha256=sha(CONTENT)) == CONTENT
    with pytest.raises(SourceError, match="no such file"):
        get((tmp_path / "absent.bin").as_uri())
    with open_remote(source.as_uri()) as answer:
        whole = b"".join(answer.blocks)
    assert whole == CONTENT
    with open_remote(source.as_uri(), 1000, answer.validator) as later:
        assert later.start == 1000
        assert b"".join(later.blocks) == CONTENT[1000:]
    with open_remote(source.as_uri(), 1000, "another state") as changed:
        assert changed.start == 0
    assert find_size(source.as_uri()) == len(CONTENT)


def test_buckets_go_through_fsspec(get, monkeypatch):
    """No bucket is at hand: fsspec's memory storage answers for s3://, first failing in the ways that storages fail."""
    from fsspec.implementations.memory import MemoryFileSystem
    from fsspec.registry import _registry

    failures = []

    class Bucket(MemoryFileSystem):
        protocol = ("s3",)
        store: ClassVar = {}

        @classmethod
        def _strip_protocol(cls, path):
            return "/" + path.removeprefix("s3://").strip("/")

        def info(self, path, **settings):
            if failures:
                raise failures.pop(0)
            return super().info(path, **settings)

    monkeypatch.setitem(_registry, "s3", Bucket)
    Bucket().pipe_file("/bucket/a.bin", CONTENT)
    failures[:] = [OSError("timed out"), TimeoutError("slow")]
    assert get("s3://bucket/a.bin") == CONTENT
    failures[:] = [PermissionError("no")]
    with pytest.raises(SourceError, match="access is denied"):
        get("s3://bucket/a.bin")
    failures[:] = [KeyError("NoCredentialsError")]
    with pytest.raises(SourceError, match="own credentials"):
        get("s3://bucket/a.bin")


def test_a_missing_package_is_named(get, monkeypatch):
    def missing(url):
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(SourceError, match=r"pip install gcsfs"):
        get("gs://bucket/a.bin")


def test_hugging_face_paths(get, server, monkeypatch):
    from huggingface_hub import constants

    template = server.url("") + "{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    server.put("cdn.bin", CONTENT)
    path = "datasets/Owner/Name/resolve/rev1/deep/a.bin"
    server.put(path, location="/cdn.bin", headers={"X-Linked-Etag": f'"{sha(CONTENT)}"'})
    assert get("hf://datasets/Owner/Name@rev1/deep/a.bin") == CONTENT
    assert get.received.published  # the Hub names large files by their checksum
    assert server.asked["/" + path][0][1]["Authorization"] == "Bearer hf_secret"
    assert find_size("hf://datasets/Owner/Name@rev1/deep/a.bin") == len(CONTENT)
    server.put(path, location="/cdn.bin", headers={"X-Linked-Etag": f'"{sha(OTHER)}"'})
    with pytest.raises(SourceError, match="expected sha256"):
        get("hf://datasets/Owner/Name@rev1/deep/a.bin")
    with pytest.raises(SourceError, match="hf://datasets/OWNER"):
        get("hf://datasets/Owner")


def test_sizes_by_head_or_by_the_head_of_a_get(server):
    assert find_size(server.put("a.bin", CONTENT)) == len(CONTENT)
    assert [method for method, _ in server.asked["/a.bin"]] == ["HEAD"]
    assert find_size(server.put("b.bin", CONTENT, statuses=[405])) == len(CONTENT)
    assert find_size(server.put("c.bin", CONTENT, chunked=True)) is None
    with pytest.raises(SourceError, match="404"):
        find_size(server.url("absent"))
    with pytest.raises(TransientError):
        find_size(server.put("d.bin", statuses=[503], stuck=True))


def test_check_file_reads_the_disk(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    assert check_file(path, Download(url="http://h/a.bin")) == Received(len(CONTENT), sha(CONTENT), published=False)
    with pytest.raises(SourceError, match="expected 3 bytes, found 300000"):
        check_file(path, Download(url="http://h/a.bin", bytes=3))


def test_a_range_that_was_not_asked_for_is_refused(get, server, monkeypatch):
    url = server.put("a.bin", CONTENT, drops=[1000])

    def shifted(self, _page):  # one byte too far
        asked = self.headers.get("Range")
        return int(asked[6:-1]) + 1 if asked else None

    monkeypatch.setattr(server.RequestHandlerClass, "first_byte", shifted)
    assert get(url) == CONTENT  # restarted without a range
    assert ranges_asked(server) == [None, "bytes=1000-", None]


def test_the_note_never_vouches_for_bytes_of_another_state(get, server, tmp_path, monkeypatch):
    """Killed between emptying the file and writing the new note, the next run must not continue old bytes."""
    url = server.put("a.bin", CONTENT, drops=[1000])
    with pytest.raises(SourceError):
        get(url, attempts=1)
    server.put("a.bin", OTHER, etag='"two"')
    with monkeypatch.context() as patch:
        patch.setattr(
            "ncbench.datasets.download.write_json", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "killed"))
        )
        with pytest.raises(StoreError):
            get(url)
    note = json.loads((tmp_path / "partial" / ".file.bin.note").read_text())
    assert note["validator"] == '"one"'
    assert (tmp_path / "partial" / "file.bin").stat().st_size == 0
    assert get(url) == OTHER
