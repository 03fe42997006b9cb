import errno
import hashlib
import json
import resource
import signal
import subprocess
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from datasets import Features

from ncbench.datasets.cells import Codec, decode_cell, encode_cell
from ncbench.datasets.frame import Frame
from ncbench.datasets.schema import checked, features, store_schema, to_batch
from ncbench.datasets.shards import open_shard, reusable, shard_name, write_shard
from ncbench.errors import CardError, SourceError, StoreError
from ncbench.files import leftovers, write_bytes

WALL = np.array([0, 0, -1], np.float32)


def frame(index=0, size=(4, 5), **changes):
    values = {
        "sequence": "hall",
        "frame": index,
        "image": None,
        "normal": np.broadcast_to(WALL, (*size, 3)).copy(),
        "valid": np.ones(size, bool),
    }
    return Frame(**{**values, **changes})


def names(folder):
    return [path.name for path in folder.iterdir()]


def meta(rows):
    return {"source": "s" * 64, "rows": rows, "shard": 0}


def write(folder, frames, rows=None, schema=None):
    frames = list(frames)
    return write_shard(folder / "data.arrow", frames, schema or store_schema({}), meta(rows or len(frames)))


EXTRA = {
    "number": pa.float64(),
    "half": pa.float16(),
    "label": pa.int16(),
    "flag": pa.bool_(),
    "text": pa.string(),
    "planes": pa.large_binary(),
    "ray_matrix": pa.list_(pa.float64(), 9),
    "ids": pa.list_(pa.int32()),
    "nested": pa.struct([("a", pa.int64()), ("b", pa.list_(pa.float32()))]),
}


def test_features_are_what_hugging_face_would_write():
    schema = store_schema(EXTRA)
    ours = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    parsed = Features.from_dict(ours)
    assert list(parsed) == schema.names
    assert parsed.arrow_schema.types == schema.types
    assert parsed.to_dict() == ours == features(schema)
    assert Features.from_arrow_schema(schema) == parsed


@pytest.mark.parametrize(
    "extra", [{"normal": pa.int32()}, {"when": pa.timestamp("s")}, {"a": pa.map_(pa.string(), pa.int8())}]
)
def test_unsuitable_extra_columns(extra):
    with pytest.raises(CardError, match=next(iter(extra))):
        store_schema(extra)


def test_a_shard_describes_itself(tmp_path):
    record = write(tmp_path, [frame(0), frame(3)])
    path = tmp_path / "data.arrow"
    assert (record.file, record.rows, record.source) == ("data.arrow", 2, "s" * 64)
    assert record.bytes == path.stat().st_size
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        assert json.loads(stream.schema.metadata[b"ncbench"]) == meta(2)
        assert [batch.num_rows for batch in stream] == [1, 1]
    assert names(tmp_path) == ["data.arrow"]


def test_extra_columns_keep_their_values(tmp_path):
    planes = np.arange(20, dtype=np.int32).reshape(4, 5)
    matrix = np.arange(9.0).reshape(3, 3)
    extra = {"number": 0.5, "half": 0.25, "label": -3, "flag": True, "text": "é", "planes": planes}
    extra |= {"ray_matrix": matrix, "ids": [1, 2], "nested": {"a": 1, "b": [0.5]}}
    write(tmp_path, [frame(extra=extra)], schema=store_schema(EXTRA))
    row = open_shard(tmp_path / "data.arrow").to_pylist()[0]
    np.testing.assert_array_equal(decode_cell(row.pop("planes")), planes)
    assert row.pop("ray_matrix") == list(range(9))
    assert {name: row[name] for name in ("number", "half", "label", "flag", "text", "ids", "nested")} == {
        name: extra[name] for name in ("number", "half", "label", "flag", "text", "ids", "nested")
    }


@pytest.mark.parametrize("full", [False, True])
def test_a_row_is_what_arrow_makes_of_its_values(full):
    rng = np.random.default_rng(3)
    given = frame(7, sequence="Größe")
    if full:
        maps = {"depth": rng.random((4, 5), np.float32), "flow": rng.random((4, 5, 2), np.float32)}
        matrices = {"intrinsics": rng.random((3, 3)), "cam_to_world": np.asfortranarray(rng.random((4, 4)))}
        given = replace(given, image=b"any bytes", occluded=rng.random((4, 5)) > 0.5, **maps, **matrices)
    codecs = {"normal": Codec.NORMALS, "valid": Codec.MASK, "occluded": Codec.MASK}
    values = {"sequence": "Größe", "frame": 7, "height": 4, "width": 5}
    values["image"] = {"bytes": b"any bytes", "path": None} if full else None
    for name in ("normal", "valid", "depth", "flow", "occluded"):
        array = getattr(given, name)
        values[name] = None if array is None else encode_cell(array, codecs.get(name, Codec.LOSSLESS))
    for name in ("intrinsics", "cam_to_world"):
        matrix = getattr(given, name)
        values[name] = None if matrix is None else [number for row in matrix.tolist() for number in row]
    schema = store_schema({})
    expected = pa.RecordBatch.from_arrays([pa.array([values[f.name]], f.type) for f in schema], schema=schema)
    found = to_batch(given, schema)
    found.validate(full=True)
    assert found.equals(expected)
    assert found.serialize() == expected.serialize()


@pytest.mark.parametrize("changes", [{"frame": 1 << 31}, {"sequence": "\ud800"}])
def test_a_name_or_number_that_no_column_holds(changes):
    with pytest.raises(SourceError, match="does not fit its column"):
        to_batch(
            frame(**{"index": 0, **{("index" if k == "frame" else k): v for k, v in changes.items()}}), store_schema({})
        )


