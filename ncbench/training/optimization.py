"""The arithmetic of an update: learning rate, accumulation, and the running mean of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ncbench.errors import CardError, ModelError
from ncbench.recipe_card import Optimizer


def learning_rate(step: int, settings: Optimizer, steps: int) -> float:
    """Compute the rate of one update.

    A linear rise from 0 to ``lr`` over ``warmup_steps``, then ``lr * final_ratio ** t`` with t from 0 to 1 until the
    decay ends; as in the training code of Marigold and of Marigold-E2E-FT, whose schedule NormalCrafter's paper names.

    Args:
        step: Number of the update, from 0.
        settings: The recipe's optimizer.
        steps: The recipe's number of updates.

    Returns:
        The rate. Update 0 has that of step 1 of the rise, since a rate of 0 would be an update wasted.
    """
    end = settings.decay_steps or steps
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    past = min(1.0, (step - settings.warmup_steps) / max(1, end - settings.warmup_steps))
    return settings.lr * math.exp(past * math.log(settings.final_ratio))


def accumulation(global_batch: int, world: int, batch_size: int) -> int:
    """Say how many batches each process adds up for an update.

    Args:
        global_batch: Clips an update.
        world: Number of processes.
        batch_size: Clips a batch of one process.

    Returns:
        ``global_batch / (world * batch_size)``.

    Raises:
        CardError: It is no whole number.
    """
    count, rest = divmod(global_batch, world * batch_size)
    if rest or not count:
        raise CardError(
            f"a global batch of {global_batch} cannot be made of {world} processes with {batch_size} clips each: it "
            "must be a multiple of their product. Change global_batch, the loader's batch_size "
            "(--set loader_settings.batch_size=1) or the number of processes."
        )
    return count


def make_optimizer(parameters: Mapping[str, torch.nn.Parameter], settings: Optimizer) -> torch.optim.AdamW:
    """Make AdamW over the parameters that learn.

    Raises:
        ModelError: There is none.
    """
    if not parameters:
        raise ModelError("the stage has no parameter that learns; look at the recipe's settings of what is frozen.")
    return torch.optim.AdamW(
        list(parameters.values()),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


class RunningMean:
    """Exponential moving average of parameters, float32, started at their first values.

    After t updates it is ``d^t p_0 + (1 - d) sum_i d^(t-i) p_i``; there is no correction of the start, because
    p_0 are the weights that training starts from and no zeros.

    Args:
        parameters: Name -> parameter.
        decay: The d above.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        self._parameters = dict(parameters)
        self.values = {name: value.detach().float().clone() for name, value in parameters.items()}
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch has no types here

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters' present values in."""
        self._update(list(self.values.values()), [value.detach() for value in self._parameters.values()], 0)

    def load(self, values: Mapping[str, torch.Tensor]) -> None:
        """Go on from stored values."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the mean in the parameters' place, and them back afterwards."""
        kept = {name: value.detach().clone() for name, value in self._parameters.items()}
        self._set(self.values)
        try:
            yield
        finally:
            self._set(kept)

    @torch.no_grad()
    def _set(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
