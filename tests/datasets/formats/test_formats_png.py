"""PNG against files written by hand after the specification (W3C, second edition), other decoders, and under damage."""

import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ncbench.datasets.formats.png import check_png, decode_png, read_png
from ncbench.errors import SourceError

KINDS = [(dtype, channels) for dtype in (np.uint8, np.uint16) for channels in (1, 3, 4)]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, row step and column step of Adam7's passes (section 8.2)."""


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels, rows=None, filters=(0,), interlaced=False):
    """Write pixels (H, W) or (H, W, C), uint8 or uint16; row k takes filter ``filters[k % len(filters)]``.

    ``rows`` cuts the pixel data short while all checksums stay right.
    """
    bits, colour = 8 * pixels.dtype.itemsize, {1: 0, 3: 2, 4: 6}[1 if pixels.ndim == 2 else pixels.shape[2]]
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, colour, 0, 0, int(interlaced))
    places = PASSES if interlaced else ((0, 0, 1, 1),)
    parts = [pixels[row::down, column::right][:rows] for row, column, down, right in places]
    raw = b"".join(filtered(part, filters) for part in parts if part.size)
    return SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def filtered(pixels, filters):
    """Rows of bytes, each behind the number of its filter (section 9.2), in plain Python integers."""
    lines = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(len(pixels), -1).view(np.uint8).astype(int).tolist()
    step = len(lines[0]) // pixels.shape[1]
    out, above = b"", [0] * len(lines[0])
    for number, line in enumerate(lines):
        kind = filters[number % len(filters)]
        left, corner = [0] * step + line, [0] * step + above
        neighbours = zip(line, left, above, corner, strict=False)
        coded = [(x - (0, a, b, (a + b) // 2, paeth(a, b, c))[kind]) % 256 for x, a, b, c in neighbours]
        out, above = out + bytes([kind, *coded]), line
    return out


def paeth(a, b, c):
    """The neighbour that is nearest to left + above - corner; ties in that order."""
    return min((a, b, c), key=lambda value: abs(a + b - c - value))


def noise(shape, dtype=np.uint16, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


@given(
    st.sampled_from(KINDS),
    st.integers(1, 11),
    st.integers(1, 13),
    st.lists(st.integers(0, 4), min_size=1, max_size=5),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_every_plain_kind_filter_and_order_of_rows(kind, height, width, filters, interlaced, seed):
    dtype, channels = kind
    pixels = noise((height, width) if channels == 1 else (height, width, channels), dtype, seed)
    content = png(pixels, filters=filters, interlaced=interlaced)
    found = decode_png(content, "a.png")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pixels)
    opened = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)  # the writer above is itself right
    swapped = {1: opened, 3: opened[..., ::-1], 4: opened[..., [2, 1, 0, 3]] if channels == 4 else None}[channels]
    np.testing.assert_array_equal(swapped.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16"])
def test_what_pillow_writes(tmp_path, mode):
    shown = np.random.default_rng(1).integers(0, 256, (23, 31, 3), np.uint8)
    picture = Image.fromarray(shown).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(shown[..., 0].astype(np.uint16) * 257)
    path = tmp_path / "a.png"
    picture.save(path)
    expected = np.asarray(picture)
    if mode == "LA":  # two channels come as four
        expected = np.asarray(picture.convert("RGBA"))
    elif mode == "P":
        expected = np.asarray(picture.convert("RGB"))
    elif mode == "1":
        expected = expected.astype(np.uint8) * 255
    np.testing.assert_array_equal(read_png(path), expected)


def test_a_transparent_colour_becomes_alpha(tmp_path):
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 9
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=(0, 0, 0))
    found = read_png(tmp_path / "a.png")
    assert found.shape == (2, 2, 4)
    np.testing.assert_array_equal(found[..., 3], [[255, 0], [0, 0]])


def test_every_truncation_is_refused(tmp_path):
    content = png(noise((6, 5, 3)))
    path = tmp_path / "a.png"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(SourceError, match=r"a\.png"):
            read_png(path)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_flipped_bit_is_found(dtype, channels):
    pixels = noise((3, 4) if channels == 1 else (3, 4, channels), dtype)
    content = png(pixels, filters=(4, 1))
    for place in range(8 * len(content)):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(SourceError, match=r"a\.png"):
            decode_png(bytes(changed), "a.png")
        with pytest.raises(SourceError, match=r"a\.png"):
            check_png(bytes(changed), "a.png")


def test_short_pixel_data_or_an_absurd_size():
    with pytest.raises(SourceError, match="does not decode"):
        decode_png(png(noise((6, 5, 3)), rows=3), "a.png")
    head = struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 16, 2, 0, 0, 0)
    content = SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(SourceError, match="pixels, found 1073741824 x 1073741824"):
        decode_png(content, "a.png")
    head = struct.pack(">IIBBBBB", 1 << 14, 1 << 14, 16, 2, 0, 0, 0)
    content = SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(SourceError, match="cannot hold 16384 x 16384 pixels"):  # and asks for no gigabytes to find out
        decode_png(content, "a.png")
    with pytest.raises(SourceError, match="IHDR"):
        decode_png(SIGNATURE + chunk(b"IEND", b""), "a.png")


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=60, deadline=None)
def test_arbitrary_bytes_give_pixels_or_a_source_error(content, signed):
    with contextlib.suppress(SourceError):
        decode_png(SIGNATURE + content if signed else content, "a.png")
