"""Loaders under Hugging Face accelerate, as docs/loaders.md describes it."""

from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from ncbench.loaders.batch import collate
from ncbench.loaders.clips import NormalClips, NormalFrames
from ncbench.loaders.loader import Loader

accelerate = pytest.importorskip("accelerate")
data_loader = pytest.importorskip("accelerate.data_loader")


@pytest.fixture
def accelerator():
    yield accelerate.Accelerator(cpu=True)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def test_a_training_loop_with_our_loader(moving, accelerator):
    clips = NormalClips(moving, length=(2, 2), image="float32", axes="opengl", batch_size=2)
    loader = Loader(clips, rank=accelerator.process_index, world=accelerator.num_processes, endless=True)
    model = torch.nn.Conv2d(3, 3, 3, padding=1)
    model, optimizer, same = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1), loader)
    assert same is loader  # accelerate leaves it alone: nothing is shared out twice
    before = model.weight.detach().clone()
    for _, plain in zip(range(2), loader, strict=False):
        batch = accelerate.utils.send_to_device(plain, accelerator.device)
        assert batch["sequence"] == plain["sequence"]
        guess = model(batch["image"].flatten(0, 1))
        loss = (guess - batch["normal"].flatten(0, 1)).square().mean()
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
    assert not torch.equal(before, model.weight)


@pytest.mark.parametrize("world", [2, 3])
def test_a_plain_data_loader_is_shared_out_by_accelerate(tiny_pair, world, accelerator):
    frames = NormalFrames(tiny_pair["one"], crop={"height": 2, "width": 3})
    epochs = [Counter(), Counter()]
    for rank in range(world):
        plain = DataLoader(frames, batch_size=2, collate_fn=collate)
        prepared = data_loader.prepare_data_loader(
            plain, accelerator.device, num_processes=world, process_index=rank, even_batches=False
        )
        orders = [[row for batch in prepared for row in batch["first_row"].tolist()] for _ in epochs]
        assert orders[0] != orders[1]  # accelerate calls set_epoch
        for seen, order in zip(epochs, orders, strict=True):
            seen.update(order)
    assert epochs == [Counter(range(len(tiny_pair["one"])))] * 2
