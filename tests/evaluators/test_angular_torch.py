"""The torch kernel against float64 numpy, and against the numba kernel's state."""

import numpy as np
import pytest
import torch

from ncbench.errors import ScoreError
from ncbench.evaluators.angular import THRESHOLDS, AngularState
from ncbench.evaluators.angular_torch import angular_state_torch

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def scene(dtype, shape=(150, 500), seed=0):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(*shape, 3)) * 10.0 ** rng.uniform(-12, 12, (*shape, 1))
    preds = target * rng.uniform(0.5, 2) + 0.3 * np.abs(target).max(-1, keepdims=True) * rng.normal(size=(*shape, 3))
    for bad in (0, np.nan, np.inf):
        preds[rng.random(shape) < 0.01] = bad
    mask = rng.random(shape) < 0.8
    target[~mask & (rng.random(shape) < 0.5)] = np.nan
    return preds.astype(dtype), target.astype(dtype), mask


def tensors(arrays, device):
    return [torch.from_numpy(array).to(device) for array in arrays]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_metrics_agree_with_numpy(device, dtype):
    preds, target, mask = scene(dtype)
    state = angular_state_torch(*tensors((preds, target, mask), device), THRESHOLDS, 60.0)
    a, b = (v[mask].astype(np.float64) for v in (preds, target))
    with np.errstate(all="ignore"):
        a, b = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, b))
        errors = np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))
    assert (state.count, state.invalid) == (mask.sum(), np.isnan(errors).sum())
    errors[np.isnan(errors)] = 60
    found = list(state.metrics().values())
    assert found[0] == pytest.approx(errors.mean(), abs=1e-6)
    assert found[1] == pytest.approx(np.median(errors), abs=0.00051)
    assert found[2] == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-6)
    assert found[3:] == pytest.approx([100 * (errors < t).mean() for t in THRESHOLDS], abs=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_state_is_that_of_the_numba_kernel(device, dtype):
    arrays = scene(dtype, seed=1)
    ours, other = angular_state_torch(*tensors(arrays, device)), AngularState.score(*arrays)
    assert (ours.count, ours.invalid, ours.thresholds) == (other.count, other.invalid, other.thresholds)
    np.testing.assert_array_equal(ours.histogram, other.histogram)
    assert abs(ours.total - other.total) <= ours.count
    assert ours.metrics()["rmse"] == pytest.approx(other.metrics()["rmse"], abs=1e-6)
    merged = ours + other
    assert merged.count == 2 * other.count


@pytest.mark.parametrize("device", DEVICES)
def test_exact_thresholds_and_largest_errors(device):
    truth = torch.tensor([[0.0, 0, 2]], device=device)
    preds = torch.tensor([[1.0, 0, 1], [1, 0, 0], [0, 0, -1], [0, 0, 1]], device=device)
    state = angular_state_torch(preds, truth.expand(4, 3), None, (45.0, 45.001, 90.0, 180.0))
    assert list(state.metrics().values())[3:] == [25.0, 50.0, 50.0, 75.0]
    many = truth.expand(100_000, 3)
    assert angular_state_torch(-many, many).metrics()["rmse"] == 180.0


def test_no_pixel_gives_no_number():
    empty = torch.ones(0, 3)
    assert angular_state_torch(empty, empty).metrics() == {}
    ones = torch.ones(2, 5, 3)
    assert angular_state_torch(ones, 0 * ones, torch.zeros(2, 5, dtype=torch.bool)).metrics() == {}


def test_half_precision_is_read_as_it_is():
    preds, target = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0)).half()
    expected = AngularState.score(preds.numpy(), target.numpy())
    np.testing.assert_array_equal(angular_state_torch(preds, target).histogram, expected.histogram)


def test_bad_input_is_refused():
    ones, mask = torch.ones(4, 3), torch.ones(4, dtype=torch.bool)
    with pytest.raises(ScoreError, match="Channels come last"):
        angular_state_torch(torch.ones(3, 4), torch.ones(3, 4))
    with pytest.raises(ScoreError, match="bool mask"):
        angular_state_torch(ones, ones, mask.int())
    with pytest.raises(ScoreError, match="one device"):
        angular_state_torch(ones, ones.to("meta"), mask)
    with pytest.raises(ScoreError, match="ascending whole multiples"):
        angular_state_torch(ones, ones, mask, (5.0, 4.0))
    for bad in (0.0, torch.nan, torch.inf):
        target = torch.tensor([[1.0, 0, 0], [bad, 0, 0]])
        with pytest.raises(ScoreError, match="at 1 pixels inside the mask"):
            angular_state_torch(ones[:2], target)
