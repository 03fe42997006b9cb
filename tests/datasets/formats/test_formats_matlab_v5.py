"""What passes the check of MATLAB version 5 files never ends the interpreter; what MATLAB may write passes."""

import io
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from ncbench.datasets.formats.matlab import read_mat5
from ncbench.datasets.formats.matlab_v5 import check_mat5
from ncbench.errors import SourceError

VALUES = {
    "a": np.arange(12.0).reshape(3, 4),
    "data": {
        "rgb": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        "name": "text",
        "paras": np.zeros((0, 7)),
        "inner": {"x": np.float32(3), "cells": np.array([["x", np.eye(2)]], dtype=object)},
    },
    "cells": np.array([["x", np.eye(2)]], dtype=object),
    "complex": np.eye(2) * (1 + 2j),
    "logical": np.array([True, False]),
}
CHILD = """
import io, pickle, sys
from scipy.io import loadmat
for place, content in enumerate(pickle.load(open(sys.argv[1], "rb"))):
    sys.stdout.write(f"{place}\\n")
    sys.stdout.flush()
    try:
        loadmat(io.BytesIO(content))
    except Exception:
        pass
"""


def written(values=VALUES, **options):
    out = io.BytesIO()
    savemat(out, values, **options)
    return out.getvalue()


def number(value):
    return struct.pack("<I", value)


# words that mean something to a decoder: types, classes, short elements, absurd sizes
WORDS = [number(value) for value in (*range(19), 255, 0x80E, 1 << 16 | 1, 5 << 16 | 1, 1 << 20, 2**31 - 1, 2**32 - 1)]


def damage(content, rng):
    bad, kind = bytearray(content), rng.integers(5)
    if kind < 2:
        for place in rng.integers(124, len(content), rng.integers(1, 5)):
            bad[place] = rng.integers(256) if rng.random() < 0.5 else bad[place] ^ 1 << rng.integers(8)
    elif kind == 2:
        for place in rng.integers(32, len(content) // 4, rng.integers(1, 4)):
            bad[4 * place : 4 * place + 4] = WORDS[rng.integers(len(WORDS))]
    elif kind == 3:  # a splice that keeps elements whole
        to, source, size = 8 * rng.integers(16, len(content) // 8, 3)
        size = size % 96 + 8
        bad[to : to + size] = content[source : source + size]
    else:
        del bad[rng.integers(len(bad)) :]
    return bytes(bad)


def accepted(content):
    try:
        return check_mat5(content, VALUES).content
    except (ValueError, zlib.error):
        return None


def test_no_accepted_file_ends_the_interpreter(tmp_path):
    """Whole files of every kind of matrix, damaged 6000 times; without the check about one in forty crashes SciPy."""
    rng = np.random.default_rng(0)
    content = written()
    damaged = [accepted(damage(content, rng)) for _ in range(6000)]
    kept = list(dict.fromkeys(found for found in damaged if found is not None))
    assert len(kept) > 300
    assert damaged.count(None) > 3000
    cases = tmp_path / "cases"
    cases.write_bytes(pickle.dumps(kept))
    child = subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD, cases], capture_output=True, text=True)
    assert child.returncode == 0, f"case {child.stdout.split()[-1:]} of {len(kept)}: {child.stderr}"
    assert len(child.stdout.split()) == len(kept)


def same(a, b):
    assert a.dtype.names == b.dtype.names
    if a.dtype.names:
        for name in a.dtype.names:
            same(a[name], b[name])
    elif a.dtype == object:
        assert a.shape == b.shape
        for one, other in zip(a.ravel(), b.ravel(), strict=True):
            same(one, other)
    else:
        np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("compressed", [True, False])
def test_values_are_those_of_scipy(compressed):
    content = written(do_compression=compressed)
    checked = check_mat5(content, VALUES)
    assert checked.names == list(VALUES)
    ours, theirs = loadmat(io.BytesIO(checked.content)), loadmat(io.BytesIO(content))
    for name in VALUES:
        same(ours[name], theirs[name])


def test_only_the_wanted_variables_are_checked(tmp_path):
    """A class that is not read here does no harm in a variable that nobody asks for."""
    from scipy.sparse import eye_array

    path = tmp_path / "a.mat"
    path.write_bytes(written({"sparse": eye_array(3).tocsc(), "b": np.eye(2)}))
    np.testing.assert_array_equal(read_mat5(path, ["b"])["b"], np.eye(2))
    with pytest.raises(SourceError, match="class 5, 0 levels deep, is not read here"):
        read_mat5(path, ["sparse"])
    assert check_mat5(path.read_bytes(), ["b"]).content.count(b"sparse") == 0


