"""Checkpoints appear whole or not at all, and the newest whole one counts."""

import json
import resource
from types import SimpleNamespace

import pytest
import torch

from ncbench.errors import StoreError
from ncbench.training import checkpoint as module
from ncbench.training.checkpoint import Checkpoint, list_checkpoints, read_checkpoint, write_checkpoint


def made(step, size=3):
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "parameters": {"a.weight": torch.randn(size, 2, generator=generator), "half": torch.ones(2).bfloat16()},
        "optimizer": {"a.weight/step": torch.tensor(float(step)), "a.weight/exp_avg": torch.randn(size, 2)},
    }
    return Checkpoint(step, tensors, {"loader": {"epoch": 1}, "seconds": 0.5})


def test_what_was_written_is_read_bit_for_bit(tmp_path):
    before = made(7)
    after = read_checkpoint(write_checkpoint(tmp_path / "c", before, keep=1))
    assert (after.step, after.values) == (7, before.values)
    assert set(after.tensors) == set(before.tensors)
    for name, tensors in before.tensors.items():
        assert set(after.tensors[name]) == set(tensors)
        for key, value in tensors.items():
            assert after.tensors[name][key].dtype == value.dtype
            assert torch.equal(after.tensors[name][key], value)


def test_the_newest_k_stay_and_halves_do_not_count(tmp_path):
    for step in (5, 10, 15, 100):
        write_checkpoint(tmp_path, made(step), keep=2)
    (tmp_path / ".step-00000200.partial").mkdir()
    (tmp_path / "step-00000300").mkdir()  # no state.json: not one of ours
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000015", "step-00000100"]
    write_checkpoint(tmp_path, made(200), keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000200"]
    assert not (tmp_path / ".step-00000200.partial").exists()


@pytest.mark.parametrize("damage", ["cut", "missing", "garbage", "state"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    folder = write_checkpoint(tmp_path, made(5), keep=1)
    path = folder / "parameters.safetensors"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-8])
    elif damage == "missing":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"\xff" * len(content))
    else:
        (folder / "state.json").write_text(json.dumps([1]))
    with pytest.raises(StoreError, match="step-00000005: this checkpoint is damaged"):
        read_checkpoint(folder)


def test_a_full_disk_is_named_and_the_last_good_checkpoint_stays(tmp_path):
    good = write_checkpoint(tmp_path, made(5), keep=2)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        with pytest.raises(StoreError, match="disk is full or a size limit was reached.*free now"):
            write_checkpoint(tmp_path, made(10, size=10_000), keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == [good]
    assert read_checkpoint(good).step == 5


def test_too_little_space_is_named_before_anything_is_written(tmp_path, monkeypatch):
    good = write_checkpoint(tmp_path, made(5), keep=2)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(StoreError, match=r"needs 0\.2 MiB, 0\.0 MiB are free"):
        write_checkpoint(tmp_path, made(10, size=10_000), keep=2)
    assert list(tmp_path.iterdir()) == [good]
