"""Memory of batches is used again only once nothing refers to it."""

import gc
import pickle
import threading

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.datasets.frame import Frame
from ncbench.loaders.clips import NormalClips
from ncbench.loaders.loader import Loader
from ncbench.loaders.memory import SMALLEST, Memory

LARGE = (SMALLEST,)


def test_room_is_given_back_and_used_again():
    memory = Memory()
    first = memory.scratch(LARGE, torch.uint8)
    place = first.data_ptr()
    assert memory.held == 0
    del first
    assert memory.held >= SMALLEST
    assert memory.scratch(LARGE, torch.uint8).data_ptr() == place


def by_view(tensor):
    return tensor.view(-1)[7:9]


def by_array(tensor):
    return tensor.numpy()[..., 3:5]


def by_array_of_a_view(tensor):
    return np.asarray(tensor.view(-1)[2:])[1:].reshape(-1, 1)


def by_gradient(tensor):
    weight = torch.ones(1, requires_grad=True)
    return (tensor.float() * 1.0).sum() + (tensor.view(torch.float32) * weight).sum()


def by_dlpack(tensor):
    return torch.from_dlpack(tensor)


@pytest.mark.parametrize("keep", [by_view, by_array, by_array_of_a_view, by_gradient, by_dlpack])
def test_whatever_is_made_of_a_tensor_keeps_its_memory(keep):
    memory = Memory()
    kept = keep(memory.scratch(LARGE, torch.uint8).zero_())
    gc.collect()
    assert memory.held == 0
    memory.scratch(LARGE, torch.uint8).fill_(255)
    if not isinstance(kept, torch.Tensor) or not kept.requires_grad:
        assert not np.asarray(kept).any()
    del kept
    gc.collect()
    assert memory.held >= SMALLEST


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60), st.integers(0, 9)), max_size=60))
def test_no_two_tensors_share_memory_and_no_more_is_held_than_was_used_at_once(steps):
    """Any order of taking and letting go, sizes apart by less than a step included."""
    memory, live, used, peak = Memory(), [], 0, 0
    for number, (take, size, place) in enumerate(steps):
        if take:
            tensor = memory.scratch((SMALLEST * size // 7 + place,), torch.uint8).fill_(number % 256)
            assert tensor.data_ptr() % 64 == 0
            live.append((tensor, number % 256))
            del tensor
        elif live:
            live.pop(place % len(live))
        used = sum(found.nbytes for found, _ in live if found.nbytes >= SMALLEST)
        peak = max(peak, used)
        assert memory.held + used <= peak * 1.13 + 64 * len(steps)
        assert all(bool((found == value).all()) for found, value in live)


@pytest.mark.parametrize("kind", [torch.uint8, torch.bool, torch.float32, torch.float64])
def test_shape_and_type_are_as_asked(kind):
    memory = Memory()
    for shape in ((2, 3), (4, 100, 130, 3)):
        tensor = memory.batch(shape, kind)
        assert (tuple(tensor.shape), tensor.dtype, tensor.is_contiguous()) == (shape, kind, True)


def test_threads_may_ask_at_the_same_time():
    memory, wrong = Memory(), []

    def work(number):
        for _ in range(200):
            tensor = memory.scratch(LARGE, torch.uint8).fill_(number)
            if not bool((tensor == number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert memory.held <= 8 * (SMALLEST + 64)  # a name of each thread holds its last tensor until the next is there


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_are_kept_stay_as_they_are(seal_frames, workers):
    clips = NormalClips(seal_frames(large_frames()), batch_size=2, shuffle="none", columns=["depth"])
    for _ in Loader(clips, workers=workers):  # fills the memory for what comes now
        pass
    kept = list(Loader(clips, workers=workers))
    again = list(Loader(pickle.loads(pickle.dumps(clips)), workers=workers))  # noqa: S301 - our own bytes
    for left, right in zip(kept, again, strict=True):
        assert all(torch.equal(left[key], right[key]) for key in ("image", "normal", "valid", "depth"))
    pictures = torch.cat([batch["image"] for batch in kept])
    assert [int(picture.max()) for picture in pictures] == [10, 20, 30, 40, 50, 60]


def large_frames():
    """Frames whose maps are large enough to be kept, each of its own grey; only one has depth."""
    size = (240, 320)
    for number in range(6):
        rgb = np.full((*size, 3), 10 * (number + 1), np.uint8)
        normal = np.zeros((*size, 3), np.float32)
        normal[..., 2] = -1
        depth = np.full(size, 2.0, np.float32) if number == 2 else None
        yield Frame("a", number, png(rgb), normal, np.ones(size, bool), depth=depth)


def png(picture):
    return cv2.imencode(".png", picture)[1].tobytes()