def element(kind, body, order="little"):
    return kind.to_bytes(4, order) + len(body).to_bytes(4, order) + body + bytes(-len(body) % 8)


def matrix(matlab_class, *parts, sides=(1, 2), name=b"a", order="little"):
    """A variable element by element, as the format's description has it."""
    flags = matlab_class.to_bytes(4, order) + bytes(4)
    dimensions = b"".join(side.to_bytes(4, order, signed=True) for side in sides)
    header = element(6, flags, order) + element(5, dimensions, order) + element(1, name, order)
    return element(14, header + b"".join(parts), order)


def file(*variables, order="little"):
    mark = b"IM" if order == "little" else b"MI"
    return b"MATLAB 5.0".ljust(124) + (0x100).to_bytes(2, order) + mark + b"".join(variables)


def packed(content):
    deflated = zlib.compress(content)
    return struct.pack("<II", 15, len(deflated)) + deflated


def nested(levels):
    return matrix(9, element(2, b"")[:8], sides=(0, 0)) if levels == 0 else matrix(1, nested(levels - 1), sides=(1, 1))


def test_big_endian():
    content = file(matrix(9, element(2, b"\x07\x09", "big"), order="big"), order="big")
    np.testing.assert_array_equal(loadmat(io.BytesIO(check_mat5(content, "a").content))["a"], [[7, 9]])


WHOLE = matrix(9, element(2, b"\x07\x09"))
SHORT = struct.pack("<HH", 2, 5) + b"\x07\x09\x00\x00"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (file(WHOLE)[:126] + b"??", "byte order"),
        (file(WHOLE)[:124] + b"\0\2IM", "version field 2"),
        (file(element(9, bytes(8))), "type 9 at byte 128, where a variable"),
        (file(WHOLE)[:-8], "which are not there"),
        (file(WHOLE) + b"\0\0\0", "which are not there"),
        (file(WHOLE, WHOLE), "two variables of one name"),
        (file(matrix(9, element(11, b""), sides=(0, 7))), "0 numbers in 0 bytes of type 11"),  # a crash in SciPy
        (file(matrix(9, element(2, b"\x07\x09\x0b"))), "2 numbers in 3 bytes"),
        (file(matrix(9, SHORT)), "claims 5 bytes"),
        (file(matrix(9, element(2, bytes(2)), sides=(-1, -2))), "a side of -1"),
        (file(matrix(9, element(2, bytes(2)), sides=(2**31 - 1, 2**31 - 1))), "claims a side"),
        (file(matrix(9, element(2, bytes(2)), sides=(0, 2**30))), "claims a side"),
        (file(matrix(9, element(2, bytes(2)), sides=(1, 2000))), "claims 2000 entries"),
        (file(matrix(9, element(2, bytes(2)), sides=(1,) * 33)), "dimensions"),
        (file(matrix(9, element(2, bytes(2)), element(2, bytes(2)))), "holds data up to byte"),
        (file(matrix(9 | 0x800, element(2, bytes(2)))), "which are not there"),
        (file(matrix(4, element(3, bytes(2)))), "text of type 3"),
        (file(matrix(1, WHOLE)), "which are not there"),
        (file(matrix(1, element(9, bytes(8)), sides=(1, 1))), "expected a matrix"),
        (file(matrix(2, element(5, number(0)), element(1, b"x"))), "length of field names 0"),  # divides by it
        (file(matrix(2, element(5, number(2)), element(1, b"x"))), "field names"),
        (file(matrix(3, element(1, b"class"))), "class 3"),
        (file(nested(20)), "16 levels deep"),
        (file(packed(WHOLE + b"more")), "longer than it claims"),
        (file(packed(WHOLE[:-4])), "ends after"),
        (file(packed(element(14, b"")[:4] + number(2**31))), "claims type 14"),
        (file(packed(b"")), "claims type 0"),
        (file(struct.pack("<II", 15, 20) + packed(WHOLE)[8:28]), "ends after"),
    ],
)
def test_what_is_refused(content, words, tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=words) as caught:
        read_mat5(path, ["a"])
    assert str(path) in str(caught.value)


def test_a_missing_checksum_is_noticed():
    cut = packed(WHOLE)
    cut = struct.pack("<II", 15, len(cut) - 12) + cut[8:-4]
    with pytest.raises(ValueError, match="checksum is cut off"):
        check_mat5(file(cut), "a")
