"""Signals that the program handles itself, at any moment; and workers that somebody stops (SIGSTOP)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import shmarray as sa
from shmarray.interrupts import handlers_held_back
from tests.crash.chunks import CHUNK, numbered, works
from tests.processes import run_python

ALARMS = """
import signal
import warnings
import numpy as np
import shmarray as sa

class Alarm(TimeoutError):  # an OSError, as what the kernel refuses is
    pass

def ring(*_):
    raise Alarm("mine")

# An alarm between `open` and the `with` that would close the file leaves that to the file's destructor, which warns.
warnings.simplefilter("ignore", ResourceWarning)

signal.signal(signal.SIGALRM, ring)

def interrupted(call, after_s):
    # Whether the alarm came during the call; any other exception is the test's failure.
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, after_s)
            call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Alarm:
        return True
    return False
"""


def test_an_exception_of_the_programs_handler_stays_what_it_is() -> None:
    code = """
@sa.elementwise
def long(x):
    s = x
    for k in range(300):
        s = s * 1.0000001 + k
    return s

a = sa.ones(400_000)
with sa.config.override(chunk_nbytes=1 << 16):
    long(a, out=a)
    assert sum(interrupted(lambda: long(a, out=a), 0.005) for _ in range(8)) > 4
with sa.config.override(parallel_nbytes=1 << 40):
    assert sum(interrupted(lambda: long(a, out=a), 0.005) for _ in range(4)) > 2
long(a, out=a)
"""
    run_python(ALARMS + code)


def test_creation_does_not_take_it_for_a_failure_of_shared_memory() -> None:
    code = """
made = []
for step in range(200):
    interrupted(lambda: made.append(sa.empty(100_000 + step * 1000)), 2e-5 + step * 4e-6)
"""
    run_python(ALARMS + code)


def test_what_is_loaded_late_is_loaded_whole() -> None:
    code = """
kernel = sa.elementwise(lambda x: x + 1)
a = sa.ones(10)
for step in range(200):
    if not interrupted(lambda: kernel(a), 0.002 + step * 0.002):
        break
assert kernel(a)[0] == 2
"""
    # What Python says of an alarm in the middle of numba's own callbacks, or of importlib's reading, is no matter here.
    command = [sys.executable, "-c", ALARMS + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


def test_handlers_that_waited_run_in_turn_and_are_back_in_place() -> None:
    came: list[int] = []
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.signal(number, lambda number, frame: came.append(number)) for number in numbers]
    try:
        handlers = [signal.getsignal(number) for number in numbers]
        with handlers_held_back():
            for number in numbers:
                signal.raise_signal(number)
            assert came == []
        assert came == list(numbers)
        assert [signal.getsignal(number) for number in numbers] == handlers
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@sa.chunkwise
def double(chunk):
    return chunk * 2


def test_stopped_workers_count_as_dead_after_a_while(pool):
    a = numbered()
    double(a, pool=pool, chunks=CHUNK)
    stopped = [worker.pid for worker in pool.workers]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    np.testing.assert_array_equal(double(a, pool=pool, chunks=CHUNK), np.asarray(a) * 2)
    assert not {worker.pid for worker in pool.workers} & set(stopped)


def test_a_timeout_ends_workers_that_were_stopped_before_they_began(pool):
    a = numbered()
    double(a, pool=pool, chunks=CHUNK)
    for worker in pool.workers:
        os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(sa.KernelTimeoutError):
        double(a, pool=pool, chunks=CHUNK, timeout=0.2)
    assert works(pool)
