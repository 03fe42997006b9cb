"""One worker and several give the same results; the first error ends the run."""

import math
import os

import pytest

from ncbench.engine.local import run


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_meets_its_result(jobs):
    assert dict(run(math.factorial, range(8), jobs)) == {n: math.factorial(n) for n in range(8)}


def test_one_job_stays_in_this_process_and_in_order():
    assert [pid for _, pid in run(lambda _: os.getpid(), range(3))] == [os.getpid()] * 3


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_reaches_the_caller(jobs):
    with pytest.raises(ValueError, match="math domain error|expected a nonnegative|nonnegative"):
        list(run(math.sqrt, [4.0, -1.0], jobs))


def test_jobs_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        list(run(math.sqrt, [4.0], 0))
