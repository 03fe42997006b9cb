"""Pictures, masks, normal maps and depth maps: decoded values against arithmetic written out here, and damage."""

import io
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from ncbench.datasets.formats.images import image_file_size, image_size, read_depth_file, read_image_bytes, read_mask
from ncbench.datasets.formats.normal_maps import InvalidRule, open_normals, read_normal_file, unit_normals
from ncbench.errors import SourceError

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "exr"


def save_png16(path, rgb):
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]))


def write_exr(path, channels):
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, channels).write(str(path))


def some_normals():
    vectors = np.random.default_rng(0).normal(size=(6, 5, 3))
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_picture_bytes_are_the_file(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    content = read_image_bytes(path)
    assert content == path.read_bytes()
    assert image_size(content) == image_file_size(path) == (40, 30)


@pytest.mark.parametrize(("suffix", "missing"), [("png", 1), ("png", 500), ("jpg", 1), ("jpg", 2), ("jpg", 500)])
def test_truncated_pictures(tmp_path, suffix, missing):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 80, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(SourceError, match=r"a\.(png|jpg): "):
        read_image_bytes(path)


def test_a_png_under_another_name_is_checked_just_as_strictly(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(path, format="PNG")
    assert read_image_bytes(path) == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SourceError):
        read_image_bytes(path)


def test_not_a_picture(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"hello")
    for read in (read_image_bytes, image_file_size):
        with pytest.raises(SourceError, match=r"a\.jpg"):
            read(tmp_path / "a.jpg")
        with pytest.raises(SourceError, match=r"none\.png"):
            read(tmp_path / "none.png")
    with pytest.raises(SourceError, match="header"):
        image_size(b"hello")


def test_masks(tmp_path):
    grey = np.array([[0, 1], [255, 0]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey, grey * 0, grey * 0], -1)).save(tmp_path / "colour.png")
    for name in ("grey.png", "colour.png"):
        assert read_mask(tmp_path / name).tolist() == [[False, True], [True, False]]


