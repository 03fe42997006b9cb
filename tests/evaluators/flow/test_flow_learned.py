"""What the learned sources promise to their networks, with small networks in place of the real ones."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from ncbench.errors import CardError, ModelError, ScoreError
from ncbench.evaluators.flow.gmflow import GmflowFlow, GmflowSettings
from ncbench.evaluators.flow.raft import RaftFlow, RaftSettings
from ncbench.evaluators.flow.registry import load_flow
from ncbench.evaluators.flow.weights import import_optional, read_state
from ncbench.evaluators.view import View
from ncbench.files import file_sha256


def view(seed, height, width):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    size = (height, width)
    return View("clip", seed, np.zeros((*size, 3), np.float32), np.zeros(size, bool), image=image)


class Echo(torch.nn.Module):
    """Answers with the first two channels of its first picture, and keeps what it was asked."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.zeros(1))
        self.asked = []


class EchoRaft(Echo):
    def forward(self, image1, image2, num_flow_updates=12):
        self.asked.append((image1, image2, num_flow_updates, self.training, torch.is_inference_mode_enabled()))
        return [image1[:, :2] * 0 - step for step in range(1, num_flow_updates)] + [image1[:, :2] * self.gain]


class EchoGmflow(Echo):
    def forward(self, inputs):
        self.asked.append((inputs["images"], self.training))
        return {"flows": inputs["images"][:, :1, :2] * self.gain}


def checkpoint(path, wrap=lambda state: state):
    torch.save(wrap({"gain": torch.ones(1)}), path)
    return path


@pytest.fixture
def raft_modules(monkeypatch):
    """A torchvision that holds echoes; gives what its functions were called with."""
    calls = []
    modules = [ModuleType(name) for name in ("torchvision", "torchvision.models", "torchvision.models.optical_flow")]

    def make(name):
        def build(*, weights=None, progress=True):
            calls.append((name, weights))
            return EchoRaft()

        return build

    modules[2].raft_large, modules[2].raft_small = make("large"), make("small")
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


