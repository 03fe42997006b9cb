"""Runs in processes of their own: killed at random points, and several that train together."""

import multiprocessing
import random
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ncbench.training.checkpoint import list_checkpoints, read_checkpoint
from ncbench.training.logs import read_log

STORES = "data/stores"
NOISY = "settings={noise: 0.3, dropout: 0.2, seconds: 0.004}"


@pytest.fixture
def processes(linear, monkeypatch):
    """Processes forked from a clean one that has all imports behind it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm_imports"])
    import linear_stage

    return lambda *arguments: context.Process(target=linear_stage.train_here, args=arguments)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def trace(to):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in read_log(to)]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_run_killed_at_random_points_ends_bit_for_bit_as_an_undisturbed_one(linear, processes):
    recipe = linear / "recipes" / "linear.yaml"
    changes = [NOISY, "steps=40", "checkpoint.every=3", "ema=0.9"]
    whole = processes(recipe, linear / "whole", STORES, changes)
    whole.start()
    chance, kills, places = random.Random(3), 0, set()
    for upto in sorted(chance.sample(range(2, 36), 4)):
        process = processes(recipe, linear / "killed", STORES, changes)
        process.start()
        deadline = time.monotonic() + 60
        while process.is_alive() and len(read_log(linear / "killed")) < upto and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.02)
        kills += process.is_alive()
        process.kill()
        process.join()
        kept = list_checkpoints(linear / "killed" / "checkpoints")
        places.add(kept[-1].name if kept else "none")
        assert len(kept) <= 3  # two, and one that was about to go
    assert kills >= 2
    assert len(places) >= 2
    last = processes(recipe, linear / "killed", STORES, changes)
    for process in (whole, last):
        if process is last:
            process.start()
        process.join(120)
        assert process.exitcode == 0
    assert trace(linear / "killed") == trace(linear / "whole")
    assert [step for step, *_ in trace(linear / "whole")] == list(range(1, 41))
    files = [load_file(linear / name / "model" / "linear.safetensors") for name in ("killed", "whole")]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[1])
    assert not list((linear / "killed").rglob("*.partial"))


def test_two_processes_do_what_one_with_twice_the_accumulation_does(linear, processes):
    """Noise included: what a batch draws depends on its number, not on who computes it."""
    recipe = linear / "recipes" / "linear.yaml"
    changes = [
        *("settings={noise: 0.3, dropout: 0.2}", "global_batch=4"),
        "validation={dataset: tiny, sequences: [two], every: 6, frames: 1, clips: 3, pictures: 2}",
    ]

    def together(alone, paired, changes):
        port = free_port()
        started = [processes(recipe, linear / paired, STORES, changes, (rank, 2, port)) for rank in range(2)]
        started.append(processes(recipe, linear / alone, STORES, changes))
        for process in started:
            process.start()
        for process in started:
            process.join(120)
            assert process.exitcode == 0

    together("one", "two", changes)
    together("two", "one", [*changes, "steps=16"])  # each goes on as the other began
    assert len(trace(linear / "two")) == 16
    assert trace(linear / "two") == [pytest.approx(line, rel=1e-4) for line in trace(linear / "one")]
    files = [load_file(linear / name / "model" / "linear.safetensors") for name in ("two", "one")]
    assert torch.allclose(files[0]["colour.weight"], files[1]["colour.weight"], atol=1e-6)
    scores = [
        [line["validation_mean"] for line in read_log(linear / name) if "validation_mean" in line]
        for name in ("two", "one")
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    assert len(scores[0]) == 3
    assert Path(linear / "two" / "pictures" / "step-00000012.png").is_file()


NETWORKS = """{
    unet: {channels: [64, 64], heads: [2, 2], layers: 1, time_embedding: 8},
    vae: {channels: [32, 32], layers: 1},
    image_encoder: {hidden: 16, layers: 1, heads: 2, patch: 56, token: 16},
}"""
SEMANTIC = "{random: {hidden: 24, patch: 4}, hidden: 32, block: up0}"
REAL = {  # with what hooks the network or computes it twice, and with what a process keeps beside its parameters
    "latent": f"{{networks: {NETWORKS}, semantic: {SEMANTIC}, gradient_checkpointing: true}}",
    "autoencoder": f"{{networks: {NETWORKS}}}",
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_two_processes_train_a_real_stage_as_one_does(linear, processes, name):
    stage = f"ncbench.training.{name}_stage:{name.capitalize()}Stage"
    changes = [f"stage={stage}", f"settings={REAL[name]}", "steps=2", "optimizer={lr: 1e-4, warmup_steps: 1}"]
    recipe, port = linear / "recipes" / "linear.yaml", free_port()
    started = [processes(recipe, linear / "two", STORES, changes, (rank, 2, port)) for rank in range(2)]
    started.append(processes(recipe, linear / "one", STORES, changes))
    for process in started:
        process.start()
    for process in started:
        process.join(120)
        assert process.exitcode == 0
    assert trace(linear / "two") == [pytest.approx(line, rel=1e-3) for line in trace(linear / "one")]
    ends = [read_checkpoint(list_checkpoints(linear / run / "checkpoints")[-1]).tensors for run in ("two", "one")]
    (two, one), (learnt, expected) = ([end[group] for end in ends] for group in ("optimizer", "parameters"))
    assert (set(two), set(learnt)) == (set(one), set(expected))
    for key in [key for key in one if key.endswith("/exp_avg")]:  # the mean of the gradients
        assert (two[key] - one[key]).norm() <= 1e-2 * one[key].norm() + 1e-6, key
    if name == "autoencoder":  # its running moments count the batches of both processes
        torch.testing.assert_close(learnt["moments"], expected["moments"], rtol=1e-5, atol=1e-8)
        assert expected["moments"][2] == pytest.approx(1 - 0.99**4)  # two steps of two batches


def test_the_state_of_sharded_parameters_comes_whole_and_goes_back(processes, tmp_path):
    import linear_stage

    context = multiprocessing.get_context("forkserver")
    port, found = free_port(), tmp_path / "states"
    started = [context.Process(target=linear_stage.sharded_round_trip, args=(rank, port, found)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    before, after = (read_checkpoint(folder).tensors for folder in list_checkpoints(found))
    # by hand: an image of ones and a target of zero give all weights of a row, and its bias, the same gradient
    assert {name: tuple(value.shape) for name, value in before["parameters"].items()} == {
        "colour.weight": (3, 3),
        "colour.bias": (3,),
        "batches": (),
    }
    moments = before["optimizer"]["colour.weight/exp_avg"]
    assert torch.allclose(moments, before["optimizer"]["colour.bias/exp_avg"][:, None].expand(3, 3))
    assert before["optimizer"]["colour.bias/step"] == 2
    for name, tensors in before.items():
        assert set(after[name]) == set(tensors)
        assert all(torch.equal(after[name][key], value) for key, value in tensors.items())
