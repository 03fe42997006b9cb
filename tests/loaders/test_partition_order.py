import functools
import itertools
import operator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.loaders.order import bucket, interleave, shard_order, within
from ncbench.loaders.partition import plain_clips, random_clips, runs_of
from ncbench.loaders.randomness import key_of, permutation, uniforms, words

lengths = st.tuples(st.integers(1, 6), st.integers(0, 5)).map(lambda pair: (pair[0], sum(pair)))
strides = st.tuples(st.integers(1, 3), st.integers(0, 2)).map(lambda pair: (pair[0], sum(pair)))
counts = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def rows_of(clips):
    return [row for first, step, count in clips.tolist() for row in range(first, first + step * count, step)]


def longest_sum(track, length):
    """Most frames of a track that clips of allowed lengths can cover, by trying all sums."""
    sums = {0}
    for total in range(1, track + 1):
        if any(total - size in sums for size in range(length[0], length[1] + 1)):
            sums.add(total)
    return max(sums)


@settings(max_examples=80, deadline=None)
@given(counts, lengths, strides, st.integers(0, 99))
def test_random_clips_hold_each_frame_at_most_once_and_as_many_as_can_be(counts, length, stride, seed):
    ends = np.cumsum(counts)
    runs = np.stack([ends - counts, counts], axis=1)
    clips = random_clips(runs, length, stride, key_of(seed))
    rows = rows_of(clips)
    assert len(set(rows)) == len(rows)
    assert all(length[0] <= count <= length[1] and stride[0] <= step <= stride[1] for _, step, count in clips.tolist())
    run_of = np.searchsorted(ends, clips[:, 0], side="right")
    assert (clips[:, 0] + clips[:, 1] * (clips[:, 2] - 1) < ends[run_of]).all()
    if stride == (1, 1):
        assert len(rows) == sum(longest_sum(count, length) for count in counts)
    np.testing.assert_array_equal(clips, random_clips(runs, length, stride, key_of(seed)))


@settings(max_examples=40, deadline=None)
@given(counts, st.integers(1, 7), st.integers(1, 3))
def test_plain_clips_hold_each_frame_once(counts, longest, step):
    ends = np.cumsum(counts)
    clips = plain_clips(np.stack([ends - counts, counts], axis=1), longest, step)
    assert sorted(rows_of(clips)) == list(range(sum(counts)))


def test_lengths_are_uniform_and_other_sequences_do_not_matter():
    clips = random_clips(np.array([[0, 200_000]]), (2, 9), (1, 1), key_of(1))
    shares = np.bincount(clips[:, 2])[2:] / len(clips)
    assert abs(shares - 1 / 8).max() < 0.01
    alone = random_clips(np.array([[500, 40]]), (1, 5), (1, 2), key_of(2))
    among = random_clips(np.array([[0, 300], [500, 40]]), (1, 5), (1, 2), key_of(2))
    np.testing.assert_array_equal(among[among[:, 0] >= 500], alone)


def test_runs_end_where_frames_are_missing():
    assert runs_of([[0, 1, 2, 7, 8], [4]], [0, 5], split=True).tolist() == [[0, 3], [3, 2], [5, 1]]
    assert runs_of([[0, 1, 2, 7, 8], [4]], [0, 5], split=False).tolist() == [[0, 5], [5, 1]]
    assert runs_of([[0, 2, 4, 6]], [3], split=True).tolist() == [[3, 4]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 12), st.integers(0, 9))
def test_shard_order_opens_few_shards_at_a_time(shards, window, seed):
    shards = np.sort(np.array(shards))
    order = shard_order(shards, window, key_of(seed))
    assert sorted(order.tolist()) == list(range(len(shards)))
    visited = shards[order].tolist()
    firsts = list(dict.fromkeys(visited))  # shards by their first use
    group = {shard: place // window for place, shard in enumerate(firsts)}
    assert [group[shard] for shard in visited] == sorted(group[shard] for shard in visited)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 5))
def test_buckets_hold_each_once_and_only_one_kind(kinds, size):
    kinds = np.array(kinds, np.int64)
    batches = bucket(kinds, size)
    parts = [batches[index].tolist() for index in range(len(batches))]
    assert sorted(functools.reduce(operator.iadd, parts, [])) == list(range(len(kinds)))
    assert all(len({kinds[place] for place in part}) == 1 and len(part) <= size for part in parts)
    assert [part[-1] for part in parts] == sorted(part[-1] for part in parts)
    for kind in set(kinds.tolist()):  # no waste: at most one batch of a kind is not full
        assert sum(len(part) < size for part in parts if kinds[part[0]] == kind) <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=5), st.integers(0, 9))
def test_interleaving_keeps_proportions_everywhere(lengths, seed):
    merged = interleave(lengths, key_of(seed))
    owner = np.repeat(np.arange(len(lengths)), lengths)[merged]
    assert sorted(merged.tolist()) == list(range(sum(lengths)))
    for member, length in enumerate(lengths):
        mine = merged[owner == member]
        assert (np.diff(mine) > 0).all()
        if length:
            expected = np.arange(1, len(owner) + 1) * length / len(owner)
            assert abs(np.cumsum(owner == member) - expected).max() <= len(lengths) + 1


@given(st.lists(st.integers(1, 9), max_size=20), st.lists(st.integers(0, 60), min_size=2, max_size=5))
def test_stretches_of_a_stream_share_it_out(counts, cuts):
    counts = np.array(counts, np.int64)
    cuts = [0, *sorted(cuts), 10_000]
    parts = [within(counts, start, stop).tolist() for start, stop in itertools.pairwise(cuts)]
    assert functools.reduce(operator.iadd, parts, []) == list(range(len(counts)))


def test_random_numbers():
    assert words(key_of("a"), 5).tolist() == words(key_of("a"), 9)[:5].tolist()
    drawn = uniforms(key_of(7), 100_000)
    assert abs(np.histogram(drawn, 10, (0, 1))[0] - 10_000).max() < 400
    assert sorted(permutation(key_of(1), 100).tolist()) == list(range(100))


def test_splitmix_of_a_known_seed():
    """The published test vector of SplitMix64 for the seed 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert words(np.uint64(1234567), 3).tolist() == expected