@pytest.mark.parametrize(
    ("height", "width", "padded"), [(130, 203, (136, 208)), (136, 208, (136, 208)), (20, 33, (128, 128))]
)
def test_raft_pads_scales_and_crops(tmp_path, raft_modules, height, width, padded):
    source = RaftFlow(RaftSettings(weights=checkpoint(tmp_path / "raft.pth"), updates=5))
    a, b = view(0, height, width), view(1, height, width)
    match = source.match(a, b)
    np.testing.assert_allclose(match.flow, a.image[..., :2] / 127.5 - 1, atol=1e-6)  # crop and scale are undone
    assert match.flow.dtype == np.float32
    assert match.visible is None
    ((first, second, updates, training, inference),) = source._model.asked
    assert (updates, training, inference) == (5, False, True)
    assert first.shape == second.shape == (1, 3, *padded)
    top, left = (padded[0] - height) // 2, (padded[1] - width) // 2
    expected = np.pad(
        b.image.astype(np.float32) / 127.5 - 1,
        ((top, padded[0] - height - top), (left, padded[1] - width - left), (0, 0)),
        mode="edge",
    )
    np.testing.assert_allclose(second[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_raft_is_named_by_all_that_changes_its_answer(tmp_path, raft_modules):
    path = checkpoint(tmp_path / "raft.pth")
    digest = file_sha256(path)[:8]
    source = load_flow("raft", {"weights": str(path), "variant": "small"})
    assert source.name == f"raft-small-12-{digest}"
    assert source.estimated
    assert raft_modules == [("small", None)]  # None: torchvision must not download


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_checkpoints_may_be_wrapped(tmp_path, key):
    path = tmp_path / "wrapped.pth"
    torch.save({key: {"module.gain": torch.ones(1)}, "epoch": 3}, path)
    assert list(read_state(path)) == ["gain"]


def test_bad_checkpoints_are_refused(tmp_path, raft_modules):
    with pytest.raises(ModelError, match="found no file. Download a checkpoint"):
        RaftFlow(RaftSettings(weights=tmp_path / "none.pth"))
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="is no checkpoint of plain tensors"):
        RaftFlow(RaftSettings(weights=damaged))
    code = tmp_path / "code.pth"
    torch.save({"gain": print}, code)  # a name that unpickling would look up
    with pytest.raises(ModelError, match="is no checkpoint of plain tensors"):
        RaftFlow(RaftSettings(weights=code))
    empty = tmp_path / "empty.pth"
    torch.save({"epoch": 3}, empty)
    with pytest.raises(ModelError, match="expected a state dict"):
        RaftFlow(RaftSettings(weights=empty))
    other = tmp_path / "other.pth"
    torch.save({"loss": torch.ones(1)}, other)
    with pytest.raises(ModelError, match="does not fit torchvision's raft_large"):
        RaftFlow(RaftSettings(weights=other))


def test_raft_without_torchvision_says_which_one_to_get(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.models.optical_flow", raising=False)
    path = checkpoint(tmp_path / "raft.pth")
    with pytest.raises(ModelError) as caught:
        RaftFlow(RaftSettings(weights=path))
    message = str(caught.value)
    assert "flow source 'raft' needs torchvision.models.optical_flow, which cannot be imported" in message
    assert f"made for torch {torch.__version__}" in message
    assert "use source 'dis'" in message


def test_a_build_for_another_torch_is_explained(tmp_path, monkeypatch):
    """This is how such a torchvision fails."""
    (tmp_path / "mismatched_build.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="RuntimeError: operator torchvision::nms does not exist.* Get another"):
        import_optional("mismatched_build", "raft", "Get another.")


@pytest.fixture
def gmflow_module(monkeypatch):
    module, calls = ModuleType("ptlflow"), []

    def get_model(name, ckpt_path=None):
        calls.append((name, ckpt_path))
        return EchoGmflow()

    module.get_model = get_model
    monkeypatch.setitem(sys.modules, "ptlflow", module)
    return calls


def test_gmflow_gets_bgr_in_zero_to_one(tmp_path, gmflow_module):
    path = checkpoint(tmp_path / "gmflow.ckpt", lambda state: {"state_dict": state})
    source = load_flow("gmflow", {"weights": path})
    a, b = view(0, 30, 45), view(1, 30, 45)
    match = source.match(a, b)
    np.testing.assert_allclose(match.flow, a.image[..., [2, 1]] / 255, atol=1e-6)
    ((images, training),) = source._model.asked
    assert not training
    assert images.shape == (1, 2, 3, 30, 45)
    np.testing.assert_allclose(images[0, 1].permute(1, 2, 0).numpy(), b.image[..., ::-1] / 255, atol=1e-6)
    assert gmflow_module == [("gmflow", None)]
    assert source.name == f"gmflow-{file_sha256(path)[:8]}"


def test_gmflow_errors(tmp_path, monkeypatch, gmflow_module):
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"loss": torch.ones(1)}}, other)
    with pytest.raises(ModelError, match="does not fit ptlflow's gmflow_refine"):
        GmflowFlow(GmflowSettings(weights=other, variant="gmflow_refine"))
    source = GmflowFlow(GmflowSettings(weights=checkpoint(tmp_path / "gmflow.ckpt")))
    with pytest.raises(ScoreError, match="pictures of one size"):
        source.match(view(0, 30, 45), view(1, 30, 46))
    monkeypatch.setitem(sys.modules, "ptlflow", None)
    with pytest.raises(ModelError, match=r"needs ptlflow, which cannot be imported.*Install ptlflow 0\.4\.2 or newer"):
        GmflowFlow(GmflowSettings(weights=checkpoint(tmp_path / "gmflow.ckpt")))


def test_weights_are_required():
    with pytest.raises(CardError, match="key 'weights' is required"):
        load_flow("raft")
