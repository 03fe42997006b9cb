import json
import os
import pickle
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ncbench.datasets.store import open_store
from ncbench.errors import CardError, NcbenchError, StoreError
from ncbench.loaders.batch import collate
from ncbench.loaders.clips import NormalClips, NormalFrames
from ncbench.loaders.loader import Loader, Position


def frames_of(clips, refs):
    """(set, row) of every frame of some clips."""
    return [(clips.mixture.members[ref.member].name, row) for ref in refs for row in ref.rows]


def everything(stores):
    return Counter((name, row) for name, store in stores.items() for row in range(len(store)))


def walk(clips, rank, world, state, steps=None, **options):
    """The batches (as lists of clips) of one rank from a state on, and the state after so many steps."""
    loader = Loader(clips, rank=rank, world=world, **options)
    if state is not None:
        loader.load_state_dict(state)
    start = Position(state["epoch"], state["batches"]) if state else Position(0, 0)
    position, taken = start, []
    for refs in loader.batches_from(start):
        if steps is not None and len(taken) == steps:
            break
        taken.append(refs)
        position = loader._after(position)
    loader._now = position
    return taken, loader.state_dict()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 5),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), max_size=3),
    st.integers(1, 5),
    st.sampled_from(["shards", "full", "none"]),
    st.integers(1, 4),
)
def test_exactly_once_an_epoch_however_often_it_is_resumed(tiny_stores, epoch, batch, parts, last, shuffle, longest):
    """Ranks change at every stop; together they read each frame of the epoch exactly once."""
    stores = {name: open_store(tiny_stores / name) for name in ("one", "two")}
    clips = NormalClips(stores, length=(1, longest), batch_size=batch, shuffle=shuffle, shuffle_shards=1, seed=3)
    state = Loader(clips).state_dict() | {"epoch": epoch}
    seen = Counter()
    for world, steps in [*parts, (last, None)]:
        walked = [walk(clips, rank, world, state, steps) for rank in range(world)]
        for taken, _ in walked:
            seen.update(frame for refs in taken for frame in frames_of(clips, refs))
        finished = steps is None or walked[0][1]["epoch"] > epoch
        states = {tuple(sorted(after.items())) for taken, after in walked if steps is not None and len(taken) == steps}
        assert len(states) <= 1  # any rank's state serves
        if finished:
            break
        state = walked[0][1]
    assert seen == everything(stores)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 12), st.integers(0, 40))
