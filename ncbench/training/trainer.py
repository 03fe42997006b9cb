"""The loop: batches in, updates out, with checkpoints, logs and validation on the way.

An update is a pure function of the parameters, the optimizer's moments, the loader's position and the step's number:
all randomness is drawn anew from (seed, step, batch). So an interrupted run that resumes ends where an undisturbed one
does, and R processes do what one with R times the accumulation does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from PIL import Image

from ncbench.errors import ModelError
from ncbench.files import replacing_file
from ncbench.loaders.batch import Batch
from ncbench.loaders.clips import NormalClips
from ncbench.loaders.loader import Loader
from ncbench.loaders.randomness import key_of
from ncbench.provenance import peak_memory_bytes
from ncbench.recipe_card import RecipeCard
from ncbench.training import guard
from ncbench.training.checkpoint import Checkpoint, list_checkpoints, read_checkpoint, write_checkpoint
from ncbench.training.folder import CHECKPOINTS, PICTURES
from ncbench.training.logs import Logs, training_bar
from ncbench.training.optimization import RunningMean, accumulation, learning_rate, make_optimizer
from ncbench.training.stage import Stage
from ncbench.training.state import capture, restore
from ncbench.training.validation import Picture, Validator, summary

_UINT8_HALF = 127.5


class Trainer:
    """One run of a recipe in this process, which may be one of several that train together.

    Args:
        card: The recipe, profile and changes applied.
        stage: With its networks, on the CPU.
        clips: The training data.
        accelerator: Devices, processes and number format.
        folder: Of the run.
        workers: Loading threads.
        validator: Held-out clips, if the recipe wants them.

    Raises:
        CardError: The batch cannot be divided.
        ModelError: Nothing learns, or the latest checkpoint is of other networks.
        StoreError: The latest checkpoint is damaged.
    """

    def __init__(
        self,
        card: RecipeCard,
        stage: Stage,
        clips: NormalClips,
        accelerator: Accelerator,
        folder: Path,
        *,
        workers: int = 0,
        validator: Validator | None = None,
    ) -> None:
        self.card, self.stage, self.folder = card, stage, folder
        self._accelerator, self._validator = accelerator, validator
        rank, world = accelerator.process_index, accelerator.num_processes
        self._rank, self._world = rank, world
        self._accumulation = accumulation(card.global_batch, world, clips.card.batch_size)
        accelerator.gradient_accumulation_steps = self._accumulation
        self._optimizer = make_optimizer(stage.trainable(), card.optimizer)
        stage.train()
        self._model, self._stepper = accelerator.prepare(stage, self._optimizer)
        self._mean = RunningMean(stage.trainable(), card.ema) if card.ema else None
        on_gpu = accelerator.device.type == "cuda"
        self._loader = Loader(clips, rank=rank, world=world, workers=workers, endless=True, pin_memory=on_gpu)
        self.step, self.seconds = 0, 0.0
        self.last: dict[str, float] = {}
        self._resume()

    def fit(self) -> None:
        """Train until the recipe's number of steps.

        Raises:
            ModelError: A loss or gradient is not finite, or the stage breaks its contract.
            StoreError: A store is damaged, or the disk is full. Earlier checkpoints stay.
        """
        main = self._accelerator.is_main_process
        logs = Logs(self.folder, self.step) if main else None
        batches = iter(self._loader)
        try:
            with training_bar(self.card.name, self.card.steps, main) as report:
                report(self.step, {})
                while self.step < self.card.steps:
                    self._advance(batches, logs)
                    report(self.step, self.last)
        finally:
            batches.close()  # type: ignore[attr-defined]  # a generator, whose threads end here
            if logs:
                logs.close()

    def finished_weights(self) -> Any:  # noqa: ANN401 - a context manager
        """Return a context in which the stage holds the parameters to keep: their running mean, if there is one."""
        return self._mean.applied() if self._mean else nullcontext()

    def _advance(self, batches: Iterator[Batch], logs: Logs | None) -> None:
        start = time.perf_counter()
        self.last = self._update(batches)
        self.step += 1
        self.seconds += time.perf_counter() - start
        last_one = self.step == self.card.steps
        validating = self._validator and (last_one or self.step % self._every() == 0)
        shown, picture = self._validate() if validating else ({}, None)
        if logs and (validating or last_one or self.step % self.card.log_every == 0):
            logs.write(self.step, self.last | shown, picture)
        if last_one or self.step % self.card.checkpoint.every == 0:
            self._save()

    def _every(self) -> int:
        return self.card.validation.every if self.card.validation else 1

    def _update(self, batches: Iterator[Batch]) -> dict[str, float]:
        start, waited = time.perf_counter(), 0.0
        rate = learning_rate(self.step, self.card.optimizer, self.card.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        taken: list[tuple[Batch, dict[str, torch.Tensor]]] = []
        clips = 0
        for index in range(self._accumulation):
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            taken.append((batch, self._backward(batch, index)))
            clips += len(batch["dataset"])
        norm = self._accelerator.clip_grad_norm_(
            [value for value in self._model.parameters() if value.requires_grad],
            self.card.optimizer.clip or float("inf"),
        )
        values = self._mean_over_processes([losses for _, losses in taken])
        values |= {"grad_norm": float(norm)}
        self._require_sound(values, taken)
        self._stepper.step()
        self._stepper.zero_grad()
        if self._mean:
            self._mean.update()
        seconds = time.perf_counter() - start
        speed = {"samples_per_second": clips * self._world / seconds, "loader_wait_share": waited / seconds}
        return values | {"lr": rate} | speed | self._memory()

    def _backward(self, batch: Batch, index: int) -> dict[str, torch.Tensor]:
        key = int(key_of(self.card.seed, "step", self.step, index * self._world + self._rank))
        torch.manual_seed(key)  # for what draws without a generator: dropout
        last = index == self._accumulation - 1
        with nullcontext() if last else self._accelerator.no_sync(self._model):
            losses: dict[str, torch.Tensor] = self._model(self._moved(batch), torch.Generator().manual_seed(key))
            if "loss" not in losses or losses["loss"].ndim:
                raise ModelError(f"stage {self.card.stage}: expected a scalar 'loss', got {sorted(losses)}")
            self._accelerator.backward(losses["loss"])
        return {name: value.detach().float() for name, value in losses.items()}

    def _moved(self, batch: Batch) -> Batch:
        device = self._accelerator.device
        values: Any = {
            key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }
        if values["image"].dtype == torch.uint8:  # a quarter of the bytes to move
            values["image"] = values["image"].float() / _UINT8_HALF - 1
        moved: Batch = values
        return moved

    def _mean_over_processes(self, losses: list[dict[str, torch.Tensor]]) -> dict[str, float]:
        names = sorted(losses[0])
        stacked = torch.stack([torch.stack([one[name] for name in names]) for one in losses]).mean(dim=0)
        means: Any = self._accelerator.reduce(stacked, reduction="mean")
        return dict(zip(names, means.tolist(), strict=True))

    def _require_sound(self, values: dict[str, float], taken: list[tuple[Batch, dict[str, torch.Tensor]]]) -> None:
        scaler = self._accelerator.scaler
        if scaler is not None and guard.is_sound({"loss": values["loss"]}) and scaler.get_scale() > 1:
            return  # gradients that overflow fp16 are the scaler's business: it leaves the step out and scales down
        if guard.is_sound(values):
            return
        mine = [{"clips": guard.clips_of(batch), "loss": float(losses["loss"])} for batch, losses in taken]
        batches = gather_object(mine)
        self._stepper.zero_grad()
        guard.stop(self.folder, self.step + 1, values, batches)

    def _memory(self) -> dict[str, float]:
        values: dict[str, float] = {}
        if self._accelerator.device.type == "cuda":
            values["gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
        resident = peak_memory_bytes()
        return values if resident is None else values | {"memory_bytes": resident}

    def _validate(self) -> tuple[dict[str, float], Picture | None]:
        if self._validator is None:
            return {}, None
        with self.finished_weights(), self._accelerator.autocast():
            mine = self._validator.run(self.stage, self._accelerator.device, self._rank, self._world)
        values, picture = summary(gather_object(mine))
        if picture is not None and self._accelerator.is_main_process:
            with replacing_file(self.folder / PICTURES / f"step-{self.step:08d}.png") as temporary:
                Image.fromarray(picture).save(temporary, format="PNG")
        self.last = self.last | values
        return values, picture

    def _save(self) -> None:
        tensors = capture(self._model, self._optimizer, self._mean)
        if self._accelerator.is_main_process:
            scaler = self._accelerator.scaler
            values = {
                "loader": self._loader.state_dict(),
                "scaler": scaler.state_dict() if scaler else None,
                "seconds": self.seconds,
            }
            checkpoint = Checkpoint(self.step, tensors, values)
            write_checkpoint(self.folder / CHECKPOINTS, checkpoint, self.card.checkpoint.keep)
        self._accelerator.wait_for_everyone()

    def _resume(self) -> None:
        folders = list_checkpoints(self.folder / CHECKPOINTS)
        if not folders:
            return
        found = read_checkpoint(folders[-1])
        restore(self._model, self._optimizer, self._mean, found.tensors)
        self._loader.load_state_dict(found.values["loader"])
        if self._accelerator.scaler is not None and found.values["scaler"]:
            self._accelerator.scaler.load_state_dict(found.values["scaler"])
        self.step, self.seconds = found.step, found.values["seconds"]
