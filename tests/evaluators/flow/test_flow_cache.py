"""The cache answers what the source would, once, and survives damage."""

import os
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from ncbench.errors import ScoreError, StoreError
from ncbench.evaluators.flow.base import Correspondence, FlowSource
from ncbench.evaluators.flow.cache import CachedFlow
from ncbench.evaluators.flow.dis import DisFlow, DisSettings
from ncbench.evaluators.flow.gt import GtFlow
from ncbench.evaluators.view import View

SIZE = (16, 20)


class Counting(FlowSource):
    """Answers with a difference of the pictures, and counts."""

    estimated: ClassVar[bool] = True

    def __init__(self, name="counting"):
        self.calls = 0
        self._name = name

    @property
    def name(self):
        return self._name

    def match(self, a, b):
        self.calls += 1
        return Correspondence((b.image[..., :2].astype(np.float32) - a.image[..., :2]) / 3, None)


def view(seed, size=SIZE):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return View("clip", seed, np.zeros((*size, 3), np.float32), np.zeros(size, bool), image=image)


def test_a_second_call_is_answered_from_disk(tmp_path):
    source, folder = Counting(), tmp_path / "deep" / "cache"
    a, b = view(0), view(1)
    expected = source.match(a, b).flow
    for _ in range(2):
        match = CachedFlow(source, folder).match(a, b)
        np.testing.assert_array_equal(match.flow, expected)
        assert match.flow.dtype == np.float32
        assert match.visible is None
    assert source.calls == 2  # one of them without the cache
    assert [path.suffix for path in folder.iterdir()] == [".npz"]  # and nothing temporary


def test_the_content_decides_not_the_place(tmp_path):
    source = Counting()
    cached = CachedFlow(source, tmp_path)
    a, b = view(0), view(1)
    cached.match(a, b)
    cached.match(replace(a, sequence="copy", frame=7), replace(b, sequence="copy", frame=8))
    assert source.calls == 1
    cached.match(b, a)  # the other direction
    assert source.calls == 2
    changed = a.image.copy()
    changed[3, 4, 1] ^= 1
    cached.match(replace(a, image=changed), b)
    assert source.calls == 3
    CachedFlow(Counting("other settings"), tmp_path).match(a, b)
    assert len(list(tmp_path.glob("*.npz"))) == 4


def test_pictures_of_another_shape_but_equal_bytes(tmp_path):
    source = Counting()
    cached = CachedFlow(source, tmp_path)
    a, b = view(0), view(1)
    cached.match(a, b)
    turned = [replace(one, image=one.image.reshape(SIZE[1], SIZE[0], 3)) for one in (a, b)]
    assert cached.match(*turned).flow.shape == (SIZE[1], SIZE[0], 2)
    assert source.calls == 2


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "other"])
def test_damaged_entries_are_computed_anew(tmp_path, damage):
    source = Counting()
    cached = CachedFlow(source, tmp_path)
    a, b = view(0), view(1)
    expected = cached.match(a, b).flow
    (entry,) = tmp_path.glob("*.npz")
    content = bytearray(entry.read_bytes())
    if damage == "truncate":
        entry.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 0x40
        entry.write_bytes(content)
    elif damage == "empty":
        entry.write_bytes(b"")
    else:
        np.savez(entry, flow=np.zeros((2, 2, 2), np.float32))
    np.testing.assert_array_equal(cached.match(a, b).flow, expected)
    np.testing.assert_array_equal(CachedFlow(source, tmp_path).match(a, b).flow, expected)
    assert source.calls == 2


def test_the_folder_stays_within_its_bound(tmp_path):
    source, a = Counting(), view(0)
    once = CachedFlow(source, tmp_path)
    once.match(a, view(1))
    (first,) = tmp_path.glob("*.npz")
    size = first.stat().st_size
    cached = CachedFlow(source, tmp_path, limit=int(4.5 * size))
    for seed in range(2, 5):
        cached.match(a, view(seed))
    for age, path in enumerate(sorted(tmp_path.glob("*.npz"), key=lambda path: path != first)):
        os.utime(path, (1000 + age, 1000 + age))
    cached.match(a, view(1))  # used again: the oldest is now another
    cached.match(a, view(5))
    entries = list(tmp_path.glob("*.npz"))
    assert first in entries
    assert sum(path.stat().st_size for path in entries) <= 4.5 * size
    calls = source.calls
    cached.match(a, view(5))
    assert source.calls == calls


def test_a_bound_below_one_entry_keeps_the_newest(tmp_path):
    cached = CachedFlow(Counting(), tmp_path, limit=1)
    cached.match(view(0), view(1))
    cached.match(view(0), view(2))
    assert len(list(tmp_path.glob("*.npz"))) == 1


def test_only_estimates_are_cached(tmp_path):
    with pytest.raises(ScoreError, match="flow source 'gt' is not estimated"):
        CachedFlow(GtFlow(), tmp_path)
    cached = CachedFlow(DisFlow(DisSettings(finest_scale=1)), tmp_path)
    assert cached.name == "dis-medium-scale1"
    assert cached.estimated
    with pytest.raises(ScoreError, match="looks at pictures"):
        cached.match(replace(view(0), image=None), view(1))


def test_a_folder_that_is_a_file(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("here")
    with pytest.raises(StoreError, match="cannot be written"):
        CachedFlow(Counting(), blocked).match(view(0), view(1))
