"""Threads give what one loop gives, in its order, and the first error ends the run."""

import math
import threading
import time

import pytest

from ncbench.engine.threads import in_order


@pytest.mark.parametrize("jobs", [1, 2, 5])
@pytest.mark.parametrize("items", [0, 1, 9])
def test_every_item_gives_its_result(jobs, items):
    assert list(in_order(math.factorial, range(items), jobs)) == [math.factorial(n) for n in range(items)]


def test_results_come_in_order_whichever_is_ready_first():
    def late_when_even(n):
        time.sleep(0.02 * (n % 2 == 0))
        return n

    assert list(in_order(late_when_even, range(10), 3)) == list(range(10))


def test_two_threads_work_at_the_same_time():
    both = threading.Barrier(2, timeout=10)
    assert len(list(in_order(lambda _: both.wait(), range(2), 2))) == 2


def test_results_in_order_do_not_run_far_ahead():
    started = []
    found = in_order(lambda n: started.append(n) or n, range(100), 2)
    assert next(found) == 0
    time.sleep(0.05)
    assert len(started) <= 6
    found.close()


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_first_error_ends_the_run(jobs):
    started = []

    def fail(n):
        started.append(n)
        time.sleep(0.01)
        raise KeyError(n)

    with pytest.raises(KeyError):
        list(in_order(fail, range(100), jobs))
    assert len(started) < 20


def test_no_jobs_is_no_number_of_jobs():
    with pytest.raises(ValueError, match="at least 1"):
        list(in_order(math.factorial, [1], 0))
