"""Learning rate, running mean, batch division, against closed forms."""

import itertools
import math

import pytest
import torch

from ncbench.errors import CardError, ModelError
from ncbench.recipe_card import Optimizer
from ncbench.training.optimization import RunningMean, accumulation, learning_rate, make_optimizer


def test_the_learning_rate_rises_linearly_and_decays_exponentially_to_the_final_ratio():
    settings = Optimizer(lr=3e-5, warmup_steps=100, final_ratio=0.01)
    rates = [learning_rate(step, settings, 20_000) for step in range(20_001)]
    assert rates[0] == pytest.approx(3e-7)
    assert rates[49] == pytest.approx(1.5e-5)
    assert rates[99] == rates[100] == pytest.approx(3e-5)
    assert rates[20_000] == pytest.approx(3e-7)
    # half way through the decay the root of the ratio is left, and each step divides by the same number
    assert rates[(100 + 20_000) // 2] == pytest.approx(3e-5 * 0.1)
    factors = [after / before for before, after in itertools.pairwise(rates[100:])]
    assert max(factors) - min(factors) < 1e-12
    assert factors[0] == pytest.approx(0.01 ** (1 / 19_900))


def test_the_decay_may_end_before_the_run_and_may_be_none():
    early = Optimizer(lr=1.0, warmup_steps=0, final_ratio=0.1, decay_steps=10)
    assert [learning_rate(step, early, 100) for step in (0, 5, 10, 99)] == pytest.approx(
        [1.0, math.sqrt(0.1), 0.1, 0.1]
    )
    constant = Optimizer(lr=2.0, warmup_steps=0, final_ratio=1.0)
    assert {learning_rate(step, constant, 7) for step in range(7)} == {2.0}


def test_the_running_mean_is_the_closed_form_and_steps_aside():
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    mean, decay, values = RunningMean({"p": parameter}, 0.9), 0.9, [torch.tensor([1.0, -2.0], dtype=torch.float64)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        with torch.no_grad():
            parameter.copy_(torch.randn(2, generator=generator))
        values.append(parameter.detach().double())
        mean.update()
    t = len(values) - 1
    wanted = decay**t * values[0] + (1 - decay) * sum(decay ** (t - i) * values[i] for i in range(1, t + 1))
    assert torch.allclose(mean.values["p"].double(), wanted, atol=1e-6)
    with mean.applied():
        assert torch.equal(parameter.detach(), mean.values["p"])
    assert torch.equal(parameter.detach().double(), values[-1])


@pytest.mark.parametrize(("sizes", "count"), [((8, 8, 1), 1), ((8, 1, 1), 8), ((8, 2, 2), 2), ((32, 1, 2), 16)])
def test_accumulation_makes_up_the_global_batch(sizes, count):
    assert accumulation(*sizes) == count


@pytest.mark.parametrize("sizes", [(8, 3, 1), (8, 1, 3), (2, 4, 1)])
def test_a_batch_that_cannot_be_divided_is_refused(sizes):
    with pytest.raises(CardError, match=f"global batch of {sizes[0]} cannot be made of {sizes[1]} processes"):
        accumulation(*sizes)


def test_nothing_to_learn_is_refused():
    with pytest.raises(ModelError, match="no parameter that learns"):
        make_optimizer({}, Optimizer(lr=1.0))
