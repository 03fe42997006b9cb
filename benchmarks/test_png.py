"""Decoding an 8-bit normal map of 480x640: kornia-rs, as ncbench does, against OpenCV and Pillow, same pixels."""

import io
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures_support import KINDS, bumpy_normals, prediction
from ncbench.datasets.formats.png import decode_png

ROUNDS = 100


def by_opencv(content):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGR2RGB)


def by_pillow(content):
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("kind", KINDS)
def test_decode(benchmark, kind):
    rng = np.random.default_rng(0)
    pixels, stream = prediction(kind, bumpy_normals(rng), rng), io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    content = stream.getvalue()
    decoders = {"ncbench": lambda: decode_png(content, "made"), "opencv": lambda: by_opencv(content)}
    decoders["pillow"] = lambda: by_pillow(content)
    times = {name: [] for name in decoders}
    for name, decode in decoders.items():
        np.testing.assert_array_equal(decode(), pixels, err_msg=name)
    for _ in range(ROUNDS):
        for name, decode in decoders.items():
            start = time.thread_time()
            decode()
            times[name].append(time.thread_time() - start)
    milliseconds = {name: 1e3 * float(np.median(found)) for name, found in times.items()}
    benchmark.pedantic(decoders["ncbench"], rounds=ROUNDS)
    benchmark.extra_info |= {"milliseconds": milliseconds, "bytes": len(content)}
    print()
    for name, found in milliseconds.items():
        print(f"{kind} {name:8} {found:5.2f} ms of CPU, {found / milliseconds['ncbench']:.1f} times ncbench's")
