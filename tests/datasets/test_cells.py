import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ncbench.datasets.cells import MAGIC, Codec, decode_cell, encode_cell, is_cell
from ncbench.errors import StoreError

NUMBERS = ["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"]
sides = st.lists(st.integers(1, 12), min_size=1, max_size=3).map(tuple)


def degrees_between(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(NUMBERS), sides)
def test_lossless_keeps_every_bit(data, kind, shape):
    raw = data.draw(hnp.arrays(np.uint8, (*shape, np.dtype(kind).itemsize)))
    array = raw.view(kind)[..., 0]  # any bit pattern: NaN payloads, infinities, negative zeros
    back = decode_cell(encode_cell(array, Codec.LOSSLESS))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@settings(max_examples=60, deadline=None)
@given(sides.flatmap(lambda shape: hnp.arrays(np.bool_, shape)))
def test_masks(mask):
    back = decode_cell(encode_cell(mask, Codec.MASK))
    np.testing.assert_array_equal(back, mask)
    assert back.dtype == np.bool_


@pytest.fixture(scope="module")
def normals():
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(37, 53, 3))
    vectors[..., 2] = -np.abs(vectors[..., 2])
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[rng.random((37, 53)) < 0.2] = 0
    return vectors.astype(np.float32)


def test_normals_within_coding_precision(normals):
    back = decode_cell(encode_cell(normals, Codec.NORMALS))
    valid = (normals != 0).any(-1)
    assert back.dtype == np.float32
    assert degrees_between(back, normals)[valid].max() < 0.004
    assert (back[~valid] == 0).all()
    again = decode_cell(encode_cell(back, Codec.NORMALS))
    np.testing.assert_array_equal(again, back)  # coding twice loses nothing more


def test_non_finite_normals_come_back_zero(normals):
    broken = normals.copy()
    broken[0, 0], broken[1, 1] = np.nan, (np.inf, 0, 0)
    back = decode_cell(encode_cell(broken, Codec.NORMALS))
    assert (back[[0, 1], [0, 1]] == 0).all()


def test_views_are_packed_like_copies(normals):
    view = normals[::-2, 3:]
    assert encode_cell(view, Codec.NORMALS) == encode_cell(view.copy(), Codec.NORMALS)
    flow = normals[..., :2]
    assert encode_cell(flow, Codec.LOSSLESS) == encode_cell(flow.copy(), Codec.LOSSLESS)


def test_decoded_arrays_are_writable_and_contiguous(normals):
    for cell in (encode_cell(normals, Codec.NORMALS), encode_cell(normals, Codec.LOSSLESS)):
        array = decode_cell(cell)
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_the_decoder_of_the_documentation_agrees(normals):
    """It uses nothing of ncbench, so that it is a second opinion on the format too."""
    text = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {}
    exec(code, names)  # noqa: S102 - our own documentation
    cell = encode_cell(normals, Codec.NORMALS)
    np.testing.assert_allclose(names["decode_normals"](cell), decode_cell(cell), atol=3e-7)


def suited(normals, codec):
    """The normals as something that a codec takes."""
    if codec is Codec.MASK:
        return normals[..., 0] > 0
    return (normals * 100).astype(np.int8).view(np.uint8) if codec is Codec.COLOURS else normals


@pytest.mark.parametrize("codec", list(Codec))
def test_decoding_into_memory_that_is_there(normals, codec):
    cell = encode_cell(suited(normals, codec), codec)
    expected = decode_cell(cell)
    place = np.ones((2, *expected.shape), expected.dtype)[1]
    assert decode_cell(cell, place) is place
    np.testing.assert_array_equal(place, expected)
    for wrong in (place[:-1], place.astype(np.float16), np.asfortranarray(place)):
        with pytest.raises(StoreError, match="to decode into"):
            decode_cell(cell, wrong)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_colours_keep_every_bit(colours):
    back = decode_cell(encode_cell(colours, Codec.COLOURS))
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, colours)


