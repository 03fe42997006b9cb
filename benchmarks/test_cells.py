"""Which coding of a normal map? Size, speed to and from unit float32 on one thread, and error, of ours and of rivals.

Run ``pytest benchmarks/test_cells.py``; it prints two tables, one of normals and one of depth and flow. Normal maps:
those of the Middlebury motorcycle (real, noisy, holes), and a synthetic one of curved surfaces and planes (smooth).
"""

import io
import time
from pathlib import Path
from typing import NamedTuple

import blosc2
import h5py
import lz4.frame
import numpy as np
import pytest
import zstandard
from PIL import Image
from skimage.data import stereo_motorcycle

from ncbench.datasets.cells import Codec, _from_planes, _to_planes, decode_cell, encode_cell
from ncbench.geometry.octahedral import decode_octahedral, encode_octahedral

FOCAL, BASELINE, OFFSET, CENTRE = 994.978, 0.193001, 31.086, (311.193, 254.877)


def from_points(points):
    """Unit normals by central differences; zero where a neighbour is missing."""
    across, down = np.full_like(points, np.nan), np.full_like(points, np.nan)
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    normals = np.cross(down, across)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.nan_to_num(normals, nan=0.0).astype(np.float32)


def motorcycle():
    disparity = stereo_motorcycle()[2].astype(np.float64)
    depth = np.where(np.isfinite(disparity), FOCAL * BASELINE / (disparity + OFFSET), np.nan)
    y, x = np.indices(depth.shape)
    return from_points(np.stack([(x - CENTRE[0]) / FOCAL * depth, (y - CENTRE[1]) / FOCAL * depth, depth], axis=-1))


def smooth():
    y, x = np.indices((480, 640)) / 480
    normals = np.stack(
        [0.6 * np.sin(5 * x) * np.cos(3 * y), 0.5 * np.cos(4 * x + 2 * y), np.full_like(x, -1.0)], axis=-1
    )
    normals[:, :200] = (0, 0, -1)
    normals[320:, 200:420] = (0.1, -0.9, -0.4)
    return (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)


class Rival(NamedTuple):
    encode: object
    decode: object  # (bytes, height, width) -> (H, W, 3) unit float32


def zstd(array):
    return zstandard.ZstdCompressor(level=1).compress(np.ascontiguousarray(array).data)


def codes_of(data, height, width):
    """Two planes of codes -> unit normals."""
    return decode_octahedral(np.moveaxis(np.frombuffer(data, np.uint16).reshape(2, height, width), 0, -1))


def code_planes(normals):
    return np.moveaxis(encode_octahedral(normals), -1, 0)


def unit(vectors):
    length = np.sqrt(np.einsum("hwc,hwc->hw", vectors, vectors))
    return vectors / np.maximum(length, np.float32(1e-6))[..., None]


def with_blosc(*filters):
    settings = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "typesize": 2, "nthreads": 1, "filters": list(filters)}

    def encode(normals):
        return blosc2.compress2(np.ascontiguousarray(code_planes(normals)), **settings)

    return Rival(encode, lambda data, h, w: codes_of(blosc2.decompress2(data, nthreads=1), h, w))


def lz4_decode(data, height, width):
    planes = np.frombuffer(lz4.frame.decompress(data), np.uint8)
    return decode_octahedral(_from_planes(planes, (height, width, 2), 2))


def half_decode(data, height, width):
    raw = zstandard.ZstdDecompressor().decompress(data)
    return unit(np.frombuffer(raw, np.float16).reshape(height, width, 3).astype(np.float32))


