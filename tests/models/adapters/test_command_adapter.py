"""Any program as a model: what it is given, what is read back, and every way in which it can go wrong."""

import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from ncbench import load_model, open_store
from ncbench.errors import CardError, ModelError, NcbenchError, StoreError
from ncbench.models.adapters.command import Command
from ncbench.models.base import Clip, Runtime
from ncbench.models.run import predict

HEAD = "import json, pathlib, sys, time\nimport numpy as np\nfrom PIL import Image\n"
HEAD += "source, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])\n"
HEAD += "clip = json.loads((source / 'clip.json').read_text())\n"
HEAD += "h, w = clip['height'], clip['width']\nup = np.broadcast_to(np.float32([0, 1, 0]), (h, w, 3))\n"
LOOP = "for entry in clip['frames']:\n    "
SAVE = "np.save(out / f\"{entry['frame']:06d}.npy\", up)\n"


@pytest.fixture
def program(tmp_path):
    """Writes a program and makes the model that runs it."""

    def make(body, head=HEAD, **settings):
        script = tmp_path / "program.py"
        script.write_text(head + body)
        command = [sys.executable, str(script), "{input}", "{output}"]
        return Command({"command": command, "work": str(tmp_path / "work"), **settings})

    return make


def clips(count=5, length=2, sequence="a/b"):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 6, 8, 3), np.uint8)
    matrix = np.diag([9.0, 9.0, 1.0])
    for start in range(0, count, length):
        part = images[start : start + length]
        frames = tuple(range(10 + start, 10 + start + len(part)))
        yield Clip(sequence, frames, part, np.stack([matrix] * len(part)), fps=24.0)


def test_the_program_gets_pictures_intrinsics_and_names_and_its_files_come_back(program, tmp_path):
    body = LOOP + (
        "image = np.asarray(Image.open(source / entry['image'])).astype(np.float32)\n"
        "    assert entry['intrinsics'][0][0] == 9.0 and clip['sequence'] == 'a/b' and clip['fps'] == 24.0\n"
        "    up = -(image + 1) / np.linalg.norm(image + 1, axis=-1)[..., None]\n    " + SAVE
    )
    model = program(body, keep=True)
    given = list(clips())
    answers = list(model.stream(clips()))
    assert [len(answer.normal) for answer in answers] == [2, 2, 1]
    for clip, answer in zip(given, answers, strict=True):
        wanted = -(clip.images.astype(float) + 1)
        wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
        np.testing.assert_allclose(answer.normal, wanted, atol=1e-6)
    (manifest,) = tmp_path.rglob("clip.json")
    assert [entry["frame"] for entry in json.loads(manifest.read_text())["frames"]] == [10, 11, 12, 13, 14]


def test_depth_alone_and_device_and_seed_reach_the_program(program):
    body = (
        LOOP
        + "np.savez(out / f\"d{entry['frame']}.npz\", depth=np.full((h, w), float(clip['seed'])), other=np.zeros(3))\n"
    )
    body += "assert clip['device'] == 'cuda:1' and sys.argv[3:] == ['cuda:1', '7', 'Ω {x}'], sys.argv\n"
    model = program(body, pattern=None, depth="d{frame}.npz", key="depth")
    settings = model.settings.model_dump()
    settings["command"] = [*settings["command"], "{device}", "{seed}", "Ω {x}"]
    model = Command(settings)
    model.load(Runtime(device="cuda:1", seed=7))
    answer = next(model.stream(clips(1)))
    assert answer.normal is None
    assert (answer.depth == 7).all()


def test_variables_are_set_and_taken_away(program, monkeypatch):
    monkeypatch.setenv("TAKEN", "here")
    body = "import os\nassert 'TAKEN' not in os.environ and os.environ['SET'] == 'x' and 'PATH' in os.environ\n"
    model = program(body + LOOP + SAVE, environment={"TAKEN": None, "SET": "x"})
    assert len(list(model.stream(clips()))) == 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("print('loading'); raise SystemExit('no GPU here')", r"failed with exit code 1.*(?s:log.txt.*no GPU here)"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by signal 9"),
        ("pass", "left 0 files for 5 frames: 000010.npy, .*000014.npy missing"),
        (LOOP + "entry['frame'] += 1; " + SAVE, "000010.npy missing; 000015.npy not asked for"),
        (LOOP + SAVE + "np.save(out / 'extra.npy', up)", "left 6 files for 5 frames: extra.npy not asked for"),
        ("up = up[:3]\n" + LOOP + SAVE, r"000010.npy: expected 6x8 \(height x width.*found 3x8"),
        ("up = up * .5 + .4\n" + LOOP + SAVE, "000010.npy: no component is negative"),
        (LOOP + "(out / f\"{entry['frame']:06d}.npy\").write_bytes(b'half a fi')", "000010.npy"),
        (LOOP + "np.save(out / f\"{entry['frame']:06d}.npy\", up.astype('U3'))", "000010.npy"),
    ],
)
def test_a_program_that_fails_or_writes_nonsense_is_a_clear_error_and_runs_again(program, tmp_path, body, words):
    ran = f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\n"
    with pytest.raises(NcbenchError, match=words):
        list(program(ran + body).stream(clips()))
    assert len(list(program(ran + LOOP + SAVE).stream(clips()))) == 3
    assert (tmp_path / "runs").read_text() == "xx"


