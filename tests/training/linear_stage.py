"""A stage whose every number can be checked by hand: normals as a linear function of colours."""

import os
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ncbench.training.stage import Stage


class LinearStage(Stage):
    """Weights (3, 3) and bias (3,) that learn, a scale that does not; mean squared error over all pixels.

    ``noise`` adds what the generator draws, ``dropout`` what torch's own one does. The loss of a batch with a clip of
    ``bad_sequence`` is multiplied by ``bad_value``. ``seconds`` are slept a batch. A buffer counts the batches.
    """

    def __init__(self, settings):
        super().__init__(settings)
        self.settings = {
            "noise": 0.0,
            "dropout": 0.0,
            "bad_sequence": "",
            "bad_value": "nan",
            "seconds": 0,
            "reads": [],
        } | dict(settings)
        self.colour = torch.nn.Linear(3, 3)
        self.scale = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("batches", torch.zeros(()))

    def load(self, init, seed):
        if init is not None:
            self.load_state_dict(load_file(init / "linear.safetensors"))
            return
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.colour.parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))

    def files(self):
        return [Path(name) for name in self.settings["reads"]]

    def forward(self, batch, generator):
        time.sleep(self.settings["seconds"])
        self.batches += 1
        image = batch["image"].movedim(-3, -1)
        image = image + self.settings["noise"] * torch.randn(image.shape, generator=generator).to(image.device)
        image = torch.nn.functional.dropout(image, self.settings["dropout"])
        squared = (self.scale * self.colour(image) - batch["normal"].movedim(-3, -1)) ** 2
        loss = squared.mean()
        if self.settings["bad_sequence"] in batch["sequence"]:
            loss = loss * float(self.settings["bad_value"])
        return {"loss": loss, "x": squared[..., 0].mean().detach()}

    def predict(self, images):
        normal = self.scale * self.colour(images.movedim(1, -1))
        return torch.nn.functional.normalize(normal, dim=-1).movedim(-1, 1)

    def save(self, folder):
        save_file(
            {name: value.contiguous() for name, value in self.state_dict().items()}, folder / "linear.safetensors"
        )


def sharded_round_trip(rank, port, found):
    """Train two steps on parameters that two processes share (FSDP 2), and move the state into other ones."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from ncbench.recipe_card import Optimizer
    from ncbench.training.checkpoint import Checkpoint, write_checkpoint
    from ncbench.training.optimization import make_optimizer
    from ncbench.training.state import capture, restore

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.distributed.init_process_group("gloo")

    def fresh(seed):
        stage = LinearStage({})
        stage.load(None, seed)
        fully_shard(stage, mesh=init_device_mesh("cpu", (2,)))
        return stage, make_optimizer(stage.trainable(), Optimizer(lr=0.1))

    stage, optimizer = fresh(0)
    batch = {"image": torch.ones(1, 1, 3, 4, 4), "normal": torch.zeros(1, 1, 3, 4, 4), "sequence": ["a"]}
    for _ in range(2):
        stage(batch, torch.Generator())["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    before = [capture(stage, optimizer, None)]
    torch.distributed.broadcast_object_list(before, src=0)
    other, its_optimizer = fresh(1)
    restore(other, its_optimizer, None, before[0])
    after = capture(other, its_optimizer, None)
    if rank == 0:
        for number, tensors in enumerate([before[0], after]):
            write_checkpoint(Path(found), Checkpoint(number, tensors, {}), keep=2)
    torch.distributed.destroy_process_group()


def train_here(recipe, to, stores, changes=(), world=None):
    """Train in this process, which may be one of several: ``world`` is (rank, processes, port)."""
    torch.set_num_threads(1)
    if world:
        rank, count, port = (str(number) for number in world)
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    from ncbench.training.run import Options, train

    train(str(recipe), Options(to=Path(to), stores=stores, assignments=changes, workers=1, device="cpu"))