def test_png8_normals_and_their_invalid_colours(tmp_path):
    pixels = np.array([[[255, 128, 0], [0, 0, 0], [128, 128, 128], [127, 127, 127], [0, 0, 255]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    normal, valid = read_normal_file(tmp_path / "a.png")
    assert valid.tolist() == [[True, False, False, False, True]]
    np.testing.assert_allclose(normal[0, 0], [1, 128 / 255 * 2 - 1, -1], atol=1e-7)
    np.testing.assert_allclose(normal[0, 4], [-1, -1, 1], atol=1e-7)
    assert not normal[~valid].any()
    assert normal.dtype == np.float32
    rule = InvalidRule(colours=((0, 0, 255), (0, 0, 65535)), min_norm=0)
    assert read_normal_file(tmp_path / "a.png", invalid=rule)[1].tolist() == [[True, True, True, True, False]]


def test_png8_alpha_zero_is_invalid(tmp_path):
    pixels = np.array([[[255, 128, 0, 255], [255, 128, 0, 0]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_normal_file(tmp_path / "a.png")[1].tolist() == [[True, False]]


def test_png16_normals_keep_sixteen_bits(tmp_path):
    truth = some_normals().astype(np.float64)
    pixels = np.rint((truth + 1) / 2 * 65535).astype(np.uint16)
    pixels[0, 0], pixels[0, 1] = 0, 32768
    save_png16(tmp_path / "a.png", pixels)
    normal, valid = read_normal_file(tmp_path / "a.png")
    assert not valid[0, :2].any()
    assert valid.sum() == 28
    np.testing.assert_allclose(normal[valid], truth[valid], atol=1 / 65535 + 1e-6)  # 8 bits would be off by 1/255


@pytest.mark.parametrize("layout", ["last", "first", "batch"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_array_normals_in_any_layout(tmp_path, layout, suffix):
    truth = some_normals()
    stored = {"last": truth, "first": truth.transpose(2, 0, 1), "batch": truth.transpose(2, 0, 1)[None]}[layout]
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, stored.astype(np.float64))
    else:
        np.savez(path, n=stored.astype(np.float64), z=np.zeros((6, 5)))
    normal, valid = read_normal_file(path, key="n" if suffix == "npz" else None)
    np.testing.assert_array_equal(normal, truth)
    assert valid.all()


def test_float_normals_without_direction_are_invalid(tmp_path):
    stored = np.tile(np.array([0, 0, -2.0], np.float32), (1, 6, 1))
    stored[0, 0] = 0
    stored[0, 1] = np.nan
    stored[0, 2, 0] = np.inf
    stored[0, 3] = [0, 0, 0.49]
    stored[0, 4] = [0, 0, 0.51]
    np.save(tmp_path / "a.npy", stored)
    normal, valid = read_normal_file(tmp_path / "a.npy")
    assert valid.tolist() == [[False, False, False, False, True, True]]
    assert np.isfinite(normal).all()
    assert normal[0, 5].tolist() == [0, 0, -2]  # not normalised here
    assert read_normal_file(tmp_path / "a.npy", invalid=InvalidRule(min_norm=0))[1][0, :4].tolist() == [
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("names", ["RGB", "XYZ", "xyz"])
def test_exr_normals_by_channel_name_not_by_order(tmp_path, names):
    truth = some_normals()
    write_exr(tmp_path / "a.exr", {name: np.ascontiguousarray(truth[..., i]) for i, name in enumerate(names)})
    np.testing.assert_array_equal(read_normal_file(tmp_path / "a.exr")[0], truth)


def test_exr_layers_need_a_key(tmp_path):
    truth = some_normals()
    layers = {f"normal.{n}": np.ascontiguousarray(truth[..., i]) for i, n in enumerate("XYZ")}
    layers |= {n: np.zeros((6, 5), np.float32) for n in "RGB"}
    write_exr(tmp_path / "a.exr", layers)
    np.testing.assert_array_equal(read_normal_file(tmp_path / "a.exr", key="normal")[0], truth)
    with pytest.raises(SourceError, match=r"found 2; its channels are \['B', 'G', 'R', 'normal\.X'"):
        read_normal_file(tmp_path / "a.exr")
    with pytest.raises(SourceError, match="named 'wrong', found 0"):
        read_normal_file(tmp_path / "a.exr", key="wrong")


def test_what_is_no_normal_map(tmp_path):
    np.save(tmp_path / "grey.npy", np.zeros((4, 5), np.float32))
    np.save(tmp_path / "bytes.npy", np.zeros((4, 5, 3), np.uint8))
    np.save(tmp_path / "empty.npy", np.zeros((0, 5, 3), np.float32))
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "a.tiff").write_bytes(b"")
    for name in ("grey.npy", "bytes.npy", "empty.npy", "grey.png", "a.tiff", "missing.npy"):
        with pytest.raises(SourceError, match=name):
            read_normal_file(tmp_path / name)


def test_depth_files_give_metres_and_zero_where_unknown(tmp_path):
    stored = np.array([[0, 5000], [1, 65535]], np.uint16)
    Image.fromarray(stored).save(tmp_path / "a.png")
    np.testing.assert_allclose(
        read_depth_file(tmp_path / "a.png", scale=1 / 5000), [[0, 1], [0.0002, 13.107]], rtol=1e-6
    )
    metres = np.array([[1.5, -1], [np.nan, np.inf]], np.float32)
    expected = [[1.5, 0], [0, 0]]
    np.save(tmp_path / "a.npy", metres[..., None])
    np.save(tmp_path / "b.npy", metres[None])
    np.savez(tmp_path / "a.npz", z=metres, other=metres)
    write_exr(tmp_path / "z.exr", {"Z": metres, "A": metres})
    write_exr(tmp_path / "one.exr", {"Y": metres})
    for name, key in (
        ("a.npy", None),
        ("b.npy", None),
        ("a.npz", "z"),
        ("z.exr", None),
        ("z.exr", "Z"),
        ("one.exr", None),
    ):
        depth = read_depth_file(tmp_path / name, key=key)
        assert depth.dtype == np.float32
        assert depth.tolist() == expected


def test_what_is_no_depth_map(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(SourceError, match="16 bits"):
        read_depth_file(tmp_path / "a.png")
    save_png16(tmp_path / "b.png", np.zeros((4, 5, 3), np.uint16))
    np.save(tmp_path / "c.npy", np.zeros((4, 5, 2)))
    write_exr(tmp_path / "d.exr", {"R": np.zeros((2, 2), np.float32), "G": np.zeros((2, 2), np.float32)})
    (tmp_path / "e.dpt").write_bytes(b"PIEH")
    (tmp_path / "f.txt").write_bytes(b"")
    for name in ("b.png", "c.npy", "d.exr", "e.dpt", "f.txt"):
        with pytest.raises(SourceError, match=name):
            read_depth_file(tmp_path / name)


def test_unit_normals_change_length_alone():
    stored = some_normals() * np.linspace(0.5, 3, 30).reshape(6, 5, 1).astype(np.float32)
    valid = np.ones((6, 5), bool)
    valid[0] = False
    unit = unit_normals(stored, valid)
    assert not unit[0].any()
    np.testing.assert_allclose(unit[1:], some_normals()[1:], atol=2e-7)
    assert unit.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unit_normals_of_a_file(tmp_path, dtype):
    rng = np.random.default_rng(6)
    stored = (rng.normal(size=(37, 29, 3)) * rng.uniform(0.2, 2, (37, 29, 1))).astype(dtype)
    stored[0, 0], stored[0, 1, 1], stored[0, 2, 2] = 0, np.nan, -np.inf
    keep = rng.random((37, 29)) > 0.2
    np.save(tmp_path / "a.npy", stored)
    normal, valid = open_normals(tmp_path / "a.npy").unit("dsine", (1, -1, 1), keep)
    exact = stored.astype(np.float32).astype(np.float64) * [-1, 1, -1]  # dsine negates all of OpenCV's axes
    length = np.sqrt((exact**2).sum(-1))
    with np.errstate(invalid="ignore"):
        expected = keep & np.isfinite(length) & (length >= 0.5)
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(normal[valid], (exact[valid] / length[valid, None]).astype(np.float32))
    assert not normal[~valid].any()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), stored)


def test_png_normals_equal_the_formula(tmp_path):
    pixels = np.random.default_rng(7).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    save_png16(tmp_path / "a.png", pixels)
    exact = (pixels.astype(np.float64) / 65535 * 2 - 1).astype(np.float32).astype(np.float64)
    length = np.sqrt((exact**2).sum(-1))
    normal, valid = open_normals(tmp_path / "a.png").unit("opencv")
    np.testing.assert_array_equal(valid, length >= 0.5)
    np.testing.assert_array_equal(normal[valid], (exact[valid] / length[valid, None]).astype(np.float32))


def test_lengths_that_are_no_normals(tmp_path):
    off = np.tile(some_normals(), (40, 50, 1)) * np.float32(1.06)
    off[::2, ::3] = np.nan
    np.save(tmp_path / "off.npy", off)
    with pytest.raises(SourceError, match=r"off\.npy: expected unit normals, found lengths that are off 1 by 0.06"):
        open_normals(tmp_path / "off.npy").check_lengths()
    np.save(tmp_path / "on.npy", off / np.float32(1.04))
    open_normals(tmp_path / "on.npy").check_lengths()
    np.save(tmp_path / "none.npy", off * np.nan)
    open_normals(tmp_path / "none.npy").check_lengths()


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="real EXR files are not here")
def test_real_exr_depth():
    room = read_depth_file(REAL / "habitat_van-gogh-room.depth_ndc.exr")
    assert room.shape == (240, 320)
    assert (room > 0.97).all()
    ball = read_depth_file(REAL / "openexr_beachball_multipart.0001.exr", key="depth_left")
    assert ball.shape == (1556, 2048)
    with pytest.raises(SourceError, match="found 2"):
        read_depth_file(REAL / "openexr_beachball_multipart.0001.exr")
    assert read_normal_file(REAL / "openexr_beachball_multipart.0001.exr", key="rgba_left")[0].shape == (1556, 2048, 3)


def test_image_size_needs_only_the_beginning():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((300, 200, 3), np.uint8)).save(stream, "PNG")
    assert image_size(stream.getvalue()[:64]) == (300, 200)


@pytest.mark.parametrize("bits", [8, 16])
def test_every_colour_means_what_the_formula_says(tmp_path, bits):
    codes = np.arange(2**bits).reshape(-1, 64)
    pixels = np.stack([codes, codes[::-1], codes[:, ::-1]], -1).astype(f"uint{bits}")
    save_png16(tmp_path / "a.png", pixels)  # OpenCV keeps either depth
    normal, valid = read_normal_file(tmp_path / "a.png", invalid=InvalidRule(colours=(), min_norm=0))
    highest = 2**bits - 1
    np.testing.assert_array_equal(normal, (pixels.astype(np.float64) / highest * 2 - 1).astype(np.float32))
    assert valid.all()