@pytest.mark.parametrize("codec", list(Codec))
def test_truncated_anywhere(normals, codec):
    array = suited(normals, codec)
    cell = encode_cell(array, codec)
    for end in {*range(40), *range(0, len(cell), 997), len(cell) - 1}:
        with pytest.raises(StoreError):
            decode_cell(cell[:end])
    with pytest.raises(StoreError):
        decode_cell(cell + b"x")


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from(list(Codec)))
def test_a_flipped_bit_never_changes_the_array(normals, data, codec):
    array = suited(normals, codec)
    cell = bytearray(encode_cell(array, codec))
    expected = decode_cell(bytes(cell))
    at = data.draw(st.one_of(st.integers(0, 40), st.integers(0, len(cell) - 1)))
    cell[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = decode_cell(bytes(cell))
    except StoreError:
        return
    np.testing.assert_array_equal(found, expected)  # a bit that zstd reserves or does not use


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage(data):
    for candidate in (data, MAGIC + data, MAGIC + b"\x01" + data):
        with pytest.raises(StoreError):
            decode_cell(candidate)


def forged(codec, kind, shape, frame):
    head = struct.pack(f"<4s4B{len(shape)}I", MAGIC, 1, codec, kind, len(shape), *shape)
    return head + struct.pack("<I", zlib.crc32(head)) + frame


@pytest.mark.parametrize(
    "shape", [(2**32 - 1, 2**32 - 1), (2**32 - 1, 2**32 - 1, 3), (60000, 60000, 3), (16000, 16000)]
)
def test_a_forged_shape_allocates_nothing(shape, monkeypatch):
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("allocated"))
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(b"tiny")
    with pytest.raises(StoreError):
        decode_cell(forged(1, 10, shape, frame))


def test_a_forged_content_size_allocates_nothing(monkeypatch):
    monkeypatch.setattr(zstandard, "ZstdDecompressor", lambda *_: pytest.fail("decompressed"))
    size = 16000 * 16000 * 4
    frame = struct.pack("<IBQ", 0xFD2FB528, 0b11100100, size) + b"\x01\x00\x00" + b"abcd"
    assert zstandard.get_frame_parameters(frame).content_size == size
    with pytest.raises(StoreError, match="cannot hold"):
        decode_cell(forged(1, 10, (16000, 16000), frame))


@pytest.mark.parametrize(
    ("codec", "kind", "shape"),
    [(0, 10, (1, 1)), (9, 10, (1, 1)), (1, 0, (4,)), (1, 99, (1,)), (1, 10, (0, 4)), (2, 10, (2, 2)), (3, 10, (2, 2))],
)
def test_a_header_that_makes_no_sense(codec, kind, shape):
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(b"0123")
    with pytest.raises(StoreError, match="damaged"):
        decode_cell(forged(codec, kind, shape, frame))


def test_a_newer_container_asks_for_an_update():
    cell = bytearray(encode_cell(np.ones((2, 2), np.float32), Codec.LOSSLESS))
    cell[4] = 2
    with pytest.raises(StoreError, match="Update ncbench"):
        decode_cell(bytes(cell))


@pytest.mark.parametrize(
    ("array", "codec"),
    [
        (np.ones((2, 2)), Codec.MASK),
        (np.ones((2, 2), bool), Codec.LOSSLESS),
        (np.ones((2, 2), complex), Codec.LOSSLESS),
        (np.array([["a"]]), Codec.LOSSLESS),
        (np.ones((2, 2, 4)), Codec.NORMALS),
        (np.ones((2, 2, 3), int), Codec.NORMALS),
        (np.ones((2, 2, 3), int), Codec.COLOURS),
        (np.ones((2, 3), np.uint8), Codec.COLOURS),
        (np.ones((0, 3)), Codec.LOSSLESS),
        (np.float32(1) * np.ones(()), Codec.LOSSLESS),
        (np.ones((1, 1, 1, 1)), Codec.LOSSLESS),
    ],
)
def test_arrays_that_do_not_suit(array, codec):
    with pytest.raises(StoreError, match="cell's array"):
        encode_cell(np.asarray(array), codec)


def test_is_cell():
    assert is_cell(encode_cell(np.ones(3), Codec.LOSSLESS))
    assert not is_cell(b"")
    assert not is_cell(b"\x89PNG")
