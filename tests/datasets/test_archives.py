"""Archives made to harm, archives that are damaged, and honest ones in every packing."""

import bz2
import gzip
import io
import lzma
import tarfile
import unicodedata
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.datasets.archives import Limits, Unpacked, gunzip, unpack
from ncbench.datasets.member_names import NameRegister, split_name
from ncbench.errors import SourceError

FILES = {"a/one.bin": np.random.default_rng(0).bytes(70_000), "a/b/two.txt": b"two\n", "three": b""}
PACKERS = {
    "plain": lambda data: data,
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def tar_of(members, format=tarfile.PAX_FORMAT) -> bytes:  # noqa: A002 - tarfile's own word
    """Members are (name, bytes) or TarInfo objects."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def zip_of(members) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members:
            info = member if isinstance(member, zipfile.ZipInfo) else zipfile.ZipInfo("x")
            if not isinstance(member, zipfile.ZipInfo):
                info.filename = member  # set afterwards: the constructor tidies names up
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return out.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def opened(tmp_path):
    """Unpack bytes and give what lies on the disk."""

    def call(data: bytes, packing: str = "tar", limits=None, name: str = "set.archive") -> dict[str, bytes]:
        (tmp_path / name).write_bytes(data)
        call.result = unpack([tmp_path / name], packing, tmp_path / "deep" / "out", limits)
        return contents(tmp_path / "deep" / "out")

    return call


def outside(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir()} | {path.name for path in (tmp_path / "deep").iterdir()}


def test_an_honest_zip(opened):
    assert opened(zip_of(FILES.items()), "zip") == FILES
    assert opened.result == Unpacked(files=3, bytes=70_004)


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_honest_tar(opened, packer, format_):
    assert opened(PACKERS[packer](tar_of(FILES.items(), format_))) == FILES


def test_the_systems_own_tar_with_its_leading_dot(opened, tmp_path):
    """Archives of `tar -c .` name every member ./x and hold the folder itself."""
    root = tarfile.TarInfo("./")
    root.type = tarfile.DIRTYPE
    assert opened(tar_of([root, ("./a/x", b"1"), ("./b", b"2")])) == {"a/x": b"1", "b": b"2"}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("size", [1, 511, 10_240, 40_000])
def test_parts_are_one_stream(tmp_path, packer, size):
    data = PACKERS[packer](tar_of(FILES.items()))
    parts = []
    for number, at in enumerate(range(0, len(data), size if size > 1 else len(data) - 1)):
        parts.append(tmp_path / f"part{number:04d}")
        parts[-1].write_bytes(data[at : at + (size if size > 1 else len(data) - 1)])
    assert len(parts) > 1
    unpack(parts, "tar", tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_zips_come_in_one_part(tmp_path):
    (tmp_path / "a").write_bytes(zip_of(FILES.items()))
    with pytest.raises(SourceError, match="in parts"):
        unpack([tmp_path / "a", tmp_path / "a"], "zip", tmp_path / "out")


BAD_NAMES = [
    *("../x", "a/../../x", "..", "..\\x", "/etc/x", "//x", "C:/x", "C:x", "\\\\host\\x", "a\\b", "x:stream"),
    *("nul", "a/CON.txt", "com1.png", "LPT9", "a/aux .txt", "CONIN$", "x.", "x ", "a./b", "tab\tx", "new\nline"),
    *("zero\x01", 'quo"te', "star*", "what?", "<x>", "pi|pe", "x" * 256, "é" * 128, "/".join(["abcdefghi"] * 120)),
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("packing", ["zip", "tar"])
def test_unsafe_names_are_refused(opened, tmp_path, name, packing):
    data = zip_of([("good", b"1"), (name, b"evil")]) if packing == "zip" else tar_of([("good", b"1"), (name, b"evil")])
    with pytest.raises(SourceError, match="cannot be unpacked safely"):
        opened(data, packing)
    assert outside(tmp_path) == {"set.archive", "deep", "out"}


def test_a_zero_byte_does_not_hide_the_rest_of_a_name(opened):
    data = zip_of([("good.txt#evil", b"1")]).replace(b"good.txt#evil", b"good.txt\0evil")
    with pytest.raises(SourceError, match="cannot be unpacked safely|no readable"):
        opened(data, "zip")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a", "a"], "twice"),
        (["a", "./a"], "twice"),
        (["a//b", "a/b"], "twice"),
        (["a", "A"], "case"),
        (["dir/x", "DIR/y"], "case"),
        (["stra\u00dfe", "STRASSE"], "case"),
        (["\u00e9", "e\u0301"], "composition"),
        (["a", "a/b"], "file and a folder"),
        (["a/b", "a"], "file and a folder"),
        (["./"], "names no file"),
    ],
)
def test_names_that_collide_somewhere_are_refused(names, reason):
    register = NameRegister()
    for name in names[:-1]:
        register.add(name, folder=False)
    with pytest.raises(ValueError, match=reason):
        register.add(names[-1], folder=False)


def test_duplicates_in_true_archives(opened):
    with pytest.raises(SourceError, match="twice"), pytest.warns(UserWarning, match="Duplicate"):
        opened(zip_of([("a", b"1"), ("a", b"2")]), "zip")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"]
)
def test_links_and_devices_in_a_tar(opened, tmp_path, kind):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = kind, "../../secret"
    with pytest.raises(SourceError, match="cannot be unpacked safely|no readable") as caught:
        opened(tar_of([("good", b"1"), link, ("link/x", b"evil")]))
    assert "link" in str(caught.value)
    assert outside(tmp_path) == {"set.archive", "deep", "out"}


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140777])
def test_links_and_devices_in_a_zip(opened, mode):
    info = zipfile.ZipInfo("link")
    info.external_attr = mode << 16
    with pytest.raises(SourceError, match="link or a device"):
        opened(zip_of([(info, b"../../secret")]), "zip")


def test_encrypted_zips_are_named(opened):
    data = bytearray(zip_of([("a", b"1")]))
    data[6] |= 1  # the flag in the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    with pytest.raises(SourceError, match="encrypted"):
        opened(bytes(data), "zip")


@pytest.mark.parametrize("packing", ["zip", "tar"])
def test_bombs_stop_while_they_grow(opened, tmp_path, packing):
    zeros = bytes(8_000_000)
    data = zip_of([("zeros", zeros)]) if packing == "zip" else PACKERS["gz"](tar_of([("zeros", zeros)]))
    assert len(data) < 20_000
    limits = Limits(ratio=100.0, allowance=1_000_000)
    with pytest.raises(SourceError, match=r"more than 1\d{6} bytes.*bomb|more than 1000000 bytes.*bomb"):
        opened(data, packing, limits)
    assert sum(path.stat().st_size for path in tmp_path.rglob("zeros")) < 2_000_000


def test_a_total_limit_and_many_empty_members(opened):
    members = [(f"m{number}", b"") for number in range(1000)]
    with pytest.raises(SourceError, match="more than 100000 bytes"):
        opened(PACKERS["gz"](tar_of(members)), limits=Limits(total=100_000))


def test_a_zip_that_lies_about_its_size(opened):
    """The directory claims 10 bytes; what is inflated is what counts."""
    data = bytearray(zip_of([("zeros", bytes(5_000_000))]))
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    with pytest.raises(SourceError, match="no readable zip"):
        opened(bytes(data), "zip")


def test_a_bomb_behind_the_end_of_a_tar(opened):
    data = PACKERS["gz"](tar_of(FILES.items()) + bytes(30_000_000))
    with pytest.raises(SourceError, match="bomb"):
        opened(data, limits=Limits(ratio=2.0, allowance=1_000_000))


@pytest.mark.parametrize("packing", ["zip", "tar"])
@pytest.mark.parametrize(
    "data", [b"", b"<html><body>Sign in</body></html>", b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh9", bytes(100)]
)
def test_other_files_are_named_for_what_they_are(opened, packing, data):
    with pytest.raises(SourceError, match=f"is no readable {packing} archive.*begins with"):
        opened(data, packing)


@pytest.mark.parametrize("packer", [name for name in PACKERS if name != "plain"])
def test_a_flipped_byte_in_a_compressed_tar_is_found(opened, packer):
    data = bytearray(PACKERS[packer](tar_of([("x", np.random.default_rng(1).bytes(50_000))])))
    data[len(data) // 2] ^= 4
    with pytest.raises(SourceError, match="no readable tar"):
        opened(bytes(data))


@pytest.mark.parametrize("packer", PACKERS)
def test_a_truncated_tar_is_found(opened, packer):
    data = PACKERS[packer](tar_of([("x", np.random.default_rng(1).bytes(50_000))]))
    with pytest.raises(SourceError, match="no readable tar"):
        opened(data[:30_000])


def test_a_flipped_byte_in_a_zip_is_found(opened):
    data = bytearray(zip_of([("x", np.random.default_rng(1).bytes(50_000))]))
    data[25_000] ^= 4
    with pytest.raises(SourceError, match="no readable zip.*CRC"):
        opened(bytes(data), "zip")


def test_errors_of_the_disk_stay_errors_of_the_disk(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_of(FILES.items()))
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        unpack([tmp_path / "a.zip"], "zip", tmp_path / "out")


def test_gunzip(tmp_path):
    (tmp_path / "a").write_bytes(PACKERS["gz"](FILES["a/one.bin"]))
    gunzip(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == FILES["a/one.bin"]
    (tmp_path / "a").write_bytes(PACKERS["gz"](bytes(3_000_000)))
    with pytest.raises(SourceError, match="bomb"):
        gunzip(tmp_path / "a", tmp_path / "b", Limits(ratio=10.0, allowance=1_000_000))
    (tmp_path / "a").write_bytes(b"no gzip")
    with pytest.raises(SourceError, match="gzip"):
        gunzip(tmp_path / "a", tmp_path / "b")


NASTY = st.one_of(
    st.text(alphabet="./\\ab:A \x00~é", max_size=12),
    st.text(max_size=12),
    st.lists(st.sampled_from(["..", ".", "", "a", "A", "con", "C:", "x ", "~", "\\"]), max_size=5).map("/".join),
)


@settings(max_examples=300, deadline=None)
@given(NASTY)
def test_every_accepted_name_stays_inside(name):
    try:
        parts = split_name(name)
    except ValueError:
        return
    target = Path("/target")
    inside = target.joinpath(*parts)
    assert target in {inside, *inside.parents}
    assert ".." not in inside.parts
    for part in parts:
        assert not set(part) & set('<>:"|?*\\/\0')
        assert part == part.rstrip(". ")
        assert part not in {"", "."}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NASTY, st.binary(max_size=20)), max_size=4), st.booleans())
def test_whatever_the_names_nothing_is_written_outside(tmp_path_factory, members, as_zip):
    root = tmp_path_factory.mktemp("fuzz")
    try:
        data = zip_of(members) if as_zip else tar_of(members)
    except (ValueError, UnicodeError):
        return  # the writer refuses, so there is no such archive
    (root / "x").write_bytes(data)
    try:
        result = unpack([root / "x"], "zip" if as_zip else "tar", root / "deep" / "out")
    except SourceError:
        pass
    else:
        found = contents(root / "deep" / "out")
        assert result.files == len(found)
        assert sorted(found.values()) == sorted(
            content for name, content in members if as_zip is False or not name.endswith("/")
        )
        folded = [unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold()) for name in found]
        assert len(set(folded)) == len(folded)
    assert {path.name for path in root.iterdir()} <= {"x", "deep"}
    assert {path.name for path in (root / "deep").iterdir()} == {"out"}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_gives_an_error_or_the_files_but_never_a_traceback(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("damage")
    packing = data.draw(st.sampled_from(["zip", *PACKERS]))
    small = [("a/x", b"hello" * 30), ("b", b"1" * 600)]
    whole = bytearray(zip_of(small) if packing == "zip" else PACKERS[packing](tar_of(small)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    (root / "x").write_bytes(whole[:cut])
    with suppress(SourceError):
        unpack([root / "x"], "zip" if packing == "zip" else "tar", root / "out")
