"""One worker and several give the same results; the first error ends the run."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ncbench.engine.local import run


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_meets_its_result(jobs):
    assert dict(run(math.factorial, range(8), jobs)) == {n: math.factorial(n) for n in range(8)}


def test_one_job_stays_in_this_process_and_in_order():
    assert [pid for _, pid in run(lambda _: os.getpid(), range(3))] == [os.getpid()] * 3


class Counter:
    """Counts the items that one copy of it takes."""

    def __init__(self):
        self.count = 0

    def __call__(self, item):
        self.count += 1
        return os.getpid(), self.count


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_worker_keeps_its_function(jobs):
    taken = [result for _, result in run(Counter(), range(9), jobs)]
    workers = {pid for pid, _ in taken}
    assert len(workers) <= jobs
    for worker in workers:
        counts = sorted(count for pid, count in taken if pid == worker)
        assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("items", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("jobs", [2, 3])
def test_all_processes_share_the_items(items, jobs):
    found = dict(run(slow_pid, range(items), jobs))
    assert sorted(found) == list(range(items))
    assert min(items, 2) <= len(set(found.values())) <= jobs  # a third process may come too late for any item
    assert items == 0 or os.getpid() in found.values()


def slow_pid(_):
    time.sleep(0.05)
    return os.getpid()


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_reaches_the_caller(jobs):
    with pytest.raises(ValueError, match="math domain error|expected a nonnegative|nonnegative"):
        list(run(math.sqrt, [4.0, -1.0], jobs))


class FailsHere:
    """Works slowly in a worker; raises in the process that it is from, once a worker is at work."""

    def __init__(self, folder):
        self.folder, self.home = folder, os.getpid()

    def __call__(self, item):
        if os.getpid() == self.home:
            wait_until(lambda: any(self.folder.iterdir()))
            raise ValueError("nonnegative")
        (self.folder / f"begun{item}").touch()
        time.sleep(0.5)
        (self.folder / f"done{item}").touch()


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_no_worker_goes_on_behind_the_back_of_an_error(tmp_path):
    with pytest.raises(ValueError, match="nonnegative"):
        list(run(FailsHere(tmp_path), range(9), jobs=2))
    begun, done = (sorted(path.name[-1] for path in tmp_path.glob(f"{kind}*")) for kind in ("begun", "done"))
    assert begun == done != []
    assert len(done) < 8  # what had not begun never did


def test_workers_end_by_themselves(tmp_path):
    before = set(psutil.Process().children())
    list(run(slow_pid, range(4), jobs=2))
    wait_until(lambda: not workers_since(before))
    assert not workers_since(before)


def workers_since(before):
    """Processes that were started meanwhile and still run, but for Python's own helper."""
    found = []
    for child in set(psutil.Process().children()) - before:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now; so did a zombie
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child)
    return found


def slow_touch(folder):
    (folder / f"{os.getpid()}").touch()
    time.sleep(60)


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "import test_local; from ncbench.engine.local import run\n"
        "list(run(test_local.slow_touch, [pathlib.Path(sys.argv[2])] * 30, jobs=3))"
    )
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", f"if __name__ == '__main__':\n    {code.replace(chr(10), chr(10) + '    ')}"]
    with subprocess.Popen([*command, here, str(tmp_path)]) as parent:
        deadline = time.monotonic() + 30
        while len(list(tmp_path.iterdir())) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        parent.kill()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 3
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], timeout=10)
    assert not alive


INTERRUPTED = """
import signal, sys, time
sys.path.insert(0, {here!r})
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts with it ignored
    import test_local
    from ncbench.engine.local import run
    print("starts", flush=True)
    try:
        for _ in run(test_local.slow_pid, range(10_000), jobs=3):
            pass
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.5])
def test_an_interrupt_ends_all_processes_and_only_this_one_says_so(tmp_path, seconds):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED.format(here=str(Path(__file__).parent)))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(script)], start_new_session=True, **pipes) as parent:
        assert parent.stdout.readline() == "starts\n"
        time.sleep(seconds)
        os.killpg(parent.pid, signal.SIGINT)
        said, complained = parent.communicate(timeout=30)
    assert (said, complained) == ("interrupted\n", "")
    wait_until(lambda: not running_in_group(parent.pid))
    assert not running_in_group(parent.pid)


def running_in_group(group):
    """Processes of a group that still run; what nobody has waited for yet does not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_jobs_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        list(run(math.sqrt, [4.0], 0))
