"""How a sequence is handed to a model: batches, memory that runs out, seeds, what is noted."""

import random

import numpy as np
import pytest
import torch

from ncbench.cards import ModelCard
from ncbench.errors import ModelError
from ncbench.models.base import Answer, Clip, NormalModel, Runtime
from ncbench.models.memory import Device, is_out_of_memory
from ncbench.models.record import SEQUENCES_FILE, add_cost, read_costs, summarize
from ncbench.models.registry import LoadedModel
from ncbench.models.sequence import Cost, SequenceRunner

CARD = {
    "name": "m",
    "version": "1.0.0",
    "title": "",
    "summary": "",
    "kind": "image",
    "adapter": "a:b",
    "axes": "opencv",
}


class PerFrame(NormalModel):
    """Says the frame's number; fails past a number of frames."""

    per_frame = True
    clip_length = 8
    fits = 1000

    def __init__(self, settings):
        self.sizes = []

    def predict(self, clip):
        self.sizes.append(len(clip.frames))
        if len(clip.frames) > self.fits:
            raise MemoryError("too much")
        return faced(clip)


class Windowed(PerFrame):
    """Answers a clip only after it has seen the next, as overlapping windows do."""

    per_frame = False
    clip_length = 3
    fails_at, eased = 2, 0

    def use_less_memory(self):
        self.eased += 1
        return self.eased < 2

    def stream(self, clips):
        held = None
        for count, clip in enumerate(clips, 1):
            if count == self.fails_at and not self.eased:
                raise torch.OutOfMemoryError("CUDA out of memory")
            if held is not None:
                yield faced(held)
            held = clip
        yield faced(held)


def faced(clip):
    normal = np.zeros((*clip.images.shape[:3], 3), np.float32)
    normal[..., 2] = -1
    return Answer(normal, depth=np.stack([np.full((4, 5), frame + 1, np.float32) for frame in clip.frames]))


def read(frames):
    return Clip("s", frames, np.zeros((len(frames), 4, 5, 3), np.uint8))


def runner_of(adapter, batch_size=None):
    card = ModelCard.parse(CARD | {"depth": "metres"}, "card")
    return SequenceRunner(LoadedModel(card, adapter), Device("cpu"), batch_size)


def told(answers):
    return [int(depth[0, 0]) - 1 for answer in answers for depth in answer.depth]


@pytest.mark.parametrize(("batch_size", "sizes"), [(None, [8, 8, 4]), (6, [6, 6, 6, 2]), (50, [20]), (1, [1] * 20)])
def test_frames_of_a_per_frame_model_come_in_the_size_asked_for(batch_size, sizes):
    model = PerFrame({})
    assert told(runner_of(model, batch_size).run("s", range(20), read, 0)) == list(range(20))
    assert model.sizes == sizes


def test_out_of_memory_halves_for_good_and_is_noted():
    model = PerFrame({})
    model.fits = 3
    runner = runner_of(model)
    assert told(runner.run("s", range(9), read, 0)) == list(range(9))
    assert model.sizes == [8, 4, 2, 2, 2, 2, 1]
    assert runner.cost.batch == 2
    assert runner.cost.notes == (
        "memory ran out at 8 frames at a time, went on with 4",
        "memory ran out at 4 frames at a time, went on with 2",
    )
    assert told(runner.run("t", range(3), read, 0)) == [0, 1, 2]
    assert runner.cost.notes == ()


class Accelerator(Device):
    """Stands for a CUDA device of 200 bytes, of which a frame takes 10 and the queue's work is always done."""

    is_cuda = True
    taken = 0

    def describe(self):
        return f"{self.name} of the test"

    def synchronize(self):
        pass

    reset_peak = release = synchronize

    def total_bytes(self):
        return 200

    def peak_bytes(self):
        return Accelerator.taken


def test_batches_grow_while_the_device_has_room():
    class Taking(PerFrame):
        clip_length = 2

        def predict(self, clip):
            Accelerator.taken = max(Accelerator.taken, 10 * len(clip.frames))
            return super().predict(clip)

    model = Taking({})
    runner = SequenceRunner(LoadedModel(ModelCard.parse(CARD | {"depth": "metres"}, "card"), model), Accelerator("x:0"))
    assert told(runner.run("s", range(30), read, 0)) == list(range(30))
    # 8 frames take 80; 16 would take 160, which is four fifths of it
    assert model.sizes == [2, 4, 8, 8, 8]
    assert (runner.cost.batch, runner.cost.peak_memory_bytes, runner.cost.device) == (8, 80, "x:0 of the test")


def test_a_device_that_is_smaller_than_the_model_asks_for_is_noted():
    model = PerFrame({})
    model.memory = "24GB"
    runner = SequenceRunner(LoadedModel(ModelCard.parse(CARD | {"depth": "metres"}, "card"), model), Accelerator("x:0"))
    list(runner.run("s", range(2), read, 0))
    assert runner.cost.notes == ("x:0 has 0 GiB, less than the 24GB that the model asks for",)
    assert Device("cpu").shortage("80GB") is None


