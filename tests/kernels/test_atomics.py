"""Atomic operations on elements: what they give, from compiled code and from Python, and under kills."""

from __future__ import annotations

import numba
import numpy as np
import pytest

import shmarray as sa
from shmarray.kernels import atomics
from tests.processes import run_python


@numba.njit
def everything(a, index, value):
    seen = (
        atomics.add(a, index, value),
        atomics.exchange(a, index, 5),
        atomics.compare_exchange(a, index, 5, 6),
        atomics.compare_exchange(a, index, 5, 9),
        atomics.load(a, index),
    )
    atomics.store(a, index, 3)
    return seen


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.uint64, np.float64])
def test_compiled_and_python_give_what_was_there_before(dtype):
    a = np.zeros((2, 3), dtype)
    a[1, 2] = 7
    assert everything(a, (1, -1), 2) == (7, 9, 5, 6, 6)
    np.testing.assert_array_equal(a, np.array([[0, 0, 0], [0, 0, 3]], dtype))
    b = sa.array(a)[:, ::-1]
    b[1, 0] = 7
    atomic = sa.atomic
    assert atomic.add(b, (1, -3), 2) == 7
    assert atomic.exchange(b, [1, 0], 5) == 9
    assert atomic.compare_exchange(b, (1, 0), 5, 6) == 5
    assert atomic.compare_exchange(b, (1, 0), 5, 9) == 6
    assert atomic.load(b, (1, 0)) == 6
    assert atomic.store(b, (1, 0), 3) is None
    np.testing.assert_array_equal(b, a[:, ::-1])


def test_integers_wrap_around_and_extremes_pass():
    a = sa.array(np.array([2**63 - 1]))
    assert sa.atomic.add(a, 0, 1) == 2**63 - 1
    assert a[0] == -(2**63)
    u = sa.array(np.array([2**64 - 1], np.uint64))
    assert sa.atomic.exchange(u, 0, 2**64 - 2) == 2**64 - 1
    assert sa.atomic.load(u, 0) == 2**64 - 2
    f = sa.array([-0.0])
    assert np.signbit(sa.atomic.compare_exchange(f, 0, 0.0, 1.0))
    assert f[0] == 0.0
    assert sa.atomic.compare_exchange(f, 0, -0.0, 1.5) == 0.0
    assert f[0] == 1.5


def test_what_cannot_be_is_refused():
    a = sa.zeros((2, 2), np.int32)
    for wrong in (0, (0, 0, 0), (2, 0), (0, -3)):
        with pytest.raises(IndexError):
            sa.atomic.add(a, wrong, 1)
    for array in (sa.zeros(2, np.float32), sa.zeros(2, bool), sa.zeros(2, ">i4"), sa.zeros(2, complex)):
        with pytest.raises(TypeError, match="integers and float64"):
            sa.atomic.add(array, 0, 1)
    with pytest.raises(TypeError, match="takes an integer"):
        sa.atomic.add(a, (0, 0), 1.5)
    with pytest.raises(OverflowError):
        sa.atomic.add(a, (0, 0), 2**40)
    with pytest.raises(TypeError, match="an element of an array"):
        sa.atomic.add([1], 0, 1)
    frozen = a[:]
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        sa.atomic.store(frozen, (0, 0), 1)
    assert sa.atomic.load(frozen, (0, 0)) == 0


def test_kernels_take_them_on_what_they_may_write(pool):
    a = sa.array(np.arange(12), chunks=4)

    @sa.chunkwise
    def count(chunk):
        for i in range(1, chunk.size):
            atomics.add(chunk, 0, chunk[i])

    count(a, pool=pool)
    np.testing.assert_array_equal(a[::4], [6, 22, 38])


def test_eight_processes_add_a_million_times_while_half_of_them_are_killed():
    out = run_python(
        """
import os, random, signal, time
import numba, numpy as np
import shmarray as sa
from shmarray.kernels import atomics

@numba.njit(nogil=True)
def work(whole, real, published, me, times):
    # What was added is published after it was added: a killed process has added at most one more than it says.
    for _ in range(times):
        atomics.add(whole, 0, 1)
        atomics.add(real, 0, 0.5)
        atomics.store(published, 8 * me, published[8 * me] + 1)

whole, real, published = sa.zeros(1, np.int64), sa.zeros(1), sa.zeros(64, np.int64)
work(whole, real, published, 0, 0)
pids = []
for me in range(8):
    pid = os.fork()
    if not pid:
        work(whole, real, published, me, 250_000 if me < 4 else 1 << 60)
        os._exit(0)
    pids.append(pid)
for me in range(4, 8):
    while published[8 * me] < random.randrange(1000, 50_000):
        os.sched_yield()
    os.kill(pids[me], signal.SIGKILL)
ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
assert ends == [0] * 4 + [-signal.SIGKILL] * 4, ends
said = int(published.sum())
assert published[:32:8].tolist() == [250_000] * 4
assert said <= whole[0] <= said + 4, (said, whole[0])
assert said <= 2 * real[0] <= whole[0], (said, real[0])
print(said > 1_000_000)
"""
    ).stdout
    assert out == "True\n"
