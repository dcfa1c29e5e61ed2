"""Workers and callers that are killed or stopped at any time: everything ends, and nothing is left."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from contextlib import suppress

import numpy as np
import pytest

import shmarray as sa
from tests.crash.chunks import CHUNK, N_CHUNKS
from tests.crash.programs import is_gone, is_stopped, program, read_workers
from tests.processes import wait_until


@pytest.mark.parametrize(
    "chunk",
    [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import itertools; sum(itertools.repeat(0))  # in C, with the interpreter's lock",
    ],
)
def test_row_40_workers_end_with_a_killed_parent_in_the_middle_of_anything(chunk):
    body = f"""
@sa.chunkwise(jit=False)
def busy(chunk):
    os.write(1, b"working\\n")
    {chunk}

busy(a, out=b)
"""
    with program(body) as process:
        pids = read_workers(process)
        assert process.stdout.readline() == "working\n"
        process.kill()
        process.wait(20)
        for pid in pids:
            wait_until(lambda pid=pid: is_gone(pid))
    sa.registry.gc()


def test_row_40_workers_that_are_idle_or_still_starting_end_with_a_killed_parent():
    body = """
from shmarray.pool import Pool
pool = Pool(4)
print("workers", *(worker.pid for worker in pool.workers), flush=True)
sys.stdin.readline()
"""
    with program(body) as process:
        pids = read_workers(process) + read_workers(process)
        assert len(pids) == 6
        process.kill()
        process.wait(20)
        for pid in pids:
            wait_until(lambda pid=pid: is_gone(pid))


def test_row_42_a_grandchild_that_holds_the_pipes_does_not_hide_a_death(pool, tmp_path):
    a = sa.array(np.repeat(np.arange(N_CHUNKS), CHUNK), chunks=CHUNK)
    b = sa.empty(a.shape, a.dtype, chunks=CHUNK)
    grandchild = str(tmp_path / "grandchild")

    @sa.chunkwise(jit=False)
    def spawn_and_die(chunk):
        if chunk[0] == 3 and not os.path.exists(grandchild):
            child = os.fork()  # which has everything that the worker has open
            while not child:
                signal.pause()
            with open(grandchild + ".part", "w") as file:
                file.write(str(child))
            os.rename(grandchild + ".part", grandchild)
            os.kill(os.getpid(), signal.SIGKILL)
        return chunk + 1

    try:
        spawn_and_die(a, out=b, pool=pool)
        np.testing.assert_array_equal(b, np.asarray(a) + 1)
    finally:
        with open(grandchild) as file:
            pid = int(file.read())
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_gone(pid))


def test_a_worker_stopped_while_idle_holds_up_nothing_that_the_caller_can_do(pool):
    a, b = sa.ones(1 << 18), sa.empty(1 << 18)

    @sa.elementwise
    def half(x):
        return x / 2

    half(a, out=b, pool=pool)
    wait_until(lambda: all(worker.state == "idle" for worker in pool.workers))
    stopped = [worker.pid for worker in pool.workers]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in stopped:
            wait_until(lambda pid=pid: is_stopped(pid))
        for value in range(200):
            a[:] = value
            half(a, out=b, pool=pool)
            assert b[0] == b[-1] == value / 2
        for _ in range(200):  # what the stopped workers are told piles up, but not without end
            half(sa.ones(1 << 18), out=b, pool=pool)
        assert len(os.listdir("/proc/self/fd")) < 600
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert [worker.pid for worker in pool.workers] == stopped
    for _ in range(20):
        half(a, out=b, pool=pool)


def test_a_worker_stopped_in_a_chunk_goes_on_where_it_was(pool, tmp_path):
    a = sa.array(np.repeat(np.arange(N_CHUNKS), CHUNK), chunks=CHUNK)
    here = str(tmp_path / "stopped")

    @sa.chunkwise(jit=False)
    def add(chunk):
        chunk += 100
        if chunk[0] == 104:
            with open(here + ".part", "w") as file:
                file.write(str(os.getpid()))
            os.rename(here + ".part", here)
            os.kill(os.getpid(), signal.SIGSTOP)
        chunk += 1000

    def go_on():
        wait_until(lambda: os.path.exists(here))
        with open(here) as file:
            pid = int(file.read())
        wait_until(lambda: is_stopped(pid))
        os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=go_on)
    thread.start()
    add(a, pool=pool)
    thread.join()
    np.testing.assert_array_equal(a, np.repeat(np.arange(N_CHUNKS), CHUNK) + 1100)


def test_idle_workers_that_are_killed_are_replaced_at_the_next_use(pool, caplog):
    a = sa.array(np.repeat(np.arange(N_CHUNKS), CHUNK), chunks=CHUNK)
    b = sa.empty(a.shape, a.dtype, chunks=CHUNK)

    @sa.chunkwise(jit=False)  # workers that load no numba start in half the time
    def double(chunk):
        return chunk * 2

    for _ in range(4):  # more often than workers may fail to start
        before = {worker.pid for worker in pool.workers}
        wait_until(lambda: all(worker.state == "idle" for worker in pool.workers))
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        b[:] = 0
        double(a, out=b, pool=pool)
        np.testing.assert_array_equal(b, np.asarray(a) * 2)
        assert not before & {worker.pid for worker in pool.workers}
    assert re.search(r"killed by SIGKILL\b.*; it is replaced", caplog.text)


def test_a_death_between_calls_that_the_caller_could_do_alone_is_noticed_too(pool):
    a, b = sa.ones(1 << 18), sa.empty(1 << 18)

    @sa.elementwise
    def half(x):
        return x / 2

    half(a, out=b, pool=pool)
    (victim, *_) = (worker.pid for worker in pool.workers)
    os.kill(victim, signal.SIGKILL)

    def is_replaced():
        half(a, out=b, pool=pool)
        return pool.crew.workers[0].pid != victim

    wait_until(is_replaced)


def test_a_worker_killed_before_it_is_up_is_replaced():
    with sa.pool.Pool(2) as fresh:
        a = sa.array(np.repeat(np.arange(N_CHUNKS), CHUNK), chunks=CHUNK)
        b = sa.empty(a.shape, a.dtype, chunks=CHUNK)

        @sa.chunkwise(jit=False)
        def double(chunk):
            return chunk * 2

        assert {worker.state for worker in fresh.workers} == {"starting"}
        victim = fresh.crew.workers[0].pid
        os.kill(victim, signal.SIGKILL)
        double(a, out=b, pool=fresh)
        np.testing.assert_array_equal(b, np.asarray(a) * 2)
        assert victim not in {worker.pid for worker in fresh.workers}


def test_workers_that_cannot_start_are_an_error_not_a_hang(capfd):
    a = sa.array(np.repeat(np.arange(N_CHUNKS), CHUNK), chunks=CHUNK)
    b = sa.empty(a.shape, a.dtype, chunks=CHUNK)

    @sa.chunkwise(jit=False)
    def double(chunk):
        return chunk * 2

    with sa.pool.Pool(2) as broken:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONHOME", "/nowhere")
            for _ in range(2):
                with pytest.raises(sa.WorkerDiedError, match="died before they did anything") as caught:
                    double(a, out=b, pool=broken)
                assert caught.value.exitcode == 1
        assert "PYTHONHOME" in capfd.readouterr().err
        double(a, out=b, pool=broken)  # the environment is mended
        np.testing.assert_array_equal(b, np.asarray(a) * 2)


def test_an_interpreter_that_does_not_exist_is_the_error_of_the_system(monkeypatch):
    with sa.pool.Pool(2) as broken:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(FileNotFoundError):
            broken.workers  # noqa: B018  # asking for them starts them
