"""Freed memory is used again; what a process costs the system is counted by the system."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import gc, resource
import numpy as np
from ncbench.engine.process import tune_process
{tune}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
frame = lambda: [np.ones(3 << 20, np.uint8) for _ in range(8)]  # of 4 MiB, numpy asks for huge pages
frame()
before = faults()
for _ in range(20):
    frame()
print(faults() - before, gc.get_threshold()[0])
"""


def count(tune):
    found = subprocess.run([sys.executable, "-c", COUNT.format(tune=tune)], check=True, capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_memory_is_kept_and_cycles_are_looked_for_less_often():
    plain, threshold = count("")
    tuned, raised = count("tune_process(); tune_process()")
    if plain < 20 * 1000:  # of 20 * 6,144
        pytest.skip("this system gives huge pages to all, of which there are too few to count")
    assert tuned < plain / 20
    assert raised >= 10 * threshold  # 700, and 2,000 from Python 3.13 on
