"""Prediction stores: resumable by sequence, tied to model and data."""

import contextlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from ncbench import catalog, open_store
from ncbench.cards import ModelCard
from ncbench.errors import ModelError, StoreError
from ncbench.models.controls import Blur, Frontal
from ncbench.models.execution import Execution
from ncbench.models.record import SEQUENCES_FILE, read_run
from ncbench.models.run import RunOptions, predict


def test_a_prediction_store_holds_every_frame_and_says_how_it_was_made(tiny):
    folder = predict("frontal", "tiny")
    store, data = open_store(folder), open_store("data/stores/tiny")
    assert store.sequences == data.sequences
    frame = store.read("one", 2)
    assert frame.image is None
    assert (frame.normal == [0, 0, -1]).all()
    run = json.loads((folder / "run.json").read_text())
    assert run["data_digest"] == data.manifest.digest
    assert run["frames"] == len(data)
    assert run["packages"]["numpy"]


def test_finished_sequences_are_kept_and_the_rest_is_done(tiny, monkeypatch):
    calls = []
    honest = Frontal.predict

    def breaks_on_two(self, clip):
        calls.append(clip.sequence)
        if clip.sequence == "two" and calls.count("two") == 1:
            raise ModelError("out of luck")
        return honest(self, clip)

    monkeypatch.setattr(Frontal, "predict", breaks_on_two)
    with pytest.raises(ModelError, match="out of luck"):
        predict("frontal", "tiny")
    with pytest.raises(StoreError, match="unfinished"):
        open_store("data/predictions/tiny/frontal")
    predict("frontal", "tiny")
    assert calls == ["one", "two", "two"]
    predict("frontal", "tiny")
    assert len(calls) == 3


def test_frames_are_counted_while_one_process_computes(tiny):
    seen = []
    predict("frontal", "tiny", frame_progress=lambda *counts: seen.append(counts), options=RunOptions(batch_size=2))
    assert seen == [(2, 3), (3, 3)] * 2
    seen.clear()
    options = RunOptions(jobs=2)
    predict("frontal", "tiny", overwrite=True, frame_progress=lambda *counts: seen.append(counts), options=options)
    assert seen == []


def test_models_are_told_the_frame_rate_that_the_data_set_has(tiny, monkeypatch):
    store, told = tiny / "stores" / "tiny", []
    shutil.copytree(tiny / "data" / "stores" / "tiny", store)
    honest = Frontal.predict
    monkeypatch.setattr(Frontal, "predict", lambda self, clip: told.append(clip.fps) or honest(self, clip))
    predict("frontal", "tiny", stores=tiny / "stores")
    card = yaml.safe_load((store / "card.yaml").read_text())
    (store / "card.yaml").write_text(yaml.safe_dump(card | {"fps": 24.0}))
    predict("frontal", "tiny", stores=tiny / "stores", overwrite=True)
    assert told == [None, None, 24.0, 24.0]


def test_a_changed_card_predicts_anew(tiny):
    card = catalog.load(ModelCard, "bias").model_dump(mode="json")
    (tiny / "models").mkdir()
    path = tiny / "models" / "bias.yaml"
    digests = []
    for degrees in (10.0, 12.0):
        path.write_text(yaml.safe_dump(card | {"settings": {"degrees": degrees}}))
        digests.append(open_store(predict("bias", "tiny")).manifest.digest)
    assert digests[0] != digests[1]


MODEL = """
import numpy as np
from ncbench.errors import ModelError
from ncbench.models.base import Answer, NormalModel
from ncbench.models.weights import read_tensors


class Depth(NormalModel):
    per_frame = True
    gives_confidence = True

    def __init__(self, settings):
        self.fits = settings.get("fits", 1000)

    def load(self, runtime):
        super().load(runtime)
        self.factor = 1.0 if runtime.weights is None else float(read_tensors(runtime.weights / "w.safetensors")["f"])
        self.factor *= {"fp32": 1, "bf16": 2, "fp16": 3}[runtime.precision]

    def predict(self, clip):
        if len(clip.frames) > self.fits:
            raise MemoryError
        depth = np.stack([np.full(image.shape[:2], self.factor * (frame + 1), np.float32)
                          for frame, image in zip(clip.frames, clip.images, strict=True)])
        depth[:, 0, 0] = np.nan
        return Answer(None, depth=depth, confidence=depth * 0 + 0.5)
"""