def png_encode(normals):
    stream = io.BytesIO()
    Image.fromarray(np.rint(normals * 127 + 128).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def png_decode(data, _height, _width):
    codes = np.asarray(Image.open(io.BytesIO(data)))
    return unit((codes.astype(np.float32) - 128) / 127)


RIVALS = {
    "ours: octahedral, delta, zigzag, planes, zstd 1": Rival(
        lambda n: encode_cell(n, Codec.NORMALS), lambda data, _h, _w: decode_cell(data)
    ),
    "octahedral, zstd 1": Rival(
        lambda n: zstd(code_planes(n)), lambda data, h, w: codes_of(zstandard.ZstdDecompressor().decompress(data), h, w)
    ),
    "octahedral, blosc2 shuffle, zstd 1": with_blosc(blosc2.Filter.SHUFFLE),
    "octahedral, blosc2 bitshuffle, zstd 1": with_blosc(blosc2.Filter.BITSHUFFLE),
    "octahedral, blosc2 delta, shuffle, zstd 1": with_blosc(blosc2.Filter.DELTA, blosc2.Filter.SHUFFLE),
    "octahedral, delta, zigzag, planes, lz4": Rival(
        lambda n: lz4.frame.compress(_to_planes(encode_octahedral(n)).data), lz4_decode
    ),
    "float16 xyz, zstd 1": Rival(lambda n: zstd(n.astype(np.float16)), half_decode),
    "8-bit PNG": Rival(png_encode, png_decode),
}
MAPS = {"motorcycle": motorcycle, "smooth": smooth}
ROUNDS = 15


@pytest.fixture(scope="module")
def table(request):
    rows = []
    yield rows
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print("\n| map | coding | bytes/pixel | encode Mpixel/s | decode Mpixel/s | error mean, degrees | max |")
        print("|---|---|---|---|---|---|---|")
        for row in rows:
            print("| {} | {} | {:.2f} | {:.0f} | {:.0f} | {:.4f} | {:.4f} |".format(*row))


@pytest.fixture(scope="module", params=list(MAPS))
def normals(request):
    return request.param, MAPS[request.param]()


@pytest.mark.parametrize("name", list(RIVALS))
def test_normals(benchmark, table, normals, name):
    label, truth = normals
    rival = RIVALS[name]
    height, width, _ = truth.shape
    data = rival.encode(truth)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        rival.encode(truth)
        seconds.append(time.perf_counter() - start)
    found = benchmark.pedantic(rival.decode, (data, height, width), rounds=ROUNDS, warmup_rounds=2)
    a, b = found.astype(np.float64), truth.astype(np.float64)
    valid = (truth != 0).any(axis=-1)
    error = np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1)))[valid]
    pixels = height * width
    row = (len(data) / pixels, pixels / min(seconds) / 1e6, pixels / benchmark.stats.stats.min / 1e6)
    table.append((label, name, *row, error.mean(), error.max()))
    benchmark.extra_info.update(bytes_per_pixel=row[0], encode_mpixel_s=row[1], max_error_degrees=error.max())


REAL = Path(__file__).resolve().parents[1].parent / "shared" / "real"


def scalar_maps():
    """Depth and flow from real files; only the motorcycle where the sample files are not beside the checkout."""
    disparity = stereo_motorcycle()[2].astype(np.float64)
    depth = np.where(np.isfinite(disparity), FOCAL * BASELINE / (disparity + OFFSET), 0)
    maps = {"motorcycle, depth": [depth.astype(np.float32)]}
    for label, pattern in (("ICL-NUIM, depth", "icl_nuim_slambook/depth/*.png"), ("TUM fr1, depth", "tum*/*depth.png")):
        pictures = [np.asarray(Image.open(path)) for path in sorted(REAL.glob(pattern))]
        maps[f"{label} (from 16-bit PNG)"] = [(picture / 5000).astype(np.float32) for picture in pictures]
    files = sorted(REAL.glob("hypersim/*/images/*/*depth_meters.hdf5"))
    maps["Hypersim, distance (from float16)"] = [h5py.File(path)["dataset"][:].astype(np.float32) for path in files]
    flows = [np.fromfile(path, np.float32) for path in sorted(REAL.glob("sintel/*/flow/*.flo"))]
    maps["Sintel, flow"] = [flow[3:].reshape(*flow.view(np.int32)[2:0:-1], 2) for flow in flows]
    return maps


def byte_planes(values):
    return np.ascontiguousarray(values.reshape(-1).view(np.uint8).reshape(-1, 4).T)


def test_depth_and_flow(capsys):
    with capsys.disabled():
        print("\n| map, bytes per float32 | as is | byte planes | difference, planes | difference, zigzag, planes |")
        print("|---|---|---|---|---|")
        for label, arrays in scalar_maps().items():
            sizes = np.zeros(4)
            for array in arrays:
                words = np.moveaxis(np.atleast_3d(array).view(np.uint32), -1, 0)
                change = np.diff(words, axis=-1, prepend=np.uint32(0))
                payloads = (array, byte_planes(words), byte_planes(change), _to_planes(array.view(np.uint32)))
                sizes += [len(zstd(payload)) / array.size / len(arrays) for payload in payloads]
            print(f"| {label} |", " | ".join(f"{size:.2f}" for size in sizes), "|")
