"""Many clips of one kind by a single entry of a card."""

import filecmp

import pytest

from ncbench.datasets.mini.layouts import LayoutSettings, write_folder_layout
from ncbench.errors import CardError

SMALL = {"seed": 3, "frames": 2, "height": 8, "width": 12}


def sequences(*entries):
    return [
        (clip.name, clip.seed) for clip in LayoutSettings.parse({**SMALL, "sequences": list(entries)}, "x").sequences
    ]


def test_a_count_stands_for_numbered_clips():
    listed = sequences({"name": "a", "kind": "room", "count": 2}, {"name": "b", "kind": "objects"})
    assert listed == [("a_000", None), ("a_001", None), ("b", None)]
    assert sequences({"name": "a", "kind": "room", "count": 3, "seed": 5}) == [("a_000", 5), ("a_001", 6), ("a_002", 7)]


def test_counted_clips_are_those_of_their_names_and_differ_from_each_other(tmp_path):
    write_folder_layout(tmp_path / "counted", {**SMALL, "sequences": [{"name": "a", "kind": "objects", "count": 2}]})
    named = [{"name": name, "kind": "objects"} for name in ("a_000", "a_001")]
    write_folder_layout(tmp_path / "named", {**SMALL, "sequences": named})
    pictures = [f"{name}/rgb/0000.png" for name in ("a_000", "a_001")]
    _, differ, errors = filecmp.cmpfiles(tmp_path / "counted", tmp_path / "named", pictures, shallow=False)
    assert not differ
    assert not errors
    first, second = ((tmp_path / "counted" / name).read_bytes() for name in pictures)
    assert first != second


def test_a_numbered_name_that_is_taken_is_refused():
    with pytest.raises(CardError, match="more than once: a_000"):
        sequences({"name": "a", "kind": "room", "count": 1}, {"name": "a_000", "kind": "room"})


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_counts_have_bounds(count):
    with pytest.raises(CardError, match="count"):
        sequences({"name": "a", "kind": "room", "count": count})
