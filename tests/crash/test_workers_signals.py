"""Signals to callers and workers: Ctrl-C, kills of the parent, stops, forks. Everything ends, and nothing is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

import shmarray as sa
from tests.processes import run_python, wait_until

N_CHUNKS, CHUNK = 8, 16

PROGRAM = """
import os, signal, sys, time
import numpy as np
import shmarray as sa

sa.config.workers = 2
a = sa.array(np.repeat(np.arange(8), 16), chunks=16)
b = sa.empty(a.shape, a.dtype, chunks=16)

@sa.chunkwise(jit=False)
def double(chunk):
    return chunk * 2

@sa.chunkwise(jit=False)
def forever(chunk):
    os.write(1, b"working\\n")
    while True:
        pass

@sa.chunkwise
def forever_compiled(chunk):
    while chunk[0] < 100:
        pass

def workers():
    return [worker.pid for worker in sa.get_pool().workers]

def check():
    double(a, out=b)
    assert np.array_equal(b, np.asarray(a) * 2)

check()
print("workers", *workers(), flush=True)
"""


@contextmanager
def program(body: str) -> Iterator[subprocess.Popen[str]]:
    """A program in a process group of its own; whatever of the group is left at the end is killed and an error."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + body],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


def read_workers(process) -> list[int]:
    word, *pids = process.stdout.readline().split()
    assert word == "workers"
    return list(map(int, pids))


INTERRUPTED = """
armed = False

def handler(number, frame):
    if armed:
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, handler)
for kernel in (forever, forever_compiled):
    armed = True
    try:
        print("go", flush=True)
        kernel(a, **({"out": b} if kernel is forever else {}))
    except KeyboardInterrupt:
        armed = False  # until here each further Ctrl-C comes as an exception, in the middle of the clean-up
    print("interrupted", flush=True)
    check()
    sys.stdin.readline()
# CPython exits as if interrupted when Ctrl-C came in an exec() of text (numba has some), until the next one is done.
exec("0")
print("end", *workers(), flush=True)
"""


@pytest.mark.parametrize("times", [1, 20])
def test_ctrl_c_to_the_group_ends_the_call_and_leaves_the_pool_usable(times):
    with program(INTERRUPTED) as process:

        def read(but=()):
            line = process.stdout.readline()
            while line.strip() in but:
                line = process.stdout.readline()
            return line.strip()

        first = read_workers(process)
        assert read() == "go"
        assert read() == "working"  # in a chunk: now
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
        assert read(but=["working"]) == "interrupted", process.stderr.read()
        over = threading.Event()

        def press():
            while not over.wait(0.1):  # at any moment: in the compiler, in the start of the call, in a chunk
                for _ in range(times):
                    os.killpg(process.pid, signal.SIGINT)

        thread = threading.Thread(target=press)
        process.stdin.write("\n")
        process.stdin.flush()
        assert read(but=["working"]) == "go", process.stderr.read()
        thread.start()
        line = read()
        over.set()
        thread.join()
        assert line == "interrupted", process.stderr.read()
        process.stdin.write("\n")
        process.stdin.flush()
        word, *pids = read(but=["working"]).split() or [""]
        assert word == "end", process.stderr.read()
        assert len(pids) == 2
        assert process.wait(20) == 0, process.stderr.read()
        for pid in (*first, *map(int, pids)):
            wait_until(lambda pid=pid: is_gone(pid))


STORM = """
import threading
c = sa.zeros(2_000_000)
d = sa.empty(c.shape)

@sa.elementwise
def more(x):
    return x + 1

more(c, out=d)
hits, armed = 0, False

def handler(number, frame):
    if armed:
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, handler)
print("go", flush=True)
until = time.monotonic() + 4
while time.monotonic() < until:
    try:
        armed = True
        while time.monotonic() < until:
            more(c, out=d)
            double(a, out=b)
        armed = False
    except KeyboardInterrupt:
        armed = False
        hits += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("stop", flush=True)
for _ in range(3):
    more(c, out=d)
    assert np.all(np.asarray(d) == 1)
    check()
exec("0")  # as above
print("end", hits, *workers(), flush=True)
"""


def test_ctrl_c_at_any_moment_leaves_the_pool_in_order():
    with program(STORM) as process:
        read_workers(process)
        assert process.stdout.readline() == "go\n"
        over = threading.Event()
        moment = np.random.default_rng(5)

        def press():
            while not over.wait(moment.uniform(0.0, 0.02)):
                os.kill(process.pid, signal.SIGINT)

        thread = threading.Thread(target=press)
        thread.start()
        line = process.stdout.readline()
        over.set()
        thread.join()
        assert line == "stop\n", process.stderr.read()
        word, hits, *pids = process.stdout.readline().split() or ["", ""]
        assert word == "end", process.stderr.read()
        assert int(hits) > 10
        assert len(pids) == 2
        children = [pid for pid in os.listdir("/proc") if pid.isdigit() and _parent(pid) == process.pid]
        assert set(children) <= set(pids)  # no worker that the pool does not know of
        assert process.wait(20) == 0, process.stderr.read()


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


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
            process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
            with open(grandchild + ".part", "w") as file:
                file.write(str(process.pid))
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

    @sa.chunkwise
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
            for turn in range(200):
                a_turn = np.full(1000, float(turn))
                mine[:] = -1
                number(sa.array(a_turn), out=mine)
                assert np.all(np.asarray(mine) == turn + 1)
        except BaseException:
            os._exit(1)
        os._exit(0)
    pids.append(pid)
for turn in range(200):
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