def test_one_frame_that_does_not_fit_is_an_error():
    model = PerFrame({})
    model.fits = 0
    with pytest.raises(ModelError, match=r"sequence 's', frame 0 on: memory ran out on cpu.*One frame alone"):
        list(runner_of(model).run("s", range(2), read, 0))


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_model_with_state_starts_its_sequence_again_and_answers_once(fails_at):
    model = Windowed({})
    model.fails_at = fails_at
    runner = runner_of(model)
    assert told(runner.run("s", range(8), read, 0)) == list(range(8))
    assert model.eased == 1
    assert runner.cost.notes == ("memory ran out, went on with smaller chunks",)


def test_a_model_with_nothing_to_lower_fails():
    model = Windowed({})
    model.use_less_memory = lambda: False
    with pytest.raises(ModelError, match="memory ran out on cpu"):
        list(runner_of(model).run("s", range(8), read, 0))


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_random_numbers_depend_on_seed_and_sequence_alone():
    class Random(PerFrame):
        def predict(self, clip):
            drawn = [random.random(), np.random.rand(), float(torch.rand(()))]  # noqa: NPY002 - as others' code does
            normal = np.broadcast_to(np.float32(drawn) - 2, (len(clip.frames), 4, 5, 3))
            return normal.copy()

    def draw(sequence, seed):
        return next(runner_of(Random({})).run(sequence, range(2), read, seed)).normal[0, 0, 0]

    first = draw("a", 1)
    np.testing.assert_array_equal(draw("a", 1), first)
    assert np.abs(draw("b", 1) - first).max() > 1e-4
    assert np.abs(draw("a", 2) - first).max() > 1e-4


def test_the_model_is_loaded_once_with_its_runtime():
    class Loading(PerFrame):
        loads = 0

        def load(self, runtime):
            super().load(runtime)
            self.loads += 1

    model = Loading({})
    loaded = LoadedModel(ModelCard.parse(CARD | {"depth": "metres"}, "card"), model, Runtime(seed=7))
    assert model.loads == 0
    loaded.predict(read((0,)))
    loaded.predict(read((1,)))
    assert (model.loads, model.runtime.seed) == (1, 7)


def test_a_model_that_cannot_load_says_why():
    class Broken(PerFrame):
        def load(self, runtime):
            raise KeyError("conv_in")

    with pytest.raises(ModelError, match="cannot be loaded: KeyError: 'conv_in'"):
        LoadedModel(ModelCard.parse(CARD, "card"), Broken({})).predict(read((0,)))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(None), "got neither"),
        (Answer(None, depth=np.ones((1, 4, 6), np.float32)), r"depth of shape \(1, 4, 5\), got \(1, 4, 6\)"),
        (
            Answer(None, depth=np.ones((1, 4, 5), np.uint16)),
            "depth as a numpy array of float32, got an array of uint16",
        ),
        (Answer(None, np.ones((1, 4, 5), np.float32), np.ones((1, 4, 5), np.float32)), "gives_confidence"),
    ],
)
def test_an_answer_is_checked_part_by_part(answer, words):
    class Fixed(PerFrame):
        def predict(self, clip):
            return answer

    with pytest.raises(ModelError, match=words):
        LoadedModel(ModelCard.parse(CARD | {"depth": "metres"}, "card"), Fixed({})).answer(read((0,)))


def test_depth_of_an_unknown_kind_is_refused_and_of_depth_alone_there_are_no_normals():
    class Depth(PerFrame):
        def predict(self, clip):
            return Answer(None, depth=np.ones((1, 4, 5)))

    with pytest.raises(ModelError, match="Add 'depth: metres'"):
        LoadedModel(ModelCard.parse(CARD, "card"), Depth({})).answer(read((0,)))
    model = LoadedModel(ModelCard.parse(CARD | {"depth": "disparity", "normals": False}, "card"), Depth({}))
    assert model.answer(read((0,))).depth.dtype == np.float32
    with pytest.raises(ModelError, match="depth alone"):
        model.predict(read((0,)))


def test_costs_survive_a_line_cut_short(tmp_path):
    costs = [
        Cost(name, 10, 2.0, 0.1, memory, "cpu", 8, notes)
        for name, memory, notes in (("a", 5, ("slow",)), ("b", 7, ("slow", "hot")))
    ]
    for cost in [Cost("a", 1, 9.0, 0.0, None, "cpu", 1), *costs]:
        add_cost(tmp_path / SEQUENCES_FILE, cost)
    with (tmp_path / SEQUENCES_FILE).open("a") as stream:
        stream.write('{"sequence": "a", "fra')
    assert read_costs(tmp_path, ["b", "a", "c"]) == costs[::-1]
    assert summarize(costs) == {
        "seconds": 4.0,
        "frames_per_second": 5.0,
        "peak_memory_bytes": 7,
        "device": "cpu",
        "notes": ["slow (2 of 2 sequences)", "hot (1 of 2 sequences)"],
    }
