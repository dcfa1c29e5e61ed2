"""Pools made by threads that have ended, and forks beside a live pool: row 41 of the fault table."""

from __future__ import annotations

import threading

import numpy as np

import shmarray as sa
from tests.crash.chunks import CHUNK, N_CHUNKS
from tests.crash.programs import is_gone, program, read_workers
from tests.processes import run_python, wait_until


def test_row_41_a_pool_made_by_a_thread_that_has_ended_lives():
    made = []

    def make():
        pool = sa.pool.Pool(2)
        made.extend([pool, [worker.pid for worker in pool.workers]])

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    pool, pids = made
    with pool:
        a = sa.array(np.repeat(np.arange(N_CHUNKS), CHUNK), chunks=CHUNK)

        @sa.chunkwise(jit=False)
        def add(chunk):
            chunk += 1

        add(a, pool=pool)
        np.testing.assert_array_equal(a, np.repeat(np.arange(N_CHUNKS), CHUNK) + 1)
        assert [worker.pid for worker in pool.workers] == pids


FORK = """
import contextlib
@sa.elementwise
def more(x):
    return x + 1

c = sa.zeros(500_000)
more(c, out=c)
mine = set(workers())
out_of, into = os.pipe()
go, come = os.pipe()
pid = os.fork()
if pid == 0:
    status = 1
    try:
        assert not mine & set(workers()), "the parent's workers"
        a += 1
        check()
        d = more(c)
        assert np.all(np.asarray(d) == 2)
        small = sa.zeros(10)
        assert np.all(np.asarray(more(small)) == 1)
        os.write(into, b"%d %d\\n" % tuple(workers()))
        os.read(go, 1)
        check()
        status = 0
    finally:
        sa.get_pool().close()
        os._exit(status)
theirs = [int(word) for word in os.read(out_of, 100).split()]
assert set(workers()) == mine
check()
assert np.all(np.asarray(more(c)) == 2)
os.write(come, b"x")
_, status = os.waitpid(pid, 0)
assert status == 0, status
check()
assert set(workers()) == mine
print("children", *theirs, flush=True)
"""


def test_row_41_after_a_fork_parent_and_child_each_have_a_pool_that_works():
    with program(FORK) as process:
        read_workers(process)
        word, *pids = process.stdout.readline().split() or [""]
        assert word == "children", process.stderr.read()
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
        for pid in map(int, pids):
            wait_until(lambda pid=pid: is_gone(pid))


def test_a_forked_child_does_not_claim_chunks_of_its_parents_small_calls():
    run_python(
        """
import os
import numpy as np
import shmarray as sa
sa.config.chunk_nbytes = 8

@sa.elementwise
def number(x):
    return x + 1

a, b = sa.array(np.zeros(1000)), sa.empty(1000)
number(a, out=b)
pids = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        try:
            mine = sa.empty(1000)
            for turn in range(80):
                a_turn = np.full(1000, float(turn))
                mine[:] = -1
                number(sa.array(a_turn), out=mine)
                assert np.all(np.asarray(mine) == turn + 1)
        except BaseException:
            os._exit(1)
        os._exit(0)
    pids.append(pid)
for turn in range(80):
    b[:] = -1
    number(a, out=b)
    assert np.all(np.asarray(b) == 1)
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 0
"""
    )


def test_a_fork_inside_a_callback_leaves_the_call_to_the_parent():
    run_python(
        """
import os
import numpy as np
import shmarray as sa
sa.config.workers = 2
a = sa.array(np.repeat(np.arange(8), 16), chunks=16)
b = sa.empty(a.shape, a.dtype, chunks=16)

@sa.chunkwise(jit=False)
def double(chunk):
    return chunk * 2

me, child = os.getpid(), 0

def fork(done, total):
    global child
    if not child and os.getpid() == me:
        child = os.fork()

try:
    double(a, out=b, progress=fork)
except Exception as error:
    os._exit(0 if os.getpid() != me and type(error).__name__ == "WorkerDiedError" else 9)
if os.getpid() != me:
    os._exit(8)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(b, np.asarray(a) * 2)
double(a, out=b)
"""
    )
