"""The loop against a training loop written out by hand, and what it refuses, resumes and leaves."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from ncbench import catalog
from ncbench.cli import app
from ncbench.datasets.store import open_store
from ncbench.errors import CardError, ModelError, StoreError
from ncbench.loader_card import LoaderCard
from ncbench.loaders.clips import NormalClips
from ncbench.loaders.loader import Loader
from ncbench.training.checkpoint import read_checkpoint
from ncbench.training.logs import read_log
from ncbench.training.run import Options, train

STORES = "data/stores"
VALIDATION = "validation={dataset: tiny, sequences: [two], every: 5, frames: 2, clips: 2, pictures: 1}"

ELSEWHERE = (
    "{repository: a/b, revision: c, files: {x.json: null}, host: elsewhere, homepage: 'http://h', "
    "licence: {name: L, redistribution: true}}"
)


def run(to, *changes, **options):
    said = []
    folder = train("linear", Options(to=to, stores=STORES, assignments=changes, workers=0, tell=said.append, **options))
    return folder, said


def weights(folder):
    return {name: value for name, value in load_file(folder / "linear.safetensors").items() if name != "batches"}


def losses(to):
    return [line["loss"] for line in read_log(to)]


def by_hand(steps, accumulation, lr=0.01, warmup=3, final=0.01, clip=1.0, seed=0):
    """AdamW written out in float64 (Loshchilov and Hutter, algorithm 2), on the batches that the loader gives."""
    generator = torch.Generator().manual_seed(seed)
    start = [0.1 * torch.randn(shape, generator=generator) for shape in ((3, 3), (3,))]
    parameters = [value.double().requires_grad_() for value in start]
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    clips = NormalClips({"tiny": open_store(f"{STORES}/tiny")}, catalog.load(LoaderCard, "tiny-loader"))
    batches, trace = iter(Loader(clips, endless=True)), []
    for step in range(steps):
        total = 0.0
        for batch in [next(batches) for _ in range(accumulation)]:
            image, normal = (batch[key].movedim(2, -1).double() for key in ("image", "normal"))
            total = total + ((image @ parameters[0].T + parameters[1] - normal) ** 2).mean() / accumulation
        grads = torch.autograd.grad(total, parameters)
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
        past = (step - warmup) / (steps - warmup)
        rate = lr * (step + 1) / warmup if step < warmup else lr * final**past
        for index, grad in enumerate(grads):
            g = grad * min(1.0, clip / (norm + 1e-6))
            first[index] = 0.9 * first[index] + 0.1 * g
            second[index] = 0.999 * second[index] + 0.001 * g**2
            m, v = first[index] / (1 - 0.9 ** (step + 1)), second[index] / (1 - 0.999 ** (step + 1))
            with torch.no_grad():
                parameters[index] -= rate * (m / (v.sqrt() + 1e-8) + 0.01 * parameters[index])
        trace.append((total.item(), norm, rate))
    return parameters, trace


@pytest.mark.parametrize("image", ["float32", "uint8"])
def test_a_run_is_the_loop_written_out_by_hand(linear, image):
    folder, _ = run(linear / "run", f"loader_settings.image={image}", "log_every=1")
    parameters, trace = by_hand(12, 2)
    log = read_log(linear / "run")
    assert [line["step"] for line in log] == list(range(1, 13))
    for line, (loss, norm, rate) in zip(log, trace, strict=True):
        assert line["loss"] == pytest.approx(loss, rel=1e-5)
        assert line["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert line["lr"] == pytest.approx(rate, rel=1e-12)
        assert 0 <= line["loader_wait_share"] <= 1
        assert line["samples_per_second"] > 0
    found = weights(folder)
    assert torch.allclose(found["colour.weight"].double(), parameters[0], atol=2e-6)
    assert torch.allclose(found["colour.bias"].double(), parameters[1], atol=2e-6)
    assert found["scale"] == 1  # did not learn
    board = EventAccumulator(str(linear / "run" / "tensorboard")).Reload()
    assert [event.value for event in board.Scalars("loss")] == pytest.approx(losses(linear / "run"))


def test_accumulation_equals_a_big_batch(linear):
    one, _ = run(linear / "one", "loader_settings.shuffle=none", "global_batch=3", "loader_settings.batch_size=3")
    three, _ = run(linear / "three", "loader_settings.shuffle=none", "global_batch=3", "loader_settings.batch_size=1")
    assert losses(linear / "one") == pytest.approx(losses(linear / "three"), rel=1e-5)
    for name, value in weights(one).items():
        assert torch.allclose(value, weights(three)[name], atol=1e-6)


@pytest.mark.parametrize("ema", ["null", "0.8"])
def test_a_run_that_stops_and_resumes_is_the_undisturbed_run_bit_for_bit(linear, ema):
    """With noise of the step's generator and dropout of torch's own; the buffer counts on, too."""
    changes = ["settings={noise: 0.3, dropout: 0.2}", f"ema={ema}", VALIDATION]
    whole, _ = run(linear / "whole", *changes)
    broken = linear / "broken"
    run(broken, *changes)
    shutil.rmtree(broken / "model")
    shutil.rmtree(broken / "checkpoints" / "step-00000012")
    with (broken / "log.jsonl").open("a") as stream:
        stream.write('{"step": 13, "lo')  # killed while it wrote
    torch.manual_seed(5)
    resumed, said = run(broken, *changes)
    assert "goes on at step 8" in said[0]
    assert losses(broken) == losses(linear / "whole")
    assert [line["step"] for line in read_log(broken)] == list(range(1, 13))
    for name, value in load_file(whole / "linear.safetensors").items():
        assert torch.equal(value, load_file(resumed / "linear.safetensors")[name])
    assert [
        {key: value for key, value in line.items() if key.startswith("validation")} for line in read_log(broken)
    ] == [
        {key: value for key, value in line.items() if key.startswith("validation")}
        for line in read_log(linear / "whole")
    ]


def test_the_running_mean_is_what_is_kept(linear):
    kept, _ = run(linear / "run", "ema=0.5", "steps=4", "checkpoint.every=1", "checkpoint.keep=9")
    checkpoints = [read_checkpoint(linear / "run" / "checkpoints" / f"step-{step:08d}") for step in range(1, 5)]
    generator = torch.Generator().manual_seed(0)
    wanted = 0.1 * torch.randn((3, 3), generator=generator).double()
    for found in checkpoints:
        wanted = 0.5 * wanted + 0.5 * found.tensors["parameters"]["colour.weight"].double()
    assert torch.allclose(weights(kept)["colour.weight"].double(), wanted, atol=1e-7)
    assert "running mean" in (kept / "README.md").read_text()
    assert "scale" not in checkpoints[0].tensors["parameters"]


def test_the_result_says_how_it_came_to_be_and_a_finished_run_is_not_repeated(linear):
    folder, _ = run(linear / "run", "steps=6", "optimizer.eps=1e-7")
    record = json.loads((folder / "provenance.json").read_text())
    store = open_store(f"{STORES}/tiny")
    assert record["data"] == {"tiny": store.manifest.digest}
    readme = (folder / "README.md").read_text()
    assert f"tiny (`{store.manifest.digest[:12]}`)" in readme
    assert record["code"]["commit"] in readme
    assert (record["steps"], record["seed"], record["world"], record["device"]) == (6, 0, 1, "CPU")
    assert record["last"]["loss"] == losses(linear / "run")[-1]
    assert record["versions"]["torch"] == torch.__version__
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert (recipe["steps"], recipe["optimizer"]["eps"]) == (6, 1e-7)
    before = (folder / "provenance.json").stat().st_mtime_ns
    _, said = run(linear / "run", "steps=6", "optimizer.eps=1e-7")
    assert "already trained for 6 steps" in said[0]
    assert (folder / "provenance.json").stat().st_mtime_ns == before
    _, said = run(linear / "run", "steps=9", "optimizer.eps=1e-7")
    assert "goes on at step 6" in said[0]
    assert json.loads((folder / "provenance.json").read_text())["steps"] == 9
    assert len(losses(linear / "run")) == 9


def test_another_recipe_goes_on_from_the_result_beside_it_or_where_init_points(linear):
    first, _ = run(linear / "runs" / "linear", "steps=4")
    child = {"extends": "linear", "name": "second", "init": "linear", "optimizer": {"lr": 1e-9}, "steps": 4}
    (linear / "recipes" / "second.yaml").write_text(yaml.safe_dump(child))
    options = {"stores": STORES, "workers": 0}
    folder = train("second", Options(to=linear / "runs" / "second", **options))
    assert torch.allclose(weights(folder)["colour.weight"], weights(first)["colour.weight"], atol=1e-6)
    record = json.loads((folder / "provenance.json").read_text())
    assert record["init"]["name"] == "linear"
    assert "linear.safetensors" in record["init"]["sha256"]
    for init in (linear / "runs" / "linear", first):
        other = train("second", Options(to=linear / init.name, init=init, **options))
        assert torch.equal(weights(other)["colour.weight"], weights(folder)["colour.weight"])
    with pytest.raises(
        ModelError, match=r"goes on from what 'linear' made.*ncbench train linear --to .*elsewhere/linear"
    ):
        train("second", Options(to=linear / "elsewhere" / "second", **options))
    with pytest.raises(ModelError, match="no such folder of weights"):
        train("second", Options(to=linear / "new", init=linear / "nowhere", **options))


def test_a_changed_recipe_or_data_is_refused_on_resume_with_what_differs(linear):
    run(linear / "run", "steps=4")
    with pytest.raises(CardError, match=r"recipe.optimizer.lr was 0\.01, is now 0\.02; recipe.seed was 0, is now 1\."):
        run(linear / "run", "steps=8", "optimizer.lr=0.02", "seed=1")
    with pytest.raises(CardError, match=r"loader.flip was 0\.0, is now 0\.5"):
        run(linear / "run", "steps=8", "loader_settings.flip=0.5")
    assert run(linear / "run", "steps=5", "checkpoint.keep=1", "log_every=2", "title=Other")


def test_files_beside_init_are_part_of_the_run_and_a_swapped_one_is_refused_by_name(linear):
    (linear / "dino").mkdir()
    (linear / "dino" / "model.safetensors").write_bytes(b"abc")
    changes = ("settings={reads: [dino/model.safetensors]}", "steps=4")
    folder, _ = run(linear / "run", *changes)
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, of "abc"
    record = json.loads((folder / "provenance.json").read_text())
    assert record["files"] == {"dino/model.safetensors": digest}
    assert "already trained" in run(linear / "run", *changes)[1][0]
    (linear / "dino" / "model.safetensors").write_bytes(b"abd")
    with pytest.raises(CardError, match=rf'files\.dino/model\.safetensors was "{digest[:50]}.*, is now'):
        run(linear / "run", *changes)
    assert "goes on" not in run(linear / "run", *changes, restart=True)[1][0]


def test_a_restart_begins_anew_where_the_recipe_changed_and_goes_on_where_it_did_not(linear):
    run(linear / "run", "steps=4", "checkpoint.every=2")
    run(linear / "run", "steps=4", "optimizer.lr=0.02", restart=True)
    run(linear / "fresh", "steps=4", "optimizer.lr=0.02")
    assert losses(linear / "run") == losses(linear / "fresh")
    _, said = run(linear / "run", "steps=4", "optimizer.lr=0.02", restart=True)
    assert "already trained for 4 steps" in said[0]
    _, said = run(linear / "run", "steps=6", "optimizer.lr=0.02", restart=True)
    assert "goes on at step 4" in said[0]
    run(linear / "run", "steps=5", "optimizer.lr=0.02", restart=True)  # a recipe of fewer steps is another result
    assert len(losses(linear / "run")) == 5


def test_a_run_that_stopped_before_its_first_checkpoint_may_begin_anew_with_other_settings(linear):
    (linear / "empty").mkdir()
    with pytest.raises(FileNotFoundError):  # of weights: the settings are to blame
        run(linear / "run", "steps=4", init=linear / "empty")
    folder, _ = run(linear / "run", "steps=4", "optimizer.lr=0.02")
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["optimizer"]["lr"] == 0.02
    with pytest.raises(CardError, match=r"optimizer.lr was 0\.02"):
        run(linear / "run", "steps=5")


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_a_loss_that_is_no_number_stops_before_any_harm_and_names_the_frames(linear, bad):
    sets = (
        "loader_settings={sets: [{dataset: tiny, sequences: [one], weight: 9}, {dataset: other, weight: 2}], seed: 0}"
    )
    shutil.copytree(linear / "data" / "stores" / "tiny", linear / "stores" / "tiny")
    shutil.copytree(linear / "data" / "stores" / "tiny", linear / "stores" / "other")
    changes = (sets, f"settings={{bad_sequence: two, bad_value: {bad}}}", "checkpoint.every=1", "checkpoint.keep=99")
    options = Options(to=linear / "run", stores=linear / "stores", assignments=changes, workers=0)
    with pytest.raises(
        ModelError, match=r"step \d+: .*loss = .*nothing was changed.*'other' sequence 'two' frames"
    ) as e:
        train("linear", options)
    record = json.loads((linear / "run" / "bad-batch.json").read_text())
    step = record["step"]
    assert step > 1
    assert f"step {step}:" in str(e.value)
    for batch in record["batches"]:
        assert {(clip["dataset"], clip["sequence"]) for clip in batch["clips"]} == {("other", "two")}
    assert len(losses(linear / "run")) == step - 1
    assert not (linear / "run" / "model").exists()
    kept = sorted((linear / "run" / "checkpoints").glob("step-*"))
    assert len(kept) == step - 1
    assert all(value.isfinite().all() for value in read_checkpoint(kept[-1]).tensors["parameters"].values())


def test_validation_measures_held_out_clips_and_draws_them(linear):
    folder, _ = run(linear / "run", VALIDATION)
    lines = [line for line in read_log(linear / "run") if "validation_mean" in line]
    assert [line["step"] for line in lines] == [5, 10, 12]
    found = weights(folder)
    clips = NormalClips({"tiny": open_store(f"{STORES}/tiny")}, sets=[{"dataset": "tiny", "sequences": ["two"]}])
    errors = []
    for index in range(3):
        clip = clips[index]
        image = clip["image"][0].permute(1, 2, 0).double() / 127.5 - 1
        preds = image @ found["colour.weight"].double().T + found["colour.bias"].double()
        target = clip["normal"][0].permute(1, 2, 0).double() * torch.tensor([1.0, -1.0, -1.0])  # OpenGL, as trained
        cosine = torch.nn.functional.cosine_similarity(preds, target, dim=-1).clamp(-1, 1)
        errors.append(torch.rad2deg(torch.acos(cosine))[clip["valid"][0]])
    assert lines[-1]["validation_mean"] == pytest.approx(float(torch.cat(errors).mean()), abs=1e-3)
    picture = np.asarray(Image.open(linear / "run" / "pictures" / "step-00000012.png"))
    assert picture.shape[2] == 3
    assert picture.std() > 10
    board = EventAccumulator(str(linear / "run" / "tensorboard")).Reload()
    assert [event.step for event in board.Images("validation")] == [5, 10, 12]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("loader_settings.sets=[]", "loader_settings: key 'sets'"),
        ("loader_settings.length=[9, 9]", "expected clips of at least 9 frames, but the longest stretch"),
        ("loader_settings.sets=[{dataset: nothing}]", "data set 'nothing' is not in data/stores"),
        ("loader_settings.flipp=1", "unknown key 'flipp'"),
        ("loader=nothing", "no loader recipe is called 'nothing'"),
        ("global_batch=3", "a global batch of 3 cannot be made of 1 processes with 2 clips each"),
        ("stage=math:tau", "is not a subclass of ncbench.training.stage.Stage"),
        ("validation={dataset: tiny}", "data set 'tiny' is trained on"),
        ("validation={dataset: tiny, sequences: [one]}", "is trained on"),
        (f"init={ELSEWHERE}", "get x.json from http://h and pass the folder with --init"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(linear, change, words):
    batch = "loader_settings.batch_size=2" if "global" in change else "seed=0"
    with pytest.raises((CardError, ModelError), match=words.replace("(", r"\(")):
        run(linear / "run", change, batch)
    assert not (linear / "run" / "checkpoints").exists()


def test_a_folder_of_somebody_else_or_of_a_run_that_goes_on_is_left_alone(linear):
    (linear / "mine").mkdir()
    (linear / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="holds files that no training run put there"):
        run(linear / "mine")
    assert [path.name for path in (linear / "mine").iterdir()] == ["thesis.tex"]
    from ncbench.training.folder import claimed

    with claimed(linear / "run"), pytest.raises(StoreError, match="another process trains here"):
        run(linear / "run")


def test_number_formats_follow_each_other_in_one_process(linear):
    run(linear / "a", "precision=bf16", "steps=4")
    run(linear / "b", "precision=fp32", "steps=4")
    assert losses(linear / "a") == pytest.approx(losses(linear / "b"), rel=0.05)
    assert losses(linear / "a") != losses(linear / "b")


def test_the_commands(linear):
    runner = CliRunner()
    done = runner.invoke(
        app, ["train", "linear", "--to", "runs/x", "--profile", "short", "--set", "optimizer.lr=0.5", "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    assert "linear starts from nothing: networks from scratch: 5 steps, 12 parameters learn" in done.output
    assert read_log(linear / "runs" / "x")[-1]["step"] == 5
    assert yaml.safe_load((linear / "runs/x/model/recipe.yaml").read_text())["optimizer"]["lr"] == 0.5
    assert "trained for 6 steps" in runner.invoke(
        app, ["train", "linear", "--to", "runs/x", "--profile", "short", "--set", "optimizer.lr=0.5", "--steps", "6"]
    ).output  # fmt: skip
    failed = runner.invoke(app, ["train", "linear", "--to", "runs/y", "--profile", "shrt"])
    assert failed.exit_code == 2
    assert "no profile 'shrt'. Did you mean 'short'?" in failed.output
    shown = runner.invoke(app, ["recipes", "show", "linear", "--profile", "short"])
    assert yaml.safe_load(shown.output)["steps"] == 5
    assert "normalcrafter-stage2" in runner.invoke(app, ["recipes", "list"]).output
    helped = runner.invoke(app, ["train", "--help"]).output
    assert "accelerate launch" in helped