def test_a_program_that_hangs_is_ended_with_its_children(program, tmp_path):
    child = (
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(__import__('os').getpid())); __import__('time').sleep(60)"
    )
    body = f"import subprocess\nprint('slow', flush=True)\nsubprocess.Popen([sys.executable, '-c', {child!r}]).wait()\n"
    model = program(body, head="import sys\n", timeout_seconds=2)
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"(?s)did not end within 2 s.*timeout_seconds.*slow"):
        list(model.stream(clips()))
    assert time.monotonic() - started < 20
    assert not alive(int((tmp_path / "child").read_text()))


def alive(pid):
    """Whether a process is there after five seconds; a zombie is not."""
    for _ in range(50):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.1)
    return True


def test_an_interrupt_ends_the_program(program, tmp_path):
    pid = tmp_path / "pid"
    program(f"import os\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    code = (
        "import signal, sys, numpy as np\nfrom ncbench.models.adapters.command import Command\n"
        # a background job of a shell starts with it ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from ncbench.models.base import Clip\n"
        "model = Command({'command': [sys.executable, sys.argv[1], '{input}', '{output}'], 'work': sys.argv[2]})\n"
        "list(model.stream([Clip('s', (0,), np.zeros((1, 4, 4, 3), np.uint8))]))\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "program.py"), str(tmp_path / "work")]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            if pid.is_file() and pid.read_text():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
    finally:
        process.kill()
    assert not alive(int(pid.read_text()))


def test_answers_that_were_not_read_to_the_end_are_read_again_without_running(program, tmp_path):
    runs = tmp_path / "runs"
    model = program(f"open({str(runs)!r}, 'a').write('x')\n" + LOOP + SAVE)
    stream = model.stream(clips())
    next(stream)
    stream.close()  # as where the disk is full
    assert len(list(model.stream(clips()))) == 3
    assert runs.read_text() == "x"
    assert not list((tmp_path / "work").rglob("*.npy")), "what was read to the end is removed"
    assert len(list(model.stream(clips()))) == 3
    assert runs.read_text() == "xx"


def test_other_pictures_or_an_edited_program_are_not_answered_from_before(program, tmp_path):
    runs = tmp_path / "runs"
    body = f"open({str(runs)!r}, 'a').write('x')\n" + LOOP + SAVE
    for frames, text in ((5, body), (3, body), (3, body + "\n# edited\n")):
        stream = program(text).stream(clips(frames))
        next(stream)
        stream.close()
    assert runs.read_text() == "xxx"


def test_a_full_disk_during_the_export_is_told_as_that(program, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="the disk is full"):
        list(program(LOOP + SAVE).stream(clips()))
    monkeypatch.undo()
    assert len(list(program(LOOP + SAVE).stream(clips()))) == 3


def test_a_program_that_is_not_there_and_settings_that_do_not_fit(tmp_path):
    with pytest.raises(ModelError, match="'no-such-program' cannot be started"):
        list(Command({"command": ["no-such-program", "{input}", "{output}"], "work": str(tmp_path)}).stream(clips()))
    with pytest.raises(CardError, match="must name {input} and {output}"):
        Command({"command": ["x", "{input}"]})
    with pytest.raises(CardError, match="'pattern' for normals"):
        Command({"command": ["x", "{input}{output}"], "pattern": None})


def test_through_a_card_into_a_store_anew_when_a_file_it_depends_on_changes(tiny, program):
    program(LOOP + SAVE)
    script = tiny / "program.py"
    settings = {"command": [sys.executable, str(script), "{input}", "{output}"], "depends": [str(script)]}
    values = {"name": "mine", "version": "1.0.0", "title": "", "summary": "", "kind": "image", "axes": "opengl"}
    values |= {"adapter": "ncbench.models.adapters.command:Command", "settings": settings}
    (tiny / "models").mkdir()
    (tiny / "models" / "mine.yaml").write_text(yaml.safe_dump(values))
    normal = open_store(predict("mine", "tiny")).read("two", 1).normal
    np.testing.assert_allclose(normal, np.broadcast_to([0, -1, 0], normal.shape), atol=1e-7)
    script.write_text(script.read_text().replace("[0, 1, 0]", "[0, 0, 1]"))
    normal = open_store(predict("mine", "tiny")).read("two", 1).normal
    np.testing.assert_allclose(normal, np.broadcast_to([0, 0, -1], normal.shape), atol=1e-7)
    clip = Clip("s", (0,), np.zeros((1, 4, 4, 3), np.uint8))
    np.testing.assert_allclose(load_model("mine").predict(clip)[0, 0, 0], [0, 0, -1], atol=1e-7)