@pytest.fixture
def depth_model(tiny, monkeypatch):
    """Puts a model of depth alone where worker processes find it too, and writes its card."""
    (tiny / "models").mkdir()
    (tiny / "depth_of_test.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tiny))
    monkeypatch.setenv("PYTHONPATH", str(tiny))

    def write(**changes):
        values = {"name": "deep", "version": "1.0.0", "title": "", "summary": "", "kind": "image", "axes": "opencv"}
        values |= {"adapter": "depth_of_test:Depth", "normals": False, "depth": "metres"}
        (tiny / "models" / "deep.yaml").write_text(yaml.safe_dump(values | changes))

    write()
    yield write
    sys.modules.pop("depth_of_test", None)


def test_depth_and_confidence_are_stored(depth_model):
    folder = predict("deep", "tiny", options=RunOptions(batch_size=2, seed=5))
    frame = open_store(folder).read("two", 1)
    assert np.isnan(frame.depth[0, 0])
    assert (frame.depth.ravel()[1:] == 2).all()
    assert frame.extra["confidence"][3, 4] == 0.5
    assert not frame.valid.any()
    run = read_run(folder)
    assert (run["seed"], run["batch_size"], run["precision"], run["device"]) == (5, 2, "fp32", "cpu")
    lines = [json.loads(line) for line in (folder / SEQUENCES_FILE).read_text().splitlines()]
    assert [(line["sequence"], line["frames"], line["batch"]) for line in lines] == [("one", 3, 2), ("two", 3, 2)]
    assert run["seconds"] == pytest.approx(sum(line["seconds"] for line in lines), abs=2e-3)
    assert all(line["peak_memory_bytes"] > 0 for line in lines)


def test_out_of_memory_is_noted_in_the_run(depth_model):
    depth_model(settings={"fits": 1})
    folder = predict("deep", "tiny")
    assert open_store(folder).read("one", 2).depth[1, 1] == 3
    assert "memory ran out at 3 frames at a time, went on with 1 (1 of 2 sequences)" in read_run(folder)["notes"]


def test_a_worker_on_each_device_writes_what_one_process_writes(depth_model):
    one = open_store(predict("deep", "tiny")).manifest.digest
    # torch's "meta" stands for a device beside the CPU; this model never asks it to compute
    two = open_store(predict("deep", "tiny", overwrite=True, options=RunOptions(devices=("cpu", "meta"))))
    assert two.manifest.digest == one
    assert read_run(two.path)["workers"] == 2
    lines = [json.loads(line) for line in (two.path / SEQUENCES_FILE).read_text().splitlines()]
    assert sorted(line["sequence"] for line in lines) == ["one", "two"]
    assert {line["device"] for line in lines} <= {"cpu", "meta"}


def test_weights_precision_and_seed_are_part_of_what_is_kept(depth_model, tiny):
    licence = {"name": "MIT", "redistribution": True}
    weights = {"repository": "o/r", "revision": "1", "files": {"w.safetensors": None}, "licence": licence}
    depth_model(weights=weights)
    (tiny / "w").mkdir()

    def told(factor, **options):
        save_file({"f": torch.tensor(factor)}, tiny / "w" / "w.safetensors")
        folder = predict("deep", "tiny", options=RunOptions(weights=tiny / "w", **options))
        return open_store(folder).read("one", 0).depth[1, 1], read_run(folder)

    first, run = told(1.0)
    assert first == 1
    assert list(run["weights"]["sha256"]) == ["w.safetensors"]
    assert told(5.0)[0] == 5
    assert told(5.0, precision="fp16")[0] == 15
    assert told(5.0, precision="fp16", seed=3)[1]["frames_predicted"] == 6
    assert told(5.0, precision="fp16", seed=3)[1]["seed"] == 3
    (tiny / "w" / "w.safetensors").unlink()
    with pytest.raises(ModelError, match="w.safetensors is missing"):
        predict("deep", "tiny", options=RunOptions(weights=tiny / "w"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (RunOptions(batch_size=4), "looks at 8 frames together"),
        (RunOptions(jobs=0), "at least 1"),
        (RunOptions(devices=("cpu", "cpu")), "names a device twice"),
        (RunOptions(devices=("cuda:7",)), "device 'cuda:7' is not here"),
        (RunOptions(devices=("mps",), jobs=2), "--jobs 2 is for work on the CPU"),
    ],
)
def test_choices_that_make_no_sense_are_refused(tiny, options, words):
    with pytest.raises(ModelError, match=words):
        predict("frozen", "tiny", options=options)


def test_each_worker_claims_a_device_of_its_own(tmp_path):
    execution = Execution(devices=("cuda:0", "cuda:1"), scratch=tmp_path)
    assert [execution.claim(), execution.claim()] == ["cuda:0", "cuda:1"]
    with pytest.raises(ModelError, match="all devices of this run are taken"):
        execution.claim()
    assert [Execution(devices=("cuda:3",)).claim() for _ in range(2)] == ["cuda:3"] * 2


def test_a_disk_that_fills_up_in_the_middle_keeps_what_is_done_and_goes_on(tiny, monkeypatch):
    whole = open_store(predict("blur", "tiny")).manifest.digest
    disk = tiny / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small tmpfs here")
    honest, other = Blur.predict, disk / "somebody_elses"

    def while_others_write(self, clip):
        if clip.sequence == "two":
            with contextlib.suppress(OSError), other.open("wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(4096))
        return honest(self, clip)

    try:
        with monkeypatch.context() as patched:
            patched.setattr(Blur, "predict", while_others_write)
            with pytest.raises(StoreError, match="disk is full"):
                predict("blur", "tiny", predictions=disk)
        (kept,) = (disk / "tiny" / "blur").glob("data-*.arrow")
        written = kept.stat().st_mtime_ns
        other.unlink()
        assert open_store(predict("blur", "tiny", predictions=disk)).manifest.digest == whole
        assert kept.stat().st_mtime_ns == written
    finally:
        subprocess.run(["umount", disk], check=True)
