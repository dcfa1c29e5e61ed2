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


def test_an_alarm_that_comes_while_an_array_is_dropped_leaves_nothing_mapped() -> None:
    """Python ignores what is raised in a destructor; what the destructor was about is done all the same."""
    code = """
import os, sys
from shmarray.registry import store
from shmarray.registry.names import public_name
from shmarray.segment import libc

ignored = []
sys.unraisablehook = lambda what: ignored.append(what.exc_type)

def first(call):
    def ringing(*arguments, **keywords):
        signal.raise_signal(signal.SIGALRM)
        return call(*arguments, **keywords)
    return ringing

def held():
    "Descriptors but the lock's, whether the pages are mapped, whether the file has its name."
    fds = ["/proc/self/fd/" + fd for fd in os.listdir("/proc/self/fd")]
    open_files = [os.readlink(fd) for fd in fds if os.path.exists(fd)]
    with open("/proc/self/maps") as maps:
        mapped = any(line.startswith(f"{address:x}-") for line in maps)
    return sum("/dev/shm/" in name and "~.lock" not in name for name in open_files), mapped, os.path.exists(path)

path = "/dev/shm/" + public_name(sa.config.namespace, "x")
for place, what, recycled in (libc, "unmap", 0), (store, "withdraw", None):
    sa.config.recycle_nbytes = recycled
    a = sa.zeros(1000, name="x")
    address = a.ctypes.data
    assert held() == (1, True, True), held()
    real = getattr(place, what)
    setattr(place, what, first(real))
    del a
    setattr(place, what, real)
    b = sa.zeros(1)   # where the alarm came too early, the next drop does it
    del b
    sa.registry.trim()
    assert held() == (0, False, False), (what, held())
assert ignored == [Alarm, Alarm], ignored
"""
    run_python(ALARMS + code)


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


@sa.chunkwise(jit=False)  # workers that load no numba start in half the time
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