def test_endless_training_goes_on_the_same_with_other_ranks(tiny_stores, world, later, batch, steps):
    store = open_store(tiny_stores / "one")
    clips = NormalClips(store, length=(1, 3), batch_size=batch, seed=1)
    total = 60
    row = walk(clips, 0, 1, None, total, endless=True)[0]  # what one rank would read
    steps = min(steps, total // world)
    first = [walk(clips, rank, world, None, steps, endless=True) for rank in range(world)]
    state = first[0][1]
    assert all(after == state for _, after in first)
    then = [walk(clips, rank, later, state, 3, endless=True)[0] for rank in range(later)]
    done = [first[place % world][0][place // world] for place in range(steps * world)]
    done += [then[place % later][place // later] for place in range(3 * later)]
    assert done[:total] == row[: len(done)]


def test_epochs_differ_and_seeds_differ_and_nothing_else_does(tiny_pair):
    settings = {"length": (1, 3), "batch_size": 2}
    plans = [NormalClips(tiny_pair, seed=seed, **settings).plan(epoch).refs for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({plan.tobytes() for plan in plans}) == 3
    again = pickle.loads(pickle.dumps(NormalClips(tiny_pair, seed=0, **settings)))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(again.plan(0).refs, plans[0])


def test_a_set_that_joins_leaves_the_clips_of_others_alone(tiny_pair):
    together = NormalClips(tiny_pair, length=(1, 3), seed=5).plan(2)
    alone = NormalClips(tiny_pair["one"], length=(1, 3), seed=5).plan(2)
    np.testing.assert_array_equal(together.refs[together.refs[:, 0] == 0], alone.refs)


def keys(batches):
    return [(batch["dataset"], batch["first_row"].tolist(), batch["frames"].tolist()) for batch in batches]


def same(left, right):
    return all(
        torch.equal(a["image"], b["image"]) and torch.equal(a["normal"], b["normal"])
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_workers_change_nothing(moving, workers, backend):
    clips = NormalClips(moving, length=(1, 3), batch_size=2, flip=0.5, resize={"short_edge": 30}, seed=2)
    here, there = list(Loader(clips)), list(Loader(clips, workers=workers, backend=backend))
    assert keys(here) == keys(there)
    assert same(here, there)


def test_resuming_in_the_middle_with_other_workers_and_ranks(moving):
    clips = NormalClips(moving, length=(1, 2), batch_size=1, flip=0.5, seed=9)
    whole = list(Loader(clips))
    loader, head = Loader(clips, workers=1), []
    for batch in loader:
        head.append(batch)
        if len(head) == 2:
            state = loader.state_dict()
            break
    tails = []
    for rank in range(2):
        resumed = Loader(clips, rank=rank, world=2)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        tails.append(list(resumed))
        assert resumed.state_dict()["epoch"] == 1
    merged = head + [tails[place % 2][place // 2] for place in range(len(whole) - 2)]
    assert keys(merged) == keys(whole)
    assert same(merged, whole)


def test_iterating_twice_gives_two_epochs_and_leaving_early_starts_over(moving):
    loader = Loader(NormalClips(moving, seed=4))
    next(iter(loader))
    first, second = keys(loader), keys(loader)
    assert len(loader) == len(first) == len(moving)
    assert first != second
    assert sorted(map(str, first)) == sorted(map(str, second))


def test_a_state_of_something_else_is_refused(moving, tiny_pair):
    state = Loader(NormalClips(moving, seed=1)).state_dict()
    with pytest.raises(CardError, match="other settings, seed or data"):
        Loader(NormalClips(moving, seed=2)).load_state_dict(state)
    with pytest.raises(CardError, match="other settings, seed or data"):
        Loader(NormalClips(tiny_pair["one"], seed=1)).load_state_dict(state)
    with pytest.raises(CardError, match="expected a loader state"):
        Loader(NormalClips(moving, seed=1)).load_state_dict({"epoch": 3})


def test_uneven_ends(make_store):
    clips = NormalClips(make_store({"a": range(7)}), batch_size=1)
    kept = [len(Loader(clips, rank=rank, world=3)) for rank in range(3)]
    dropped = [len(Loader(clips, rank=rank, world=3, drop_uneven=True)) for rank in range(3)]
    assert (kept, dropped) == ([3, 2, 2], [2, 2, 2])
    with pytest.raises(CardError, match="drop_uneven"):
        Loader(clips, endless=True, drop_uneven=True)
    with pytest.raises(CardError, match="rank 3 of 3"):
        Loader(clips, rank=3, world=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_iterable_style_reads_each_once_over_ranks_and_workers(moving, workers):
    clips = NormalClips(moving, length=(1, 3), batch_size=2, seed=1)
    taken = []
    for rank in range(2):
        stream = clips.stream(rank, 2)
        stream.set_epoch(3)
        taken.append(list(DataLoader(stream, batch_size=None, num_workers=workers)))
    merged = [taken[place % 2][place // 2] for place in range(sum(map(len, taken)))]
    loader = Loader(clips)
    loader.load_state_dict(loader.state_dict() | {"epoch": 3})
    assert keys(merged) == keys(loader)


def test_map_style_with_a_plain_dataloader(moving):
    clips = NormalClips(moving, length=(2, 2), crop={"height": 32, "width": 40}, columns=["depth"])
    batches = list(DataLoader(clips, batch_size=2, collate_fn=collate))
    assert [len(batch["sequence"]) for batch in batches] == [2, 2]
    assert batches[0]["normal"].shape == (2, 2, 3, 32, 40)
    frames = NormalFrames(moving)
    assert len(frames) == 9
    assert frames[-1]["normal"].shape == frames[len(frames) - 1]["normal"].shape
    with pytest.raises(IndexError):
        frames[9]
    with pytest.raises(ValueError, match="samples of one shape"):
        collate([NormalFrames(moving, shuffle="none")[0], NormalFrames(moving, shuffle="none")[8]])


class Lethal(NormalClips):
    """Kills the process that reads a certain clip."""

    def read(self, refs):
        if refs[0].first == 3 and torch.utils.data.get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(refs)


@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_dies_is_named_with_recipe_and_frame(make_store):
    clips = Lethal(make_store({"a": range(5)}), shuffle="none")
    with pytest.raises(
        StoreError, match=r"recipe 'settings': a loading process died.*'made' sequence 'a' frame"
    ) as caught:
        list(Loader(clips, workers=1, backend="processes"))
    assert "fewer workers" in str(caught.value)


@pytest.mark.parametrize(("workers", "backend"), [(0, "threads"), (1, "threads"), (1, "processes")])
def test_a_flipped_byte_names_recipe_shard_and_frame(make_store, workers, backend):
    store = make_store({"a": range(5)}, rows=2)
    shard = store.path / store.manifest.shards[1].file
    data = bytearray(shard.read_bytes())
    at = data.find(b"NCBC") + 30  # inside the first cell
    data[at] ^= 4
    shard.write_bytes(data)
    batches = iter(Loader(NormalClips(store, shuffle="none"), workers=workers, backend=backend))
    assert [next(batches)["frames"].item() for _ in range(2)] == [0, 1]
    with pytest.raises(StoreError) as caught:
        next(batches)
    message = str(caught.value)
    assert all(part in message for part in ("recipe 'settings'", shard.name, "sequence 'a' frame 2", "ncbench verify"))
    assert "Traceback" not in message


def test_lazy_verification_finds_a_byte_that_no_cell_guards(make_store):
    store = make_store({"a": range(4)}, rows=2)
    shard = store.path / store.manifest.shards[1].file
    data = bytearray(shard.read_bytes())
    data[-60] ^= 1  # padding behind the last row
    shard.write_bytes(data)
    unchecked, lazy = open_store(store.path), open_store(store.path, verify="lazy")
    assert len(list(Loader(NormalClips(unchecked)))) == 4
    assert lazy[1].frame == 1
    with pytest.raises(StoreError, match=rf"{shard.name}: is damaged: expected sha256"):
        lazy[2]


def test_a_missing_shard_and_a_newer_schema(make_store):
    store = make_store({"a": range(4)}, rows=2)
    missing = store.path / store.manifest.shards[1].file
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(StoreError, match=missing.name):
        open_store(store.path)
    with pytest.raises(NcbenchError, match=rf"recipe 'settings': .*{missing.name}"):
        list(Loader(NormalClips(store, shuffle="none")))  # opened before it vanished
    missing.write_bytes(content)
    manifest = store.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(StoreError, match="Update ncbench"):
        open_store(store.path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": (8, 9)}, r"clips of at least 8 frames, but the longest stretch without a gap has 7"),
        ({"length": (3, 2)}, "length must ascend"),
        ({"lenght": (1, 2)}, "Did you mean 'length'"),
        ({"sets": [{"dataset": "three"}]}, "no data set 'three'"),
        ({"sets": [{"dataset": "one", "sequences": ["d"]}]}, "no sequence 'd'"),
        ({"crop": {"height": 3, "width": 3}}, r"crop of 3 x 3 does not fit into pictures of 2 x 3"),
        ({"resize": {"short_edge": 4, "scale": (1, 2)}}, "set crop"),
        ({"columns": ["flow"], "reverse": 0.5}, "reverse 0"),
        ({"columns": ["occluded"], "stride": (1, 2)}, "stride must be 1"),
        ({"sets": [{"dataset": "one", "weight": 1}, {"dataset": "two"}]}, "either all sets have a weight"),
        ({"sets": [{"dataset": "one"}, {"dataset": "one"}]}, "may come once"),
        ({"axes": "openg"}, "opengl"),
    ],
)
def test_settings_that_cannot_be(tiny_pair, settings, message):
    with pytest.raises(CardError, match=message):
        NormalClips(tiny_pair, **settings)
