"""What pools hold: no processor time while idle, no descriptors, mappings or jobs that pile up."""

from __future__ import annotations

import gc
import os
import time

import numpy as np
import pytest

import shmarray as sa
from shmarray.pool import current_worker, diagnosis
from shmarray.pool.diagnosis import MemoryKills, read_counter
from tests.processes import run_python, wait_until


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mapped(pid: int, key: tuple[int, int]) -> bool:
    inode = f" {key[1]} "
    with open(f"/proc/{pid}/maps") as file:
        return any(inode in line and "shm" in line for line in file)


def n_mappings(pid: int) -> int:
    with open(f"/proc/{pid}/maps") as file:
        return sum(1 for _ in file)


def n_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def up(pool) -> list[int]:
    wait_until(lambda: all(worker.state == "idle" for worker in pool.workers), timeout_s=60)
    return [worker.pid for worker in pool.workers]


def drain(crew):
    """Wait until the workers have taken all messages."""
    for worker in crew.workers:
        while worker.channel.waiting:
            crew.wake()
            worker.channel.flush()


@sa.elementwise
def more(x):
    return x + 1


def test_an_idle_pool_burns_no_processor_time(pool):
    a = sa.zeros(1 << 19)

    pids = up(pool)
    more(a, out=a, pool=pool)
    time.sleep(0.1)  # not a synchronisation: workers spin for a moment after a call, and may
    before = [cpu_s(pid) for pid in pids]
    time.sleep(0.5)
    assert all(cpu_s(pid) - was <= 0.1 for pid, was in zip(pids, before, strict=True))


def test_a_lane_that_a_job_does_not_ask_for_does_not_spin(pool):
    a, b = sa.zeros(1 << 17), sa.zeros(1 << 17)

    pids = up(pool)
    with sa.config.override(parallel_nbytes=0, chunk_nbytes=1 << 16):
        more(a, out=b, pool=pool)
        before = cpu_s(pids[1])
        until = time.monotonic() + 0.5
        while time.monotonic() < until:  # for the caller and worker 1 alone
            more(a, out=b, pool=pool)
        assert cpu_s(pids[1]) - before < 0.25


def test_dropping_a_large_array_takes_it_from_idle_workers_too(pool):
    with_room = sa.config.recycle_nbytes
    sa.config.recycle_nbytes = 0
    try:
        pids = up(pool)
        a = sa.zeros(1 << 20)

        @sa.chunkwise
        def touch(chunk):
            chunk[0] += 1

        key = a.shm.key
        for _ in range(1000):  # one worker may be done before the other wakes up
            touch(a, pool=pool, chunks=1 << 14)
            if all(mapped(pid, key) for pid in pids):
                break
        assert all(mapped(pid, key) for pid in pids)
        del a
        gc.collect()  # the compiler's exceptions may hold the frame of the call
        wait_until(lambda: not any(mapped(pid, key) for pid in pids))
        assert up(pool) == pids
    finally:
        sa.config.recycle_nbytes = with_room


def test_hundreds_of_calls_with_fresh_arrays_leave_no_descriptors_mappings_or_jobs(pool):
    with_room = sa.config.recycle_nbytes
    sa.config.recycle_nbytes = 0
    try:
        pids = up(pool)

        @sa.chunkwise(jit=False)
        def double(chunk):
            chunk *= 2

        def calls(n):
            for k in range(n):
                a, b = sa.full(2048, float(k)), sa.empty(2048)
                more(a, out=b, pool=pool)
                double(b, pool=pool)
                assert b[-1] == 2 * (k + 1)

        def held():
            return [(n_descriptors(pid), n_mappings(pid)) for pid in (os.getpid(), *pids)]

        with sa.config.override(parallel_nbytes=0, chunk_nbytes=4096):
            calls(20)
            before = held()
            calls(200)
            after = held()
            for was, now in zip(before, after, strict=True):
                assert now[0] <= was[0] + 8
                assert now[1] <= was[1] + 40
            assert all(len(worker.told) < 150 for worker in pool.crew.workers)
            assert all(len(worker.lent) < 150 for worker in pool.crew.workers)

            sizes = sa.zeros((64, 4), np.int64)

            @sa.chunkwise(jit=False)
            def count(chunk):
                worker = current_worker()
                known = worker._jobs, worker._specs, worker._payloads, worker.addresses
                chunk[0] = [len(one) for one in known]

            count(sizes, pool=pool, chunks=(1, 4))
            assert np.asarray(sizes)[1:].max() < 300  # machine code is kept up to 256 kernels
        assert up(pool) == pids
    finally:
        sa.config.recycle_nbytes = with_room


def test_kernels_that_come_and_go_do_not_pile_up_in_workers(pool):
    a = sa.zeros(64, chunks=8)
    pids = up(pool)
    kernels = [(10**12 + k, b"") for k in range(600)]
    crew = pool.crew

    class Nothing:
        pass

    for start in range(0, 600, 50):
        ticket = Nothing()
        ticket.number, ticket.kernels, ticket.segments, ticket.spec = -start - 1, kernels[start : start + 50], {}, b""
        for worker in crew.workers:
            drain(crew)
            crew.tell(worker, ticket)
    assert all(len(worker.kernels) <= 256 for worker in crew.workers)
    for worker in crew.workers:
        worker.told = {number for number in worker.told if number > 0}

    @sa.chunkwise
    def add(chunk):
        chunk += 1

    add(a, pool=pool)
    assert (np.asarray(a) == 1).all()
    assert up(pool) == pids


def test_a_job_with_more_segments_than_a_socket_takes_messages_for(pool):
    arrays = [sa.full(8, float(k), chunks=1) for k in range(900)]
    out = sa.zeros(8, chunks=1)

    @sa.chunkwise(jit=False)
    def total(*chunks):
        return sum(chunks)

    total(*arrays, out=out, pool=pool)
    assert (np.asarray(out) == sum(range(900))).all()
    drain(pool.crew)  # what a worker that came late has not taken waits with its descriptors for the next call


def test_kills_for_want_of_memory_are_told_apart(tmp_path, pool, monkeypatch):
    counters = tmp_path / "vmstat"
    counters.write_text("nr_free_pages 1\noom_kill 3\nother 9\n")
    assert read_counter(str(counters)) == 3
    assert read_counter(str(tmp_path / "missing")) == 0
    counters.write_text("oom_kill_not 3\n")
    assert read_counter(str(counters)) == 0

    a = sa.zeros(1)
    b = sa.empty(1)

    @sa.chunkwise(jit=False)
    def die(chunk):
        os.kill(os.getpid(), 9)

    for kills, limits, killer in (
        ((0, 10**9), ["one"], "most likely by the kernel's out-of-memory"),
        ((10**9, 10**9), ["one"], "memory limit was reached: its count has risen"),
        ((2 * 10**9, 2 * 10**9), [], "most likely by the kernel's out-of-memory"),  # a cgroup counts these kills too
    ):
        up(pool)
        monkeypatch.setattr(diagnosis, "group_limits", lambda limits=limits: limits)
        monkeypatch.setattr(MemoryKills, "now", lambda kills=kills: MemoryKills(*kills))
        with pytest.raises(sa.WorkerDiedError, match=killer) as caught:
            die(a, out=b, pool=pool, retries=0)
        assert caught.value.out_of_memory


def test_a_forked_child_lets_go_of_the_pool_without_a_word():
    program = """
import os, warnings
import numpy as np
import shmarray as sa
warnings.simplefilter("error")  # of sockets that nobody closed
sa.config.workers = 2
np.sqrt(sa.ones(400_000))
child = os.fork()
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    assert run_python(program).stderr == ""
