"""Files of folders, zips and tars by the end of their paths; damaged archives and lies about sizes."""

import io
import re
import tarfile
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.datasets.formats.archived_members import open_members, open_zip
from ncbench.datasets.formats.members import FolderMembers, hash_members
from ncbench.errors import SourceError

FILES = {"outer/inner/0001.png": b"one", "outer/inner/0002.png": b"two" * 1000, "outer/notes.txt": b"hello"}


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("outer/", b"")
        for name, content in files.items():
            archive.writestr(name, content)


def make_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def make(kind, root, files=FILES):
    path = root / ("data" if kind == "folder" else f"data.{kind}")
    if kind == "folder":
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    else:
        {"zip": make_zip, "tar": make_tar}[kind](path, files)
    return path


KINDS = pytest.mark.parametrize("kind", ["folder", "zip", "tar"])


@KINDS
def test_finds_and_reads_files_at_any_depth(kind, tmp_path):
    path = make(kind, tmp_path)
    members = open_members(path)
    assert members.origin == str(path)
    assert members.names == {"0001.png", "0002.png", "notes.txt"}
    assert members.read("0002.png") == b"two" * 1000
    with members.local("0001.png") as lent:
        assert lent.name == "0001.png"
        assert lent.read_bytes() == b"one"
    assert members.where("0001.png") == str(path / "outer" / "inner" / "0001.png")
    assert len({members.identity(name) for name in members.names}) == 3
    assert open_members(path, tail=2).names == {"inner/0001.png", "inner/0002.png", "outer/notes.txt"}
    assert open_members(path, keep=re.compile(r"\d+\.png")).names == {"0001.png", "0002.png"}


@KINDS
def test_a_missing_file_is_named_with_its_place(kind, tmp_path):
    members = open_members(make(kind, tmp_path))
    problem = pytest.raises(SourceError, match=r"data.*0009\.png: expected a file, found none")
    with problem:
        members.read("0009.png")
    with problem:
        members.identity("0009.png")
    with problem, members.local("0009.png"):
        pass


def test_names_by_paths(tmp_path):
    """Below a folder, and below a prefix of an archive that other files lie beside."""
    names = {"inner/0001.png", "inner/0002.png", "notes.txt"}
    make_zip(tmp_path / "data.zip", FILES | {"other/x": b"x"})
    plain, packed = FolderMembers(make("folder", tmp_path) / "outer"), open_zip(tmp_path / "data.zip", "outer")
    assert plain.names == packed.names == names
    for name in names:
        assert plain.read(name) == packed.read(name)
        with plain.local(name) as one, packed.local(name) as other:
            assert one.read_bytes() == other.read_bytes()
    for members in (plain, packed):
        with pytest.raises(SourceError, match="outer/none|data.zip/none"):
            members.read("none")


@KINDS
def test_two_files_of_one_name_are_refused(kind, tmp_path):
    path = make(kind, tmp_path, {"a/0001.png": b"1", "b/0001.png": b"2"})
    with pytest.raises(SourceError, match=r"two files in it are called 0001\.png"):
        open_members(path)
    assert open_members(path, keep=re.compile("none")).names == frozenset()


def test_errors_inside_local_name_the_member_not_the_copy(tmp_path):
    members = open_members(make("zip", tmp_path))
    with (
        pytest.raises(SourceError, match=r"data\.zip/outer/inner/0001\.png: no good") as caught,
        members.local("0001.png") as path,
    ):
        raise SourceError.at(path, "no good", "Try again")
    assert "ncbench-" not in str(caught.value)


def test_a_corrupt_zip_member_and_a_cut_tar_are_told(tmp_path):
    path = make("zip", tmp_path)
    content = bytearray(path.read_bytes())
    place = content.index(b"outer/inner/0002.png") + len("outer/inner/0002.png")
    content[place + 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(SourceError, match=r"0002\.png: the archive's member does not read"):
        open_members(path).read("0002.png")
    tar = make("tar", tmp_path)
    tar.write_bytes(tar.read_bytes()[:1700])  # within the second file
    with pytest.raises(SourceError, match=r"data\.tar: expected a folder, a \.zip or a whole, uncompressed \.tar"):
        open_members(tar)


def test_a_compressed_tar_and_a_bomb_are_refused(tmp_path):
    make_tar(tmp_path / "data.tar", FILES, "w:gz")
    with pytest.raises(SourceError, match="uncompressed"):
        open_members(tmp_path / "data.tar")
    path = make("zip", tmp_path)
    content = path.read_bytes()
    entry = content.index(b"PK\x01\x02")
    entry = content.index(b"PK\x01\x02", entry + 4)  # the first is the folder
    path.write_bytes(content[: entry + 24] + (0xFFFFFFF0).to_bytes(4, "little") + content[entry + 28 :])
    with pytest.raises(SourceError, match="claims 4294967280 bytes"):
        open_members(path)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["zip", "tar"]), cut=st.integers(0, 9000), flip=st.integers(0, 9000))
def test_damaged_archives_end_in_one_kind_of_error(kind, cut, flip, tmp_path_factory):
    path = make(kind, tmp_path_factory.mktemp("fuzz"))
    content = bytearray(path.read_bytes())
    content[flip % len(content)] ^= 0x55
    path.write_bytes(bytes(content[: max(1, len(content) - cut % len(content))]))
    with suppress(SourceError):
        members = open_members(path)
        for name in members.names:
            members.read(name)


def test_the_hash_follows_names_and_contents_but_not_the_place(tmp_path):
    digests = set()
    for place, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        root = tmp_path / place
        root.mkdir()
        path = make("tar", root, {"x/0001.png": content})
        digests.add(hash_members(root, [(open_members(path), "0001.png")]))
    assert len(digests) == 2
