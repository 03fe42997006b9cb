"""Protocol cards: frame choices and clip windows against plain counting, and settings that contradict one another."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncbench.errors import CardError
from ncbench.protocol_card import ClipWindows, FrameChoice, ProtocolCard

PLAIN = {"name": "p", "version": "1.0.0", "title": "P", "summary": "", "dataset": "d"}


def protocol(**values):
    return ProtocolCard.parse(PLAIN | values, "p")


@given(st.integers(0, 60), st.integers(0, 10), st.integers(1, 7), st.none() | st.integers(1, 40))
def test_the_first_frames_are_a_slice(length, start, stride, count):
    choice = FrameChoice(start=start, stride=stride, count=count)
    assert choice.positions(length) == list(range(length))[start::stride][:count]


@given(st.integers(1, 300), st.integers(2, 64))
def test_uniform_frames_are_those_of_linspace(length, count):
    positions = FrameChoice(count=count, spread="uniform").positions(length)
    assert positions == sorted(set(positions)), "ascending, each once"
    assert len(positions) == min(length, count)
    exact = np.linspace(0, length - 1, len(positions))
    assert np.abs(np.array(positions) - exact).max() <= 0.5 + 1e-9
    assert (positions[0], positions[-1]) == (0, length - 1)


def test_buffer_anytimes_32_frames_of_short_sintel_scenes():
    choice = FrameChoice(count=32, spread="uniform")
    assert [len(choice.positions(n)) for n in (50, 33, 21, 20)] == [32, 32, 21, 20]


@given(st.integers(1, 200), st.integers(1, 30), st.data())
def test_windows_cover_every_frame_and_share_the_overlap(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    windows = ClipWindows(length=size, overlap=overlap).windows(length)
    assert sorted({position for window in windows for position in window}) == list(range(length))
    assert all(len(window) == size for window in windows[:-1])
    assert 1 <= len(windows[-1]) <= size
    for one, other in itertools.pairwise(windows):
        assert len(set(one) & set(other)) == overlap


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"thresholds": [5, 5]}, "ascending"),
        ({"thresholds": [5.0005]}, "0.001 degrees"),
        ({"decimals": 4}, "pooling frames"),
        ({"clips": {"length": 5}}, "pooling sequences"),
        ({"pooling": "sequences", "clips": {"length": 5, "overlap": 5}}, "overlap must be below"),
        ({"pooling": "sequences", "intervals": {"unit": "frames"}}, "intervals.unit"),
        ({"task": "depth"}, "depth"),
        ({"depth": {}}, "depth"),
        ({"resolution": "half"}, "resolution"),
        ({"crop": {"top": -1}}, "crop.top"),
        ({"temporal": {"flow": "farneback"}}, "farneback"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(values, problem):
    with pytest.raises(CardError, match=problem):
        protocol(**values)


def test_what_changes_a_number_changes_the_hashed_part():
    plain = protocol().scoring()
    assert protocol(title="Other", summary="other").scoring() == plain
    for change in (
        {"crop": {"top": 1}},
        {"frames": {"stride": 2}},
        {"pooling": "frames"},
        {"temporal": {"flow": "dis"}},
        {"resolution": {"height": 4, "width": 5}},
        {"probe": {"share": 0.3}},
        {"intervals": {"seed": 1}},
    ):
        assert protocol(**change).scoring() != plain