def test_zero_nan_and_infinite_normals_become_invalid():
    normal = np.broadcast_to(WALL, (4, 5, 3)).copy()
    normal[0, 0], normal[0, 1], normal[0, 2] = 0, np.nan, (0, np.inf, -1)
    valid = np.ones((4, 5), bool)
    valid[1, 1] = False
    found = checked(frame(normal=normal, valid=valid))
    expected = valid.copy()
    expected[0, :3] = False
    np.testing.assert_array_equal(found.valid, expected)
    np.testing.assert_array_equal(found.normal, WALL * expected[..., None])
    assert np.isnan(normal[0, 1]).all(), "the caller's array stays as it was"
    assert valid[0, 0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"normal": np.zeros((4, 5, 3), np.float64)}, "normal.*float64"),
        ({"normal": np.zeros((5, 4, 3), np.float32)}, "normal"),
        ({"normal": np.full((4, 5, 3), 0.7, np.float32)}, "length 1.21"),
        ({"normal": None}, "normal"),
        ({"valid": np.ones((4, 5), np.uint8)}, "valid"),
        ({"valid": np.ones((0, 5), bool)}, "valid"),
        ({"depth": np.ones((4, 6), np.float32)}, "depth"),
        ({"flow": np.ones((4, 5), np.float32)}, "flow"),
        ({"occluded": np.ones((4, 5), np.float32)}, "occluded"),
        ({"intrinsics": np.eye(3, dtype=np.float32)}, "intrinsics"),
        ({"cam_to_world": np.eye(3)}, "cam_to_world"),
        ({"extra": {"surprise": 1}}, "surprise"),
        ({"frame": 2**40}, "does not fit"),
    ],
)
def test_a_bad_frame_is_named_and_leaves_nothing(tmp_path, changes, problem):
    with pytest.raises(SourceError, match=f"'hall' frame (7|{2**40}).*{problem}"):
        write(tmp_path, [frame(0), frame(**{"index": 7, **changes}) if "frame" not in changes else frame(**changes)])
    assert names(tmp_path) == []


def test_off_by_less_than_a_thousandth_is_unit():
    normal = frame().normal * np.float32(1.0009)
    assert checked(frame(normal=normal)).valid.all()


def test_a_sequence_keeps_its_size(tmp_path):
    with pytest.raises(SourceError, match=r"'hall' frame 1.*4 x 5.*6 x 5"):
        write(tmp_path, [frame(0), frame(1, size=(6, 5))])
    write(tmp_path, [frame(0), frame(0, size=(6, 5), sequence="other")])


def test_the_number_of_rows_is_kept_to(tmp_path):
    with pytest.raises(SourceError, match="expected 3 frames, the reader gave 1"):
        write(tmp_path, [frame(0)], rows=3)


def test_an_error_keeps_the_old_file(tmp_path):
    write(tmp_path, [frame(0)])
    before = (tmp_path / "data.arrow").read_bytes()

    def frames():
        yield frame(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "data.arrow", frames(), store_schema({}), meta(2))
    with pytest.raises(StoreError, match="the manifest says"):
        write_shard(tmp_path / "data.arrow", [frame(5)], store_schema({}), meta(1), expect="0" * 64)
    assert (tmp_path / "data.arrow").read_bytes() == before
    assert names(tmp_path) == ["data.arrow"]


def test_reusable(tmp_path):
    record = write(tmp_path, [frame(0)])
    path = tmp_path / "data.arrow"
    assert reusable(path, meta(1)) == record
    assert reusable(path, {**meta(1), "source": "other"}) is None
    assert reusable(tmp_path / "absent", meta(1)) is None
    path.write_bytes(path.read_bytes()[:-300])
    assert reusable(path, meta(1)) is None
    path.write_bytes(b"nonsense")
    assert reusable(path, meta(1)) is None


def test_a_missing_shard_is_an_error_with_advice(tmp_path):
    with pytest.raises(StoreError, match="ncbench verify"):
        open_shard(tmp_path / shard_name(0, 1))


def big_frames(count):
    rng = np.random.default_rng(0)
    for index in range(count):
        yield frame(
            index, (200, 300), depth=rng.random((200, 300), np.float32), normal=np.broadcast_to(WALL, (200, 300, 3))
        )


def test_a_size_limit_says_so_and_cleans_up(tmp_path):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, old[1]))
    try:
        with pytest.raises(StoreError, match=r"data.arrow: the disk is full.*needed.*free now.*finished is kept"):
            write_shard(tmp_path / "data.arrow", big_frames(6), store_schema({}), meta(6))
        with pytest.raises(StoreError, match=r"card.yaml: the disk is full"):
            write_bytes(tmp_path / "card.yaml", b"x" * 500_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == []


def test_a_full_disk_says_so_and_cleans_up(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small tmpfs here")
    try:
        with pytest.raises(StoreError, match=r"disk is full.*No space left.*needed"):
            write_shard(disk / "data.arrow", big_frames(6), store_schema({}), meta(6))
        assert names(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_source_that_cannot_be_read_is_not_called_a_full_disk(tmp_path):
    def frames():
        yield frame(0)
        raise OSError(errno.ENOSPC, "raised by the reader")

    with pytest.raises(SourceError, match="source file cannot be read"):
        write_shard(tmp_path / "data.arrow", frames(), store_schema({}), meta(2))


def test_leftovers_are_only_ours(tmp_path):
    (tmp_path / ".data-00000-of-00001.arrow.17.ncbench-tmp").touch()
    (tmp_path / ".hidden").touch()
    assert [path.name for path in leftovers(tmp_path)] == [".data-00000-of-00001.arrow.17.ncbench-tmp"]
